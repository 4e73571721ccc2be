"""Which requests are searches, and which route a search belongs to."""

from dataclasses import dataclass
from typing import Literal

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
    patterns = (settings.index,) if isinstance(settings.index, str) else tuple(settings.index)
    return Route(
        name=",".join(patterns),
        patterns=patterns,
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
