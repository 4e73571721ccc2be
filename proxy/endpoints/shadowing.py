"""Shadow mode: reranks searches after their clients have the engine's response, and logs what would have changed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import structlog

from proxy.bounds import SHADOW_RUNS, SHADOW_S
from proxy.context import SearchRecord, Shadow
from proxy.outcomes import Bypass, Outcome, answered, bypassed
from proxy.ranking.hits import keys
from proxy.ranking.paging import Head
from proxy.ranking.pipeline import Answered, Result, Unserved, run_search
from proxy.ranking.planning import EngineReply, EngineSearch
from proxy.ranking.rank_changes import rank_change
from proxy.ranking.search_response import read_answer
from proxy.ranking.stages import Run, Searches

_log = structlog.get_logger("proxy")
BUSY = Shadow(Outcome("cancelled", reason="busy"))
_STOPPING = Shadow(Outcome("cancelled", reason="stopping"))
_TIMED_OUT = Shadow(Outcome("failed", reason="timeout"))
_DEFECT = Shadow(Outcome("failed", reason="internal_error"))
LATER_PAGE = Shadow(Outcome("bypassed", reason="later_page"))
"""Only first pages are compared: later pages are cut from the same ranking."""
GIVES_WAY = 0.5
"""From this load on, shadow runs do not call a model; it is lower than the loads that narrow windows."""


class Shadows:
    """A limited number of concurrent shadow runs; further ones are dropped, because no client waits for them."""

    def __init__(self, *, seconds: float = SHADOW_S) -> None:
        self._seconds = seconds
        self._running: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def begin(self, record: SearchRecord, run: Callable[[], Awaitable[Shadow]], then: Callable[[], None]) -> None:
        """Start a run, record its result, and call `then`; without a free slot, record that it was cancelled."""
        if self._is_closed or len(self._running) >= SHADOW_RUNS:
            record.shadow = _STOPPING if self._is_closed else BUSY
            then()
            return
        record.shadow = _STOPPING
        task = asyncio.get_running_loop().create_task(self._run(record, run))
        self._running.add(task)
        task.add_done_callback(lambda task: self._ended(task, then))

    def _ended(self, task: asyncio.Task[None], then: Callable[[], None]) -> None:
        """Finish a run, even one that was cancelled before it started."""
        self._running.discard(task)
        then()

    async def _run(self, record: SearchRecord, run: Callable[[], Awaitable[Shadow]]) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                record.shadow = await run()
        except TimeoutError:
            record.shadow = _TIMED_OUT
        except Exception:  # noqa: BLE001  after any error, only the comparison is lost
            _log.exception("internal_error")
            record.shadow = _DEFECT

    async def close(self) -> None:
        """Cancel the current runs, and start no more."""
        self._is_closed = True
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@dataclass(slots=True)
class _AddedAlone:
    """An engine where the client's own search also counts as an added one: it has their timeout and limit."""

    engine: Searches
    timeout_seconds: float
    count: int = 0

    async def search(self, search: EngineSearch) -> EngineReply:
        return await self.add(search, self.timeout_seconds)

    async def add(self, search: EngineSearch, timeout_seconds: float) -> EngineReply:
        self.count += 1
        return await self.engine.add(search, timeout_seconds)


@dataclass(slots=True)
class _MadeHead:
    """Holds the head that one run makes, and returns none: a shadow run is never cut into pages."""

    head: Head | None = None

    async def get(self, key: bytes) -> Head | None:  # noqa: ARG002  the parameters of Remembers
        return None

    def keep(self, key: bytes, head: Head) -> None:  # noqa: ARG002  the parameters of Remembers
        self.head = head


async def run_shadow(run: Run) -> Shadow:
    """Run a planned search with added searches only, and compare its order with the engine's."""
    engine, made = _AddedAlone(run.stages.engine, run.stages.added_timeout_seconds), _MadeHead()
    result = await run_search(replace(run, stages=replace(run.stages, engine=engine, heads=made)), b"")
    outcome = _outcome(result)
    if not isinstance(result, Answered):
        return Shadow(outcome)
    before = [hit.key for hit in read_answer(result.reply.body).hits]
    head = made.head
    first = keys(head.ranking) if head and not head.untouched else ()
    change = rank_change(before, [*first, *(key for key in before if key not in set(first))])
    measures = {"overlap_at_10": change.overlap, "kendall_tau": change.kendall_tau}
    counts = {"moved": change.moved, "entered": change.entered, "engine_searches": engine.count}
    return Shadow(outcome, {**measures, **counts}, candidates=result.candidates)


def _outcome(result: Result) -> Outcome:
    match result:
        case Answered(failures=failures) | Unserved(failures=failures):
            return answered(failures)
        case Bypass() as why:
            return bypassed(why)
        case other:
            return bypassed(other.why)
