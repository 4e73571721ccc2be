"""The bodies of all engine searches that one search of a client needs; nothing is sent here.

The client's own query and kNN are separate searches, because a `knn` section would change the scores, total and inner
hits of the query. The client's own body returns the lexical ranking and everything of the response except the hits; the
kNN search returns the semantic ranking; documents found by kNN only are then rendered with the client's own query.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from proxy.catalog.dialects import KnnSearch
from proxy.parsing.decoding import Parameters
from proxy.parsing.json_text import with_members_set
from proxy.parsing.relaxing import bare
from proxy.parsing.search_keys import Use
from proxy.ranking.hits import DocKey, RankedDocument
from proxy.ranking.planning import EngineSearch, Plan, VectorSearch

_SHOWN = (Use.LEXICAL, Use.FACETS, Use.ORDER, Use.SORTED, Use.PER_HIT, Use.EVERYWHERE)
_RENDERED = (Use.SORTED, Use.PER_HIT, Use.EVERYWHERE)
_COUNTED = (*_RENDERED, Use.FACETS)
_ORDERED = (Use.ORDER, Use.SORTED, Use.EVERYWHERE)


def lexical_search(plan: Plan) -> EngineSearch:
    """The client's own search, from the first hit on, and widened to the window."""
    return _own_search(plan, {"from": 0, "size": plan.reach})


def tail_search(plan: Plan, head: Sequence[RankedDocument]) -> EngineSearch:
    """The client's own search for a page after the head, without the head's documents, and with a smaller `from`."""
    start = 0 if plan.request.walk else plan.request.from_ - len(head)
    changes: dict[str, Any] = {"from": start, "size": plan.request.size}
    return _own_search(plan, changes | (_post_filter(plan, must_not=these_places(plan, head)) if head else {}))


def group_search(plan: Plan, groups: Sequence[bytes | None]) -> EngineSearch:
    """The client's own search for some groups only: returns their representatives as the client would see them."""
    changes: dict[str, Any] = {"from": 0, "size": len(groups), "track_total_hits": False}
    request = plan.request
    uses = (Use.PER_HIT, *_ORDERED)
    body = request.body(*uses) | plan.source.member() | _collapse(plan) | {"query": request.query}
    body |= changes | _post_filter(plan, filters=[_these_groups(request.collapse or "", groups)])
    return EngineSearch(plan.indices, _own_url(plan, *uses), msgspec.json.encode(body))


def _own_search(plan: Plan, changes: Mapping[str, Any]) -> EngineSearch:
    """The client's own body with some members changed; the rest keeps its bytes, so that positions in warnings fit."""
    body = with_members_set(plan.request.content, {**plan.source.member(), **changes})
    return EngineSearch(plan.indices, _url(plan, *_SHOWN), body)


def _url(plan: Plan, *uses: Use) -> Parameters:
    source = plan.source.parameters() if Use.PER_HIT in uses else ()
    return (*plan.request.url(*uses), *source)


def _own_url(plan: Plan, *uses: Use) -> Parameters:
    return (*_url(plan, *uses), *plan.own_parameters)


def _post_filter(plan: Plan, *, filters: Sequence[Any] = (), must_not: Sequence[Any] = ()) -> dict[str, Any]:
    own = plan.request.members.get("post_filter")
    required = [*([] if own is None else [own]), *filters]
    if not must_not and not filters:
        return {} if own is None else {"post_filter": own}
    clauses = {"filter": required, "must_not": must_not}
    return {"post_filter": {"bool": {name: found for name, found in clauses.items() if found}}}


def _collapse(plan: Plan) -> dict[str, Any]:
    return {name: plan.request.members[name] for name in ("collapse",) if name in plan.request.members}


def head_search(plan: Plan) -> EngineSearch:
    """The lexical ranking's window as keys only, and the total, for a page far after the head."""
    request = plan.request
    body = request.body(*_ORDERED) | {"query": request.query, "size": plan.window, "_source": False}
    body |= {"track_total_hits": request.track_total_hits} | _grouped(plan) | _post_filter(plan)
    return EngineSearch(plan.indices, _own_url(plan, *_ORDERED), msgspec.json.encode(body))


