"""The settings as frozen types, and `load`, which reports a wrong key with its name and line."""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import UNSET, Meta, UnsetType

from proxy.bounds import RERANK_BATCH_MAX
from proxy.http1.callers import not_ignorable, not_query_text
from proxy.http1.messages import TOKEN
from proxy.settings.passage_template import line_of
from proxy.settings.profiles import PROFILES
from proxy.settings.request_options import ALLOWED, OPTIONS, Option
from proxy.settings.yaml_file import ConfigError, YamlFile, did_you_mean

_LAST_PORT = 65535
Port = Annotated[int, Meta(ge=0, le=_LAST_PORT)]
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
RedactedKind = Literal["email", "card", "phone"]
RedactedQuery = Literal["redact", "bypass"]
RedactedPassage = Literal["redact", "omit"]
_FAST_ABOVE_RATE = 1000.0
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
    similarity: str | None = None
    exclude_from_source: bool = False
    timeout_seconds: Seconds = 2.0

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.field,) if isinstance(self.field, str) else self.field


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

    @property
    def is_capped(self) -> bool:
        return self.max_usd_per_day is not None or self.max_usd_per_minute is not None


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
    fast_above_rate: Annotated[float, Meta(gt=0)] = _FAST_ABOVE_RATE
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


@dataclass(frozen=True, slots=True)
class _Setting:
    """An environment variable and a command-line option that override a key of the file."""

    variable: str
    option: str
    key: str

    @property
    def name(self) -> str:
        return f"{self.option} or {self.variable}"


_LISTEN = _Setting("RERANK_PROXY_LISTEN", "--listen", "listen")
_SETTINGS = (
    _LISTEN,
    _Setting("RERANK_PROXY_ENGINE_URL", "--engine", "engine.url"),
    _Setting("RERANK_PROXY_MODELS_URL", "--models", "models.url"),
)


def _keys(section: type[Section]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(section))


KNOWN_KEYS: Mapping[str, tuple[str, ...]] = {
    "": _keys(Config),
    "listen": _keys(Listen),
    "engine": _keys(Engine),
    "models": _keys(Models),
    "callers": _keys(Callers),
    "cache": _keys(Cache),
    "spend": _keys(Spend),
    "log": _keys(Log),
    "admin": _keys(Admin),
    "traces": _keys(TraceSettings),
    "routes[]": _keys(RouteSettings),
    "routes[].semantic": _keys(Semantic),
    "routes[].fusion": _keys(Fusion),
    "routes[].query_from": _keys(QueryFrom),
    "routes[].bypass": _keys(BypassRules),
    "routes[].redact": _keys(Redact),
    "routes[].share_by": _keys(ShareBy),
    "routes[].spend": _keys(SpendCaps),
}
"""The keys of each section, by the section's path."""
KNOWN_WORDS: Mapping[str, tuple[str, ...]] = {
    "tier": get_args(Tier),
    "priority": get_args(Priority),
    "service_tier": get_args(ServiceTier),
    "on_zero_hits": get_args(OnZeroHits),
    "embed_api": get_args(EmbedApi),
    "rerank_api": get_args(RerankApi),
    "mode": get_args(Mode),
    "format": get_args(LogFormat),
    "level": get_args(LogLevel),
    "kinds": get_args(RedactedKind),
    "query": get_args(RedactedQuery),
    "passage": get_args(RedactedPassage),
    "steering": OPTIONS,
}
"""The allowed values of each key that has a fixed list of them."""
REMOVED_KEYS: Mapping[str, str] = {
    "engine.discovery_env": "is now called `engine.authorization_env`",
    "engine.multi_search_concurrency": (
        "is gone: the searches of an `_msearch` run side by side; `engine.multi_search_reranked` limits how many of "
        "them are reranked"
    ),
    "engine.search_connections": (
        "is gone: each client connection has its own to the engine; `engine.added_searches` limits what the proxy adds"
    ),
    "models.passage_max_chars": (
        "is gone: `models.passage_max_tokens` limits the estimated tokens instead; 2000 characters of English are 500"
    ),
    "models.vector_cache_entries": "is gone: `cache.vectors_mb` limits the memory instead",
    "models.vector_cache_mb": "is now called `cache.vectors_mb`",
    "pages": (
        "is gone: `cache_seconds` is now `cache.rankings_seconds`; instead of `cache_entries`, `cache.rankings_mb` "
        "limits the memory"
    ),
}
"""Keys of earlier versions, and what replaces them."""


