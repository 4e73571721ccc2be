"""Secrets come from the environment; a missing one is named, and none is repeated in a message."""

import pytest

from proxy.settings.config import Config, Models, RouteSettings, Semantic
from proxy.settings.config_file import read
from proxy.settings.credentials import (
    CacheSecrets,
    admin_token_of,
    authorization_of,
    cache_secrets_of,
    needs_token,
    rerank_token_of,
    token_of,
)
from proxy.settings.yaml_file import ConfigError

ROUTE = "routes: [{index: a}]"
SECRET = "s3cret-t0ken"
REDIS = "redis_url: 'redis://a'"
ELSEWHERE = "\nmodels: {rerank_url: 'https://api.cohere.com', rerank_token_env: COHERE_TOKEN}"


def cache_secrets(text: str, **environment: str) -> CacheSecrets:
    return cache_secrets_of(read(text, "f.yaml", {}), environment)


def test_proxies_that_share_a_redis_need_the_same_key() -> None:
    with pytest.raises(ConfigError, match=r"MINE is not set, but cache\.redis_url needs it: set it, to the same value"):
        cache_secrets(f"cache: {{{REDIS}, key_env: MINE}}", MINE=" ")
    assert CacheSecrets(b"k" * 16) == cache_secrets(f"cache: {{{REDIS}, key_env: MINE}}", MINE="k" * 16)
    assert CacheSecrets() == cache_secrets("")


def test_a_short_key_is_rejected_without_repeating_it() -> None:
    with pytest.raises(ConfigError, match="RERANK_PROXY_CACHE_KEY: has fewer than 16 characters") as caught:
        cache_secrets("", RERANK_PROXY_CACHE_KEY=SECRET[:8])
    assert SECRET[:8] not in str(caught.value)


def test_the_password_of_redis_is_read_from_the_environment_and_not_shown() -> None:
    key = {"RERANK_PROXY_CACHE_KEY": "k" * 16}
    with pytest.raises(ConfigError, match=r"RERANK_PROXY_REDIS_PASSWORD is not set, but cache\.redis_user needs it"):
        cache_secrets(f"cache: {{{REDIS}, redis_user: proxy}}", **key)
    found = cache_secrets(f"cache: {{{REDIS}, redis_password_env: MINE}}", MINE=SECRET, **key)
    assert (SECRET, "CacheSecrets(***)") == (found.redis_password, repr(found))


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("https://api.deepinfra.com", True),
        ("http://8.8.8.8", True),
        ("http://127.0.0.1:8080", False),
        ("http://[::1]:8080", False),
        ("http://10.1.2.3", False),
        ("http://localhost:8080", False),
        ("http://models:8080", False),
        ("http://host.docker.internal:8080", False),
        ("http://box.local", False),
    ],
)
def test_a_route_with_remote_models_needs_a_token(url: str, remote: bool) -> None:  # noqa: FBT001
    models = Models(url=url)
    assert needs_token(Config(models=models, routes=(RouteSettings(index="a"),))) is remote
    assert not needs_token(Config(models=models))


@pytest.mark.parametrize("text", [ROUTE, ROUTE + "\nmodels: {token_env: MY_TOKEN}"])
def test_a_missing_token_is_an_error_with_advice(text: str) -> None:
    config = read(text, "f.yaml", {})
    with pytest.raises(ConfigError) as caught:
        token_of(config, {config.models.token_env: "  "})
    assert str(caught.value).startswith(f"{config.models.token_env} is not set, but the models at https://")
    assert f"export {config.models.token_env}=" in str(caught.value)


def test_a_token_is_read_from_its_variable_and_stripped() -> None:
    assert token_of(read(ROUTE, "f.yaml", {}), {"DEEPINFRA_TOKEN": f" {SECRET}\n"}) == SECRET


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("https://models.example.com", False),
        ("http://models.example.com", True),
        ("http://models:8080", True),
        ("http://10.1.2.3:8080", True),
        ("http://127.0.0.1:8080", False),
        ("http://127.1.2.3", False),
        ("http://[::1]:8080", False),
        ("http://localhost:8080", False),
        ("http://a.localhost", False),
        ("http://localhost.example.com", True),
        ("HTTP://models.example.com", True),
    ],
)
def test_a_token_is_not_sent_over_plain_http(url: str, *, refused: bool) -> None:
    """Unless the file allows it, or no model is called."""
    environment = {"DEEPINFRA_TOKEN": SECRET}
    config = read(f"{ROUTE}\nmodels: {{url: '{url}'}}", "f.yaml", {})
    allowed = read(f"{ROUTE}\nmodels: {{url: '{url}', plain_http: true}}", "f.yaml", {})
    unused = read(f"models: {{url: '{url}'}}", "f.yaml", {})
    assert SECRET == token_of(allowed, environment) == token_of(unused, environment)
    if not refused:
        assert SECRET == token_of(config, environment)
        return
    for asked, calls_models in ((config, False), (unused, True)):
        with pytest.raises(ConfigError, match=r"would be sent unencrypted to .*`models.plain_http: true`") as caught:
            token_of(asked, environment, calls_models=calls_models)
        assert SECRET not in str(caught.value)


