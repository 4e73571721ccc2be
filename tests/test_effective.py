"""The settings in force, shown without secrets, and what of new ones waits for the next start."""

import json
from typing import Any

import msgspec
import pytest

from proxy.settings.config import Config, RouteSettings
from proxy.settings.config_file import KNOWN_KEYS, read
from proxy.settings.effective import MASK, changed_keys, effective, in_force, masked, needs_restart
from proxy.settings.profiles import PROFILES

replace = msgspec.structs.replace


def test_a_route_is_shown_with_the_defaults_of_its_profile() -> None:
    (route,) = effective(Config(routes=(RouteSettings(index="a", profile="legal"),)), {})["settings"]["routes"]
    profile = PROFILES["legal"]
    assert ("a", profile.instruction, list(profile.passage), profile.rank_window_size) == (
        route["index"],
        route["instruction"],
        route["passage"],
        route["rank_window_size"],
    )


def test_secrets_are_shown_only_as_set_or_not() -> None:
    config = read("engine: {authorization_env: MINE}\nmodels: {token_env: THEIRS}", "f.yaml", {})
    shown = effective(config, {"MINE": "ApiKey s3cret", "OTHER": "s3cret", "THEIRS": " "})
    unset = ("THEIRS", "RERANK_PROXY_ADMIN_TOKEN", "RERANK_PROXY_CACHE_KEY", "RERANK_PROXY_REDIS_PASSWORD")
    assert {"MINE": "set"} | dict.fromkeys(unset, "not set") == shown["environment"]
    assert "s3cret" not in json.dumps(shown)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://user:s3cret@proxy:3128/a@b", f"http://{MASK}@proxy:3128/a@b"),
        ("https://s3cret@host", f"https://{MASK}@host"),
        ("https://host/path@part", "https://host/path@part"),
        (["http://a:s@b", 1, None, True], [f"http://{MASK}@b", 1, None, True]),
        ({"a": {"b": ("//a:s@b",)}}, {"a": {"b": [f"//{MASK}@b"]}}),
    ],
)
def test_credentials_in_urls_are_masked_everywhere(value: Any, shown: Any) -> None:
    assert shown == masked(value)


ROUTES = "routes: [{index: a}, {index: b}]"
STARTED = read(ROUTES, "f.yaml", {})


@pytest.mark.parametrize(
    ("text", "changed", "waits"),
    [
        (ROUTES, (), ()),
        ("routes: [{index: a}, {index: c}, {index: d}]", ("routes[1]", "routes[2]"), ()),
        ("routes: [{index: a}]", ("routes[1]",), ()),
        (ROUTES + "\nlisten: {port: 1, host: a}", (), ("listen.host", "listen.port")),
        (ROUTES + "\nlisten: {certificate_file: c}", ("listen.certificate_file",), ()),
        (ROUTES + "\nengine: {url: 'http://b', via: false}", (), ("engine.url", "engine.via")),
        (
            ROUTES + "\nengine: {resolve_timeout_seconds: 1}",
            ("engine.resolve_timeout_seconds",),
            (),
        ),
        (
            ROUTES + "\nsteering: []\ncache: {rankings_seconds: 1}",
            ("steering",),
            ("cache.rankings_seconds",),
        ),
    ],
)
def test_new_settings_apply_at_once_unless_they_need_a_restart(
    text: str, changed: tuple[str, ...], waits: tuple[str, ...]
) -> None:
    found = read(text, "f.yaml", {})
    assert (changed, waits) == (changed_keys(STARTED, in_force(found, STARTED)), needs_restart(found, STARTED))


def test_keys_that_need_a_restart_exist() -> None:
    other = read(
        "listen: {host: b, port: 1}\nlog: {format: console, level: debug}\n"
        "admin: {enabled: false, host: b, port: 1, token_env: B}\n"
        "engine: {url: 'http://b', host: b, connect_timeout_seconds: 1, idle_connection_seconds: 1,\n"
        "  added_searches: 1, resolve_cache_seconds: 1, via: false, forwarded_for: true}",
        "f.yaml",
        {},
    )
    waits = needs_restart(other, Config())
    known = {f"{section}.{key}" for section, keys in KNOWN_KEYS.items() for key in keys}
    assert (16, set()) == (len(waits), set(waits) - known)
    assert replace(Config(), routes=other.routes) == in_force(other, Config())
