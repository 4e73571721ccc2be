"""What will be done for one search of a client, and by which model, vectors and limits; nothing is sent here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msgspec import UNSET

from proxy.catalog.dialects import Dialect, Version, dialect_of
from proxy.catalog.indices import IndexFacts, Resolved, VectorField, route_of
from proxy.context import NO_CHARGE, Charge
from proxy.errors import Failure, UpstreamError
from proxy.parsing.query_text import UserQuery
from proxy.parsing.search_request import Parameters, SearchRequest
from proxy.settings.config import Semantic
from proxy.settings.routes import Route

MIN_SIMILARITY = 0.35
"""Cosine below which a document that only kNN found is taken for noise, where the route does not say.

Measured with the local model on icecat and on the demo's catalogue, at 0.3, 0.35, 0.4: of 60 nonsense queries each,
43, 23, 11 and 11, 6, 0 find something; nDCG@10 is 0.686, 0.693, 0.694 and 0.636, 0.631, 0.627.
"""
NUM_CANDIDATES = 100


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
class Relevance:
    """The scores of passages, in their order; fewer than there are passages if an error or the deadline came first."""

    scores: tuple[float, ...]
    model: str | None = None
    """The model that scored, if its server names one."""
    error: UpstreamError | None = None
    """Why not every passage has a score."""
    charge: Charge = NO_CHARGE


@dataclass(frozen=True, slots=True)
class QueryVector:
    """The vector of a query, of unit length; empty if there was an error."""

    vector: tuple[float, ...] = ()
    error: UpstreamError | None = None
    charge: Charge = NO_CHARGE


@dataclass(frozen=True, slots=True)
class VectorSearch:
    """How to search the vectors of this search's indices."""

    dialect: Dialect
    fields: Mapping[str, str | None]
    """Of one kind and model: a document's vectors of title and text, say; the nearest of them counts.

    With each the nested documents that hold it, if any do.
    """
    model: str
    dimensions: int
    similarity: str
    min_similarity: float
    num_candidates: int
    timeout_seconds: float
    oversample: float | None = None

    def is_near(self, score: float) -> bool:
        """Whether a document that only kNN found is near enough: kNN always finds something."""
        cosine = self.dialect.cosine_of(score, self.similarity)
        return cosine is not None and cosine >= self.min_similarity


def vector_search(
    route: Route, semantic: Semantic, facts: IndexFacts | None, version: Version | None = None
) -> VectorSearch | Failure:
    """Say how the vectors of these indices are searched, or why they cannot be.

    Another model's vectors of the same length fit the same field and give random neighbours without an error, so
    vectors are only searched when it is known which model made them.
    """
    if facts is None:
        return Failure("semantic", "mapping_unreadable")
    if missing := [name for name in semantic.fields if not facts.vectors.get(name)]:
        return Failure("semantic", "no_vector_field", missing[0])
    found = {(name, _told(form, route)) for name in semantic.fields for form in facts.vectors[name]}
    fields = {name: form.path for name, form in found}
    if len(found) > len(fields) or len({replace(form, path=None) for _, form in found}) > 1:
        return Failure("semantic", "mixed_vectors", ", ".join(semantic.fields))
    field = next(form for _, form in found)
    dialect = dialect_of(field.kind, version)
    if dialect is None:
        return Failure("semantic", "unknown_vector_type", field.kind)
    if problem := _problem(route, semantic, field):
        return problem
    return VectorSearch(
        dialect=dialect,
        fields={name: fields[name] for name in semantic.fields},
        model=field.model or route.embedding_model,
        dimensions=semantic.dimensions,
        similarity=field.similarity or semantic.similarity or dialect.default_similarity,
        min_similarity=MIN_SIMILARITY if semantic.min_similarity is UNSET else semantic.min_similarity,
        num_candidates=NUM_CANDIDATES if semantic.num_candidates is UNSET else semantic.num_candidates,
        timeout_seconds=semantic.timeout_seconds,
        oversample=semantic.oversample,
    )


def _told(field: VectorField, route: Route) -> VectorField:
    """Take the route's word for the model where the index says none."""
    return replace(field, model=route.embedding_model) if field.model is None and route.embedding_model_named else field


def _problem(route: Route, semantic: Semantic, field: VectorField) -> Failure | None:
    if field.dimensions not in {None, semantic.dimensions}:
        return Failure("semantic", "other_dimensions", f"{field.dimensions}")
    if field.model is None and not route.embedding_model_named:
        if field.dimensions is None:
            return Failure("semantic", "mapping_unreadable")
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
    instruction: str
    vectors: VectorSearch | None
    """None where the route has no semantic retriever, or this search cannot use it."""
    unavailable: Failure | None
    """Why this search cannot use its route's semantic retriever."""
    window: int
    """Hits taken from each retriever, and candidates reranked."""
    covered: frozenset[str]
    """The indices known to lie inside the route."""
    alias_filter: Any = None
    """What the aliases of the search let see, where a kNN search would not hold to it by itself."""
    own_parameters: Parameters = ()
    """What the proxy's own searches say in the URL, so that no pipeline of the client's changes them."""
    budget_seconds: float | None = None
    """What may be added to the engine's own time; None leaves each stage its own limit."""
    keeps_empty: bool = True
    """Under `filter_path`, as the engine has it: see `EngineKind`."""
    explains: bool = False
    """The client wants to know of each hit how it came to its place."""
    names: tuple[str, ...] = ()
    """The fields of `_source`, besides the passage, that may be all of the words: see `kept`."""
    window_at_rest: int | None = None
    """The window of this search without pressure, by which its pages find one ranking; None: `window`."""
    earlier: Sequence[Route] = ()
    """The routes that stand before this one, and have what they match."""

    @property
    def read_fields(self) -> tuple[str, ...]:
        """The fields of a document that are read here; models see those of the passage alone."""
        return tuple(dict.fromkeys((*self.route.passage, *self.names)))

    def covers(self, index: str) -> bool:
        """Whether a hit's index lies inside the route: as the engine listed it, or by its own name."""
        return index in self.covered or route_of((*self.earlier, self.route), Resolved(index)) is self.route

    @property
    def in_head(self) -> bool:
        """Whether the page begins among the candidates, or can only be cut from the whole.

        Without the head's documents a second ranking of the client's own would order others.
        """
        walk = self.request.walk
        return walk.in_head if walk else self.request.from_ < self.window or self.request.rescored is not None

    @property
    def reach(self) -> int:
        """How many hits of the client's own search a page that begins in the head may need."""
        return self.window + self.request.size if self.request.walk else max(self.window, self.request.end)
