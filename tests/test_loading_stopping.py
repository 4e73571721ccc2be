"""A load that is told to stop writes what is paid for; told twice, or while it writes nothing, it stops at once."""

import asyncio
import os
import signal

import pytest

from proxy.commands.loading.stopping import Stopped, Stopping

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_stops_at_once_while_nothing_is_written(number: signal.Signals) -> None:
    async def idle() -> None:
        with Stopping().heeded():
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()

    with pytest.raises(Stopped, match=rf"stopped by {number.name}; .*to continue") as caught:
        await idle()
    assert 128 + number == caught.value.exit_code


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_during_a_write_is_reported(number: signal.Signals) -> None:
    stopping, called = Stopping(), []
    with stopping.heeded(), stopping.writing(lambda: called.append(1)):
        os.kill(os.getpid(), number)
        await stopping.requested.wait()
        assert [1] == called
        with pytest.raises(Stopped):
            stopping.raise_if_requested()


async def test_a_second_signal_stops_at_once() -> None:
    stopping = Stopping()

    async def write() -> None:
        with stopping.heeded(), stopping.writing():
            os.kill(os.getpid(), signal.SIGTERM)
            await stopping.requested.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

    with pytest.raises(Stopped):
        await write()


async def test_paid_work_is_awaited() -> None:
    stopping, done = Stopping(), asyncio.Event()

    async def work() -> int:
        await stopping.requested.wait()
        done.set()
        return 7

    with stopping.heeded(), stopping.writing():
        working = asyncio.ensure_future(stopping.in_time(work()))
        os.kill(os.getpid(), signal.SIGTERM)
        assert 7 == await working
    assert done.is_set()


async def test_slow_work_is_cancelled_after_a_signal() -> None:
    stopping = Stopping()
    stopping.requested.set()
    with pytest.raises(Stopped):
        await stopping.in_time(asyncio.Event().wait(), grace=0.01)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_error_of_paid_work_is_raised() -> None:
    async def work() -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await Stopping().in_time(work())


async def test_the_signal_handler_is_restored_afterwards() -> None:
    with Stopping().heeded():
        pass
    assert signal.default_int_handler is signal.getsignal(signal.SIGINT)
    assert signal.SIG_DFL is signal.getsignal(signal.SIGTERM)
