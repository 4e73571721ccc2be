"""No pair of query and passage is paid or waited for twice, and every search gets the scores of its own passages."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.bounds import SCORES_OF_QUERY
from proxy.context import Reuse
from proxy.errors import CapReached, EqualScores, OtherModel, Refused, SlowModel, TimedOut, UpstreamError, Withheld
from proxy.ranking.planning import Relevance
from proxy.ranking.stages import UNMETERED, Budget, Purse, Unmetered
from proxy.store.contract import CacheRegion, Keys, Kind, Store
from proxy.store.memory import MemoryStore
from proxy.upstream.score_cache import REFUSED_S, ScoreCache
from proxy.upstream.score_entries import decode
from proxy.upstream.spending.prices import rerank_tokens

MODEL = "Qwen/Qwen3-Reranker-4B"
BATCH = 3


@dataclass(eq=False)
class Call:
    """A call of the reranker that ends when the test says so."""

    query: str
    passages: list[str]
    model: str
    instruction: str
    is_typical: bool
    purse: Purse
    answered: asyncio.Future[Relevance] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    was_cancelled: bool = False

    def fail(self, error: UpstreamError) -> None:
        self.answered.set_result(Relevance((), error=error))

    def answer(self, scores: Sequence[float] | None = None, model: str | None = None) -> None:
        said = tuple(score_of(self.query, each) for each in self.passages) if scores is None else tuple(scores)
        self.answered.set_result(Relevance(said, model))


def score_of(query: str, passage: str) -> float:
    """Say for each pair another score."""
    return 0.1 + sum(map(ord, query)) / 2**20 + sum(map(ord, passage)) / 2**10


class FakeReranker:
    """Answers at once, or when the test says so."""

    batch_size = BATCH
    timeout_seconds = 1000.0

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.at_once = True
        self.why: UpstreamError | None = None
        self.withheld_by: UpstreamError | None = None
        self.asked_whether: list[bool] = []
        self.given_up: list[float] = []
        self.model: str | None = None

    async def warm_up(self) -> None: ...

    def reject_if_late(self, model: str, seconds: float, *, is_new: bool) -> UpstreamError | None:
        self.asked_whether.append(is_new)
        return self.why

    def withheld(self, model: str) -> UpstreamError | None:
        return self.withheld_by

    def not_called(self, model: str, why: UpstreamError) -> None: ...

    def abandoned(self, model: str, seconds: float) -> None:
        self.given_up.append(seconds)

    async def score(
        self,
        query: str,
        passages: Sequence[str],
        *,
        instruction: str,
        model: str,
        is_typical: bool,
        purse: Purse,
    ) -> Relevance:
        call = Call(query, list(passages), model, instruction, is_typical, purse)
        self.calls.append(call)
        if self.at_once:
            call.answer(model=self.model)
        try:
            return await call.answered
        except asyncio.CancelledError:
            call.was_cancelled = True
            raise

    @property
    def sent(self) -> list[list[str]]:
        return [call.passages for call in self.calls]


class Held:
    """A store whose reads and writes end when the test says so."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.reads = 0

    async def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        self.reads += 1
        await self.is_open.wait()
        return [self.values.get(key) for key in keys]

    async def put(self, entries: Mapping[bytes, bytes], seconds: float) -> None:
        await self.is_open.wait()
        self.values.update(entries)


class Saver(Unmetered):
    """A purse that notes what was saved."""

    def __init__(self) -> None:
        self.savings: list[tuple[str, float]] = []

    def saved(self, model: str, tokens: float) -> None:
        self.savings.append((model, tokens))


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def reranker() -> FakeReranker:
    return FakeReranker()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def held() -> Held:
    return Held()


def region(store: Store) -> CacheRegion:
    return CacheRegion(Kind.SCORES, store, Keys(b"secret"), 60)


def cache_of(reranker: FakeReranker, clock: Clock, held: Held, **other: str) -> ScoreCache:
    endpoint = other.get("endpoint", "e")
    return ScoreCache(reranker, region(held), endpoint=endpoint, query_max_chars=20, now=clock, timer=clock)


@pytest.fixture
def cache(reranker: FakeReranker, clock: Clock, held: Held) -> ScoreCache:
    return cache_of(reranker, clock, held)


