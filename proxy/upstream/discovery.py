"""A cache of the index metadata that each caller may see: fresh first, then stale while it is requested again.

Equal requests of one caller are sent once, and all searches wait for the same response. A search waits no longer than
its patience, counted from when the request was sent, so a slow engine delays one search and not each of them. The
request then continues in the background, and its late response serves the next search (stale-while-revalidate,
RFC 5861).
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
"""Seconds for which a response that is no longer fresh is used while it is requested again."""
RETRY_S = 1.0
"""Seconds after a failure before the request is sent again."""
QUESTION_S = 30.0
"""Timeout of a request, in seconds; the engine's own timeout for its master node is as long."""

_log = structlog.get_logger("proxy")
_T = TypeVar("_T")
Reader = Callable[[Mapping[str, Any]], _T]


class Freshness(Enum):
    """What a cached entry may be used for."""

    FRESH = "used"
    STALE = "used, and requested again in the background"
    UNKNOWN = "requested, and waited for"


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed request, as a value: an exception would keep its stack frames alive."""

    kind: type[UpstreamError]
    detail: str
    status: int = 0

    @classmethod
    def of(cls, error: UpstreamError) -> "Failed":
        return cls(type(error), error.detail, error.status if isinstance(error, Refused) else 0)

    @property
    def is_lasting(self) -> bool:
        """Whether the caller lacks the rights, which is as final as a response."""
        return self.status == 403

    @property
    def is_remembered(self) -> bool:
        """Whether it is cached; errors that a change of names or mappings can fix, such as a missing index, are not."""
        return self.status in {0, 403, 429} or self.status >= 500

    def error(self) -> UpstreamError:
        return Refused(SERVICE, self.status) if self.status else self.kind(SERVICE, self.detail)


@dataclass(frozen=True, slots=True)
class Fact:
    """A cached response, as the digest of its bytes and its reader, or a failure; and when it arrived."""

    said: bytes | Failed
    at: float


def freshness(fact: Fact | None, now: float, fresh_seconds: float) -> Freshness:
    """Return what a cached fact may be used for; temporary failures expire sooner than responses."""
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
    """The cache entry of one request of one caller, and the call in progress."""

    fact: Fact | None = None
    call: "asyncio.Task[Any] | None" = None
    sent_at: float = 0.0
    retry_at: float = 0.0
    had_response: bool = False
    """Whether the caller had a response before the entry was refreshed."""


@dataclass(frozen=True, slots=True)
class _Value:
    content: Any
    size: int


@dataclass(frozen=True, slots=True)
class Question(Generic[_T]):
    """A request on behalf of one caller, and the function that reads its response."""

    caller: bytes
    asked: Hashable
    reader: Reader[_T]
    ask: Callable[[], Awaitable[bytes]]

    @property
    def key(self) -> bytes:
        return hashlib.sha256(repr((self.reader.__qualname__, self.asked)).encode()).digest()

    def read(self, body: bytes) -> _T:
        """Read a response; raises Malformed."""
        try:
            return self.reader(msgspec.json.decode(body, type=dict[str, Any]))
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise Malformed(SERVICE, f"the index metadata cannot be read: {error!r}") from error


_Entries = LRUCache[bytes, _Entry]
_Call = asyncio.Task["_Value | Failed"]


class Discovery:
    """The cached metadata, separate for each caller."""

    def __init__(
        self,
        fresh_seconds: float,
        timer: Callable[[], float] = time.monotonic,
        *,
        bytes_max: int = CATALOG_BYTES,
        waiting_max: int = CATALOG_WAITING,
        turned_away: Callable[[bytes], object] = lambda _: None,
    ) -> None:
        """Start empty; `turned_away` is called with a caller whose rights have changed according to the engine."""
        self._fresh_seconds = fresh_seconds
        self._timer = timer
        self._waiting_max = waiting_max
        self._turned_away = turned_away
        self._callers: LRUCache[bytes, _Entries] = LRUCache(CATALOG_CALLERS)
        self._values: LRUCache[bytes, _Value] = LRUCache(bytes_max, getsizeof=lambda value: value.size)
        self._turns = asyncio.Semaphore(CATALOG_IN_FLIGHT)
        self._tasks: set[_Call] = set()

    async def get(self, question: Question[_T], *, patience_seconds: float | None = None, anew: bool = False) -> _T:
        """Return the engine's response, from the cache if possible; raises UpstreamError.

        Raises Late if there is no response `patience_seconds` after the request was sent. `anew` ignores the cache.
        """
        entry = self._entry(question, anew=anew)
        known, now = self._known(entry.fact), self._timer()
        how_fresh = freshness(entry.fact, now, self._fresh_seconds)
        if known is None or how_fresh is Freshness.UNKNOWN:
            known = await self._waited(self._call(question, entry), entry, patience_seconds)
        elif how_fresh is Freshness.STALE and now >= entry.retry_at:
            with suppress(Busy):
                _ = self._call(question, entry)
        if isinstance(known, _Value):
            found: _T = known.content
            return found
        raise known.error()

    def forget(self, caller: bytes) -> None:
        """Remove a caller's entries; requests in progress only serve the searches that wait for them."""
        self._callers.pop(caller, None)

    async def close(self) -> None:
        """Cancel the requests in progress."""
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
            had_response = entry is not None and self._had_response(entry)
            entries[question.key] = entry = _Entry(had_response=had_response)
        return entry

    def _had_response(self, entry: _Entry) -> bool:
        return entry.had_response or isinstance(self._known(entry.fact), _Value)

    def _known(self, fact: Fact | None) -> _Value | Failed | None:
        if fact is None:
            return None
        if isinstance(fact.said, Failed):
            return fact.said
        value: _Value | None = self._values.get(fact.said)
        return value

    def _call(self, question: Question[_T], entry: _Entry) -> _Call:
        """Return the call for this request, in progress or new; raises Busy if too many are waiting."""
        if entry.call is None:
            if len(self._tasks) >= self._waiting_max:
                raise Busy(SERVICE, f"{self._waiting_max} requests for index metadata are waiting")
            entry.sent_at = self._timer()
            entry.call = asyncio.ensure_future(self._ask(question, entry))
            self._tasks.add(entry.call)
            entry.call.add_done_callback(self._ended)
        return entry.call

    def _ended(self, call: _Call) -> None:
        """Remove a finished call, and log an unexpected exception: nobody may be waiting for the call."""
        self._tasks.discard(call)
        if not call.cancelled() and (defect := call.exception()):
            _log.error("internal_error", exc_info=defect)

    async def _waited(self, call: _Call, entry: _Entry, patience_seconds: float | None) -> _Value | Failed:
        left = None if patience_seconds is None else entry.sent_at + patience_seconds - self._timer()
        await asyncio.wait({call}, timeout=left)
        return call.result() if call.done() else Failed(Late, "no response with index metadata yet")

    async def _ask(self, question: Question[_T], entry: _Entry) -> _Value | Failed:
        """Send the request and cache its result; a failure is returned as a value, since nobody may be waiting."""
        try:
            said = await self._fetch(question)
        finally:
            entry.call = None
        if isinstance(said, Failed):
            self._note(question, entry, said)
            return said
        digest, value = said
        with suppress(ValueError):  # larger than the whole cache
            self._values[digest] = value
        entry.fact = Fact(digest, self._timer())
        return value

    def _note(self, question: Question[_T], entry: _Entry, failed: Failed) -> None:
        """Cache a failure, unless an older response is more useful."""
        had_response = isinstance(self._known(entry.fact), _Value)
        rights_changed = failed.status == 401 or (failed.status == 403 and self._had_response(entry))
        if rights_changed:
            self.forget(question.caller)
            self._turned_away(question.caller)
        elif not failed.is_remembered:
            entry.fact = None
        elif failed.is_lasting or not had_response:
            entry.fact = Fact(failed, self._timer())
        else:
            entry.retry_at = self._timer() + RETRY_S

    async def _fetch(self, question: Question[_T]) -> tuple[bytes, _Value] | Failed:
        try:
            async with self._turns, asyncio.timeout(QUESTION_S):
                body = await question.ask()
            digest = hashlib.sha256(question.reader.__qualname__.encode() + b"\0" + body).digest()
            return digest, self._values.get(digest) or _Value(question.read(body), len(body) + 2**8)
        except UpstreamError as error:
            return Failed.of(error)
        except TimeoutError:
            return Failed(TimedOut, f"no response with index metadata in {QUESTION_S:g} s")