def test_no_token_is_needed_without_a_route_or_for_local_models() -> None:
    assert token_of(Config(), {}) is None
    assert token_of(read(ROUTE + "\nmodels: {url: 'http://127.0.0.1:1'}", "f.yaml", {}), {}) is None


def test_a_command_that_calls_models_needs_the_token_whatever_the_routes_say() -> None:
    with pytest.raises(ConfigError, match="DEEPINFRA_TOKEN is not set"):
        token_of(Config(), {}, calls_models=True)


def test_the_models_token_is_not_sent_to_a_reranker_elsewhere() -> None:
    same = read(ROUTE, "f.yaml", {})
    assert "of url" == rerank_token_of(same, "of url", {"COHERE_TOKEN": SECRET})
    without = read(ROUTE + "\nmodels: {rerank_url: 'https://tei.example.com'}", "f.yaml", {})
    assert rerank_token_of(without, "of url", {"COHERE_TOKEN": SECRET}) is None
    elsewhere = read(ROUTE + ELSEWHERE, "f.yaml", {})
    assert SECRET == rerank_token_of(elsewhere, "of url", {"COHERE_TOKEN": SECRET})
    with pytest.raises(ConfigError, match=r"COHERE_TOKEN is not set, but models\.rerank_token_env names it"):
        rerank_token_of(elsewhere, "of url", {})


def test_the_rerank_token_is_not_sent_over_plain_http() -> None:
    config = read(ROUTE + ELSEWHERE.replace("https", "http"), "f.yaml", {})
    with pytest.raises(ConfigError, match=r"would be sent unencrypted to http://api\.cohere\.com"):
        rerank_token_of(config, None, {"COHERE_TOKEN": SECRET})


def test_a_route_that_only_reranks_elsewhere_needs_no_models_token() -> None:
    assert not needs_token(read(ROUTE + ELSEWHERE, "f.yaml", {}))
    semantic = RouteSettings(index="a", semantic=Semantic(field="v", dimensions=3))
    assert needs_token(Config(models=Models(rerank_url="https://api.cohere.com"), routes=(semantic,)))


@pytest.mark.parametrize("token", [f"{SECRET} x", f"{SECRET}\x01", f"{SECRET}é", f"{SECRET}\nX: y"])
def test_an_invalid_token_is_rejected_without_repeating_it(token: str) -> None:
    with pytest.raises(ConfigError, match="DEEPINFRA_TOKEN: contains characters") as caught:
        token_of(Config(), {"DEEPINFRA_TOKEN": token})
    assert SECRET not in str(caught.value)


def test_the_proxys_authorization_is_read_from_the_named_variable() -> None:
    named = read("engine: {authorization_env: AUTH}", "f.yaml", {})
    assert authorization_of(named, {"AUTH": " ApiKey x\n"}) == "ApiKey x"
    assert authorization_of(Config(), {"AUTH": "ApiKey x"}) is None


@pytest.mark.parametrize("value", ["", " ", f"ApiKey {SECRET}\r\nX: y", SECRET, f"user:{SECRET}"])
def test_an_unusable_authorization_is_rejected_without_repeating_it(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^AUTH") as caught:
        authorization_of(read("engine: {authorization_env: AUTH}", "f.yaml", {}), {"AUTH": value})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_the_admin_port_needs_no_token_on_a_loopback_address(host: str) -> None:
    assert admin_token_of(read(f"admin: {{host: '{host}'}}", "f.yaml", {}), {}) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "proxy.example"])
def test_the_admin_port_elsewhere_without_a_token_is_an_error(host: str) -> None:
    config = read(f"admin: {{host: '{host}', token_env: MINE}}", "f.yaml", {})
    with pytest.raises(ConfigError, match="MINE is not set, but the admin port"):
        admin_token_of(config, {"MINE": " "})
    assert SECRET == admin_token_of(config, {"MINE": SECRET})
    assert admin_token_of(read(f"admin: {{host: '{host}', enabled: false}}", "f.yaml", {}), {}) is None


def test_an_admin_token_invalid_in_a_header_is_rejected() -> None:
    with pytest.raises(ConfigError, match="RERANK_PROXY_ADMIN_TOKEN: contains characters") as caught:
        admin_token_of(Config(), {"RERANK_PROXY_ADMIN_TOKEN": "two words"})
    assert "two words" not in str(caught.value)
