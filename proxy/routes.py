"""Which requests are searches, and which route a search belongs to."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from proxy.config import Config, Fusion, RouteSettings, Semantic
from proxy.profiles import PRIORITIES, PROFILES, TIERS


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
    semantic: Semantic | None
    fusion: Fusion
    blend: float
    on_zero_hits: Literal["keep_empty", "semantic"]


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
        semantic=settings.semantic,
        fusion=settings.fusion,
        blend=settings.blend,
        on_zero_hits=settings.on_zero_hits,
    )


@dataclass(frozen=True, slots=True)
class Search:
    """A request to `_search`: its index names and its query string, as raw as they came."""

    indices: str
    """The path segment as sent, `a,b*` or `%3Clogs-%7Bnow%2Fd%7D%3E`; empty for `/_search`."""
    query_string: str


class Passthrough:
    """A request that is none of ours."""


def classify(method: bytes, target: bytes) -> Search | Passthrough:
    """Tell a search from everything else by method and raw target.

    The path is split before anything is decoded: `/i%2F_search` is a document's path, not a search of `i`.
    """
    if method not in {b"GET", b"POST"}:
        return Passthrough()
    try:
        path, _, query_string = target.decode("ascii").partition("?")
    except UnicodeDecodeError:
        return Passthrough()
    match path.split("/"):
        case ["", "_search"]:
            return Search("", query_string)
        case ["", indices, "_search"] if _names_indices(indices):
            return Search(indices, query_string)
        case _:
            return Passthrough()


def _names_indices(segment: str) -> bool:
    """Whether a path segment stands for indices: `_all` does, other `_` names are endpoints."""
    decoded = unquote(segment)
    return bool(decoded) and (decoded == "_all" or not decoded.startswith("_"))
