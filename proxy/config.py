"""The frozen tree of settings, and `load`, which refuses a wrong key with its name and line."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Meta, UnsetType

from proxy.http1.callers import not_ignorable
from proxy.profiles import PROFILES
from proxy.request.steering import ALLOWED, OPTIONS, Option
from proxy.yaml_file import ConfigError, YamlFile, did_you_mean

_PORT_MAX = 65535
Port = Annotated[int, Meta(ge=0, le=_PORT_MAX)]
Name = Annotated[str, Meta(min_length=1)]
Seconds = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0)]
Tier = Literal["fast", "balanced", "precision"]
Priority = Literal["speed-and-cost", "balanced", "accuracy", "high-volume", "critical"]
OnZeroHits = Literal["keep_empty", "semantic"]
LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the file: read once, never changed, no key that nobody reads."""


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
        """Whether any node is."""
        return any(urlsplit(url).scheme == "https" for url in self.urls)


class Models(Section, frozen=True, kw_only=True):
    url: str = "https://api.deepinfra.com"
    token_env: str = "DEEPINFRA_TOKEN"  # noqa: S105  a variable's name, not its value
    plain_http: bool = False
    connect_timeout_seconds: Seconds = 1.0
    embed_timeout_seconds: Seconds = 1.0
    rerank_timeout_seconds: Seconds = 3.0
    query_max_chars: Annotated[int, Meta(ge=1)] = 2000
    passage_max_chars: Annotated[int, Meta(ge=1)] = 2000
    vector_cache_mb: Annotated[int, Meta(ge=0)] = 64


class Semantic(Section, frozen=True, kw_only=True):
    field: Name | Annotated[tuple[Name, ...], Meta(min_length=1)]
    dimensions: Annotated[int, Meta(ge=1, le=4096)]
    min_similarity: Annotated[float, Meta(ge=-1, le=1)] | UnsetType = UNSET
    num_candidates: Annotated[int, Meta(ge=1, le=10_000)] | UnsetType = UNSET
    oversample: Annotated[float, Meta(ge=1)] | None = None
    similarity: str | None = None
    timeout_seconds: Seconds = 2.0

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.field,) if isinstance(self.field, str) else self.field


class Fusion(Section, frozen=True, kw_only=True):
    rank_constant: Annotated[int, Meta(ge=1)] = 10
    lexical_weight: Share = 1.0
    semantic_weight: Share = 1.0


class Pages(Section, frozen=True, kw_only=True):
    cache_seconds: Seconds = 60.0
    cache_entries: Annotated[int, Meta(ge=0)] = 2000


class BypassRules(Section, frozen=True, kw_only=True):
    """Which of a route's searches are left to the engine, by what the user typed."""

    identifiers: bool = True
    autocomplete: bool = True
    phrases: list[str] = []
    patterns: list[str] = []


class Callers(Section, frozen=True, kw_only=True):
    """Which headers do not tell callers apart, besides those that never do."""

    ignore: tuple[str, ...] = ()


class QueryFrom(Section, frozen=True, kw_only=True):
    """Where a search says what the user typed, if its query does not tell it from filters; the first that is there."""

    header: Name | None = None
    body: Name | None = None
    name: Name | None = None


class Log(Section, frozen=True, kw_only=True):
    format: LogFormat = "json"
    level: LogLevel = "info"
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
    blend: Share | None = None
    on_zero_hits: OnZeroHits = "keep_empty"
    query_from: QueryFrom = QueryFrom()
    bypass: BypassRules = BypassRules()

    @property
    def patterns(self) -> tuple[str, ...]:
        return (self.index,) if isinstance(self.index, str) else tuple(self.index)


class Config(Section, frozen=True, kw_only=True):
    """The whole file."""

    listen: Listen = Listen()
    engine: Engine = Engine()
    models: Models = Models()
    routes: tuple[RouteSettings, ...] = ()
    callers: Callers = Callers()
    pages: Pages = Pages()
    steering: tuple[Option, ...] = ALLOWED
    log: Log = Log()


@dataclass(frozen=True, slots=True)
class _Setting:
    """What stands above the file, as a container needs it: a variable, its option, and the key both set."""

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
    "pages": _keys(Pages),
    "log": _keys(Log),
    "routes[]": _keys(RouteSettings),
    "routes[].semantic": _keys(Semantic),
    "routes[].fusion": _keys(Fusion),
    "routes[].query_from": _keys(QueryFrom),
    "routes[].bypass": _keys(BypassRules),
}
"""The keys of each section, by the section's path."""
KNOWN_WORDS: Mapping[str, tuple[str, ...]] = {
    "tier": get_args(Tier),
    "priority": get_args(Priority),
    "on_zero_hits": get_args(OnZeroHits),
    "format": get_args(LogFormat),
    "level": get_args(LogLevel),
    "steering": OPTIONS,
}
"""What may be said for a key that takes only some words."""


