"""Loads the settings: the file, overridden by the environment and the command line.

A wrong key is reported with its name and line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import UNSET
from msgspec.structs import FieldInfo, fields

from proxy.settings.config import (
    LAST_PORT,
    Admin,
    BypassRules,
    Cache,
    Callers,
    Config,
    EmbedApi,
    Engine,
    Fusion,
    Listen,
    Log,
    LogFormat,
    LogLevel,
    Mode,
    Models,
    OnZeroHits,
    Priority,
    QueryFrom,
    Redact,
    RedactedKind,
    RedactedPassage,
    RedactedQuery,
    RerankApi,
    RouteSettings,
    Section,
    Semantic,
    ServiceTier,
    ShareBy,
    Similarity,
    Spend,
    SpendCaps,
    Tier,
    TraceSettings,
)
from proxy.settings.contradictions import contradictions
from proxy.settings.request_options import OPTIONS
from proxy.settings.yaml_file import ConfigError, Vocabulary, YamlFile


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


SECTIONS: Mapping[str, type[Section]] = {
    "": Config,
    "listen": Listen,
    "engine": Engine,
    "models": Models,
    "callers": Callers,
    "cache": Cache,
    "spend": Spend,
    "log": Log,
    "admin": Admin,
    "traces": TraceSettings,
    "routes[]": RouteSettings,
    "routes[].semantic": Semantic,
    "routes[].fusion": Fusion,
    "routes[].query_from": QueryFrom,
    "routes[].bypass": BypassRules,
    "routes[].redact": Redact,
    "routes[].share_by": ShareBy,
    "routes[].spend": SpendCaps,
}
"""The sections of the file by their path."""
KNOWN_KEYS: Mapping[str, tuple[str, ...]] = {
    path: tuple(field.name for field in fields(section)) for path, section in SECTIONS.items()
}
"""The keys of each section, by the section's path."""
KNOWN_WORDS: Mapping[str, tuple[str, ...]] = {
    "similarity": get_args(Similarity),
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
_FOREIGN_KEYS = dict.fromkeys(
    ("engine.hosts", "engine.nodes"), "`engine.url` names the engine; for several nodes, it is a list"
)
"""Keys of other programs whose most similar key here means something else."""
_FOR_ENGINE = (
    "no secrets in this file: `engine.authorization_env` names the environment variable with the credentials of the "
    "proxy's own commands; a client's request is sent with the client's"
)
_FOR_MODELS = "no secrets in this file: `models.token_env` names the environment variable with the token"
SECRET_KEYS: Mapping[str, str] = {
    **{f"engine.{key}": _FOR_ENGINE for key in ("user", "username", "password", "api_key", "authorization")},
    **{f"models.{key}": _FOR_MODELS for key in ("token", "api_key")},
    **{
        key: f"no secrets in this file: `{key}_env` names the environment variable with it"
        for key in ("models.rerank_token", "cache.key", "cache.redis_password", "admin.token")
    },
}
"""Keys that would hold secrets, and what to write instead."""
_VALUES: Mapping[str, str] = {
    "routes": '[{index: "products*"}]',
    "certificate_file": "/etc/ssl/proxy.pem",
    "key_file": "/etc/ssl/proxy.key",
    "ca_file": "/etc/ssl/ca.pem",
    "redis_ca_file": "/etc/ssl/ca.pem",
    "host": "search.example.com",
    "published_address": "search.example.com:9201",
    "authorization_env": "ENGINE_AUTHORIZATION",
    "rerank_url": "http://127.0.0.1:8080",
    "rerank_token_env": "RERANK_TOKEN",
    "proxy": "http://proxy.internal:3128",
    "service_tier": "priority",
    "canary_file": "canary.json",
    "ignore": "[cf-ray]",
    "redis_url": "redis://127.0.0.1:6379/0",
    "redis_user": "proxy",
    "file": "spend.json",
    "prices": "{Qwen/Qwen3-Reranker-4B: 0.025}",
    "max_usd_per_day": "5",
    "max_usd_per_minute": "0.05",
    "url": "http://127.0.0.1:4318",
    "index": '"products*"',
    "tier": "balanced",
    "priority": "balanced",
    "instruction": '"Given a query, find the product"',
    "passage": "[title, description]",
    "semantic": "{field: embedding, dimensions: 384}",
    "embedding_model": "Qwen/Qwen3-Embedding-4B",
    "rerank_model": "Qwen/Qwen3-Reranker-4B",
    "rerank_fallbacks": "[Qwen/Qwen3-Reranker-0.6B]",
    "rank_window_size": "50",
    "blend": "0.2",
    "field": "embedding",
    "dimensions": "384",
    "min_similarity": "0.35",
    "num_candidates": "100",
    "oversample": "3",
    "similarity": "cosine",
    "header": "X-Search-Text",
    "cookie": "session",
    "body": "suggest.spelling.text",
    "name": "typed",
    "phrases": "[gift card]",
    "patterns": "['KD-\\d{6}']",
    "kinds": "[email]",
}
"""Example values of keys without a default."""


def _example(key: FieldInfo) -> str:
    """Return a key with its default, or else with an example; a section with its first key."""
    default = key.default if key.default_factory is msgspec.NODEFAULT else key.default_factory()
    if isinstance(default, Section):
        first = fields(type(default))[0]
        return f"{key.name}: {{{_example(first)}}}"
    if default in (None, [], (), {}, UNSET, msgspec.NODEFAULT):
        return f"{key.name}: {_VALUES[key.name]}"
    match default:
        case tuple():
            return f"{key.name}: [{', '.join(default)}]"
        case bool():
            return f"{key.name}: {str(default).lower()}"
        case float():
            return f"{key.name}: {default:g}"
        case _:
            return f"{key.name}: {default}"


EXAMPLES: Mapping[str, str] = {
    f"{path}.{key.name}" if path else key.name: _example(key)
    for path, section in SECTIONS.items()
    for key in fields(section)
}
"""Each key with a value that is allowed, by the path of the key."""
_ALLOWED = Vocabulary(KNOWN_KEYS, KNOWN_WORDS, {**REMOVED_KEYS, **_FOREIGN_KEYS, **SECRET_KEYS}, EXAMPLES)


def load(path: Path, environment: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> Config:
    """Read a file, overridden by environment variables, overridden by the command line; raises ConfigError."""
    return load_with_lines(path, environment, overrides)[0]


def load_with_lines(
    path: Path, environment: Mapping[str, str], overrides: Mapping[str, str] | None = None
) -> tuple[Config, YamlFile]:
    """Like `load`; also return the parsed file, which knows the line of each key."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}. Name another file with -c.") from None
    except UnicodeDecodeError as error:
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
        raise file.refusal(str(error), _ALLOWED) from None
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
    if not (colon and port.isascii() and port.isdigit() and int(port) <= LAST_PORT):
        raise ConfigError(f"{_LISTEN.name}: expected host:port, as in 0.0.0.0:9201, not {text!r}")
    return {"host": host.strip("[]") or "0.0.0.0", "port": int(port)}  # noqa: S104  an empty host means all