async def score(
    cache: ScoreCache,
    passages: Sequence[str],
    query: str = "q",
    budget: Budget | None = None,
    *,
    instruction: str = "Judge",
    model: str = MODEL,
) -> Relevance:
    return await cache.score(query, list(passages), instruction=instruction, model=model, budget=budget or Budget())


def begun(cache: ScoreCache, passages: str, query: str = "q", budget: Budget | None = None) -> asyncio.Task[Relevance]:
    return asyncio.ensure_future(score(cache, passages, query, budget))


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def scores(passages: str, query: str = "q") -> tuple[float, ...]:
    return tuple(score_of(query, each) for each in passages)


# -- again


async def test_the_same_search_again_makes_no_call(cache: ScoreCache, reranker: FakeReranker) -> None:
    first, again = [await score(cache, "abc") for _ in range(2)]
    assert [["a", "b", "c"]] == reranker.sent
    assert first.scores == again.scores


async def test_only_uncached_passages_are_sent_and_scores_stay_in_order(
    cache: ScoreCache, reranker: FakeReranker
) -> None:
    await score(cache, "bd")
    relevance = await score(cache, "abcd")
    assert [["b", "d"], ["a", "c"]] == reranker.sent
    assert Relevance(scores("abcd"), reuse=relevance.reuse) == relevance


async def test_equal_passages_of_a_window_are_sent_once(cache: ScoreCache, reranker: FakeReranker) -> None:
    relevance = await score(cache, "abab")
    assert ([["a", "b"]], scores("abab"), 2, 2) == (
        reranker.sent,
        relevance.scores,
        relevance.reuse.sent,
        relevance.reuse.cached,
    )


async def test_savings_are_estimated_like_calls(cache: ScoreCache) -> None:
    """And recorded in the purse of the search that saved them."""
    saver = Saver()
    found = [(await score(cache, passages, budget=Budget(purse=saver))).reuse for passages in ("abc", "abd", "ab")]
    tokens = rerank_tokens("q", ["a", "b"], "Judge")
    assert [Reuse(3), Reuse(1, 2, round(tokens)), Reuse(0, 2, round(tokens))] == found
    assert [(MODEL, tokens)] * 2 == saver.savings


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        ("caf\u00e9 x", True),
        (" cafe\u0301 \n x ", True),
        ("caf\u00e9\u00a0x", True),
        ("caf\u00e9<|im_end|> x", True),
        ("Caf\u00e9 x", False),
        ("cafe x", False),
        ("x caf\u00e9", False),
    ],
)
async def test_queries_that_are_sent_alike_share_scores(
    cache: ScoreCache,
    reranker: FakeReranker,
    other: str,
    is_same: bool,  # noqa: FBT001
) -> None:
    for query in ("caf\u00e9 x", other):
        await score(cache, "ab", query)
    assert (1 if is_same else 2) == len(reranker.calls)
    assert reranker.calls[0].query == "caf\u00e9 x"


async def test_a_truncated_query_shares_the_scores_of_its_beginning(cache: ScoreCache, reranker: FakeReranker) -> None:
    for query in ("x" * 20 + "y", "x" * 20 + "z"):
        await score(cache, "ab", query)
    assert ["x" * 20] == [call.query for call in reranker.calls]


async def test_scores_are_cached_by_model_instruction_and_endpoint(
    cache: ScoreCache, reranker: FakeReranker, clock: Clock, held: Held
) -> None:
    await score(cache, "ab")
    await score(cache, "ab", model="other")
    await score(cache, "ab", instruction="other")
    await score(cache_of(reranker, clock, held, endpoint="other"), "ab")
    assert 4 == len(reranker.calls)
    await score(cache_of(reranker, clock, held), "ab")
    assert 4 == len(reranker.calls)


async def test_each_score_expires_at_its_own_time(cache: ScoreCache, reranker: FakeReranker, clock: Clock) -> None:
    """Also if the query is frequent, and new scores are added to it."""
    await score(cache, "a")
    clock.now += 40
    await score(cache, "ab")
    clock.now += 40
    await score(cache, "ab")
    assert [["a"], ["b"], ["a"]] == reranker.sent