def load(path: Path, environment: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> Config:
    """Read a file, then what the environment and the command line set; raises ConfigError."""
    return load_with_lines(path, environment, overrides)[0]


def load_with_lines(
    path: Path, environment: Mapping[str, str], overrides: Mapping[str, str] | None = None
) -> tuple[Config, YamlFile]:
    """Do the same, and return which line each key is on."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}. Name another file with -c.") from None
    file = YamlFile.parse(text, str(path))
    return _converted(file, {**environment, **(overrides or {})}), file


def read(text: str, name: str, environment: Mapping[str, str]) -> Config:
    """Read the text of a file; raises ConfigError that names key and line."""
    return _converted(YamlFile.parse(text, name), environment)


def _converted(file: YamlFile, environment: Mapping[str, str]) -> Config:
    settings = _with_environment(file.value, environment)
    try:
        config = msgspec.convert(settings, Config)
    except msgspec.ValidationError as error:
        raise file.refusal(str(error), KNOWN_KEYS, KNOWN_WORDS) from None
    elsewhere = {setting.key: setting.name for setting in _SETTINGS if environment.get(setting.variable)}
    for place, problem in contradictions(config):
        raise ConfigError(f"{elsewhere[place]}: {problem}") if place in elsewhere else file.error(place, problem)
    return config


def _with_environment(value: Any, environment: Mapping[str, str]) -> Any:
    if not isinstance(value, dict):
        return value
    settings = dict(value)
    for setting in _SETTINGS:
        if said := environment.get(setting.variable):
            section, _, key = setting.key.partition(".")
            added = {key: said} if key else _address(said)
            there = settings.get(section)
            settings[section] = (there if isinstance(there, dict) else {}) | added
    return settings


def _address(said: str) -> dict[str, Any]:
    host, colon, port = said.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) <= _PORT_MAX):
        raise ConfigError(f"{_LISTEN.name}: expected host:port, as in 0.0.0.0:9201, not {said!r}")
    return {"host": host.strip("[]") or "0.0.0.0", "port": int(port)}  # noqa: S104  an empty host means all


def contradictions(config: Config) -> Iterator[tuple[str, str]]:
    """Find what each key allows by itself but not beside the others: the key's path, and what is wrong."""
    yield from _engine_problems(config.engine)
    if config.listen.key_file and not config.listen.certificate_file:
        yield "listen.key_file", "a key needs its `certificate_file` beside it"
    yield from _url_problems("models.url", config.models.url)
    if (found := _OF_AN_API.search(config.models.url)) is not None:
        right = config.models.url[: found.start()]
        yield "models.url", f"the proxy adds the paths of both APIs itself: write {right}"
    for number, name in enumerate(config.callers.ignore):
        if problem := not_ignorable(name):
            yield f"callers.ignore[{number}]", f"{name!r} {problem}"
    for number, route in enumerate(config.routes):
        for key, problem in (*_route_problems(route), *_pattern_problems(route.bypass)):
            yield f"routes[{number}].{key}", problem


def _engine_problems(engine: Engine) -> Iterator[tuple[str, str]]:
    for number, url in enumerate(engine.urls):
        yield from _url_problems("engine.url" if isinstance(engine.url, str) else f"engine.url[{number}]", url)
    if not engine.urls:
        yield "engine.url", "name at least one node"
    if not engine.by_https:
        for key in ("ca_file", "certificate_file"):
            if getattr(engine, key):
                yield (
                    f"engine.{key}",
                    "no node is reached by https: write `https://` in engine.url, or leave the key out",
                )
    if engine.key_file and not engine.certificate_file:
        yield "engine.key_file", "a key needs its `certificate_file` beside it"
    if engine.host is not None and not _HOST.fullmatch(engine.host):
        yield "engine.host", "expected a host, or host:port, as in search.example.com:9200"
    if engine.published_address is not None and not _HOST_AND_PORT.fullmatch(engine.published_address):
        yield "engine.published_address", "expected host:port, as in search.example.com:9201"


_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?", re.ASCII)
_HOST_AND_PORT = re.compile(rf"(?=.*:\d+$){_HOST.pattern}", re.ASCII)
_OF_AN_API = re.compile(r"/v1(/openai(/embeddings)?|/inference(/[^?#]*)?)?/*$")
"""Ends of DeepInfra's URLs as its documentation shows them for other clients."""


def _url_problems(place: str, url: str) -> Iterator[tuple[str, str]]:
    """Find what is wrong with a URL; one that may hold a secret is not repeated."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or too large; an IPv6 address without its end
        parts, usable = urlsplit(""), False
    if "@" in url:
        yield place, "credentials do not belong here: each client's own go to the engine with its requests"
    elif "?" in url or "#" in url:
        yield place, "a URL here has no query string and no fragment"
    elif not (url.isascii() and url.isprintable()) or " " in url:
        yield place, f"a URL has no spaces and nothing but ASCII, unlike {url!r}"
    elif not usable:
        yield place, f"expected a URL like http://127.0.0.1:9200, not {url!r}"


_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CREDENTIALS = re.compile(r"authorization|cookie|token|api-?key|secret|password|runas", re.IGNORECASE)


def _query_from_problems(place: QueryFrom) -> Iterator[tuple[str, str]]:
    if place.header and not _HEADER.fullmatch(place.header):
        yield "query_from.header", f"{place.header!r} is no name of a header"
    if place.header and _CREDENTIALS.search(place.header):
        yield "query_from.header", f"{place.header!r} may hold credentials, and query text is sent to the models"


def _route_problems(route: RouteSettings) -> Iterator[tuple[str, str]]:
    patterns = route.patterns
    if not patterns or not all(patterns):
        yield "index", "name at least one index, alias or pattern"
    if bad := [pattern for pattern in patterns if set(pattern) & _NOT_IN_PATTERNS or pattern.startswith("-")]:
        yield "index", f"{bad[0]!r} is no name or pattern of an index: several stand in a list, `*` is the wildcard"
    if route.profile not in PROFILES:
        yield "profile", f"no profile {route.profile!r}{did_you_mean(route.profile, tuple(PROFILES))}"
    if route.tier and route.priority:
        yield "priority", "say either `tier` or `priority`, which stands for a tier"
    if route.semantic is None and not route.rerank:
        yield "rerank", "a route with neither `semantic` nor `rerank` changes nothing: leave it out"
    if not route.rerank and route.rerank_model:
        yield "rerank_model", "is of no use beside `rerank: false`"
    if route.semantic is None and route.on_zero_hits == "semantic":
        yield "on_zero_hits", "`semantic` needs the route to have a `semantic` retriever"
    yield from _query_from_problems(route.query_from)
    if route.passage is not None and not all(route.passage):
        yield "passage", "an empty name is no field"
    if route.passage == [] and route.rerank:
        yield "passage", "the reranker needs at least one field to read"


def _pattern_problems(rules: BypassRules) -> Iterator[tuple[str, str]]:
    for number, pattern in enumerate(rules.patterns):
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            yield f"bypass.patterns[{number}]", f"{pattern!r} is no regular expression: {error}"


_NOT_IN_PATTERNS = frozenset(',<>"|?\\/# ')


def needs_token(config: Config) -> bool:
    """Whether a route calls models of a provider that wants to know who pays.

    A host of this machine, of a container network or a private address serves local models, which know no tokens.
    """
    return bool(config.routes) and _is_remote(config.models.url)


def _is_remote(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_private
    except ValueError:
        return "." in host and not host.endswith((".localhost", ".local", ".internal"))


def _is_open_to_others(url: str) -> bool:
    """Whether what is sent there can be read on its way: plain http to another machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost" or host.endswith(".localhost")
    return parts.scheme == "http" and not loopback


def authorization_of(config: Config, environment: Mapping[str, str]) -> str | None:
    """Take the proxy's own `Authorization` value from the environment; raises ConfigError where it is missing."""
    variable = config.engine.authorization_env
    if variable is None:
        return None
    if not (value := environment.get(variable, "").strip()):
        raise ConfigError(f"{variable} is not set, and engine.authorization_env names it: set it, or leave the key out")
    if not (value.isascii() and value.isprintable()):
        raise ConfigError(f"{variable}: holds characters that no header may have; set it anew")
    return value


def token_of(config: Config, environment: Mapping[str, str], *, calls_models: bool = False) -> str | None:
    """Take the models' token from the environment; raises ConfigError where one is needed and missing.

    `calls_models` says that models are called whatever the routes say.
    """
    variable = config.models.token_env
    token = environment.get(variable, "").strip()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(f"{variable}: holds characters that no token has; set it anew")
    if (
        token
        and (config.routes or calls_models)
        and not config.models.plain_http
        and _is_open_to_others(config.models.url)
    ):
        raise ConfigError(
            f"{variable} is set and would be sent unencrypted to {config.models.url}: use https, unset the variable "
            "where the models need no token, or allow it with `models.plain_http: true`"
        )
    if not token and (needs_token(config) or (calls_models and _is_remote(config.models.url))):
        raise ConfigError(
            f"{variable} is not set, and models are needed at {config.models.url}: "
            f"set it (`export {variable}=...`), or point models.url to local models (`rerank-proxy models`)"
        )
    return token or None
