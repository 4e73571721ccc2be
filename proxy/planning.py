"""What is asked of the engine for one search of a client, body by body; nothing is sent here.

Two searches, never one: a `knn` beside the client's own query would change its scores, total and inner hits.
The client's own body gives the lexical ranking and all of the answer that is not hits; a kNN search alone gives
the semantic one; what only kNN found is then rendered as the client's own query would render it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET

from proxy.config import Semantic
from proxy.dialects import elasticsearch_knn
from proxy.errors import Failure
from proxy.hits import DocKey
from proxy.indices import IndexFacts, Resolved, VectorField, route_of
from proxy.query_text import UserQuery, without_inner_hits
from proxy.routes import Route
from proxy.search_request import Parameters, SearchRequest, Use

MIN_SIMILARITY = 0.35
"""Cosine below which a document that only kNN found is taken for noise, where the route does not say.

Measured with the local model on icecat and on the demo's catalogue, at 0.3, 0.35, 0.4: of 60 nonsense queries each,
43, 23, 11 and 11, 6, 0 find something; nDCG@10 is 0.686, 0.693, 0.694 and 0.636, 0.631, 0.627.
"""
NUM_CANDIDATES = 100

_SHOWN = (Use.LEXICAL, Use.PER_HIT, Use.EVERYWHERE)
_RENDERED = (Use.PER_HIT, Use.EVERYWHERE)


@dataclass(frozen=True, slots=True)
class EngineSearch:
    """One search as it goes to the engine."""

    indices: str
    """The path segment as the client sent it, so that aliases keep their filters and routing."""
    parameters: Parameters
    body: bytes


@dataclass(frozen=True, slots=True)
class EngineReply:
    """An engine's answer, de-compressed."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def compressed(self) -> bool:
        """Whether it came gzipped, and so is to be handed on."""
        return any(name.lower() == b"content-encoding" and value == b"gzip" for name, value in self.fields)


@dataclass(frozen=True, slots=True)
class VectorSearch:
    """How to search the vectors of this search's indices."""

    field: str
    model: str
    dimensions: int
    similarity: str
    min_similarity: float
    num_candidates: int


def vector_search(route: Route, semantic: Semantic, facts: IndexFacts | None) -> VectorSearch | Failure:
    """Say how the vectors of these indices are searched, or why they cannot be.

    Another model's vectors of the same length fit the same field and give random neighbours without an error, so
    vectors are only searched when it is known which model made them.
    """
    if facts is None:
        return Failure("semantic", "mapping_unreadable")
    fields = facts.vectors.get(semantic.field, ())
    if not fields:
        return Failure("semantic", "no_vector_field", semantic.field)
    if len(set(fields)) > 1:
        return Failure("semantic", "mixed_vectors", semantic.field)
    if problem := _problem(route, semantic, fields[0]):
        return problem
    return VectorSearch(
        field=semantic.field,
        model=fields[0].model or route.embedding_model,
        dimensions=semantic.dimensions,
        similarity=fields[0].similarity,
        min_similarity=MIN_SIMILARITY if semantic.min_similarity is UNSET else semantic.min_similarity,
        num_candidates=NUM_CANDIDATES if semantic.num_candidates is UNSET else semantic.num_candidates,
    )


def _problem(route: Route, semantic: Semantic, field: VectorField) -> Failure | None:
    if field.kind != "dense_vector":
        return Failure("semantic", "unknown_vector_type", field.kind)
    if field.dimensions != semantic.dimensions:
        return Failure("semantic", "other_dimensions", f"{field.dimensions}")
    if field.model is None and not route.embedding_model_named:
        return Failure("semantic", "unknown_model")
    if field.model is not None and route.embedding_model_named and field.model != route.embedding_model:
        return Failure("semantic", "other_model", field.model)
    return None


@dataclass(frozen=True, slots=True)
class Plan:
    """A search that will be reranked: what the client asked, of which route, and how."""

    indices: str
    request: SearchRequest
    route: Route
    user_query: UserQuery
    vectors: VectorSearch | None
    """None where the route has no semantic retriever, or this search cannot use it."""
    unavailable: Failure | None
    """Why this search cannot use its route's semantic retriever."""
    window: int
    """Hits taken from each retriever, and candidates reranked."""
    covered: frozenset[str]
    """The indices known to lie inside the route."""

    def covers(self, index: str) -> bool:
        """Whether a hit's index lies inside the route; one that came to be after they were listed may, too."""
        return index in self.covered or route_of((self.route,), Resolved(index)) is not None

    @property
    def in_head(self) -> bool:
        """Whether the page begins among the candidates."""
        return self.request.from_ < self.window