def _grouped(plan: Plan) -> dict[str, Any]:
    """Return the client's `collapse` without its inner hits."""
    return {"collapse": {"field": plan.request.collapse}} if plan.request.collapse else {}


def semantic_search(plan: Plan, vectors: VectorSearch, field: str, vector: Sequence[float]) -> EngineSearch:
    """A kNN search of one field, filtered by everything in the client's query except the query text.

    If kNN may not add documents, the query text is required, too.
    """
    size = plan.window
    candidates = max(vectors.num_candidates, size)
    filters = _filters(plan) if plan.adds else _demanded(bare(plan.request.query), bare(plan.request.post_filter))
    if plan.alias_filter is not None and not vectors.dialect.filters_aliases:
        filters.append(plan.alias_filter)
    body: dict[str, Any] = plan.request.body(Use.EVERYWHERE) | _grouped(plan)
    body |= vectors.dialect.knn(
        KnnSearch(
            field,
            vector,
            size,
            candidates,
            filters,
            oversample=vectors.oversample,
            path=vectors.fields[field],
            similarity=vectors.similarity,
            indices=vectors.only.get(field, ()),
        )
    )
    body |= {"size": size, "_source": list(plan.read_fields) if plan.route.rerank_model else False}
    body |= {"timeout": f"{int(vectors.timeout_seconds * 1000)}ms"}
    return EngineSearch(plan.indices, _own_url(plan, Use.EVERYWHERE), msgspec.json.encode(body))


def passage_search(plan: Plan, keys: Sequence[DocKey]) -> EngineSearch:
    """Fetches the texts of documents whose hits do not include them."""
    body: dict[str, Any] = plan.request.body(Use.EVERYWHERE)
    body |= {"query": {"bool": {"filter": [these_documents(keys)]}}, "size": len(keys)}
    body |= {"_source": list(plan.read_fields), "track_total_hits": False}
    return EngineSearch(plan.indices, _own_url(plan, Use.EVERYWHERE), msgspec.json.encode(body))


def boost_search(plan: Plan, keys: Sequence[DocKey], words: float) -> EngineSearch:
    """Scores documents by the client's query with its query text replaced by a constant score."""
    boosts, request = plan.user_query.boosts, plan.request
    query = bare(boosts.with_constant(words)) if boosts else {"match_all": {"boost": words}}
    body: dict[str, Any] = request.body(Use.EVERYWHERE)
    body |= {name: request.members[name] for name in ("indices_boost",) if name in request.members}
    body |= {"query": {"bool": {"filter": [these_documents(keys)], "should": [query]}}, "size": len(keys)}
    body |= {"_source": False, "track_total_hits": False}
    if boosts and boosts.rescores:
        body["rescore"] = bare(boosts.rescored(words, len(keys)))
    uses = (Use.ORDER, Use.EVERYWHERE)
    return EngineSearch(plan.indices, _own_url(plan, *uses), msgspec.json.encode(body))


Facets = Mapping[str, msgspec.Raw]
"""Aggregations by name: of a request, or their results."""


def matched(facets: Facets) -> str:
    """Return the name of the aggregation that counts the matches of the client's query: one that is not taken."""
    names = ("matched" + "_" * length for length in itertools.count())
    return next(name for name in names if name not in facets)


