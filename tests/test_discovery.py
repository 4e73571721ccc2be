"""What each caller was told of indices: how long it is good for, who waits, and what a refusal does to it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from proxy.bounds import CATALOG_QUESTIONS
from proxy.errors import Busy, Late, Malformed, Refused, TimedOut, Unreachable, UpstreamError
from proxy.upstream.discovery import (
    RETRY_S,
    STALE_S,
    Discovery,
    Fact,
    Failed,
    Freshness,
    Question,
    freshness,
)
from tests.conftest import Log

FRESH_S = 10.0
FORBIDDEN = Failed(Refused, "", 403)
PASSING = Failed(Unreachable, "no")


class Engine:
    """Answers with what it is told to say, once it may, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.said: bytes | Exception = b'{"n":1}'
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.answered = asyncio.Event()

    async def ask(self) -> bytes:
        self.asked += 1
        await self.may_answer.wait()
        self.answered.set()
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


class Timer:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
async def catalog(timer: Timer) -> AsyncIterator[Discovery]:
    opened = Discovery(FRESH_S, timer)
    yield opened
    await opened.close()


def read(answer: Mapping[str, Any]) -> int:
    return int(answer["n"])


Ask = Callable[..., Any]


@pytest.fixture
def ask(catalog: Discovery, engine: Engine) -> Ask:
    async def asks(caller: bytes = b"me", asked: str = "names", patience: float | None = None, **more: Any) -> int:
        question = Question(caller, asked, read, engine.ask)
        return await catalog.get(question, patience_seconds=patience, **more)

    return asks