def load(path: Path, environment: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> Config:
    """Read a file, overridden by environment variables, overridden by the command line; raises ConfigError."""
    return load_with_lines(path, environment, overrides)[0]


def load_with_lines(
    path: Path, environment: Mapping[str, str], overrides: Mapping[str, str] | None = None
) -> tuple[Config, YamlFile]:
    """Like `load`; also return the parsed file, which knows the line of each key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}. Name another file with -c.") from None
    file = YamlFile.parse(text, str(path))
    return _converted(file, {**environment, **(overrides or {})}), file


def read(text: str, name: str, environment: Mapping[str, str]) -> Config:
    """Read settings from text; raises ConfigError with key and line."""
    return _converted(YamlFile.parse(text, name), environment)


def _converted(file: YamlFile, environment: Mapping[str, str]) -> Config:
    settings = _with_environment(file.value, environment)
    try:
        config = msgspec.convert(settings, Config)
    except msgspec.ValidationError as error:
        raise file.refusal(str(error), KNOWN_KEYS, KNOWN_WORDS, REMOVED_KEYS) from None
    elsewhere = {setting.key: setting.name for setting in _SETTINGS if environment.get(setting.variable)}
    for place, problem in contradictions(config):
        raise ConfigError(f"{elsewhere[place]}: {problem}") if place in elsewhere else file.error(place, problem)
    return config


def _with_environment(value: Any, environment: Mapping[str, str]) -> Any:
    if not isinstance(value, dict):
        return value
    settings = dict(value)
    for setting in _SETTINGS:
        if value_given := environment.get(setting.variable):
            section, _, key = setting.key.partition(".")
            added = {key: value_given} if key else _address(value_given)
            there = settings.get(section)
            settings[section] = (there if isinstance(there, dict) else {}) | added
    return settings


def _address(text: str) -> dict[str, Any]:
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) <= _LAST_PORT):
        raise ConfigError(f"{_LISTEN.name}: expected host:port, as in 0.0.0.0:9201, not {text!r}")
    return {"host": host.strip("[]") or "0.0.0.0", "port": int(port)}  # noqa: S104  an empty host means all


def contradictions(config: Config) -> Iterator[tuple[str, str]]:
    """Find keys whose values are valid alone but not together; yields the key's path and the problem."""
    yield from _engine_problems(config.engine)
    if config.listen.key_file and not config.listen.certificate_file:
        yield "listen.key_file", "set `certificate_file` too: a key is used with its certificate"
    yield from _models_problems(config.models)
    yield from _spend_problems(config)
    yield from _cache_problems(config.cache)
    yield from _traces_problems(config.traces)
    for number, name in enumerate(config.callers.ignore):
        if problem := not_ignorable(name):
            yield f"callers.ignore[{number}]", f"{name!r} {problem}"
    for number, route in enumerate(config.routes):
        rollout = _rollout_problems(route, config.steering)
        rules = (*_pattern_problems(route.bypass), *_redact_problems(route.redact))
        for key, problem in (*_route_problems(route), *rules, *rollout):
            yield f"routes[{number}].{key}", problem


def _engine_problems(engine: Engine) -> Iterator[tuple[str, str]]:
    for number, url in enumerate(engine.urls):
        yield from url_problems("engine.url" if isinstance(engine.url, str) else f"engine.url[{number}]", url)
    if not engine.urls:
        yield "engine.url", "name at least one node"
    if not engine.by_https:
        for key in ("ca_file", "certificate_file"):
            if getattr(engine, key):
                yield (
                    f"engine.{key}",
                    "no URL in engine.url begins with https://: change the URL, or remove this key",
                )
    if engine.key_file and not engine.certificate_file:
        yield "engine.key_file", "set `certificate_file` too: a key is used with its certificate"
    if engine.host is not None and not _HOST.fullmatch(engine.host):
        yield "engine.host", "expected a host, or host:port, as in search.example.com:9200"
    if engine.published_address is not None and not _HOST_AND_PORT.fullmatch(engine.published_address):
        yield "engine.published_address", "expected host:port, as in search.example.com:9201"


def _models_problems(models: Models) -> Iterator[tuple[str, str]]:
    for place, url in (("models.url", models.url), ("models.rerank_url", models.rerank_url or "http://unset")):
        yield from url_problems(place, url)
        if (found := _OF_AN_API.search(url)) is not None:
            yield place, f"remove the API path, the proxy adds it itself: write {url[: found.start()]}"
    if models.canary_file and not models.canary:
        yield "models.canary_file", "has no effect with `canary: false`: remove one of the two"
    if models.rerank_token_env and not models.rerank_url:
        yield "models.rerank_token_env", "set `rerank_url` too, or remove this key: the token of `url` is `token_env`"
    if models.proxy and "@" in models.proxy:
        yield "models.proxy", "remove the credentials: a proxy that needs them is not supported"
    elif models.proxy:
        yield from url_problems("models.proxy", models.proxy)


def _spend_problems(config: Config) -> Iterator[tuple[str, str]]:
    """A day's cap needs the state file: without it, each restart would permit the whole day's spend again."""
    caps = [
        ("spend", config.spend),
        *((f"routes[{number}].spend", route.spend) for number, route in enumerate(config.routes)),
    ]
    if config.spend.file is None:
        for place, cap in caps:
            if cap.max_usd_per_day is not None:
                yield (
                    f"{place}.max_usd_per_day",
                    "set `spend.file` too, as in spend.json: without it, a restart resets what the day has cost",
                )


def _traces_problems(traces: TraceSettings) -> Iterator[tuple[str, str]]:
    if traces.url is not None:
        yield from url_problems(
            "traces.url",
            traces.url,
            example="http://collector.internal:4318",
            credentials="set them in OTEL_EXPORTER_OTLP_HEADERS",
        )
    try:
        percent(traces.share)
    except ValueError:
        yield "traces.share", _not_a_share(traces.share)


def _not_a_share(share: str | float) -> str:
    return f"expected a percentage from 0% to 100%, as in 5%, not {share!r}"


def _cache_problems(cache: Cache) -> Iterator[tuple[str, str]]:
    if cache.redis_url is None:
        for key in ("redis_user", "redis_ca_file"):
            if getattr(cache, key):
                yield f"cache.{key}", "has no effect without `redis_url`: set that too, or remove this key"
        return
    yield from _redis_url_problems(cache.redis_url)
    if cache.redis_ca_file and not cache.redis_url.startswith("rediss:"):
        yield "cache.redis_ca_file", "cache.redis_url does not begin with rediss://: change it, or remove this key"


def _redis_url_problems(url: str) -> Iterator[tuple[str, str]]:
    if "@" in url:
        problem = "remove the credentials: set `redis_user`, and the password in the variable of `redis_password_env`"
        yield "cache.redis_url", problem
    elif not _REDIS_URL.fullmatch(url) or not _has_port(url):
        yield "cache.redis_url", f"expected a URL like redis://127.0.0.1:6379/0 or rediss://..., not {url!r}"


def _has_port(url: str) -> bool:
    """Whether the port of a URL, if it has one, can be a port."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?", re.ASCII)
_HOST_AND_PORT = re.compile(rf"(?=.*:\d+$){_HOST.pattern}", re.ASCII)
_REDIS_URL = re.compile(rf"rediss?://{_HOST.pattern}(?:/\d{{0,5}})?", re.ASCII)
_OF_AN_API = re.compile(r"(/v1(/openai)?/embeddings|/v1/inference(/[^?#]*)?|(/v[12])?/rerank|/v[12](/openai)?)/*$")
"""Paths that providers' documentation shows as part of the URL for other clients."""


def url_problems(
    place: str,
    url: str,
    *,
    example: str = "http://127.0.0.1:9200",
    credentials: str = "each request is sent with those of its client",
) -> Iterator[tuple[str, str]]:
    """Find what is wrong with a URL; a URL that may contain a secret is not printed.

    `credentials` says where they belong instead.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number or too large; an IPv6 address without its closing bracket
        parts, usable = urlsplit(""), False
    if "@" in url:
        yield place, f"remove the credentials: {credentials}"
    elif "?" in url or "#" in url:
        yield place, "remove the query string or fragment from the URL"
    elif not (url.isascii() and url.isprintable()) or " " in url:
        yield place, f"a URL may contain only printable ASCII characters and no spaces, not {url!r}"
    elif not usable:
        yield place, f"expected a URL like {example}, not {url!r}"


def _query_from_problems(place: QueryFrom) -> Iterator[tuple[str, str]]:
    if place.header and (problem := not_query_text(place.header)):
        yield "query_from.header", f"{place.header!r} {problem}"


def _reranker_problems(route: RouteSettings) -> Iterator[tuple[str, str]]:
    if route.tier != "auto" and route.fast_above_rate != _FAST_ABOVE_RATE:
        yield "fast_above_rate", "has no effect without `tier: auto`: set that too, or remove this key"
    if route.rerank:
        if route.tier == "auto" and route.rerank_model:
            yield "rerank_model", "has no effect with `tier: auto`, which chooses the reranker: remove one of the two"
        return
    for key in ("rerank_model", "rerank_fallbacks"):
        if getattr(route, key):
            yield key, "has no effect with `rerank: false`: remove one of the two"
    if route.tier == "auto":
        yield "tier", "`auto` chooses the reranker, and has no effect with `rerank: false`: name another tier"


def _route_problems(route: RouteSettings) -> Iterator[tuple[str, str]]:
    patterns = route.patterns
    if not patterns or not all(patterns):
        yield "index", "name at least one index, alias or pattern"
    if bad := [pattern for pattern in patterns if set(pattern) & _NOT_IN_PATTERNS or pattern.startswith("-")]:
        yield "index", f"{bad[0]!r} is not an index name or pattern: write several as a list, with `*` as the wildcard"
    if route.profile not in PROFILES:
        yield "profile", f"unknown profile {route.profile!r}{did_you_mean(route.profile, tuple(PROFILES))}"
    if route.tier and route.priority:
        yield "priority", "set either `tier` or `priority`: a priority selects a tier"
    if route.semantic is None and not route.rerank:
        yield "rerank", "a route with neither `semantic` nor `rerank` changes nothing: remove it"
    yield from _reranker_problems(route)
    if route.semantic is None and route.on_zero_hits == "semantic":
        yield "on_zero_hits", "`on_zero_hits: semantic` needs `semantic` in the route"
    if route.semantic is not None and not route.semantic.adds and route.on_zero_hits == "semantic":
        yield "on_zero_hits", "`on_zero_hits: semantic` needs `semantic.adds: true`"
    yield from _query_from_problems(route.query_from)
    yield from _passage_problems(route.passage or ())
    if route.passage == [] and route.rerank:
        yield "passage", "is empty, and the reranker needs at least one field"


def _passage_problems(passage: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, entry in enumerate(passage):
        try:
            line_of(entry)
        except ValueError as error:
            yield f"passage[{number}]", str(error)


def _pattern_problems(rules: BypassRules) -> Iterator[tuple[str, str]]:
    for number, pattern in enumerate(rules.patterns):
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            yield f"bypass.patterns[{number}]", f"{pattern!r} is not a valid regular expression: {error}"


_PATTERN_OF_FIXED_LENGTH = re.compile(
    r"(?:\\b)?(?:(?:\\[dw]|\\[^\w\s]|\[[^\[\]\\]+\]|[^\\\[\](){}*+?|^$.])(?:\{[1-9]\d?\})?)+(?:\\b)?"
)
"""Characters and classes, each with an optional count: only these take Python's matcher linear time."""


def _redact_problems(rules: Redact) -> Iterator[tuple[str, str]]:
    if not rules.kinds and not rules.patterns:
        for key, value in (("query", rules.query), ("passage", rules.passage)):
            if value != "redact":
                yield (
                    f"redact.{key}",
                    "has no effect without `kinds` or `patterns`: set one of them, or remove this key",
                )
    for number, pattern in enumerate(rules.patterns):
        place = f"redact.patterns[{number}]"
        if not _PATTERN_OF_FIXED_LENGTH.fullmatch(pattern):
            yield (
                place,
                (
                    f"{pattern!r}: only characters, \\d, \\w and classes like [A-Z] are allowed, each with an optional "
                    r"count like {4}, and \b at the start and the end: other patterns may take too long"
                ),
            )
            continue
        try:
            re.compile(pattern)
        except re.error as error:
            yield place, f"{pattern!r} is not a valid regular expression: {error}"


def percent(share: str | float) -> float:
    """Read `5%` as 5; raises ValueError if it is not a percentage."""
    found = _PERCENTAGE.fullmatch(share) if isinstance(share, str) else None
    if found is None or float(found[1]) > 100:
        raise ValueError(share)
    return float(found[1])


_PERCENTAGE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?) ?%", re.ASCII)


