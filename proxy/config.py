"""The frozen tree of settings, and `load`, which refuses a wrong key with its name and line."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0)]
Tier = Literal["fast", "balanced", "precision"]
Priority = Literal["speed-and-cost", "balanced", "accuracy", "high-volume", "critical"]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the file: read once, never changed, no key that nobody reads."""


class Listen(Section, frozen=True, kw_only=True):
    host: str = "127.0.0.1"
    port: Port = 9201


class Engine(Section, frozen=True, kw_only=True):
    url: str | list[str] = "http://127.0.0.1:9200"
    ca_file: str | None = None
    connect_timeout_seconds: Seconds = 5.0
    idle_connection_seconds: Seconds = 30.0
    search_connections: Annotated[int, Meta(ge=1)] = 100
    resolve_cache_seconds: Seconds = 10.0
    discovery_env: str | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url,) if isinstance(self.url, str) else tuple(self.url)


class Models(Section, frozen=True, kw_only=True):
    url: str = "https://api.deepinfra.com"
    token_env: str = "DEEPINFRA_TOKEN"  # noqa: S105  a variable's name, not its value
    connect_timeout_seconds: Seconds = 1.0
    embed_timeout_seconds: Seconds = 1.0
    rerank_timeout_seconds: Seconds = 3.0
    query_max_chars: Annotated[int, Meta(ge=1)] = 2000
    passage_max_chars: Annotated[int, Meta(ge=1)] = 2000
    vector_cache_entries: Annotated[int, Meta(ge=0)] = 10_000


class Semantic(Section, frozen=True, kw_only=True):
    field: str
    dimensions: Annotated[int, Meta(ge=1, le=4096)]
    min_similarity: Annotated[float, Meta(ge=-1, le=1)] | UnsetType = UNSET
    num_candidates: Annotated[int, Meta(ge=1, le=10_000)] | UnsetType = UNSET
    timeout_seconds: Seconds = 2.0


class Fusion(Section, frozen=True, kw_only=True):
    rank_constant: Annotated[int, Meta(ge=1)] = 60
    lexical_weight: Share = 1.0
    semantic_weight: Share = 1.0


class Pages(Section, frozen=True, kw_only=True):
    cache_seconds: Seconds = 60.0
    cache_entries: Annotated[int, Meta(ge=0)] = 2000


class Log(Section, frozen=True, kw_only=True):
    format: Literal["json", "console"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"
    query_text: bool = False


class RouteSettings(Section, frozen=True, kw_only=True):
    """One entry of `routes` as the file says it; `routes.Route` is the same with its profile's defaults."""

    index: str | list[str]
    profile: str = "e-commerce"
    tier: Tier | None = None
    priority: Priority | None = None
    instruction: Annotated[str, Meta(max_length=2048)] | None = None
    passage: list[str] | None = None
    embedding_model: str | None = None
    rerank_model: str | None = None
    semantic: Semantic | None = None
    rerank: bool = True
    rank_window_size: Annotated[int, Meta(ge=1, le=1000)] | None = None
    fusion: Fusion = Fusion()
    blend: Share = 0.0
    on_zero_hits: Literal["keep_empty", "semantic"] = "keep_empty"


class Config(Section, frozen=True, kw_only=True):
    """The whole file."""

    listen: Listen = Listen()
    engine: Engine = Engine()
    models: Models = Models()
    routes: tuple[RouteSettings, ...] = ()
    pages: Pages = Pages()
    log: Log = Log()
