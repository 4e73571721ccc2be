"""What the engine reports to each caller about its indices, remembered: fresh, then stale while it is asked again.

A question is in flight once for everybody who waits for the same caller's answer. Nobody waits longer for it than the
patience allows, counted from when it was sent, so that a slow engine delays one search and not each of them. It runs to
its end without anybody waiting, and the late answer serves the next search (stale-while-revalidate, RFC 5861).
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

import msgspec
import structlog
from cachetools import LRUCache

from proxy.bounds import CATALOG_BYTES, CATALOG_CALLERS, CATALOG_IN_FLIGHT, CATALOG_QUESTIONS, CATALOG_WAITING
from proxy.errors import Busy, Late, Malformed, Refused, TimedOut, UpstreamError

SERVICE = "engine"
STALE_S = 60.0
"""How long an answer that is no longer fresh is used while the engine is asked again."""
RETRY_S = 1.0
"""How long nobody asks again after a question failed."""
QUESTION_S = 30.0
"""How long a question may take; the engine itself gives up on its master after as long."""

_log = structlog.get_logger("proxy")
_T = TypeVar("_T")
Reader = Callable[[Mapping[str, Any]], _T]


class Freshness(Enum):
    """What an entry is good for."""

    FRESH = "used"
    STALE = "used, and asked again behind the search"
    UNKNOWN = "asked, and waited for"


@dataclass(frozen=True, slots=True)
class Failed:
    """A question that has no answer, as a value: an exception would keep the frames that it went through."""

    kind: type[UpstreamError]
    detail: str
    status: int = 0

    @classmethod
    def of(cls, error: UpstreamError) -> "Failed":
        return cls(type(error), error.detail, error.status if isinstance(error, Refused) else 0)

    @property
    def is_lasting(self) -> bool:
        """Whether the caller may not know: that is as good an answer as any."""
        return self.status == 403

    @property
    def is_remembered(self) -> bool:
        """A refusal that a change of names or mappings can mend, a missing index above all, is asked again at once."""
        return self.status in {0, 403, 429} or self.status >= 500

    def error(self) -> UpstreamError:
        return Refused(SERVICE, self.status) if self.status else self.kind(SERVICE, self.detail)


@dataclass(frozen=True, slots=True)
class Fact:
    """An answer, by the digest of its bytes and its reader, or a failure; and when it was given."""

    said: bytes | Failed
    at: float


def freshness(fact: Fact | None, now: float, fresh_seconds: float) -> Freshness:
    """Tell what a fact is good for; a failure that may pass is asked again sooner than an answer."""
    if fact is None:
        return Freshness.UNKNOWN
    passing = isinstance(fact.said, Failed) and not fact.said.is_lasting
    lasts = min(RETRY_S, fresh_seconds) if passing else fresh_seconds
    age = now - fact.at
    if age < lasts:
        return Freshness.FRESH
    return Freshness.STALE if age < lasts + STALE_S else Freshness.UNKNOWN


@dataclass(slots=True)
class _Entry:
    """What is known of one question of one caller, and the call that asks it."""

    fact: Fact | None = None
    asking: "asyncio.Task[Any] | None" = None
    asked_at: float = 0.0
    retry_at: float = 0.0
    was_told: bool = False
    """Whether the caller was given an answer before it was asked anew."""


@dataclass(frozen=True, slots=True)
class _Value:
    content: Any
    size: int


@dataclass(frozen=True, slots=True)
class Question(Generic[_T]):
    """What is asked on behalf of one caller, and how its answer is read."""

    caller: bytes
    asked: Hashable
    reader: Reader[_T]
    ask: Callable[[], Awaitable[bytes]]

    @property
    def key(self) -> bytes:
        return hashlib.sha256(repr((self.reader.__qualname__, self.asked)).encode()).digest()

    def read(self, body: bytes) -> _T:
        """Read an answer; raises Malformed."""
        try:
            return self.reader(msgspec.json.decode(body, type=dict[str, Any]))
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise Malformed(SERVICE, f"what it says of its indices cannot be read: {error!r}") from error


_Entries = LRUCache[bytes, _Entry]
_Asking = asyncio.Task["_Value | Failed"]


class Discovery:
    """Everything that was reported, each caller's apart."""

    def __init__(
        self,
        fresh_seconds: float,
        timer: Callable[[], float] = time.monotonic,
        *,
        bytes_max: int = CATALOG_BYTES,
        waiting_max: int = CATALOG_WAITING,
        turned_away: Callable[[bytes], object] = lambda _: None,
    ) -> None:
        """Begin empty; `turned_away` is called with a caller whose rights have changed by what the engine reports."""
        self._fresh_seconds = fresh_seconds
        self._timer = timer
        self._waiting_max = waiting_max
        self._turned_away = turned_away
        self._callers: LRUCache[bytes, _Entries] = LRUCache(CATALOG_CALLERS)
        self._values: LRUCache[bytes, _Value] = LRUCache(bytes_max, getsizeof=lambda value: value.size)
        self._turns = asyncio.Semaphore(CATALOG_IN_FLIGHT)
        self._tasks: set[_Asking] = set()

    async def get(self, question: Question[_T], *, patience_seconds: float | None = None, anew: bool = False) -> _T:
        """Return what the engine reports, from memory where it is known; raises UpstreamError.

        Raises Late where the answer is not there so many seconds after it was asked for. `anew` asks whatever is
        remembered.
        """
        entry = self._entry(question, anew=anew)
        known, now = self._known(entry.fact), self._timer()
        how_fresh = freshness(entry.fact, now, self._fresh_seconds)
        if known is None or how_fresh is Freshness.UNKNOWN:
            known = await self._waited(self._asking(question, entry), entry, patience_seconds)
        elif how_fresh is Freshness.STALE and now >= entry.retry_at:
            with suppress(Busy):
                _ = self._asking(question, entry)
        if isinstance(known, _Value):
            found: _T = known.content
            return found
        raise known.error()

    def forget(self, caller: bytes) -> None:
        """Drop what a caller was told; questions in flight answer only those who wait for them."""
        self._callers.pop(caller, None)

    async def close(self) -> None:
        """End the questions in flight."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _entry(self, question: Question[_T], *, anew: bool) -> _Entry:
        entries: _Entries | None = self._callers.get(question.caller)
        if entries is None:
            self._callers[question.caller] = entries = LRUCache(CATALOG_QUESTIONS)
        entry: _Entry | None = entries.get(question.key)
        if entry is None or anew:
            was_told = entry is not None and self._was_told(entry)
            entries[question.key] = entry = _Entry(was_told=was_told)
        return entry

    def _was_told(self, entry: _Entry) -> bool:
        return entry.was_told or isinstance(self._known(entry.fact), _Value)

    def _known(self, fact: Fact | None) -> _Value | Failed | None:
        if fact is None:
            return None
        if isinstance(fact.said, Failed):
            return fact.said
        value: _Value | None = self._values.get(fact.said)
        return value

    def _asking(self, question: Question[_T], entry: _Entry) -> _Asking:
        """Return the call that asks this question; raises Busy where too many are waiting."""
        if entry.asking is None:
            if len(self._tasks) >= self._waiting_max:
                raise Busy(SERVICE, f"{self._waiting_max} questions about indices are waiting")
            entry.asked_at = self._timer()
            entry.asking = asyncio.ensure_future(self._ask(question, entry))
            self._tasks.add(entry.asking)
            entry.asking.add_done_callback(self._ended)
        return entry.asking

    def _ended(self, asking: _Asking) -> None:
        """Take a call off the list, and log a defect that nobody may have waited for."""
        self._tasks.discard(asking)
        if not asking.cancelled() and (defect := asking.exception()):
            _log.error("internal_error", exc_info=defect)

    async def _waited(self, asking: _Asking, entry: _Entry, patience_seconds: float | None) -> _Value | Failed:
        left = None if patience_seconds is None else entry.asked_at + patience_seconds - self._timer()
        await asyncio.wait({asking}, timeout=left)
        return asking.result() if asking.done() else Failed(Late, "no answer about its indices yet")

    async def _ask(self, question: Question[_T], entry: _Entry) -> _Value | Failed:
        """Ask, and remember what comes of it; what goes wrong is a value, since nobody may be waiting."""
        try:
            said = await self._said(question)
        finally:
            entry.asking = None
        if isinstance(said, Failed):
            self._note(question, entry, said)
            return said
        digest, value = said
        with suppress(ValueError):  # larger than all that is remembered together
            self._values[digest] = value
        entry.fact = Fact(digest, self._timer())
        return value

    def _note(self, question: Question[_T], entry: _Entry, failed: Failed) -> None:
        """Remember a failure, unless what was known before is better than that."""
        was_told = isinstance(self._known(entry.fact), _Value)
        if failed.status == 401 or (failed.status == 403 and self._was_told(entry)):  # the caller's rights have changed
            self.forget(question.caller)
            self._turned_away(question.caller)
        elif not failed.is_remembered:
            entry.fact = None
        elif failed.is_lasting or not was_told:
            entry.fact = Fact(failed, self._timer())
        else:
            entry.retry_at = self._timer() + RETRY_S

    async def _said(self, question: Question[_T]) -> tuple[bytes, _Value] | Failed:
        try:
            async with self._turns, asyncio.timeout(QUESTION_S):
                body = await question.ask()
            digest = hashlib.sha256(question.reader.__qualname__.encode() + b"\0" + body).digest()
            return digest, self._values.get(digest) or _Value(question.read(body), len(body) + 2**8)
        except UpstreamError as error:
            return Failed.of(error)
        except TimeoutError:
            return Failed(TimedOut, f"no answer about its indices in {QUESTION_S:g} s")