async def settle() -> None:
    """Let what runs behind go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("said", "age", "expected"),
    [
        (b"digest", 0, Freshness.FRESH),
        (b"digest", FRESH_S - 1, Freshness.FRESH),
        (b"digest", FRESH_S, Freshness.STALE),
        (b"digest", FRESH_S + STALE_S - 1, Freshness.STALE),
        (b"digest", FRESH_S + STALE_S, Freshness.UNKNOWN),
        (FORBIDDEN, FRESH_S - 1, Freshness.FRESH),
        (FORBIDDEN, FRESH_S + STALE_S - 1, Freshness.STALE),
        (PASSING, RETRY_S / 2, Freshness.FRESH),
        (PASSING, RETRY_S, Freshness.STALE),
        (PASSING, RETRY_S + STALE_S, Freshness.UNKNOWN),
    ],
)
def test_freshness_depends_on_age_and_failure(said: bytes | Failed, age: float, expected: Freshness) -> None:
    assert expected is freshness(Fact(said, 1000.0), 1000.0 + age, FRESH_S)


def test_a_missing_entry_is_unknown() -> None:
    assert Freshness.UNKNOWN is freshness(None, 0.0, FRESH_S)


async def test_a_fresh_response_is_not_requested_again(ask: Ask, engine: Engine, timer: Timer) -> None:
    assert [1, 1] == [await ask(), await ask()]
    timer.now += FRESH_S - 1
    assert (1, 1) == (await ask(), engine.asked)


async def test_responses_are_cached_by_caller_and_question(ask: Ask, engine: Engine) -> None:
    await ask(b"me", "names")
    engine.said = b'{"n":2}'
    assert [2, 2, 1] == [await ask(b"you", "names"), await ask(b"me", "mapping"), await ask(b"me", "names")]


async def test_a_stale_response_is_used_and_refreshed_in_the_background(ask: Ask, engine: Engine, timer: Timer) -> None:
    await ask()
    timer.now += FRESH_S + 1
    engine.said = b'{"n":2}'
    engine.may_answer.clear()
    assert [1, 1, 1] == [await ask(patience=0), await ask(patience=0), await ask()]
    await settle()
    assert 2 == engine.asked
    engine.may_answer.set()
    await settle()
    assert (2, 2) == (await ask(patience=0), engine.asked)


async def test_a_late_response_is_cached_for_the_next_search(ask: Ask, engine: Engine) -> None:
    engine.may_answer.clear()
    with pytest.raises(Late):
        await ask(patience=0.01)
    engine.may_answer.set()
    await settle()
    assert (1, 1) == (await ask(patience=0), engine.asked)


async def test_a_late_response_is_not_awaited_again(ask: Ask, engine: Engine, timer: Timer) -> None:
    """The patience counts from the request on: a slow engine delays one search, and not each of them."""
    engine.may_answer.clear()
    with pytest.raises(Late):
        await ask(patience=0.01)
    timer.now += 1000
    for _ in range(3):
        async with asyncio.timeout(10):
            with pytest.raises(Late):
                await ask(patience=1000)
    assert 1 == engine.asked


async def test_concurrent_equal_requests_are_sent_once(ask: Ask, engine: Engine) -> None:
    engine.may_answer.clear()
    asking = [asyncio.ensure_future(ask()) for _ in range(5)]
    await settle()
    asking[0].cancel()
    await settle()
    engine.may_answer.set()
    assert ([1] * 4, 1) == (await asyncio.gather(*asking[1:]), engine.asked)


async def test_a_lookup_continues_after_its_searches_have_left(ask: Ask, engine: Engine) -> None:
    engine.may_answer.clear()
    asking = asyncio.ensure_future(ask())
    await settle()
    asking.cancel()
    await settle()
    engine.may_answer.set()
    await settle()
    assert (1, 1) == (await ask(patience=0), engine.asked)


async def test_a_failed_refresh_keeps_the_stale_response(ask: Ask, engine: Engine, timer: Timer) -> None:
    await ask()
    timer.now += FRESH_S + 1
    engine.said = Unreachable("engine", "gone")
    for _ in range(3):
        assert 1 == await ask()
        await settle()
    assert 2 == engine.asked
    timer.now += RETRY_S
    assert 1 == await ask()
    await settle()
    assert 3 == engine.asked
    timer.now += STALE_S
    with pytest.raises(Unreachable, match="gone"):
        await ask()


@pytest.mark.parametrize(
    "error", [Unreachable("engine", "gone"), TimedOut("engine", "slow"), Refused("engine", 503), Refused("engine", 429)]
)
async def test_a_failure_is_remembered_for_a_moment(
    ask: Ask, engine: Engine, timer: Timer, error: UpstreamError
) -> None:
    """So that searches do not all ask an engine in trouble; it is asked again in the background."""
    engine.said = error
    for _ in range(3):
        with pytest.raises(type(error), match=str(error)):
            await ask()
    assert 1 == engine.asked
    timer.now += RETRY_S
    engine.said = b'{"n":1}'
    with pytest.raises(type(error)):
        await ask(patience=0)
    await settle()
    assert (1, 2) == (await ask(patience=0), engine.asked)


@pytest.mark.parametrize("said", [b"", b"[]", b"{}", b'{"n":{}}', b'{"n":"\xff"}', b'{"n":' + b"[" * 5000])
async def test_an_unexpected_response_is_malformed(ask: Ask, engine: Engine, said: bytes) -> None:
    engine.said = said
    with pytest.raises(Malformed):
        await ask()


async def test_a_missing_index_is_not_cached(ask: Ask, engine: Engine) -> None:
    """It may have been created since. An entry that said it exists is dropped."""
    await ask()
    engine.said = Refused("engine", 404)
    with pytest.raises(Refused):
        await ask(anew=True)
    engine.said = b'{"n":2}'
    assert (2, 3) == (await ask(), engine.asked)


async def test_a_403_is_cached_and_keeps_the_callers_other_entries(ask: Ask, engine: Engine) -> None:
    """A caller with `read` alone may not read the mapping, but may still resolve names."""
    await ask(asked="names")
    engine.said = Refused("engine", 403)
    for _ in range(2):
        with pytest.raises(Refused, match="403"):
            await ask(asked="mapping")
    assert (1, 2) == (await ask(asked="names"), engine.asked)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_callers_entries_are_dropped_after_a_rejection(
    ask: Ask, engine: Engine, timer: Timer, status: int
) -> None:
    for asked in ("names", "mapping"):
        await ask(asked=asked)
        await ask(b"you", asked)
    timer.now += FRESH_S + 1
    engine.said = Refused("engine", status)
    assert 1 == await ask(asked="names")
    await settle()
    for asked in ("names", "mapping"):
        with pytest.raises(Refused):
            await ask(asked=asked)
    assert 1 == await ask(b"you", "mapping", patience=0)


async def test_a_rejected_refresh_drops_the_callers_entries(ask: Ask, engine: Engine) -> None:
    for asked in ("names", "mapping"):
        await ask(asked=asked)
    engine.said = Refused("engine", 403)
    with pytest.raises(Refused):
        await ask(asked="names", anew=True)
    with pytest.raises(Refused):
        await ask(asked="mapping")


@pytest.mark.parametrize(("status", "told"), [(401, [b"me"]), (403, [b"me"]), (404, []), (503, [])])
async def test_the_callback_is_called_after_a_rejection(engine: Engine, status: int, told: list[bytes]) -> None:
    turned_away = list[bytes]()
    catalog = Discovery(FRESH_S, turned_away=turned_away.append)
    question = Question(b"me", "names", read, engine.ask)
    await catalog.get(question)
    engine.said = Refused("engine", status)
    with pytest.raises(Refused):
        await catalog.get(question, anew=True)
    assert told == turned_away


async def test_a_response_for_a_dropped_caller_is_not_cached(ask: Ask, catalog: Discovery, engine: Engine) -> None:
    engine.may_answer.clear()
    asking = asyncio.ensure_future(ask())
    await settle()
    catalog.forget(b"me")
    engine.may_answer.set()
    assert (1, 1) == (await asking, engine.asked)
    assert (1, 2) == (await ask(), engine.asked)


async def test_anew_ignores_the_cache(ask: Ask, engine: Engine) -> None:
    await ask()
    engine.said = b'{"n":2}'
    assert [2, 2] == [await ask(anew=True), await ask()]
    assert 2 == engine.asked


async def test_entries_per_caller_are_bounded(ask: Ask, engine: Engine) -> None:
    await ask(b"you")
    for number in range(CATALOG_QUESTIONS + 1):
        await ask(asked=str(number))
    asked = engine.asked
    await ask(b"you")
    await ask(asked="1")
    assert asked == engine.asked
    await ask(asked="0")
    assert asked + 1 == engine.asked


async def test_cached_responses_are_bounded_in_bytes(engine: Engine) -> None:
    """Equal responses count once, however many callers they are for; a dropped one is requested again."""
    small = Discovery(FRESH_S, bytes_max=1000)

    async def ask(caller: bytes, asked: str) -> None:
        await small.get(Question(caller, asked, read, engine.ask))

    for caller in (b"a", b"b", b"c", b"a", b"b", b"c"):
        await ask(caller, "same")
    assert 3 == engine.asked
    for number in range(2, 6):
        engine.said = b'{"n":%d}' % number + b" " * 200
        await ask(b"a", str(number))
    asked = engine.asked
    await ask(b"a", "2")
    assert asked + 1 == engine.asked
    engine.said = b'{"n":7}' + b" " * 2000  # larger than all together: used, and not kept
    await ask(b"a", "large")
    await small.close()


async def test_concurrent_lookups_are_bounded(engine: Engine) -> None:
    small = Discovery(FRESH_S, waiting_max=3)
    engine.may_answer.clear()
    asking = [asyncio.ensure_future(small.get(Question(b"me", number, read, engine.ask))) for number in range(3)]
    await settle()
    with pytest.raises(Busy):
        await small.get(Question(b"me", "one more", read, engine.ask))
    engine.may_answer.set()
    assert [1] * 3 == await asyncio.gather(*asking)
    await small.close()


async def test_closing_cancels_running_lookups(ask: Ask, catalog: Discovery, engine: Engine, log: Log) -> None:
    engine.may_answer.clear()
    asking = asyncio.ensure_future(ask())
    await settle()
    await catalog.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not engine.answered.is_set()
    assert [] == log


async def test_an_unexpected_error_in_the_background_is_logged(ask: Ask, engine: Engine, log: Log) -> None:
    engine.said = ArithmeticError("a defect")
    engine.may_answer.clear()
    with pytest.raises(Late):
        await ask(patience=0)
    engine.may_answer.set()
    await settle()
    assert ["internal_error"] == [line["event"] for line in log]
