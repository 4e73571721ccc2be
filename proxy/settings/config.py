"""The settings as frozen types: one section of the file each."""

import re
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import UNSET, Meta, UnsetType

from proxy.bounds import RERANK_BATCH_MAX
from proxy.settings.request_options import ALLOWED, Option

LAST_PORT = 65535
Port = Annotated[int, Meta(ge=0, le=LAST_PORT)]
Name = Annotated[str, Meta(min_length=1)]
Seconds = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0)]
Megabytes = Annotated[int, Meta(ge=0)]
Tier = Literal["fast", "balanced", "precision", "auto"]
Priority = Literal["speed-and-cost", "balanced", "accuracy", "high-volume", "critical"]
ServiceTier = Literal["default", "priority"]
OnZeroHits = Literal["keep_empty", "semantic"]
EmbedApi = Literal["deepinfra", "openai"]
RerankApi = Literal["deepinfra", "cohere", "jina", "vllm", "openrouter", "tei"]
Mode = Literal["on", "shadow", "opt_in", "off"]
Similarity = Literal["cosine", "dot_product", "l2_norm", "max_inner_product", "cosinesimil", "l2", "innerproduct"]
"""The first four are those of Elasticsearch, the others those of OpenSearch."""
RedactedKind = Literal["email", "card", "phone"]
RedactedQuery = Literal["redact", "bypass"]
RedactedPassage = Literal["redact", "omit"]
FAST_ABOVE_RATE = 1000.0
LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section of the file: immutable, and unknown keys are errors."""


class Listen(Section, frozen=True, kw_only=True):
    host: str = "127.0.0.1"
    port: Port = 9201
    certificate_file: str | None = None
    key_file: str | None = None


class Engine(Section, frozen=True, kw_only=True):
    url: str | list[str] = "http://127.0.0.1:9200"
    host: str | None = None
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    published_address: str | None = None
    connect_timeout_seconds: Seconds = 5.0
    idle_connection_seconds: Seconds = 30.0
    added_searches: Annotated[int, Meta(ge=1)] = 100
    multi_search_reranked: Annotated[int, Meta(ge=1)] = 16
    added_timeout_seconds: Seconds = 2.0
    resolve_cache_seconds: Seconds = 10.0
    resolve_timeout_seconds: Seconds = 0.25
    via: bool = True
    forwarded_for: bool = False
    authorization_env: str | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url,) if isinstance(self.url, str) else tuple(self.url)

    @property
    def by_https(self) -> bool:
        """Whether any node is reached by https."""
        return any(urlsplit(url).scheme == "https" for url in self.urls)


class Models(Section, frozen=True, kw_only=True):
    url: str = "https://api.deepinfra.com"
    token_env: str = "DEEPINFRA_TOKEN"  # noqa: S105  a variable's name, not its value
    embed_api: EmbedApi = "deepinfra"
    rerank_api: RerankApi = "deepinfra"
    rerank_url: str | None = None
    rerank_token_env: str | None = None
    plain_http: bool = False
    proxy: str | None = None
    ca_file: str | None = None
    connect_timeout_seconds: Seconds = 1.0
    embed_timeout_seconds: Seconds = 1.0
    rerank_timeout_seconds: Seconds = 3.0
    service_tier: ServiceTier | None = None
    rerank_batch_size: Annotated[int, Meta(ge=1, le=RERANK_BATCH_MAX)] = 50
    concurrent_calls: Annotated[int, Meta(ge=1)] = 200
    query_max_chars: Annotated[int, Meta(ge=1)] = 2000
    passage_max_tokens: Annotated[int, Meta(ge=1)] = 500
    canary: bool = True
    canary_file: str | None = None


class Semantic(Section, frozen=True, kw_only=True):
    field: Name | Annotated[tuple[Name, ...], Meta(min_length=1)]
    dimensions: Annotated[int, Meta(ge=1, le=4096)]
    adds: bool = True
    min_similarity: Annotated[float, Meta(ge=-1, le=1)] | UnsetType = UNSET
    num_candidates: Annotated[int, Meta(ge=1, le=10_000)] | UnsetType = UNSET
    oversample: Annotated[float, Meta(ge=1)] | None = None
    similarity: Similarity | None = None
    exclude_from_source: bool = False
    timeout_seconds: Seconds = 2.0

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.field,) if isinstance(self.field, str) else self.field

    @property
    def added_fields(self) -> tuple[str, ...]:
        """The fields that the proxy adds to an index: each vector field, and the hash of its text."""
        return tuple(name for field in self.fields for name in (field, f"{field}_hash"))


class Fusion(Section, frozen=True, kw_only=True):
    rank_constant: Annotated[int, Meta(ge=1)] = 10
    lexical_weight: Share = 1.0
    semantic_weight: Share = 1.0


class Cache(Section, frozen=True, kw_only=True):
    """What is kept for later searches, in memory and, if it is named, in Redis."""

    rankings_mb: Megabytes = 32
    rankings_seconds: Seconds = 60.0
    scores_mb: Megabytes = 64
    scores_seconds: Seconds = 86_400.0
    vectors_mb: Megabytes = 64
    vectors_seconds: Seconds = 86_400.0
    key_env: str = "RERANK_PROXY_CACHE_KEY"
    redis_url: str | None = None
    redis_user: str | None = None
    redis_password_env: str = "RERANK_PROXY_REDIS_PASSWORD"  # noqa: S105  a variable's name, not its value
    redis_ca_file: str | None = None
    redis_timeout_ms: Annotated[int, Meta(ge=1)] = 50

    @property
    def redis_parts(self) -> SplitResult:
        """The parts of `redis_url`."""
        return urlsplit(self.redis_url or "")


class BypassRules(Section, frozen=True, kw_only=True):
    """Which searches of a route are bypassed because of their query text."""

    identifiers: bool = True
    autocomplete: bool = True
    phrases: list[str] = []
    patterns: list[str] = []


class Redact(Section, frozen=True, kw_only=True):
    """What is kept out of the texts that a route sends to models, and what happens to such texts."""

    kinds: tuple[RedactedKind, ...] = ()
    patterns: tuple[Name, ...] = ()
    query: RedactedQuery = "redact"
    passage: RedactedPassage = "redact"


class Callers(Section, frozen=True, kw_only=True):
    """Request headers that do not identify a caller, besides those the proxy knows."""

    ignore: tuple[str, ...] = ()


class QueryFrom(Section, frozen=True, kw_only=True):
    """Where requests supply their query text; the first of these that is present is used."""

    header: Name | None = None
    body: Name | None = None
    name: Name | None = None


class ShareBy(Section, frozen=True, kw_only=True):
    """What determines whether a request is in a route's share; the first of these that is present is used."""

    header: Name | None = None
    cookie: Name | None = None


