"""A canary for rerankers: a few known pairs, scored once per deployment, show whether a model still ranks.

A model that ranks them wrong or gives all of them the same score is called no more until it ranks them right.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from proxy.bounds import CANARY_FILE_BYTES, LOG_DETAIL
from proxy.errors import EqualScores, UpstreamError
from proxy.ranking.planning import Relevance
from proxy.ranking.stages import UNMETERED, Purse
from proxy.upstream.guard import Guard, Guards
from proxy.upstream.state_files import locked, read_state, replace_state
from proxy.upstream.threads import apart

_log = structlog.get_logger("proxy")
_SERVICE = "reranker"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
TOLERANCE = 0.05
"""A larger change of a score is drift; the same model varies by up to 0.02 between servers and batches."""
ROUTE = "_canary"
"""The route under which its calls are booked; no index has such a name."""
_MARGIN = 0.001
"""The minimum difference between a relevant and an irrelevant passage."""
PAUSES_S: Sequence[float] = (30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds before the second canary of a model that failed the first, and so on; the last one repeats."""


@dataclass(frozen=True, slots=True)
class KnownQuery:
    """A query, and passages that every reranker must order: all relevant ones before all others."""

    query: str
    relevant: tuple[str, ...]
    irrelevant: tuple[str, ...]

    @property
    def passages(self) -> tuple[str, ...]:
        """The passages in the order in which they are sent.

        Relevant ones are in the middle, so that a model that scores by position fails.
        """
        first, *others = self.irrelevant
        return (first, *self.relevant, *others)


KNOWN: Sequence[KnownQuery] = (
    KnownQuery(
        "how to reset a forgotten password",
        (
            "To reset a forgotten password, open the sign-in page and choose 'Forgot password'.",
            "If you forgot your password, we send you a link to set a new one.",
        ),
        ("The annual rainfall in the Sahara is below 25 millimetres.", "Bake the bread for forty minutes."),
    ),
    KnownQuery(
        "waterproof hiking boots for women",
        (
            "Women's waterproof hiking boots with a grippy sole, made for wet trails.",
            "Light hiking boots for women, waterproof, for rain and mud.",
        ),
        ("USB-C charging cable, braided, 2 metres.", "A novel about a lighthouse keeper, paperback edition."),
    ),
)
"""About 900 tokens with the prompt of the model, which cost less than 0.0001 USD with the largest reranker."""
_FINGERPRINT = hashlib.sha256(msgspec.json.encode([INSTRUCTION, KNOWN])).hexdigest()[:12]


class Scorer(Protocol):
    """Calls a reranker once, without a cache; errors are returned in the result, and never raised."""

    async def score(  # noqa: PLR0913  as `Reranker.score`
        self, query: str, passages: Sequence[str], *, instruction: str, model: str, is_typical: bool, purse: Purse
    ) -> Relevance: ...


class CanaryVerdict(StrEnum):
    """What the known pairs say about a model."""

    UNKNOWN = "unknown"
    """Not scored yet: the model could not be called."""
    OK = "ok"
    DRIFTED = "drifted"
    """The order is right, but the scores differ from earlier ones."""
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """The result of a model's last canary."""

    verdict: CanaryVerdict = CanaryVerdict.UNKNOWN
    drift: float | None = None
    """The largest difference of a score to the remembered one; None if there is none to compare with."""
    detail: str = ""


def judged(scores: Sequence[Sequence[float]], earlier: Sequence[float] | None = None) -> CanaryReport:
    """Judge the scores of each known query's passages, and compare them with earlier ones."""
    for known, of_query in zip(KNOWN, scores, strict=True):
        if problem := _problem(known, of_query):
            return CanaryReport(CanaryVerdict.WRONG, detail=problem)
    flat = flattened(scores)
    if earlier is None or len(earlier) != len(flat):
        return CanaryReport(CanaryVerdict.OK)
    drift = max(abs(now - before) for now, before in zip(flat, earlier, strict=True))
    return CanaryReport(CanaryVerdict.DRIFTED if drift > TOLERANCE else CanaryVerdict.OK, drift)


