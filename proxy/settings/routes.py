"""Which requests are searches, and what is done with the searches of each route."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from urllib.parse import unquote

from proxy.settings.bypass_rules import TextBypass, text_bypass
from proxy.settings.config import Config, Fusion, QueryFrom, RouteSettings, Semantic
from proxy.settings.passage_template import PassageTemplate, embedded, template_of
from proxy.settings.profiles import AUTO, PRIORITIES, PROFILES, TIERS, Profile
from proxy.settings.redaction import Redaction, redaction
from proxy.settings.rollout import Rollout, rollout_of


@dataclass(frozen=True, slots=True)
class TierSwitch:
    """`tier: auto` of a route: the tiers of its two rerankers, and when the second one is called first."""

    usual: str
    fast: str
    fast_model: str
    fast_above_rate: float
    """Searches of the route per second."""


@dataclass(frozen=True, slots=True)
class Route:
    """How the searches of some indices are processed: an entry of `routes`, with the defaults of its profile."""

    name: str
    patterns: tuple[str, ...]
    profile: str
    instruction: str
    passage: PassageTemplate
    """What the reranker reads of a document."""
    passages_per_document: int
    """2: a document that is longer than one passage may have a second one, and its better score counts."""
    embedded: tuple[str, ...]
    """The entries of which `index` and `backfill` make vectors: those without a label."""
    text_fields: tuple[str, ...]
    """The fields in these entries, in which a query is expected to search for its text."""
    rank_window_size: int
    embedding_model: str
    """The model for `index` and `backfill`; searches use the model that their index names."""
    embedding_model_named: bool
    """The file names the model, so that an index with vectors of another model is an error."""
    rerank_model: str | None
    rerank_fallbacks: tuple[str, ...]
    """Models used instead, in this order, while calls to the first one are suspended."""
    tier_switch: TierSwitch | None
    """None: `rerank_model` is always called first."""
    semantic: Semantic | None
    fusion: Fusion
    blend: float | None
    """None: the default of the model that scores, see `profiles.BLENDS`."""
    boost_power: float
    """The weight of the query's boosts relative to the reranker's scores; 0: none."""
    budget_ms: int
    """Milliseconds that the proxy may add to the engine's own time."""
    on_zero_hits: Literal["keep_empty", "semantic"]
    query_from: QueryFrom
    text_bypass: TextBypass
    redaction: Redaction
    rollout: Rollout

    @property
    def rerankers(self) -> tuple[str, ...]:
        """All rerankers that the route may call."""
        if self.rerank_model is None:
            return ()
        fast = (self.tier_switch.fast_model,) if self.tier_switch else ()
        return tuple(dict.fromkeys((self.rerank_model, *fast, *self.rerank_fallbacks)))

    def tier_of(self, model: str) -> str:
        """Return which tier of `tier: auto` a reranker belongs to; empty for other models and other routes."""
        if self.tier_switch is None:
            return ""
        return {self.rerank_model: self.tier_switch.usual, self.tier_switch.fast_model: self.tier_switch.fast}.get(
            model, ""
        )


def build_routes(config: Config) -> tuple[Route, ...]:
    return tuple(build_route(settings) for settings in config.routes)


def build_route(settings: RouteSettings) -> Route:
    """Build a route, with tier, window, passage and instruction of its profile where it does not set them."""
    profile = PROFILES[settings.profile]
    tier = PRIORITIES[settings.priority] if settings.priority else settings.tier or profile.tier
    texts = embedded(settings.passage) if settings.passage else profile.embedded
    switch = _tier_switch(settings, profile) if tier == AUTO else None
    models = TIERS[switch.usual if switch else tier]
    return Route(
        name=settings.name,
        patterns=settings.patterns,
        profile=settings.profile,
        instruction=settings.instruction or profile.instruction,
        passage=template_of(tuple(settings.passage or profile.passage)),
        passages_per_document=settings.passages_per_document,
        embedded=texts,
        text_fields=template_of(texts).fields,
        rank_window_size=settings.rank_window_size or profile.rank_window_size,
        embedding_model=settings.embedding_model or models.embedding,
        embedding_model_named=settings.embedding_model is not None,
        rerank_model=(settings.rerank_model or models.rerank) if settings.rerank else None,
        rerank_fallbacks=settings.rerank_fallbacks,
        tier_switch=switch,
        semantic=settings.semantic,
        fusion=settings.fusion,
        blend=settings.blend,
        boost_power=settings.boost_power,
        budget_ms=settings.budget_ms,
        on_zero_hits=settings.on_zero_hits,
        query_from=settings.query_from,
        text_bypass=text_bypass(settings.bypass),
        redaction=redaction(settings.redact),
        rollout=rollout_of(settings),
    )