def _rollout_problems(route: RouteSettings, steering: Sequence[Option]) -> Iterator[tuple[str, str]]:
    try:
        share = percent(route.share)
    except ValueError:
        yield "share", _not_a_share(route.share)
        return
    if route.mode == "opt_in" and "enabled" not in steering:
        yield "mode", "`opt_in` needs the option `enabled`, and `steering` does not allow it: add it there"
    if route.mode == "opt_in" and share < 100:
        yield "share", "has no effect with `mode: opt_in`: remove one of the two"
    for key, name in (("header", route.share_by.header), ("cookie", route.share_by.cookie)):
        if name is not None and not TOKEN.fullmatch(name.encode()):
            yield f"share_by.{key}", f"{name!r} is not a valid name of a {key}"


_NOT_IN_PATTERNS = frozenset(',<>"|?\\/# ')


def needs_token(config: Config) -> bool:
    """Whether a route calls models that require a token.

    Models on this machine, in a container network or at a private address are assumed to be local, without tokens.
    """
    reranks_elsewhere = config.models.rerank_url is not None
    used = any(route.semantic or (route.rerank and not reranks_elsewhere) for route in config.routes)
    return used and _is_remote(config.models.url)


def _is_remote(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_private
    except ValueError:
        return "." in host and not host.endswith((".localhost", ".local", ".internal"))


def _is_open_to_others(url: str) -> bool:
    """Whether requests go unencrypted to another machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def is_loopback(host: str) -> bool:
    """Whether a host or address is the loopback interface of this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def authorization_of(config: Config, environment: Mapping[str, str]) -> str | None:
    """Read the proxy's own `Authorization` value from the environment; raises ConfigError if it is missing."""
    variable = config.engine.authorization_env
    return None if variable is None else authorization_in(variable, "engine.authorization_env", environment)


def authorization_in(variable: str, place: str, environment: Mapping[str, str]) -> str:
    """Read an `Authorization` value from the variable that `place` names; raises ConfigError if it is missing."""
    if not (value := environment.get(variable, "").strip()):
        what = "option" if place.startswith("--") else "key"
        raise ConfigError(f"{variable} is not set, but {place} names it: set the variable, or remove the {what}")
    if not (value.isascii() and value.isprintable()):
        raise ConfigError(f"{variable}: contains characters that are not allowed in a header: set it to a valid value")
    return value


def admin_token_of(config: Config, environment: Mapping[str, str]) -> str | None:
    """Read the token of the admin port from the environment; raises ConfigError if one is needed and missing."""
    variable = config.admin.token_env
    token = environment.get(variable, "").strip()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(f"{variable}: contains characters that are not allowed in a token: set it to a valid value")
    if config.admin.enabled and not token and not is_loopback(config.admin.host):
        raise ConfigError(
            f"{variable} is not set, but the admin port at {config.admin.host} can be reached from other machines: set "
            "it, or set `admin.host: 127.0.0.1`, or `admin.enabled: false`"
        )
    return token or None


@dataclass(frozen=True, slots=True)
class CacheSecrets:
    """The secrets of the caches, from the environment."""

    key: bytes | None = None
    """Hashes the keys, and encrypts what is written to Redis; None: drawn at the start."""
    redis_password: str | None = None

    def __repr__(self) -> str:
        return "CacheSecrets(***)"


CACHE_KEY_LENGTH = 16
"""Characters that the key of the caches has at least."""


def cache_secrets_of(config: Config, environment: Mapping[str, str]) -> CacheSecrets:
    """Read the secrets of the caches from the environment; raises ConfigError if one is needed and missing."""
    cache = config.cache
    key = environment.get(cache.key_env, "").strip()
    make = f"set it, to the same value for all proxies: `export {cache.key_env}=$(openssl rand -hex 32)`"
    if not key and cache.redis_url:
        raise ConfigError(f"{cache.key_env} is not set, but cache.redis_url needs it: {make}")
    if key and len(key) < CACHE_KEY_LENGTH:
        raise ConfigError(f"{cache.key_env}: has fewer than {CACHE_KEY_LENGTH} characters: {make}")
    password = environment.get(cache.redis_password_env, "").strip()
    if cache.redis_user and not password:
        raise ConfigError(
            f"{cache.redis_password_env} is not set, but cache.redis_user needs it: set the variable, or remove the key"
        )
    return CacheSecrets(key.encode("utf-8", "surrogateescape") or None, password or None)


def token_of(config: Config, environment: Mapping[str, str], *, calls_models: bool = False) -> str | None:
    """Read the token of the models from the environment; raises ConfigError if one is needed and missing.

    `calls_models`: models are called even if there is no route.
    """
    models = config.models
    used = bool(config.routes) or calls_models
    token = _token_in(models.token_env, models.url, environment, allow_plain=models.plain_http or not used)
    if not token and (needs_token(config) or (calls_models and _is_remote(models.url))):
        raise ConfigError(
            f"{models.token_env} is not set, but the models at {models.url} need a token: "
            f"set it (`export {models.token_env}=...`), or point models.url to local models (`rerank-proxy models`)"
        )
    return token or None


def rerank_token_of(config: Config, token: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the token of the reranker: `token`, that of `models.url`, unless it has a URL of its own.

    Raises ConfigError if `models.rerank_token_env` names a variable that is not set.
    """
    models = config.models
    if models.rerank_url is None:
        return token
    if models.rerank_token_env is None:
        return None
    found = _token_in(models.rerank_token_env, models.rerank_url, environment, allow_plain=models.plain_http)
    if not found:
        raise ConfigError(
            f"{models.rerank_token_env} is not set, but models.rerank_token_env names it: "
            "set the variable, or remove the key"
        )
    return found


def _token_in(variable: str, url: str, environment: Mapping[str, str], *, allow_plain: bool) -> str:
    """Return the token for a URL from an environment variable, empty if there is none; raises ConfigError."""
    token = environment.get(variable, "").strip()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(f"{variable}: contains characters that are not allowed in a token: set it to a valid value")
    if token and not allow_plain and _is_open_to_others(url):
        raise ConfigError(
            f"{variable} is set and would be sent unencrypted to {url}: use https, unset the variable "
            "where the models need no token, or allow it with `models.plain_http: true`"
        )
    return token
