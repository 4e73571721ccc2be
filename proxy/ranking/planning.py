"""The plan of one search: its candidates, models, vectors and limits; nothing is sent here."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import UNSET

from proxy.catalog.dialects import Dialect, Version, dialect_of
from proxy.catalog.indices import IndexFacts, Resolved, VectorField, route_of
from proxy.context import NO_REUSE, Reuse
from proxy.errors import Failure, UpstreamError
from proxy.parsing.decoding import Parameters
from proxy.parsing.query_text import UserQuery
from proxy.parsing.search_request import SearchRequest
from proxy.parsing.source_filter import SourceFilter
from proxy.settings.config import Semantic
from proxy.settings.routes import Route

MIN_SIMILARITY = 0.35
"""Minimum cosine of a document found by kNN only, unless the route sets one.

Measured with the local model on icecat and on the demo's catalogue, at 0.3, 0.35, 0.4: of 60 nonsense queries each, 43,
23, 11 and 11, 6, 0 find something; nDCG@10 is 0.686, 0.693, 0.694 and 0.636, 0.631, 0.627.
"""
NUM_CANDIDATES = 100


def shown_source(source: SourceFilter, semantic: Semantic | None) -> SourceFilter:
    """Exclude the fields that the proxy adds to an index from `_source`."""
    return source.without(semantic.added_fields) if semantic else source


@dataclass(frozen=True, slots=True)
class EngineSearch:
    """A search request to the engine."""

    indices: str
    """The path segment as sent by the client, so that aliases keep their filters and routing."""
    parameters: Parameters
    body: bytes


@dataclass(frozen=True, slots=True)
class EngineReply:
    """A response of the engine, decompressed."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def compressed(self) -> bool:
        """Whether the engine compressed it with gzip, so that the response to the client is compressed, too."""
        return any(name.lower() == b"content-encoding" and value == b"gzip" for name, value in self.fields)


@dataclass(frozen=True, slots=True)
class Relevance:
    """The scores of the passages, in their order; fewer than passages after an error or at the deadline."""

    scores: tuple[float, ...]
    model: str | None = None
    """The model that scored, if the response names one."""
    error: UpstreamError | None = None
    """Why some passages have no score."""
    reuse: Reuse = NO_REUSE


@dataclass(frozen=True, slots=True)
class QueryVector:
    """The query vector, of unit length; empty after an error."""

    vector: tuple[float, ...] = ()
    error: UpstreamError | None = None


@dataclass(frozen=True, slots=True)
class VectorSearch:
    """How to run the kNN search on the indices of this search."""

    dialect: Dialect
    fields: Mapping[str, str | None]
    """The vector fields, each with the path of the nested documents that contain it, if any.

    All have the same type and model, such as vectors of title and text; a document's score is that of its nearest
    vector.
    """
    model: str
    dimensions: int
    similarity: str
    min_similarity: float
    num_candidates: int
    timeout_seconds: float
    oversample: float | None = None
    having: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The indices that have each field; empty if only the types of the fields are known."""
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The indices to which the search of a field is restricted, if others have no such vectors."""
    partly: Failure | None = None
    """Why some indices are not searched, if that is a fault: they have other vectors."""

    def unseen(self, indices: AbstractSet[str]) -> frozenset[str]:
        """Return those of the indices that kNN does not search, or whose vectors are not known: they joined since."""
        return frozenset(indices).difference(*self.having.values()) if self.having else frozenset()

    def is_near(self, score: float) -> bool:
        """Whether a document found by kNN only exceeds the minimum similarity: kNN always returns k documents."""
        cosine = self.dialect.cosine_of(score, self.similarity)
        return cosine is not None and cosine >= self.min_similarity


def vector_search(
    route: Route,
    semantic: Semantic,
    facts: IndexFacts | None,
    version: Version | None = None,
    reached: AbstractSet[str] = frozenset(),
) -> VectorSearch | Failure:
    """Return how the vectors of these indices are searched, or why kNN is skipped.

    Vectors of another model with the same dimensions fit into the same field, and return random neighbours without an
    error; so kNN requires that the model of the vectors is known. It skips indices without vectors, and those with
    other vectors if the rest fit the route and each other. `reached`: the indices of the search, of which the facts may
    have more; without them, all are searched.
    """
    if facts is None:
        return Failure("semantic", "mapping_unreadable")
    names, told_apart = semantic.fields, bool(facts.indices and reached)
    found = _found(route, names, facts, reached)
    if missing := [name for name in names if all(name != other for other, _ in found)]:
        return Failure("semantic", "no_vector_field", missing[0])
    partly = None
    if _are_mixed(found):
        partly = Failure("semantic", "mixed_vectors", ", ".join(names))
        found = [each for each in found if not isinstance(_fit(route, semantic, each[1], version), Failure)]
        if not told_apart or {name for name, _ in found} < set(names) or _are_mixed(found):
            return partly
    form = found[0][1]
    dialect = _fit(route, semantic, form, version)
    if isinstance(dialect, Failure):
        return dialect
    having = _having(found) if told_apart else {}
    paths = {name: each.path for name, each in found}
    return VectorSearch(
        dialect=dialect,
        fields={name: paths[name] for name in names},
        model=form.model or route.embedding_model,
        dimensions=semantic.dimensions,
        similarity=form.similarity or semantic.similarity or dialect.default_similarity,
        min_similarity=MIN_SIMILARITY if semantic.min_similarity is UNSET else semantic.min_similarity,
        num_candidates=NUM_CANDIDATES if semantic.num_candidates is UNSET else semantic.num_candidates,
        timeout_seconds=semantic.timeout_seconds,
        oversample=semantic.oversample,
        having=having,
        only={name: tuple(sorted(indices)) for name, indices in having.items() if not reached <= indices},
        partly=partly,
    )