def flattened(scores: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(score for of_query in scores for score in of_query)


def _problem(known: KnownQuery, scores: Sequence[float]) -> str:
    by_passage = dict(zip(known.passages, scores, strict=True))
    worst = min(by_passage[passage] for passage in known.relevant)
    best = max(by_passage[passage] for passage in known.irrelevant)
    if worst - best >= _MARGIN:
        return ""
    return f"for the query [{known.query}], a relevant passage scored {worst:.3g}, and an irrelevant one {best:.3g}"


async def score_known(reranker: Scorer, model: str, purse: Purse = UNMETERED) -> tuple[tuple[float, ...], ...]:
    """Score the passages of each known query; raises UpstreamError."""
    found = []
    for known in KNOWN:
        relevance = await reranker.score(
            known.query, known.passages, instruction=INSTRUCTION, model=model, is_typical=False, purse=purse
        )
        if relevance.error is not None:
            raise relevance.error
        found.append(relevance.scores)
    return tuple(found)


class CanaryScores:
    """The scores of the first canary of each model, in this process, and in a file if one is named."""

    def __init__(self, file: str | None = None, known: dict[str, tuple[float, ...]] | None = None) -> None:
        self._file = Path(file) if file else None
        self._known = {} if known is None else known
        self._writing = asyncio.Lock()

    async def remember_first(self, model: str, scores: tuple[float, ...]) -> tuple[float, ...] | None:
        """Return the remembered scores of a model; if there are none, remember these and return None."""
        if self._file is not None:
            async with self._writing:  # one model after the other: each writes the whole file
                return await apart(partial(self._remember_in, self._file, model, scores))
        key = _key(model)
        earlier = self._known.get(key)
        self._known.setdefault(key, scores)
        return earlier

    def _remember_in(self, file: Path, model: str, scores: tuple[float, ...]) -> tuple[float, ...] | None:
        try:
            earlier = _read(file).get(_key(model))
            if earlier is None:
                with locked(file):
                    known = _read(file)
                    known.setdefault(_key(model), scores)
                    replace_state(file, msgspec.json.format(msgspec.json.encode(known)) + b"\n")
        except (OSError, ValueError) as error:
            detail = f"{file}: {error}. Scores are not compared with those of earlier deployments: correct or remove it"
            _log.warning("canary_file_unusable", detail=detail[:LOG_DETAIL])
            return None
        return earlier


def _key(model: str) -> str:
    return f"{model} {_FINGERPRINT}"


_scores = msgspec.json.Decoder(dict[str, tuple[float, ...]])


def _read(file: Path) -> dict[str, tuple[float, ...]]:
    """Read a file of scores, empty if it does not exist; raises OSError or ValueError."""
    content = read_state(file, CANARY_FILE_BYTES)
    return {} if content is None else _scores.decode(content)


@dataclass(slots=True)
class _Watched:
    task: "asyncio.Task[None]"
    report: CanaryReport = field(default_factory=CanaryReport)


class Canary:
    """The canaries of all rerankers in use; one that fails suspends the calls of its model until it succeeds."""

    def __init__(
        self,
        guarded: Scorer,
        unguarded: Scorer,
        guards: Guards,
        scores: CanaryScores,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._guarded = guarded
        self._unguarded = unguarded
        self._guards = guards
        self._scores = scores
        self._sleep = sleep
        self._watched: dict[str, _Watched] = {}
        self._purse: Purse = UNMETERED

    @property
    def reports(self) -> Mapping[str, CanaryReport]:
        """The last report of each model."""
        return {model: watched.report for model, watched in self._watched.items()}

    def watch(self, models: Iterable[str], purse: Purse = UNMETERED) -> None:
        """Begin the canaries of these models in the background, unless they have begun; end those of all others.

        `purse` pays for their calls from now on.
        """
        self._purse = purse
        wanted = dict.fromkeys(models)
        for model in self._watched.keys() - wanted.keys():
            self._watched.pop(model).task.cancel()
        for model in wanted.keys() - self._watched.keys():
            self._watched[model] = _Watched(asyncio.get_running_loop().create_task(self._watch(model)))

    async def close(self) -> None:
        tasks = [watched.task for watched in self._watched.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, model: str) -> None:
        """Score the known pairs until the model ranks them right."""
        failed = 0
        while not await self._ranks(model):
            await self._sleep(PAUSES_S[min(failed, len(PAUSES_S) - 1)])
            failed += 1

    async def _ranks(self, model: str) -> bool:
        """Score the known pairs once; returns whether the model ranks them right."""
        guard = self._guards.of(_SERVICE, model)
        report = self._watched[model].report = await self._report(model, guard)
        if report.verdict is CanaryVerdict.UNKNOWN:
            return False
        if report.verdict is CanaryVerdict.WRONG:
            guard.suspend(f"{model} does not rank the known pairs of the canary: {report.detail}")
            return False
        if report.verdict is CanaryVerdict.DRIFTED and report.drift is not None:
            detail = f"a score of the known pairs changed by {report.drift:.2g}: compare the order of your searches"
            _log.warning("canary_drift", model=model, drift=round(report.drift, 3), detail=detail)
        guard.resume()
        return True

    async def _report(self, model: str, guard: Guard) -> CanaryReport:
        reranker = self._unguarded if guard.is_suspended else self._guarded
        try:
            scores = await score_known(reranker, model, self._purse)
        except EqualScores as error:
            return CanaryReport(CanaryVerdict.WRONG, detail=error.detail)
        except UpstreamError as error:
            return CanaryReport(detail=str(error)[:LOG_DETAIL])
        report = judged(scores)
        if report.verdict is CanaryVerdict.WRONG:
            return report
        return judged(scores, await self._scores.remember_first(model, flattened(scores)))