async def test_scores_also_expire_while_other_searches_use_the_query(
    cache: ScoreCache, reranker: FakeReranker, clock: Clock
) -> None:
    await score(cache, "ab")
    reranker.at_once = False
    long = begun(cache, "bc")
    await settled()
    reranker.at_once = True
    clock.now += 60
    await score(cache, "ab")
    assert [["a", "b"], ["c"], ["a"]] == reranker.sent  # the score of b is needed until the first search has it
    reranker.calls[1].answer()
    assert scores("bc") == (await long).scores
    await score(cache, "b")
    assert [["b"]] == reranker.sent[3:]


async def test_constant_scores_are_dropped_while_other_searches_use_the_query(
    cache: ScoreCache, reranker: FakeReranker
) -> None:
    reranker.at_once = False
    long, broken = begun(cache, "d"), begun(cache, "abc")
    await settled()
    reranker.calls[1].answer([0.5, 0.5, 0.5])
    assert isinstance((await broken).error, EqualScores)
    reranker.at_once = True
    assert scores("abc") == (await score(cache, "abc")).scores
    reranker.calls[0].answer()
    await long


async def test_the_scores_of_a_query_that_is_in_use_are_limited(cache: ScoreCache, reranker: FakeReranker) -> None:
    reranker.at_once = False
    long = begun(cache, "a")
    await settled()
    reranker.at_once = True
    passages = [f"passage {number}" for number in range(SCORES_OF_QUERY + 2)]
    for start in range(0, len(passages), 500):
        await score(cache, passages[start : start + 500])
    sent = len(reranker.sent)
    await score(cache, passages[2:4])
    assert sent == len(reranker.sent)
    await score(cache, passages[:2])
    assert [passages[:2]] == reranker.sent[sent:]
    reranker.calls[0].answer()
    assert scores("a") == (await long).scores


async def test_scores_of_a_listwise_model_are_valid_for_the_same_window_only(
    cache: ScoreCache, reranker: FakeReranker
) -> None:
    for window in ("ab", "ab", "ba", "abc"):
        await score(cache, window, model="jina-reranker-v3.5")
    assert [["a", "b"], ["b", "a"], ["a", "b", "c"]] == reranker.sent


async def test_the_store_contains_no_text(cache: ScoreCache, held: Held) -> None:
    await cache.score("some words", ["a passage of text"], instruction="Judge", model=MODEL, budget=Budget())
    await settled()
    ((key, value),) = held.values.items()
    assert (1 + 24, 2 + 20) == (len(key), len(value))
    assert not any(word in key + value for word in (b"words", b"passage", b"Judge"))


# -- at the same time


async def test_a_hundred_equal_searches_share_one_call(cache: ScoreCache, reranker: FakeReranker, held: Held) -> None:
    purses = [Saver() for _ in range(100)]
    found = await asyncio.gather(*(score(cache, "abc", budget=Budget(purse=purse)) for purse in purses))
    assert (1, 1, {scores("abc")}) == (len(reranker.calls), held.reads, {each.scores for each in found})
    assert purses[0] is reranker.calls[0].purse
    assert [0, *[1] * 99] == [len(purse.savings) for purse in purses]


async def test_searches_that_share_passages_pay_only_for_the_rest(cache: ScoreCache, reranker: FakeReranker) -> None:
    reranker.at_once = False
    first = begun(cache, "ab")
    await settled()
    second = begun(cache, "bcad")
    await settled()
    assert [["a", "b"], ["c", "d"]] == reranker.sent
    for call in reranker.calls:
        call.answer()
    assert [scores("ab"), scores("bcad")] == [each.scores for each in await asyncio.gather(first, second)]
    assert (2, 2) == (second.result().reuse.sent, second.result().reuse.cached)


@pytest.mark.parametrize("leaves_by", ["budget", "cancelling"])
async def test_a_cancelled_search_does_not_cancel_a_shared_call(
    cache: ScoreCache, reranker: FakeReranker, leaves_by: str
) -> None:
    reranker.at_once = False
    budget = Budget(0.05)
    first = begun(cache, "abc", budget=budget)
    await settled()
    second = begun(cache, "ab")
    await settled()
    if leaves_by == "budget":
        budget.begin()
        assert ((), TimedOut) == ((await first).scores, type(first.result().error))
    else:
        first.cancel()
        await asyncio.wait([first])
    reranker.calls[0].answer()
    assert scores("ab") == (await second).scores
    assert 1 == len(reranker.calls)