class SpendCaps(Section, frozen=True, kw_only=True):
    """Maximum US dollars for model calls, of one route or of all."""

    max_usd_per_day: Annotated[float, Meta(gt=0)] | None = None
    max_usd_per_minute: Annotated[float, Meta(gt=0)] | None = None


class Spend(SpendCaps, frozen=True, kw_only=True):
    """The state file of the spend meter, prices, and the caps of all routes together."""

    file: Name | None = None
    prices: dict[str, Share] = {}


class Log(Section, frozen=True, kw_only=True):
    format: LogFormat = "json"
    level: LogLevel = "info"
    query_text: bool = False
    access: bool = False


class Admin(Section, frozen=True, kw_only=True):
    """The port for health, metrics and controls."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 9291
    token_env: str = "RERANK_PROXY_ADMIN_TOKEN"  # noqa: S105  a variable's name, not its value


class TraceSettings(Section, frozen=True, kw_only=True):
    """Where traces go (OpenTelemetry)."""

    url: str | None = None
    share: str | float = "100%"


class RouteSettings(Section, frozen=True, kw_only=True):
    """One entry of `routes` as written in the file; `routes.Route` adds the defaults of its profile."""

    index: str | list[str]
    mode: Mode | bool = "on"
    """YAML 1.1 reads a bare `on` as true, and `off` as false."""
    share: str | float = "100%"
    share_by: ShareBy = ShareBy()
    profile: str = "e-commerce"
    tier: Tier | None = None
    fast_above_rate: Annotated[float, Meta(gt=0)] = FAST_ABOVE_RATE
    priority: Priority | None = None
    instruction: Annotated[str, Meta(max_length=2048)] | None = None
    passage: list[str] | None = None
    passages_per_document: Annotated[int, Meta(ge=1, le=2)] = 1
    embedding_model: str | None = None
    rerank_model: str | None = None
    rerank_fallbacks: tuple[Name, ...] = ()
    semantic: Semantic | None = None
    rerank: bool = True
    rank_window_size: Annotated[int, Meta(ge=1, le=1000)] | None = None
    fusion: Fusion = Fusion()
    blend: Share | None = None
    boost_power: Share = 1.0
    budget_ms: Annotated[int, Meta(ge=1)] = 1500
    on_zero_hits: OnZeroHits = "keep_empty"
    query_from: QueryFrom = QueryFrom()
    bypass: BypassRules = BypassRules()
    spend: SpendCaps = SpendCaps()
    redact: Redact = Redact()

    @property
    def patterns(self) -> tuple[str, ...]:
        return (self.index,) if isinstance(self.index, str) else tuple(self.index)

    @property
    def name(self) -> str:
        """The route's name in logs, metrics and the spend state."""
        return ",".join(self.patterns)


class Config(Section, frozen=True, kw_only=True):
    """The whole settings file."""

    listen: Listen = Listen()
    engine: Engine = Engine()
    models: Models = Models()
    routes: tuple[RouteSettings, ...] = ()
    callers: Callers = Callers()
    cache: Cache = Cache()
    spend: Spend = Spend()
    steering: tuple[Option, ...] = ALLOWED
    log: Log = Log()
    admin: Admin = Admin()
    traces: TraceSettings = TraceSettings()


def percent(share: str | float) -> float:
    """Read `5%` as 5; raises ValueError if it is not a percentage."""
    found = _PERCENTAGE.fullmatch(share) if isinstance(share, str) else None
    if found is None or float(found[1]) > 100:
        raise ValueError(share)
    return float(found[1])


_PERCENTAGE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?) ?%", re.ASCII)
