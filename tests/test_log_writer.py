"""A log that cannot be written costs lines, and nothing else."""

import errno
import fcntl
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from proxy.bounds import LOG_QUEUE_BYTES
from proxy.settings.config import Config
from proxy.settings.config import Log as Settings
from proxy.telemetry.log import configure
from proxy.telemetry.log_writer import LogWriter
from tests.conftest import QUERY, StartProxy
from tests.fakes import ids

LINES = 20_000


def line(number: int) -> str:
    return f"{number:0100}"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that holds one page."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    yield reading, writing
    for descriptor in (reading, writing):
        with suppress(OSError):
            os.close(descriptor)


def nothing(dropped: int) -> None:
    raise AssertionError(dropped)


def test_lines_are_written_in_order_and_flushed_at_the_end(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    writer = LogWriter(descriptor, nothing)
    for number in range(1000):
        writer.write(line(number))
    writer.close(60)
    os.close(descriptor)
    assert [line(number) for number in range(1000)] == (tmp_path / "log").read_text().splitlines()


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_dropped_at_a_full_pipe_are_reported_later(
    pipe: tuple[int, int],
    blocking: bool,  # noqa: FBT001
) -> None:
    reading, writing = pipe
    os.set_blocking(writing, blocking)
    told: list[int] = []
    writer = LogWriter(writing, told.append)
    for number in range(LINES):  # nobody reads meanwhile
        writer.write(line(number))
    received = b""
    while received.count(b"\n") + sum(told) < LINES:
        received += os.read(reading, 65536)
    written = received.decode().splitlines()
    assert [line(number) for number in range(len(written))] == written
    assert (True, LINES) == (len(written) * 101 <= LOG_QUEUE_BYTES, len(written) + sum(told))


def test_a_closed_pipe_drops_lines(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)
    writer = LogWriter(writing, nothing)
    for number in range(LINES):
        writer.write(line(number))
    writer.close(60)


def test_a_full_disk_drops_lines() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        os.write(descriptor, b"x")
    writer = LogWriter(descriptor, nothing)
    for number in range(LINES):
        writer.write(line(number))
    writer.close(60)
    os.close(descriptor)


def test_after_a_partial_write_the_next_line_starts_on_a_new_line(tmp_path: Path) -> None:
    """As after a full disk: here a file with a maximum size."""
    program = f"""
import os, resource, signal
from proxy.telemetry.log_writer import LogWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150, resource.RLIM_INFINITY))
descriptor = os.open({str(tmp_path / "log")!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
told = []
writer = LogWriter(descriptor, told.append)
writer.write("a" * 100)
writer.write("b" * 100)
while writer._waiting_bytes: pass
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.write("c" * 100)
writer.close(60)
assert told == [1], told
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)  # noqa: S603
    first, torn, last = (tmp_path / "log").read_text().splitlines()
    assert ("a" * 100, "b" * 49, "c" * 100) == (first, torn, last)


@pytest.fixture
def log_to() -> Iterator[Callable[[int], LogWriter]]:
    before = structlog.get_config()
    writers: list[LogWriter] = []

    def to(descriptor: int) -> LogWriter:
        writer = configure(Settings(), descriptor)
        assert writer is not None
        writers.append(writer)
        return writer

    yield to
    structlog.configure(**before)


async def test_searches_are_answered_while_nobody_reads_the_log(
    start_proxy: StartProxy, settings: Config, pipe: tuple[int, int], log_to: Callable[[int], LogWriter]
) -> None:
    reading, writing = pipe
    client = await start_proxy(settings)
    writer = log_to(writing)
    for _ in range(50):
        assert ["d", "b", "c", "a"] == ids(await client.search("/products/_search", QUERY, x_opaque_id="i" * 1000))
    assert select.select([reading], [], [], 60)[0], "the writer's thread has begun"
    writer.close(0)
    os.set_blocking(reading, False)
    assert os.read(reading, 65536).startswith(b'{"')


def test_a_process_exits_even_if_nobody_reads_its_log(pipe: tuple[int, int]) -> None:
    program = """
import structlog
from proxy.settings.config import Log
from proxy.telemetry.log import configure
configure(Log())
log = structlog.get_logger("proxy")
for number in range(20000):
    log.info("line", number=number)
print("done")
"""
    _, writing = pipe
    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=writing, timeout=60, check=True
    )
    assert b"done\n" == ended.stdout


def test_dropped_lines_are_reported_as_a_line(pipe: tuple[int, int], log_to: Callable[[int], LogWriter]) -> None:
    reading, writing = pipe
    writer = log_to(writing)
    log = structlog.get_logger("proxy")
    for number in range(LINES):
        log.info("line", number=number)
    received: list[dict[str, object]] = []
    with os.fdopen(reading, "rb", closefd=False) as file:
        while not received or received[-1]["event.action"] != "log_lines_dropped":
            received.append(json.loads(file.readline()))
    dropped = received.pop()
    assert (LINES, "warning") == (len(received) + int(str(dropped["lines"])), dropped["log.level"])
    writer.close(60)