def render_search(plan: Plan, keys: Sequence[DocKey], facets: Facets) -> EngineSearch:
    """Renders documents with the client's own query, and counts how many of them match it.

    The query is in `should`, so that score, highlight, named queries and inner hits are the same as for the client. The
    filters are repeated, because a document may have changed in between; they are a `post_filter`, because that is
    never highlighted, and the client's own `post_filter` is part of it with its inner hits.

    With `facets`, the same search returns these aggregations over the documents and the client's own matches. If kNN
    may not add documents, those that do not match are not returned.
    """
    request, these = plan.request, these_documents(keys)
    counted, filters = [bare(request.query), *_filters(plan)], _demanded(plan.user_query.relaxed, request.post_filter)
    query: Any = {"bool": {"filter": [these], "should" if plan.adds else "must": [request.query]}}
    uses: tuple[Use, ...] = _RENDERED
    if facets:
        counted, filters, query, uses = [these, *counted], [these, *filters], _widened(plan, these), _COUNTED
    body: dict[str, Any] = request.body(*uses) | plan.source.member() | _collapse(plan)
    body |= {"query": query, "size": len(keys), "track_total_hits": False}
    body |= _highlight(plan) if facets else {}
    body |= {"aggs": {**facets, matched(facets): {"filter": {"bool": {"filter": counted}}}}}
    body |= {"post_filter": {"bool": {"filter": filters}}} if filters else {}
    return EngineSearch(plan.indices, _own_url(plan, *uses), msgspec.json.encode(body))


def facet_search(plan: Plan, keys: Sequence[DocKey], facets: Facets) -> EngineSearch:
    """Returns the aggregations and the total over these documents and the client's own matches, without hits."""
    request, uses = plan.request, (Use.FACETS, Use.EVERYWHERE)
    body: dict[str, Any] = request.body(*uses) | {"query": _widened(plan, these_documents(keys)), "size": 0}
    body |= {"aggs": facets, "track_total_hits": request.track_total_hits} | _post_filter(plan)
    return EngineSearch(plan.indices, _own_url(plan, *uses), msgspec.json.encode(body))


def _highlight(plan: Plan) -> dict[str, Any]:
    """Return the client's `highlight`, of the client's own query: the filters beside it would be highlighted, too."""
    highlight = msgspec.json.decode(plan.request.members.get("highlight", b"null"))
    own = bare(plan.request.query)
    return {"highlight": {"highlight_query": own, **highlight}} if isinstance(highlight, dict) else {}


def _widened(plan: Plan, these: Any) -> Any:
    """Return the client's own query, with its scores, or these documents, with a score of 0.

    The filters are repeated, because a document may have changed in between. Filters alone score 0, without a `boost`.
    """
    added = {"bool": {"filter": [these, *_demanded(plan.user_query.relaxed)]}}
    return {"bool": {"should": [plan.request.query, added], "minimum_should_match": 1}}


def _filters(plan: Plan) -> list[Any]:
    return _demanded(plan.user_query.relaxed, bare(plan.request.post_filter))


def _demanded(*queries: Any) -> list[Any]:
    return [query for query in queries if query not in (None, {"match_all": {}})]


def these_documents(keys: Sequence[DocKey]) -> Any:
    """Return a query for these documents, whatever their order; an id is unique only with its index and routing."""
    by_place: dict[tuple[str, str], list[str]] = {}
    for key in sorted(keys):
        by_place.setdefault((key.index, key.routing), []).append(key.id)
    clauses = [_in_place(index, routing, ids) for (index, routing), ids in by_place.items()]
    return clauses[0] if len(clauses) == 1 else {"bool": {"should": clauses, "minimum_should_match": 1}}


def _in_place(index: str, routing: str, ids: Sequence[str]) -> Any:
    these = [{"term": {"_index": index}}, {"ids": {"values": ids}}]
    if routing:
        return {"bool": {"filter": [*these, {"term": {"_routing": routing}}]}}
    return {"bool": {"filter": these, "must_not": [{"exists": {"field": "_routing"}}]}}


def these_places(plan: Plan, places: Sequence[RankedDocument]) -> list[Any]:
    """Return queries for these documents, or for their groups if hits are collapsed."""
    if not places:
        return []
    if plan.request.collapse is None:
        return [these_documents([place.key for place in places])]
    return [_these_groups(plan.request.collapse, [place.group for place in places])]


def _these_groups(field: str, groups: Sequence[bytes | None]) -> Any:
    """Return a query for these groups; the documents without a value are a group as well."""
    values = [msgspec.Raw(group) for group in groups if group is not None]
    clauses: list[Any] = [{"terms": {field: values}}] if values else []
    if None in groups:
        clauses.append({"bool": {"must_not": [{"exists": {"field": field}}]}})
    return {"bool": {"should": clauses, "minimum_should_match": 1}}