async def test_a_call_is_cancelled_with_its_last_search(cache: ScoreCache, reranker: FakeReranker) -> None:
    reranker.at_once = False
    searches = [begun(cache, "ab"), begun(cache, "b")]
    await settled()
    for each in searches:
        each.cancel()
    await asyncio.wait(searches)
    reranker.at_once = True
    assert scores("ab") == (await score(cache, "ab")).scores
    assert [True, False] == [call.was_cancelled for call in reranker.calls]


async def test_searches_cancelled_during_the_lookup_leave_no_state(
    cache: ScoreCache, reranker: FakeReranker, held: Held
) -> None:
    held.is_open.clear()
    searches = [begun(cache, "ab"), begun(cache, "ab")]
    await settled()
    for each in searches:
        each.cancel()
    await asyncio.wait(searches)
    held.is_open.set()
    await settled()
    assert (scores("ab"), 1) == ((await score(cache, "ab")).scores, len(reranker.calls))


async def test_a_slow_write_delays_no_search(cache: ScoreCache, reranker: FakeReranker, held: Held) -> None:
    reranker.at_once = False
    searches = [begun(cache, "ab"), begun(cache, "cd")]
    await settled()
    held.is_open.clear()
    for call in reranker.calls:
        call.answer()
    await asyncio.wait(searches)
    reranker.at_once = True
    assert scores("abcd") == (await score(cache, "abcd")).scores
    held.is_open.set()
    await settled()
    assert scores("abcd") == (await score(cache, "abcd")).scores
    assert (2, 2) == (len(reranker.calls), held.reads)


async def test_an_earlier_slower_write_does_not_replace_a_later_one(reranker: FakeReranker, clock: Clock) -> None:
    class FirstWriteIsSlow(Held):
        writes = 0

        async def put(self, entries: Mapping[bytes, bytes], seconds: float) -> None:
            self.writes += 1
            if self.writes == 1:
                await self.is_open.wait()
            self.values.update(entries)

    store = FirstWriteIsSlow()
    cache = cache_of(reranker, clock, store)
    reranker.at_once = False
    searches = [begun(cache, "ab"), begun(cache, "cd")]
    await settled()
    store.is_open.clear()
    for call in reranker.calls:
        call.answer()
        await settled()
    store.is_open.set()
    await asyncio.wait(searches)
    await settled()
    reranker.at_once = True
    assert scores("abcd") == (await score(cache, "abcd")).scores
    assert 2 == len(reranker.calls)


# -- errors


async def test_a_failed_call_is_an_error_for_all_its_searches(cache: ScoreCache, reranker: FakeReranker) -> None:
    reranker.at_once = False
    searches = [begun(cache, "ab"), begun(cache, "a")]
    await settled()
    reranker.calls[0].fail(Refused("reranker", 503))
    assert [Refused] * 2 == [type(each.error) for each in await asyncio.gather(*searches)]
    reranker.at_once = True
    assert scores("ab") == (await score(cache, "ab")).scores


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_call_rejected_for_its_content_is_not_repeated_for_some_seconds(
    cache: ScoreCache, reranker: FakeReranker, clock: Clock, status: int
) -> None:
    """Other passages of the query are sent, because it is not known which one was the cause."""
    reranker.at_once = False
    first = begun(cache, "ab")
    await settled()
    reranker.calls[0].fail(Refused("reranker", status, b"secret", reason="r", message="too long: id 7"))
    await first
    reranker.at_once = True
    error = (await score(cache, "ab")).error
    assert isinstance(error, Refused)
    assert (status, "r", b"", False) == (error.status, error.reason, error.body, "id 7" in str(error))
    assert scores("ac") == (await score(cache, "ac")).scores
    clock.now += REFUSED_S
    assert scores("ab") == (await score(cache, "ab")).scores
    assert [["a", "b"], ["a", "c"], ["b"]] == reranker.sent


