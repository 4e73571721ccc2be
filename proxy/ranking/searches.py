"""What is asked of the engine for one search of a client, body by body; nothing is sent here.

Two searches, never one: a `knn` beside the client's own query would change its scores, total and inner hits.
The client's own body gives the lexical ranking and all of the answer that is not hits; a kNN search alone gives
the semantic one; what only kNN found is then rendered as the client's own query would render it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from proxy.catalog.dialects import KnnSearch
from proxy.parsing.json_text import with_members_set
from proxy.parsing.query_text import bare
from proxy.parsing.search_keys import Use
from proxy.parsing.search_request import Parameters
from proxy.parsing.source_filter import SourceFilter
from proxy.ranking.hits import DocKey, RankedDocument
from proxy.ranking.planning import EngineSearch, Plan, VectorSearch

_SHOWN = (Use.LEXICAL, Use.ORDER, Use.SORTED, Use.PER_HIT, Use.EVERYWHERE)
_RENDERED = (Use.SORTED, Use.PER_HIT, Use.EVERYWHERE)
_ORDERED = (Use.ORDER, Use.SORTED, Use.EVERYWHERE)


def lexical_search(plan: Plan) -> EngineSearch:
    """The client's own search, from the first hit on and filling the window."""
    return _own_search(plan, {"from": 0, "size": plan.reach})


def tail_search(plan: Plan, head: Sequence[RankedDocument]) -> EngineSearch:
    """The client's own search for a page behind the head: without the head's documents, and so much nearer."""
    start = 0 if plan.request.walk else plan.request.from_ - len(head)
    changes: dict[str, Any] = {"from": start, "size": plan.request.size}
    return _own_search(plan, changes | (_post_filter(plan, must_not=these_places(plan, head)) if head else {}))


def group_search(plan: Plan, groups: Sequence[bytes | None]) -> EngineSearch:
    """The client's own search for some groups alone: their representatives, as the client would see them."""
    changes: dict[str, Any] = {"from": 0, "size": len(groups), "track_total_hits": False}
    request = plan.request
    uses = (Use.PER_HIT, *_ORDERED)
    body = request.body(*uses) | _source(plan).member() | _collapse(plan) | {"query": request.query}
    body |= changes | _post_filter(plan, filters=[_these_groups(request.collapse or "", groups)])
    return EngineSearch(plan.indices, _own_url(plan, *uses), msgspec.json.encode(body))


def _own_search(plan: Plan, changes: Mapping[str, Any]) -> EngineSearch:
    """The client's own text but for what is changed: the engine's warnings say where in it something stands."""
    body = with_members_set(plan.request.content, {**_source(plan).member(), **changes})
    return EngineSearch(plan.indices, _url(plan, *_SHOWN), body)


def _url(plan: Plan, *uses: Use) -> Parameters:
    source = _source(plan).parameters() if Use.PER_HIT in uses else ()
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


def _source(plan: Plan) -> SourceFilter:
    """What is shown of `_source`: as the client said, without this proxy's own fields."""
    said, semantic = plan.request.source, plan.route.semantic
    return said.without(own_fields(semantic.fields)) if semantic else said


def own_fields(fields: Sequence[str]) -> tuple[str, ...]:
    """Name the fields this proxy keeps in an index: each vector, and the hash of what it was made of."""
    return tuple(name for field in fields for name in (field, f"{field}_hash"))


def head_search(plan: Plan) -> EngineSearch:
    """The keys alone of the lexical ranking's window, and the total: what a page far behind needs of it."""
    request = plan.request
    body = request.body(*_ORDERED) | {"query": request.query, "size": plan.window, "_source": False}
    body |= {"track_total_hits": request.track_total_hits} | _grouped(plan) | _post_filter(plan)
    return EngineSearch(plan.indices, _own_url(plan, *_ORDERED), msgspec.json.encode(body))


def _grouped(plan: Plan) -> dict[str, Any]:
    """The client's groups, without what it wants to see of their other documents."""
    return {"collapse": {"field": plan.request.collapse}} if plan.request.collapse else {}


def semantic_search(plan: Plan, vectors: VectorSearch, field: str, vector: Sequence[float]) -> EngineSearch:
    """A kNN search of one field, under everything in the client's query that excludes documents, the words apart."""
    size = plan.window
    candidates = max(vectors.num_candidates, size)
    filters = _filters(plan)
    if plan.alias_filter is not None and not vectors.dialect.filters_aliases:
        filters.append(plan.alias_filter)
    body: dict[str, Any] = plan.request.body(Use.EVERYWHERE) | _grouped(plan)
    path = vectors.fields[field]
    body |= vectors.dialect.knn(
        KnnSearch(field, vector, size, candidates, filters, vectors.oversample, path, vectors.similarity)
    )
    body |= {"size": size, "_source": list(plan.read_fields) if plan.route.rerank_model else False}
    body |= {"timeout": f"{int(vectors.timeout_seconds * 1000)}ms"}
    return EngineSearch(plan.indices, _own_url(plan, Use.EVERYWHERE), msgspec.json.encode(body))


