"""A real redis-server, as Debian ships it, for a test: it can be paused, killed and started again."""

import asyncio
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

PROGRAM = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(PROGRAM is None, reason="redis-server is not installed: apt-get install redis-server")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class RedisServer:
    """The process, on one port."""

    def __init__(self, folder: Path, lines: tuple[str, ...] = (), *, tls: bool = False) -> None:
        self.port = free_port()
        self._file = folder / f"redis-{self.port}.conf"
        ports = (f"tls-port {self.port}", "port 0") if tls else (f"port {self.port}",)
        common = ("bind 127.0.0.1", 'save ""', "appendonly no", f"dir {folder}")
        self._file.write_text("\n".join((*ports, *common, *lines)) + "\n")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        assert PROGRAM is not None
        self._process = await asyncio.create_subprocess_exec(PROGRAM, str(self._file), stdout=asyncio.subprocess.PIPE)
        assert self._process.stdout is not None
        said = b""
        while b"Ready to accept connections" not in said:
            line = await self._process.stdout.readline()
            assert line, said.decode()
            said += line

    def pause(self) -> None:
        """Stop the process without closing its connections, so that it hangs."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            await self._process.communicate()
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@asynccontextmanager
async def redis_server(folder: Path, *lines: str, tls: bool = False) -> AsyncIterator[RedisServer]:
    """Run a server; `lines` are added to its configuration."""
    server = RedisServer(folder, lines, tls=tls)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