async def test_a_refused_call_is_repeated_after_these_seconds_although_the_clock_was_set_back(
    reranker: FakeReranker, held: Held, clock: Clock
) -> None:
    wall = Clock()
    cache = ScoreCache(reranker, region(held), endpoint="e", query_max_chars=20, now=wall, timer=clock)
    reranker.at_once = False
    first = begun(cache, "ab")
    await settled()
    reranker.calls[0].fail(Refused("reranker", 400))
    await first
    reranker.at_once = True
    wall.now -= 86_400
    clock.now += REFUSED_S
    assert scores("ab") == (await score(cache, "ab")).scores


async def test_a_rejected_batch_keeps_the_scores_before_it(cache: ScoreCache, reranker: FakeReranker) -> None:
    reranker.at_once = False
    for _ in range(2):
        search = begun(cache, "abcdef")
        await settled()
        for call in reranker.calls[-2:]:
            if not call.answered.done():
                call.fail(Refused("reranker", 413)) if "d" in call.passages else call.answer()
        assert (scores("abc"), Refused) == ((await search).scores, type(search.result().error))
    assert [["a", "b", "c"], ["d", "e", "f"]] == reranker.sent


@pytest.mark.parametrize(("failing", "scored"), [("a", ""), ("c", ""), ("f", "abc")])
async def test_scores_end_at_the_first_unscored_passage(
    cache: ScoreCache, reranker: FakeReranker, failing: str, scored: str
) -> None:
    await score(cache, "be")
    reranker.at_once = False
    search = begun(cache, "abcdef")
    await settled()
    assert [["a", "c"], ["d", "f"]] == reranker.sent[1:]
    for call in reranker.calls[1:]:
        call.fail(Refused("reranker", 429)) if failing in call.passages else call.answer()
    relevance = await search
    assert (scores(scored), Refused) == (relevance.scores, type(relevance.error))


async def test_a_spent_budget_returns_the_scored_prefix(cache: ScoreCache, reranker: FakeReranker) -> None:
    await score(cache, "d")
    reranker.at_once = False
    budget = Budget(0.05)
    search = begun(cache, "abcdefgh", budget=budget)
    await settled()
    assert [["a", "b", "c"], ["e", "f", "g"], ["h"]] == reranker.sent[1:]
    reranker.calls[1].answer()
    reranker.calls[3].answer()
    budget.begin()
    relevance = await search
    assert (scores("abcd"), TimedOut) == (relevance.scores, type(relevance.error))
    assert (1, True) == (len(reranker.given_up), reranker.calls[2].was_cancelled)
    reranker.at_once = True
    await score(cache, "abcdefgh")
    assert [["e", "f", "g"]] == reranker.sent[4:]


async def test_a_spent_budget_makes_no_call(cache: ScoreCache, reranker: FakeReranker, held: Held) -> None:
    budget = Budget(0.0)
    budget.begin()
    relevance = await score(cache, "abc", budget=budget)
    assert ((), TimedOut, 0) == (relevance.scores, type(relevance.error), len(reranker.calls))


async def test_without_passages_no_call_is_made(cache: ScoreCache, reranker: FakeReranker) -> None:
    assert ((), None, []) == ((await score(cache, "")).scores, None, reranker.calls)


async def test_a_cap_of_the_search_that_began_a_call_does_not_affect_another(
    cache: ScoreCache, reranker: FakeReranker
) -> None:
    reranker.at_once = False
    capped, other = begun(cache, "ab"), begun(cache, "ba", budget=Budget(purse=Saver()))
    await settled()
    reranker.calls[0].fail(CapReached("reranker", "a cap"))
    await settled()
    reranker.calls[1].answer()
    assert (CapReached, scores("ba")) == (type((await capped).error), (await other).scores)
    assert other.result().error is None
    assert [["a", "b"], ["b", "a"]] == reranker.sent
    assert (UNMETERED, True) == (reranker.calls[0].purse, isinstance(reranker.calls[1].purse, Saver))


