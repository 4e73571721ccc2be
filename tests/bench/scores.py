"""What the cache of scores saves under a shop's searches: few words that are searched often, and many only once.

No engine and no network: a scorer counts what it is sent. `python -m tests.bench.scores`.
"""

import argparse
import asyncio
import itertools
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from proxy.context import Reuse
from proxy.errors import UpstreamError
from proxy.ranking.planning import Relevance
from proxy.ranking.stages import Budget, Purse
from proxy.store.contract import CacheRegion, Keys, Kind
from proxy.store.memory import MemoryStore
from proxy.upstream.score_cache import ScoreCache
from proxy.upstream.spending.prices import rerank_tokens

SEARCHES = 20_000
HEAD = 2000
WINDOW = 50
FOUND = 120
"""The passages that a query finds without a filter; a filter leaves two thirds of them."""
_REFINED = 0.3
"""The share of searches that repeat the words of an earlier one, with another filter or page."""
_AT_ONCE = 64
_CACHE_BYTES = 64 * 2**20
_TEXT = "A passage that is as long as the title and the description of a product in a shop usually are. " * 3


@dataclass(frozen=True, slots=True)
class ShopSearch:
    """A search, and whether its words are searched often."""

    query: str
    passages: Sequence[str]
    is_head: bool


class CountingScorer:
    """Counts how often each pair is sent, and the tokens of the calls for each part of the searches."""

    batch_size = WINDOW
    timeout_seconds = 3.0

    def __init__(self) -> None:
        self.sent: Counter[tuple[str, str]] = Counter()
        self.tokens: Counter[str] = Counter()
        """By the first word of the query."""

    async def warm_up(self) -> None: ...

    def reject_if_late(self, model: str, seconds: float, *, is_new: bool) -> UpstreamError | None:
        return None

    def withheld(self, model: str) -> None:
        pass

    def not_called(self, model: str, why: UpstreamError) -> None: ...

    def abandoned(self, model: str, seconds: float) -> None: ...

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
        self.tokens[query.partition(" ")[0]] += round(rerank_tokens(query, passages, instruction))
        self.sent.update((query, passage) for passage in passages)
        for _ in range(20):  # others run meanwhile
            await asyncio.sleep(0)
        return Relevance(tuple(score_of(query, each) for each in passages))


def score_of(query: str, passage: str) -> float:
    """Say for each pair another score."""
    return (hash((query, passage)) % 2**32 + 1) / (2**32 + 2)


def searches(count: int, seed: int = 1) -> Iterator[ShopSearch]:
    """Make half of the searches of the head's words, by Zipf's law, and half of words that are new."""
    drawn = random.Random(seed)  # noqa: S311  no secret
    weights = list(itertools.accumulate(1 / rank for rank in range(1, HEAD + 1)))
    tail: list[int] = []
    for number in range(count):
        if is_head := number % 2 == 0:
            words = f"head {drawn.choices(range(HEAD), cum_weights=weights)[0]}"
        else:
            if not tail or drawn.random() >= _REFINED:
                tail.append(number)
            words = f"tail {tail[-1] if tail[-1] == number else drawn.choice(tail)}"
        yield ShopSearch(words, _window(words, drawn), is_head)


def _window(words: str, drawn: random.Random) -> Sequence[str]:
    """Return the best passages that a filter leaves, of those that these words find."""
    brand = drawn.randrange(4)  # of three brands, or of all
    found = (n for n in range(FOUND) if not brand or n % 3 != brand - 1)
    return [f"{words}: product {n}. {_TEXT}" for n in itertools.islice(found, WINDOW)]


@dataclass(slots=True)
class Saved:
    """What one part of the searches sent, and what it did not send."""

    searches: int = 0
    reuse: Reuse = field(default_factory=Reuse)
    tokens: int = 0
    """That were used."""
    without_call: int = 0

    def add(self, relevance: Relevance) -> None:
        self.searches += 1
        self.reuse += relevance.reuse
        self.without_call += not relevance.reuse.sent

    @property
    def share(self) -> float:
        return self.reuse.saved_tokens / max(1, self.reuse.saved_tokens + self.tokens)

    def line(self, name: str) -> str:
        return (
            f"{name:<6} {self.searches:7,} searches, {self.without_call:7,} without a call; "
            f"passages: {self.reuse.sent:9,} sent, {self.reuse.cached:9,} reused; "
            f"tokens: {self.tokens:12,} used, {self.reuse.saved_tokens:12,} saved ({self.share:.0%})"
        )


@dataclass(frozen=True, slots=True)
class Load:
    """The result of a load."""

    head: Saved
    tail: Saved
    repeated_pairs: int
    """Pairs that were sent more than once."""
    wrong: int
    """Searches whose scores were not those of their own passages in their order."""
    cache_bytes: int
    evictions: int


async def load(count: int) -> Load:
    """Run the searches with cold caches, so many at the same time."""
    scorer, store = CountingScorer(), MemoryStore(_CACHE_BYTES)
    cache = ScoreCache(
        scorer, CacheRegion(Kind.SCORES, store, Keys(b"bench"), 86_400), endpoint="bench", query_max_chars=2000
    )
    parts = {True: Saved(), False: Saved()}
    wrong = 0
    todo = searches(count)

    async def client() -> None:
        nonlocal wrong
        for search in todo:
            relevance = await cache.score(
                search.query, search.passages, instruction="Judge", model="m", budget=Budget(1.5)
            )
            parts[search.is_head].add(relevance)
            wrong += relevance.scores != tuple(score_of(search.query, each) for each in search.passages)

    await asyncio.gather(*(client() for _ in range(_AT_ONCE)))
    parts[True].tokens, parts[False].tokens = scorer.tokens["head"], scorer.tokens["tail"]
    repeated = sum(1 for times in scorer.sent.values() if times > 1)
    return Load(parts[True], parts[False], repeated, wrong, store.size, store.evictions)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scores", description=__doc__)
    parser.add_argument("--searches", type=int, default=SEARCHES, help="(%(default)s)")
    options = parser.parse_args(arguments)
    found = asyncio.run(load(options.searches))
    sys.stdout.write(f"{found.head.line('head')}\n{found.tail.line('tail')}\n")
    sys.stdout.write(f"pairs sent more than once: {found.repeated_pairs}; wrong scores: {found.wrong}; ")
    sys.stdout.write(f"cache: {found.cache_bytes / 2**20:.1f} MB, {found.evictions} evictions\n")
    return 1 if found.repeated_pairs or found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
