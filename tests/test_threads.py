"""Work that may block without end: its result, its errors, and the end of the process."""

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from proxy.upstream.spending.ledger import Spent
from proxy.upstream.spending.meter import Meter
from proxy.upstream.threads import apart
from tests.conftest import Log, no_free_thread


async def test_work_returns_and_raises_where_it_is_awaited() -> None:
    assert 3 == await apart(lambda: 1 + 2)
    with pytest.raises(ZeroDivisionError):
        await apart(lambda: 1 // 0)


async def test_the_wait_can_be_cancelled_while_the_work_goes_on() -> None:
    free, done = threading.Event(), threading.Event()

    def work() -> None:
        free.wait()
        done.set()

    waiting = asyncio.ensure_future(apart(work))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    free.set()
    assert await asyncio.to_thread(done.wait, 30)


async def test_without_a_free_thread_work_is_an_os_error() -> None:
    with no_free_thread(), pytest.raises(OSError, match="can't start new thread"):
        await apart(lambda: 3)
    assert 3 == await apart(lambda: 3)


async def test_without_a_free_thread_spend_is_saved_later(tmp_path: Path, log: Log) -> None:
    meter = Meter(tmp_path / "spend.json")
    meter.ledger.add(0.0, "a", "m", Spent(calls=1))
    with no_free_thread():
        await meter.save()
    assert ["spend_not_saved"] == [event["event"] for event in log]
    await meter.save()
    assert '"calls": 1' in (tmp_path / "spend.json").read_text()


BLOCKED = """
import asyncio, threading, time
from proxy.upstream.threads import apart, end_within
async def main():
    waiting = asyncio.ensure_future(apart(lambda: threading.Event().wait(3600)))
    await asyncio.sleep(0)
{more}
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("more", "code"),
    [("", 0), ("    end_within(0.5); asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)", 1)],
    ids=["apart", "in a thread that Python waits for"],
)
def test_a_thread_that_is_blocked_does_not_keep_the_process_alive(more: str, code: int) -> None:
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", BLOCKED.format(more=more)], timeout=120, check=False)  # noqa: S603  our own code
    assert (code, True) == (ended.returncode, time.monotonic() - begun < 60)