def _tier_switch(settings: RouteSettings, profile: Profile) -> TierSwitch:
    """Return the tiers of `tier: auto`: while the route is quiet the profile's, unless that is the fast one."""
    usual = _QUIET if profile.tier == _FAST else profile.tier
    return TierSwitch(usual, _FAST, TIERS[_FAST].rerank, settings.fast_above_rate)


_FAST, _QUIET = "fast", "balanced"


class Endpoint(StrEnum):
    """The search endpoints of the engine that the proxy understands."""

    SEARCH = "_search"
    MULTI_SEARCH = "_msearch"
    TEMPLATE = "_search/template"
    MULTI_TEMPLATE = "_msearch/template"
    ASYNC_SEARCH = "_async_search"
    ASYNC_ANSWER = "_async_search/{id}"

    @property
    def is_lines(self) -> bool:
        """Whether the body is NDJSON, two lines per search."""
        return self in {Endpoint.MULTI_SEARCH, Endpoint.MULTI_TEMPLATE}


@dataclass(frozen=True, slots=True)
class Search:
    """A search request: its index names and query string, still encoded."""

    endpoint: Endpoint
    indices: str
    """The path segment as sent, `a,b*` or `%3Clogs-%7Bnow%2Fd%7D%3E`; empty if the path has none."""
    query_string: str
    id: str = ""
    """The id of an asynchronous search, for a poll."""


class NodesQuestion:
    """A request for the engine's nodes, which clients use for sniffing."""


class Passthrough:
    """A request that is passed through."""


_BOTH = frozenset((b"GET", b"POST"))
_METHODS: Mapping[Endpoint, frozenset[bytes]] = {
    Endpoint.ASYNC_SEARCH: frozenset((b"POST",)),
    Endpoint.ASYNC_ANSWER: frozenset((b"GET",)),
}


def classify(method: bytes, target: bytes) -> Search | NodesQuestion | Passthrough:
    """Classify a request by its method and raw target.

    The path is split before it is decoded: `/i%2F_search` is the path of a document, not a search of `i`. Like the
    engine, it ignores slashes at the end.
    """
    if b"search" not in target and b"_nodes" not in target:
        return Passthrough()
    try:
        path, _, query_string = target.decode("ascii").partition("?")
    except UnicodeDecodeError:
        return Passthrough()
    segments = path.rstrip("/").split("/")
    if method == b"GET" and segments[:2] == ["", "_nodes"]:
        return NodesQuestion()
    search = _search_of(segments, query_string)
    if search is None or method not in _METHODS.get(search.endpoint, _BOTH):
        return Passthrough()
    return search


def _search_of(segments: Sequence[str], query_string: str) -> Search | None:
    match segments:
        case ["", "_search" | "_msearch" | "_async_search" as name]:
            return Search(Endpoint(name), "", query_string)
        case ["", "_search" | "_msearch" as name, "template"]:
            return Search(Endpoint(f"{name}/template"), "", query_string)
        case ["", "_async_search", id_] if id_ and id_ != "status":
            return Search(Endpoint.ASYNC_ANSWER, "", query_string, id_)
        case ["", indices, "_search" | "_msearch" | "_async_search" as name] if _names_indices(indices):
            return Search(Endpoint(name), indices, query_string)
        case ["", indices, "_search" | "_msearch" as name, "template"] if _names_indices(indices):
            return Search(Endpoint(f"{name}/template"), indices, query_string)
        case _:
            return None


def _names_indices(segment: str) -> bool:
    """Whether a path segment contains index names: `_all` does, other names that start with `_` are endpoints."""
    decoded = unquote(segment)
    return bool(decoded) and (decoded == "_all" or not decoded.startswith("_"))
