"""Which requests are searches, and which route a search belongs to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from urllib.parse import unquote

from proxy.settings.bypass_rules import LeftOut, left_out
from proxy.settings.config import Config, Fusion, QueryFrom, RouteSettings, Semantic
from proxy.settings.profiles import PRIORITIES, PROFILES, TIERS
from proxy.settings.rollout import Rollout, rollout_of


@dataclass(frozen=True, slots=True)
class Route:
    """What is done with the searches of some indices: an entry of the file, its profile's defaults filled in."""

    name: str
    patterns: tuple[str, ...]
    profile: str
    instruction: str
    passage: tuple[str, ...]
    rank_window_size: int
    embedding_model: str
    """The model for `index` and `backfill`; a search embeds with the model its index names."""
    embedding_model_named: bool
    """The file itself names the model, so an index that holds another one is a contradiction."""
    rerank_model: str | None
    rerank_fallbacks: tuple[str, ...]
    """Models that are called instead, in this order, while that one is not called."""
    semantic: Semantic | None
    fusion: Fusion
    blend: float | None
    """None: as the model that scores is known to need it, see `profiles.BLENDS`."""
    boost_power: float
    """How much the boosts of the client's query count beside the reranker's scores; 0: nothing."""
    budget_ms: int
    """How long the proxy may add to the engine's own time for a search."""
    on_zero_hits: Literal["keep_empty", "semantic"]
    query_from: QueryFrom
    left_out: LeftOut
    rollout: Rollout


def build_routes(config: Config) -> tuple[Route, ...]:
    return tuple(build_route(settings) for settings in config.routes)


def build_route(settings: RouteSettings) -> Route:
    """Fill a route's gaps from its profile: tier, window, passage and instruction."""
    profile = PROFILES[settings.profile]
    tier = PRIORITIES[settings.priority] if settings.priority else settings.tier or profile.tier
    models = TIERS[tier]
    return Route(
        name=",".join(settings.patterns),
        patterns=settings.patterns,
        profile=settings.profile,
        instruction=settings.instruction or profile.instruction,
        passage=tuple(settings.passage or profile.passage),
        rank_window_size=settings.rank_window_size or profile.rank_window_size,
        embedding_model=settings.embedding_model or models.embedding,
        embedding_model_named=settings.embedding_model is not None,
        rerank_model=(settings.rerank_model or models.rerank) if settings.rerank else None,
        rerank_fallbacks=settings.rerank_fallbacks,
        semantic=settings.semantic,
        fusion=settings.fusion,
        blend=settings.blend,
        boost_power=settings.boost_power,
        budget_ms=settings.budget_ms,
        on_zero_hits=settings.on_zero_hits,
        query_from=settings.query_from,
        left_out=left_out(settings.bypass),
        rollout=rollout_of(settings),
    )


class Endpoint(StrEnum):
    """The engine's ways to search that are understood here."""

    SEARCH = "_search"
    MULTI_SEARCH = "_msearch"
    TEMPLATE = "_search/template"
    MULTI_TEMPLATE = "_msearch/template"
    ASYNC_SEARCH = "_async_search"
    ASYNC_ANSWER = "_async_search/{id}"


@dataclass(frozen=True, slots=True)
class Search:
    """A request that searches: its index names and its query string, as raw as they came."""

    endpoint: Endpoint
    indices: str
    """The path segment as sent, `a,b*` or `%3Clogs-%7Bnow%2Fd%7D%3E`; empty where the path names none."""
    query_string: str
    id: str = ""
    """Of an asynchronous search that was submitted before."""


class NodesQuestion:
    """A question after the engine's nodes, by which clients find their addresses."""


class Passthrough:
    """A request that is none of ours."""


_BOTH = frozenset((b"GET", b"POST"))
_METHODS: Mapping[Endpoint, frozenset[bytes]] = {
    Endpoint.ASYNC_SEARCH: frozenset((b"POST",)),
    Endpoint.ASYNC_ANSWER: frozenset((b"GET",)),
}


def classify(method: bytes, target: bytes) -> Search | NodesQuestion | Passthrough:
    """Tell a search from everything else by method and raw target.

    The path is split before anything is decoded: `/i%2F_search` is a document's path, not a search of `i`. Slashes
    at its end say nothing to the engine.
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
    """Whether a path segment stands for indices: `_all` does, other `_` names are endpoints."""
    decoded = unquote(segment)
    return bool(decoded) and (decoded == "_all" or not decoded.startswith("_"))
