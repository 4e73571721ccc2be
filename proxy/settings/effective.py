"""The settings in force, as the admin port shows them: profile defaults filled in, secrets masked."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from proxy.settings.config import Cache, Config
from proxy.settings.routes import Route, build_routes

MASK = "***"
_CREDENTIALS = re.compile(r"//[^/?#\s]*@")


def effective(config: Config, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings as JSON values; for a variable with a secret, whether it is set."""
    settings: dict[str, Any] = masked(msgspec.to_builtins(config))
    routes = zip(settings["routes"], build_routes(config), strict=True)
    settings["routes"] = [written | _filled_in(route) for written, route in routes]
    variables = {
        name: "set" if environment.get(name, "").strip() else "not set" for name in sorted(_variables(settings))
    }
    return {"settings": settings, "environment": variables}


def _filled_in(route: Route) -> dict[str, Any]:
    return {
        "instruction": route.instruction,
        "passage": list(route.passage.entries),
        "rank_window_size": route.rank_window_size,
        "rerank_model": route.rerank_model,
        **({"fast_rerank_model": route.tier_switch.fast_model} if route.tier_switch else {}),
        "embedding_model": route.embedding_model,
    }


def masked(value: Any) -> Any:
    """Mask the credentials in every URL."""
    match value:
        case dict():
            return {key: masked(inner) for key, inner in value.items()}
        case list() | tuple():
            return [masked(inner) for inner in value]
        case str():
            return _CREDENTIALS.sub(f"//{MASK}@", value)
        case _:
            return value


def _variables(value: Any) -> Iterator[str]:
    """Return the environment variables from which the settings take secrets."""
    match value:
        case dict():
            for key, inner in value.items():
                if key.endswith("_env") and isinstance(inner, str):
                    yield inner
                yield from _variables(inner)
        case list():
            for inner in value:
                yield from _variables(inner)
        case _:
            pass


# Created once per process: ports, engine connections and what is cached about the engine, caches, the log writer, and
# the export of traces.
_FIXED: Mapping[str, tuple[str, ...]] = {
    "listen": ("host", "port"),
    "engine": (
        "url",
        "host",
        "connect_timeout_seconds",
        "idle_connection_seconds",
        "added_searches",
        "resolve_cache_seconds",
        "via",
        "forwarded_for",
    ),
    "cache": Cache.__struct_fields__,
    "log": ("format", "level"),
    "admin": ("enabled", "host", "port", "token_env"),
    "spend": ("file",),
    "traces": ("url", "share"),
}
"""Keys whose new values take effect after a restart, by section."""


def in_force(read: Config, started: Config) -> Config:
    """Return the new settings, with the old values of all keys that require a restart."""
    sections = {
        section: msgspec.structs.replace(
            getattr(read, section), **{key: getattr(getattr(started, section), key) for key in keys}
        )
        for section, keys in _FIXED.items()
    }
    return msgspec.structs.replace(read, **sections)


def needs_restart(read: Config, started: Config) -> tuple[str, ...]:
    """Return the changed keys that require a restart."""
    return changed_keys(read, in_force(read, started))


def changed_keys(one: Config, other: Config) -> tuple[str, ...]:
    """Return the keys that differ; a route counts as one key."""
    return tuple(sorted(_differences("", msgspec.to_builtins(one), msgspec.to_builtins(other))))


def _differences(path: str, one: Any, other: Any) -> Iterator[str]:
    if one == other:
        return
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from _differences(f"{path}.{key}" if path else key, one.get(key), other.get(key))
    elif path == "routes":
        for number in range(max(len(one), len(other))):
            if one[number : number + 1] != other[number : number + 1]:
                yield f"routes[{number}]"
    else:
        yield path
