"""Fetches the documents that only kNN found, as the client's own query renders them, and aggregations that count them.

If such a search fails, the documents are left out, with a Failure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from proxy.errors import Failure, Malformed, UpstreamError
from proxy.parsing.aggregations import facets_of
from proxy.parsing.json_text import members_of
from proxy.ranking.hits import DocKey, Hit, Ranking, Scored, keys
from proxy.ranking.search_response import RawMembers, SearchAnswer, Total
from proxy.ranking.searches import Facets, facet_search, matched, render_search
from proxy.ranking.stages import Run


@dataclass(frozen=True, slots=True)
class Rendered:
    """Documents as the client's query renders them, and how many of them do not match it."""

    hits: Mapping[DocKey, Hit] = field(default_factory=dict)
    extras: int = 0
    failures: tuple[Failure, ...] = ()
    aggregations: RawMembers = field(default_factory=dict)
    """The aggregations, which count these documents, too."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Aggregations and total over the client's own matches and the documents of a head."""

    aggregations: RawMembers = field(default_factory=dict)
    total: Total | None = None
    failures: tuple[Failure, ...] = ()


def added_facets(run: Run) -> Facets:
    """Return the aggregations of the request that count what kNN adds."""
    return facets_of(run.plan.request.members) if run.plan.adds else {}


async def render(run: Run, missing: Sequence[DocKey], facets: Facets) -> Rendered:
    """Fetch documents as the client's query would render them, and with these aggregations, which count them, too.

    On failure, documents found by kNN only are dropped: the client's own aggregations do not count them.
    """
    if not missing:
        return Rendered()
    stage = "facets" if facets else "semantic"
    try:
        answer = await run.search("render", render_search(run.plan, missing, facets), missing)
        matches, aggregations = _results(answer, matched(facets))
    except UpstreamError as error:
        return Rendered(failures=(Failure(stage, error.reason, str(error)),))
    if not answer.whole:
        return Rendered(failures=(Failure(stage, "partial"),))
    wanted = set(missing)
    rendered = {hit.key: hit for hit in answer.hits if hit.key in wanted}
    return Rendered(rendered, len(rendered) - matches, aggregations=aggregations)


async def render_in_groups(
    run: Run, candidates: Sequence[DocKey], known: Mapping[DocKey, Hit], answer: SearchAnswer, facets: Facets
) -> Rendered:
    """Fetch the candidates that are not known, without those that have no place in the head: see `in_groups`."""
    missing = [key for key in candidates if key not in known]
    if not _has_groups(run, answer):
        return await render(run, missing, facets)
    rendered = await render(run, missing, {})
    head = _by_group(run, candidates, answer, _groups(run, answer, {**rendered.hits, **known}))[: run.plan.window]
    kept = [key for key in head if key in rendered.hits]
    is_final = len(kept) == len(rendered.hits) and not (facets and rendered.extras)
    return rendered if is_final else await render(run, kept, facets)


async def count_facets(run: Run, documents: Sequence[DocKey], facets: Facets) -> Counted:
    """Return aggregations and total that count these documents, too; on failure, the client's own are shown."""
    if not facets:
        return Counted()
    try:
        answer = await run.search("facets", facet_search(run.plan, documents, facets))
        aggregations = members_of(answer.members["aggregations"])
    except UpstreamError as error:
        return Counted(failures=(Failure("facets", error.reason, str(error)),))
    except (ValueError, KeyError, RecursionError):
        return Counted(failures=(Failure("facets", Malformed.reason, "no aggregations"),))
    return Counted(aggregations, answer.total) if answer.whole else Counted(failures=(Failure("facets", "partial"),))


def in_groups(
    run: Run, ranking: Ranking, candidates: Sequence[DocKey], answer: SearchAnswer, rendered: Rendered
) -> Ranking:
    """Order by the leading sort keys as the client's own search does, and by the ranking within equal values.

    The hits of the window that are no candidates end their groups: after the head, they would follow later groups.
    """
    if not _has_groups(run, answer):
        return ranking
    groups = _groups(run, answer, {**rendered.hits, **answer.by_key})
    head = set(_by_group(run, candidates, answer, groups)[: run.plan.window])
    ordered = [key for key in _by_group(run, keys(ranking), answer, groups) if key in head]
    return tuple(Scored(key, float(len(ordered) - place)) for place, key in enumerate(ordered))


def _has_groups(run: Run, answer: SearchAnswer) -> bool:
    return bool(run.plan.request.sort.leading and answer.hits)


def _groups(run: Run, answer: SearchAnswer, hits: Mapping[DocKey, Hit]) -> Mapping[DocKey, int]:
    """Return for each document the place of its group among those that begin in the window; others are left out."""
    values = {key: hit.sort_values(run.plan.request.sort.leading) for key, hit in hits.items()}
    window = dict.fromkeys([values[hit.key] for hit in answer.hits[: run.plan.window]])
    begun = {group: place for place, group in enumerate(window)}
    return {key: begun[group] for key, group in values.items() if group in begun}


def _by_group(
    run: Run, documents: Sequence[DocKey], answer: SearchAnswer, groups: Mapping[DocKey, int]
) -> list[DocKey]:
    """Sort documents by their groups, and after those of each group the window's other hits.

    The first ones, as many as the window has, are the head, whatever the order within the groups will be.
    """
    there = dict.fromkeys((*documents, *[hit.key for hit in answer.hits[: run.plan.window]]))
    return sorted(filter(groups.__contains__, there), key=groups.__getitem__)


class _Aggregation(msgspec.Struct):
    doc_count: int


_aggregation = msgspec.json.Decoder(_Aggregation)


def _results(answer: SearchAnswer, name: str) -> tuple[int, RawMembers]:
    """Split the results into the count of the aggregation with this name, and the client's own aggregations."""
    try:
        results = members_of(answer.members["aggregations"])
        counted = results.pop(name if name in results else f"filter#{name}")  # the latter with `typed_keys`
        return _aggregation.decode(counted).doc_count, results
    except (ValueError, KeyError, RecursionError) as error:
        raise Malformed("engine", "no count beside the rendered hits") from error