def lexical_search(plan: Plan) -> EngineSearch:
    """The client's own search, from the first hit on and filling the window."""
    return _own_search(plan, {"from": 0, "size": max(plan.window, plan.request.end)} | _post_filter(plan, ()))


def tail_search(plan: Plan, head: Sequence[DocKey]) -> EngineSearch:
    """The client's own search for a page behind the head: without the head's documents, and so much nearer."""
    start = plan.request.from_ - len(head)
    return _own_search(plan, {"from": start, "size": plan.request.size} | _post_filter(plan, head))


def _own_search(plan: Plan, changes: dict[str, Any]) -> EngineSearch:
    request = plan.request
    body: dict[str, Any] = request.body(*_SHOWN) | _source(plan)
    if "query" in request.members:
        body["query"] = request.members["query"]
    return EngineSearch(plan.indices, request.url(*_SHOWN), msgspec.json.encode(body | changes))


def _post_filter(plan: Plan, without: Sequence[DocKey]) -> dict[str, Any]:
    own = plan.request.members.get("post_filter")
    if not without:
        return {} if own is None else {"post_filter": own}
    excluded: dict[str, Any] = {"must_not": [these_documents(without)]}
    return {"post_filter": {"bool": excluded | ({} if own is None else {"filter": [own]})}}


def _source(plan: Plan) -> dict[str, Any]:
    """What is shown of `_source`: as the client said, without this proxy's own fields."""
    said = plan.request.source
    shown = said.without(own_fields(plan.route.semantic.field)) if plan.route.semantic else said
    return {} if shown.render() is True else {"_source": shown.render()}


def own_fields(field: str) -> tuple[str, str]:
    """Name the fields this proxy keeps in an index: the vector, and the hash of what it was made of."""
    return field, f"{field}_hash"


def head_search(plan: Plan) -> EngineSearch:
    """The keys alone of the lexical ranking's window: what a page far behind needs of it."""
    request = plan.request
    body = request.body(Use.EVERYWHERE) | {"query": request.query, "size": plan.window, "_source": False}
    if "indices_boost" in request.members:
        body["indices_boost"] = request.members["indices_boost"]
    body |= {"track_total_hits": False} | _post_filter(plan, ())
    return EngineSearch(plan.indices, request.url(Use.EVERYWHERE), msgspec.json.encode(body))


def semantic_search(plan: Plan, vectors: VectorSearch, vector: Sequence[float], timeout_ms: int) -> EngineSearch:
    """A kNN search under everything in the client's query that excludes documents, but for the user's words."""
    size = plan.window
    candidates = max(vectors.num_candidates, size)
    body: dict[str, Any] = plan.request.body(Use.EVERYWHERE)
    body |= elasticsearch_knn(vectors.field, vector, size, candidates, _filters(plan))
    body |= {"size": size, "_source": list(plan.route.passage) if plan.route.rerank_model else False}
    body |= {"timeout": f"{timeout_ms}ms"}
    return EngineSearch(plan.indices, plan.request.url(Use.EVERYWHERE), msgspec.json.encode(body))


def passage_search(plan: Plan, keys: Sequence[DocKey]) -> EngineSearch:
    """The texts of documents whose hits do not show them."""
    body: dict[str, Any] = plan.request.body(Use.EVERYWHERE)
    body |= {"query": {"bool": {"filter": [these_documents(keys)]}}, "size": len(keys)}
    body |= {"_source": list(plan.route.passage), "track_total_hits": False}
    return EngineSearch(plan.indices, plan.request.url(Use.EVERYWHERE), msgspec.json.encode(body))


MATCHED = "matched"


def render_search(plan: Plan, keys: Sequence[DocKey]) -> EngineSearch:
    """Documents as the client's own query would show them, and how many of them it matches itself.

    The query stands under `should`: score, highlight, named queries and inner hits come out as they would for
    the client. The filters stand again since a document may have changed since it was found, and as a
    `post_filter` since that alone is never highlighted; the client's own is there with its inner hits.
    """
    request = plan.request
    matched = {"bool": {"filter": [without_inner_hits(request.query), *_filters(plan)]}}
    filters = _demanded(plan.user_query.relaxed, request.post_filter)
    body: dict[str, Any] = request.body(*_RENDERED) | _source(plan)
    body |= {"query": {"bool": {"filter": [these_documents(keys)], "should": [request.query]}}, "size": len(keys)}
    body |= {"aggs": {MATCHED: {"filter": matched}}, "track_total_hits": False}
    body |= {"post_filter": {"bool": {"filter": filters}}} if filters else {}
    return EngineSearch(plan.indices, request.url(*_RENDERED), msgspec.json.encode(body))


def _filters(plan: Plan) -> list[Any]:
    return _demanded(plan.user_query.relaxed, without_inner_hits(plan.request.post_filter))


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
