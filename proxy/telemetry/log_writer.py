"""Writes log lines in a thread of its own; lines that cannot be written are dropped, and requests never wait."""

import atexit
import os
import select
import threading
from collections import deque
from collections.abc import Callable

from proxy.bounds import LOG_FLUSH_S, LOG_QUEUE_BYTES, LOG_WRITE_BYTES


class LogWriter:
    """Writes whole lines to a file descriptor, in order.

    A pipe without a reader or a full disk costs lines only. `on_dropped` receives the number of dropped lines, in the
    writer's thread, once writing works again.
    """

    def __init__(self, descriptor: int, on_dropped: Callable[[int], None], queue_bytes: int = LOG_QUEUE_BYTES) -> None:
        self._descriptor = descriptor
        self._on_dropped = on_dropped
        self._queue_bytes = queue_bytes
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, line: str) -> None:
        """Queue a line, without its newline; never blocks or raises because of the descriptor."""
        written = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._changed:
            if self._waiting_bytes + len(written) > self._queue_bytes:
                self._dropped += 1
                return
            self._waiting.append(written)
            self._waiting_bytes += len(written)
            self._changed.notify()

    def close(self, seconds: float = LOG_FLUSH_S) -> None:
        """Write the queued lines and stop; lines not written within this time are dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)
        atexit.unregister(self.close)

    def _run(self) -> None:
        torn = False
        while lines := self._next():
            whole = b"\n" + lines if torn else lines
            left = self._written(whole)
            if len(left) < len(whole):
                torn = whole[-len(left) - 1 :][:1] != b"\n"
            with self._changed:
                self._waiting_bytes -= len(lines)
                self._dropped += left.count(b"\n")
                dropped, self._dropped = (0, self._dropped) if left else (self._dropped, 0)
            if dropped:
                self._on_dropped(dropped)

    def _next(self) -> bytes:
        """Wait for lines, and return those for the next write; empty after `close`."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            lines: list[bytes] = []
            size = 0
            while self._waiting and size < LOG_WRITE_BYTES:
                lines.append(self._waiting.popleft())
                size += len(lines[-1])
            return b"".join(lines)

    def _written(self, lines: bytes) -> bytes:
        """Write lines; returns what could not be written."""
        while lines:
            try:
                lines = lines[os.write(self._descriptor, lines) :]
            except BlockingIOError:  # another process made the pipe or terminal non-blocking
                writable = select.poll()
                writable.register(self._descriptor, select.POLLOUT)
                writable.poll()
            except OSError:
                return lines
        return b""