async def test_caps_of_several_searches_do_not_affect_one_that_may_pay(
    cache: ScoreCache, reranker: FakeReranker
) -> None:
    reranker.at_once = False
    capped = [begun(cache, "ab") for _ in range(4)]
    paying = begun(cache, "ab", budget=Budget(purse=Saver()))
    for number, _ in enumerate(capped):
        await settled()
        reranker.calls[number].fail(CapReached("reranker", "a cap"))
    await settled()
    reranker.calls[-1].answer()
    assert [CapReached] * 4 == [type((await each).error) for each in capped]
    assert (scores("ab"), None) == ((await paying).scores, paying.result().error)


# -- a broken server


async def test_constant_scores_are_an_error_and_not_cached(cache: ScoreCache, reranker: FakeReranker) -> None:
    reranker.at_once = False
    search = begun(cache, "abc")
    await settled()
    reranker.calls[0].answer([0.5, 0.5, 0.5])
    assert ((), EqualScores) == ((await search).scores, type(search.result().error))
    await settled()
    reranker.at_once = True
    assert scores("abc") == (await score(cache, "abc")).scores


async def test_constant_scores_beside_different_cached_ones_are_accepted(
    cache: ScoreCache, reranker: FakeReranker
) -> None:
    await score(cache, "a")
    reranker.at_once = False
    search = begun(cache, "abc")
    await settled()
    reranker.calls[1].answer([0.5, 0.5])
    assert ((*scores("a"), 0.5, 0.5), None) == ((await search).scores, search.result().error)


async def test_constant_scores_of_several_calls_are_an_error(cache: ScoreCache, reranker: FakeReranker) -> None:
    reranker.at_once = False
    for passage in "abc":
        search = begun(cache, passage)
        await settled()
        reranker.calls[-1].answer([0.5])
        await search
    assert ((), EqualScores) == ((r := await score(cache, "abc")).scores, type(r.error))


# -- the model


async def test_scores_of_two_models_are_not_mixed(cache: ScoreCache, reranker: FakeReranker) -> None:
    """If a server changes its model, all passages are scored again, even under the same name."""
    reranker.model = "m1"
    await score(cache, "ab")
    reranker.model = "m2"
    relevance = await score(cache, "abc")
    assert ([["a", "b"], ["c"], ["a", "b"]], "m2", None) == (reranker.sent, relevance.model, relevance.error)
    assert ("m2", 3) == ((await score(cache, "abc")).model, len(reranker.calls))


async def test_a_server_that_keeps_changing_its_model_is_an_error(cache: ScoreCache, reranker: FakeReranker) -> None:
    reranker.at_once = False
    search = begun(cache, "abcdef")
    for number in range(8):
        await settled()
        for call in (each for each in reranker.calls if not each.answered.done()):
            call.answer(model=f"m{number}" + call.passages[0])
    assert (OtherModel, 3) == (type((await search).error), len(reranker.calls))


async def test_only_searches_that_need_a_slow_model_skip_it(cache: ScoreCache, reranker: FakeReranker) -> None:
    await score(cache, "ac")
    reranker.why = SlowModel("reranker", "slow")
    assert (scores("a"), reranker.why) == ((r := await score(cache, "abc")).scores, r.error)
    assert (scores("ac"), None) == ((r := await score(cache, "ac")).scores, r.error)
    assert (1, [True, True]) == (len(reranker.calls), reranker.asked_whether)


async def test_a_search_that_joins_a_running_call_is_not_skipped(cache: ScoreCache, reranker: FakeReranker) -> None:
    reranker.at_once = False
    searches = [begun(cache, "ab"), begun(cache, "b")]
    await settled()
    reranker.calls[0].answer()
    await asyncio.wait(searches)
    assert [True, False] == reranker.asked_whether


async def test_latency_is_measured_on_calls_of_the_usual_size(cache: ScoreCache, reranker: FakeReranker) -> None:
    for window in ("abc", "abcd", "abcdefgh", "abcdefghi"):
        await score(cache, window)
    assert [("abc", True), ("d", True), ("ef", True), ("gh", True), ("i", False)] == [
        ("".join(call.passages), call.is_typical) for call in reranker.calls
    ]


# -- any interleaving

PASSAGES = "abcdef"
searches = st.tuples(st.sampled_from(["p", "q"]), st.text(PASSAGES, min_size=1, max_size=6))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("search"), searches),
        st.tuples(st.just("leave"), st.integers(0, 9)),
        st.tuples(st.just("answer"), st.integers(0, 9)),
        st.tuples(st.just("store"), st.booleans()),
    ),
    max_size=25,
)


