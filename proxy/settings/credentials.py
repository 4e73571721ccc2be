"""Secrets from the environment, in the variables that the settings name."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from proxy.settings.config import Config
from proxy.settings.yaml_file import ConfigError


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
    if " " not in value:
        raise ConfigError(
            f"{variable}: expected the value of an Authorization header, which begins with its scheme: `ApiKey ...`, "
            "`Bearer ...`, or `Basic ...` with the base64 of user:password"
        )
    return value


def admin_token_of(config: Config, environment: Mapping[str, str]) -> str | None:
    """Read the token of the admin port from the environment; raises ConfigError if one is needed and missing."""
    variable = config.admin.token_env
    token = _token(variable, environment)
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


def _token(variable: str, environment: Mapping[str, str]) -> str:
    """Return the token in an environment variable, empty if there is none; raises ConfigError."""
    token = environment.get(variable, "").strip()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(f"{variable}: contains characters that are not allowed in a token: set it to a valid value")
    return token


def _token_in(variable: str, url: str, environment: Mapping[str, str], *, allow_plain: bool) -> str:
    """Like `_token`, for a URL; raises ConfigError if others could read the token on its way."""
    token = _token(variable, environment)
    if token and not allow_plain and _is_open_to_others(url):
        raise ConfigError(
            f"{variable} is set and would be sent unencrypted to {url}: use https, unset the variable "
            "where the models need no token, or allow it with `models.plain_http: true`"
        )
    return token