_Form = tuple[str, VectorField]
"""A vector field of one index, with its path."""


def _found(route: Route, names: Sequence[str], facts: IndexFacts, reached: AbstractSet[str]) -> Sequence[_Form]:
    """Return the vector fields of the indices of a search; of all indices, if those of a field are not known."""
    return [
        (name, _with_model_of_route(form, route))
        for name in names
        for form in facts.vectors.get(name, ())
        if not (reached and form.index) or form.index in reached
    ]


def _are_mixed(found: Sequence[_Form]) -> bool:
    """Whether one query vector and one threshold cannot serve all of these fields, or a field is nested in some."""
    distinct = set(found)
    by_type = {replace(form, path=None) for _, form in distinct}
    return len(distinct) > len({name for name, _ in distinct}) or len(by_type) > 1


def _having(found: Sequence[_Form]) -> Mapping[str, frozenset[str]]:
    having: dict[str, set[str]] = {}
    for name, form in found:
        having.setdefault(name, set()).add(form.index)
    return {name: frozenset(indices) for name, indices in having.items()}


def _with_model_of_route(field: VectorField, route: Route) -> VectorField:
    """Use the embedding model named by the route if the index does not name one."""
    return replace(field, model=route.embedding_model) if field.model is None and route.embedding_model_named else field


def _fit(route: Route, semantic: Semantic, form: VectorField, version: Version | None) -> Dialect | Failure:
    """Return the kNN syntax for vectors that fit the route, or why they do not fit."""
    dialect = dialect_of(form.kind, version)
    if dialect is None:
        return Failure("semantic", "unknown_vector_type", form.kind)
    if form.dimensions not in {None, semantic.dimensions}:
        return Failure("semantic", "other_dimensions", f"{form.dimensions}")
    if form.model is None and not route.embedding_model_named:
        if form.dimensions is None:
            return Failure("semantic", "mapping_unreadable")
        return Failure("semantic", "unknown_model")
    if form.model is not None and route.embedding_model_named and form.model != route.embedding_model:
        return Failure("semantic", "other_model", form.model)
    return dialect


@dataclass(frozen=True, slots=True)
class Plan:
    """A search that will be reranked: the client's request, its route, and the parameters of each stage."""

    indices: str
    request: SearchRequest
    source: SourceFilter
    """The client's `_source` filter, which also excludes the vector fields: see `shown_source`."""
    route: Route
    user_query: UserQuery
    instruction: str
    sent_text: str
    """The query text as it is sent to the models."""
    vectors: VectorSearch | None
    """None if the route has no semantic retriever, or this search cannot use it."""
    unavailable: Failure | None
    """Why this search cannot use its route's semantic retriever, or only in some of its indices."""
    window: int
    """The number of hits from each retriever, and of candidates to rerank."""
    covered: frozenset[str]
    """The indices known to be inside the route."""
    alias_filter: Any = None
    """The filters of the search's aliases, for kNN searches that would not apply them."""
    own_parameters: Parameters = ()
    """URL parameters of the searches that the proxy adds, which keep search pipelines from changing them."""
    budget_seconds: float | None = None
    """Seconds that the proxy may add to the engine's time; None: each stage has its own limit only."""
    reserved_seconds: float = 0.0
    """The part of the budget that embedding and kNN leave to the reranker."""
    keeps_empty: bool = True
    """Whether the engine keeps objects that `filter_path` empties: see `EngineKind`."""
    explains: bool = False
    """Whether the client requests an explanation with each hit."""
    names: tuple[str, ...] = ()
    """The keyword fields, besides the passage, that may equal the query text: see `kept`."""
    is_fast: bool = False
    """Whether `tier: auto` calls the faster of its two rerankers."""
    window_at_rest: int | None = None
    """The window without load, which is part of the cache key of its pages; None: `window`."""
    earlier: Sequence[Route] = ()
    """The routes before this one, which take precedence."""

    @property
    def rerankers(self) -> tuple[str, ...]:
        """The rerankers in the order in which to try them; empty without a reranker."""
        route = self.route
        if self.is_fast and route.tier_switch:
            return (route.tier_switch.fast_model, *route.rerank_fallbacks)
        return route.rerankers

    @property
    def read_fields(self) -> tuple[str, ...]:
        """The fields that are read of each candidate; the models receive the passage only."""
        return tuple(dict.fromkeys((*self.route.passage.fields, *self.names)))

    @property
    def adds(self) -> bool:
        """Whether kNN may add documents that the client's own query does not match."""
        return self.route.semantic is not None and self.route.semantic.adds

    def covers(self, index: str) -> bool:
        """Whether an index is inside the route: resolved by the engine, or by its own name."""
        return index in self.covered or route_of((*self.earlier, self.route), Resolved(index)) is self.route

    def outside(self, indices: AbstractSet[str]) -> frozenset[str]:
        """Return those of these indices that are outside the route."""
        return frozenset([index for index in indices if not self.covers(index)])

    @property
    def in_head(self) -> bool:
        """Whether the page begins in the head; otherwise it is the engine's own page without the head's documents.

        A client's `rescore` is always part of the head: without the head's documents, it would rescore others.
        """
        walk = self.request.walk
        return walk.in_head if walk else self.request.from_ < self.window or self.request.rescored is not None

    @property
    def reach(self) -> int:
        """The number of hits of the client's own search that a page in the head may need."""
        return self.window + self.request.size if self.request.walk else max(self.window, self.request.end)