@given(steps=steps)
@settings(max_examples=150, deadline=None)
def test_no_pair_is_sent_twice_in_any_order_of_events(steps: list[tuple[str, object]]) -> None:
    """Unless no search waited for its call any more."""
    asyncio.run(_interleaved(steps))


async def _interleaved(steps: list[tuple[str, object]]) -> None:
    reranker, held = FakeReranker(), Held()
    reranker.at_once = False
    cache = cache_of(reranker, Clock(), held)
    running: list[tuple[str, str, asyncio.Task[Relevance]]] = []
    for step, what in steps:
        match step, what:
            case "search", (str(query), str(passages)):
                running.append((query, passages, begun(cache, passages, query)))
            case "leave", int(number) if running:
                running[number % len(running)][2].cancel()
            case "answer", int(number):
                _answer_one(reranker, number)
            case "store", bool(is_open):
                held.is_open.set() if is_open else held.is_open.clear()
            case _:
                pass  # nobody is there to leave
        await settled()
    held.is_open.set()
    await settled()
    while any(not task.done() for *_, task in running):
        _answer_one(reranker, 0)
        await settled()
    paid = Counter(
        (call.query, passage) for call in reranker.calls if not call.was_cancelled for passage in call.passages
    )
    assert set(paid.values()) <= {1}
    left = [(query, passages, task.result()) for query, passages, task in running if not task.cancelled()]
    assert [scores(passages, query) for query, passages, _ in left] == [each.scores for *_, each in left]
    await settled()
    assert {asyncio.current_task()} == asyncio.all_tasks()
    await _assert_nothing_stays_in_memory(cache, held, reranker)


async def _assert_nothing_stays_in_memory(cache: ScoreCache, held: Held, reranker: FakeReranker) -> None:
    """A later search reads what is known of its query from the store."""
    reads, reranker.at_once = held.reads, True
    for query in "pq":
        await score(cache, "a", query)
    assert reads + 2 == held.reads


def _answer_one(reranker: FakeReranker, number: int) -> None:
    waiting = [call for call in reranker.calls if not call.answered.done() and not call.was_cancelled]
    if waiting:
        waiting[number % len(waiting)].answer()


async def test_it_works_with_the_memory_store(reranker: FakeReranker) -> None:
    cache = ScoreCache(reranker, region(MemoryStore(2**20)), endpoint="e", query_max_chars=20)
    for _ in range(2):
        await score(cache, "abc")
    assert 1 == len(reranker.calls)


async def test_a_slow_call_does_not_replace_what_another_cache_stored_meanwhile(clock: Clock, held: Held) -> None:
    """And does not mix scores of another model with its own."""
    slow, quick = FakeReranker(), FakeReranker()
    slow.at_once = False
    behind = ScoreCache(slow, region(held), endpoint="e", query_max_chars=20, now=clock, merges=True)
    other = cache_of(quick, clock, held)
    waiting = begun(behind, "abc")
    await settled()
    await score(other, "cd")
    slow.calls[0].answer()
    await waiting
    await settled()
    await score(other, "abcd")
    assert [["c", "d"]] == quick.sent
    waiting = begun(behind, "e")
    await settled()
    slow.calls[1].answer(model="another")
    await waiting
    await settled()
    assert 1 == sum(len(decode(value, clock()).scores) for value in held.values.values())


async def test_a_suspended_model_is_available_only_with_cached_scores(
    cache: ScoreCache, reranker: FakeReranker, clock: Clock
) -> None:
    async def why(query: str, model: str = "m") -> UpstreamError | None:
        return await cache.unavailable(query, instruction="i", model=model)

    assert await why("new") is None
    await cache.score("known", ["a", "b"], instruction="i", model="m", budget=Budget())
    reranker.withheld_by = Withheld("reranker", "breaker_open", "down")
    assert (None, None, reranker.withheld_by) == (await why("known"), await why(" known "), await why("new"))
    assert reranker.withheld_by is await cache.unavailable("known", instruction="other", model="m")
    clock.now += 61
    assert reranker.withheld_by is await why("known")