def passage_search(plan: Plan, keys: Sequence[DocKey]) -> EngineSearch:
    """The texts of documents whose hits do not show them."""
    body: dict[str, Any] = plan.request.body(Use.EVERYWHERE)
    body |= {"query": {"bool": {"filter": [these_documents(keys)]}}, "size": len(keys)}
    body |= {"_source": list(plan.read_fields), "track_total_hits": False}
    return EngineSearch(plan.indices, _own_url(plan, Use.EVERYWHERE), msgspec.json.encode(body))


def boost_search(plan: Plan, keys: Sequence[DocKey], words: float) -> EngineSearch:
    """What the client's query says of documents beyond its words, which count as this score for each."""
    boosts, request = plan.user_query.boosts, plan.request
    query = bare(boosts.with_constant(words)) if boosts else {"match_all": {"boost": words}}
    body: dict[str, Any] = request.body(Use.EVERYWHERE)
    body |= {name: request.members[name] for name in ("indices_boost",) if name in request.members}
    body |= {"query": {"bool": {"filter": [these_documents(keys)], "should": [query]}}, "size": len(keys)}
    body |= {"_source": False, "track_total_hits": False}
    uses = (Use.ORDER, Use.EVERYWHERE)
    return EngineSearch(plan.indices, _own_url(plan, *uses), msgspec.json.encode(body))


MATCHED = "matched"


def render_search(plan: Plan, keys: Sequence[DocKey]) -> EngineSearch:
    """Documents as the client's own query would show them, and how many of them it matches itself.

    The query stands under `should`: score, highlight, named queries and inner hits come out as they would for
    the client. The filters stand again since a document may have changed since it was found, and as a
    `post_filter` since that alone is never highlighted; the client's own is there with its inner hits.
    """
    request = plan.request
    matched = {"bool": {"filter": [bare(request.query), *_filters(plan)]}}
    filters = _demanded(plan.user_query.relaxed, request.post_filter)
    body: dict[str, Any] = request.body(*_RENDERED) | _source(plan).member() | _collapse(plan)
    body |= {"query": {"bool": {"filter": [these_documents(keys)], "should": [request.query]}}, "size": len(keys)}
    body |= {"aggs": {MATCHED: {"filter": matched}}, "track_total_hits": False}
    body |= {"post_filter": {"bool": {"filter": filters}}} if filters else {}
    return EngineSearch(plan.indices, _own_url(plan, *_RENDERED), msgspec.json.encode(body))


def _filters(plan: Plan) -> list[Any]:
    return _demanded(plan.user_query.relaxed, bare(plan.request.post_filter))


def _demanded(*queries: Any) -> list[Any]:
    return [query for query in queries if query not in (None, {"match_all": {}})]


def these_documents(keys: Sequence[DocKey]) -> Any:
    """Spell documents as a query: an id says which one only with its index and its routing."""
    by_place: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        by_place.setdefault((key.index, key.routing), []).append(key.id)
    clauses = [_in_place(index, routing, ids) for (index, routing), ids in by_place.items()]
    return clauses[0] if len(clauses) == 1 else {"bool": {"should": clauses, "minimum_should_match": 1}}


def _in_place(index: str, routing: str, ids: Sequence[str]) -> Any:
    these = [{"term": {"_index": index}}, {"ids": {"values": ids}}]
    if routing:
        return {"bool": {"filter": [*these, {"term": {"_routing": routing}}]}}
    return {"bool": {"filter": these, "must_not": [{"exists": {"field": "_routing"}}]}}


def these_places(plan: Plan, places: Sequence[RankedDocument]) -> list[Any]:
    """Spell what stands on these places as a query: documents, or whole groups where hits are grouped."""
    if not places:
        return []
    if plan.request.collapse is None:
        return [these_documents([place.key for place in places])]
    return [_these_groups(plan.request.collapse, [place.group for place in places])]


def _these_groups(field: str, groups: Sequence[bytes | None]) -> Any:
    """Spell groups as a query; documents without a value are a group, too."""
    values = [msgspec.Raw(group) for group in groups if group is not None]
    clauses: list[Any] = [{"terms": {field: values}}] if values else []
    if None in groups:
        clauses.append({"bool": {"must_not": [{"exists": {"field": field}}]}})
    return {"bool": {"should": clauses, "minimum_should_match": 1}}
