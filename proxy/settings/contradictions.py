"""Values that the types of the settings cannot exclude: malformed ones, and those that contradict each other."""

import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from proxy.http1.callers import not_ignorable, not_query_text
from proxy.http1.framing import TOKEN
from proxy.settings.config import (
    FAST_ABOVE_RATE,
    BypassRules,
    Cache,
    Config,
    Engine,
    Models,
    QueryFrom,
    Redact,
    RouteSettings,
    TraceSettings,
    percent,
)
from proxy.settings.passage_template import line_of
from proxy.settings.profiles import PROFILES
from proxy.settings.request_options import Option
from proxy.settings.yaml_file import did_you_mean


def contradictions(config: Config) -> Iterator[tuple[str, str]]:
    """Find keys whose values are valid alone but not together; yields the key's path and the problem."""
    yield from _variable_problems(config)
    yield from _port_problems(config)
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


_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared, not listened on


def _port_problems(config: Config) -> Iterator[tuple[str, str]]:
    for place, host in (("listen", config.listen.host), ("admin", config.admin.host)):
        if host.count(":") == 1 or set(host) & set("/[] ") or not host:
            yield (
                f"{place}.host",
                (
                    f"expected an address or host name without port, as in 127.0.0.1 or 0.0.0.0, not {host!r}: "
                    f"the port belongs in `{place}.port`"
                ),
            )
    hosts = {config.listen.host, config.admin.host}
    if (
        config.admin.enabled
        and config.admin.port == config.listen.port != 0
        and (len(hosts) == 1 or hosts & _ANY_ADDRESS)
    ):
        yield "admin.port", "is the port of `listen` too: choose another one"


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


_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*|[a-z_][a-z0-9_]*|[A-Za-z]+(_[A-Za-z]+)+")
"""The name of an environment variable; tokens mix capitals, small letters and digits."""
_HEXADECIMAL = re.compile(r"(?=.*\d)[0-9a-f]{16,}|(?=.*\d)[0-9A-F]{16,}", re.ASCII)
"""A secret as `openssl rand -hex` makes it."""
_OF_VARIABLES = (
    ("engine", "authorization_env"),
    ("models", "token_env"),
    ("models", "rerank_token_env"),
    ("cache", "key_env"),
    ("cache", "redis_password_env"),
    ("admin", "token_env"),
)


def _variable_problems(config: Config) -> Iterator[tuple[str, str]]:
    """Find a secret in the place of the name of its variable; names are shown in errors and by the admin port."""
    for section, key in _OF_VARIABLES:
        name = getattr(getattr(config, section), key)
        if name is not None and (not _VARIABLE.fullmatch(name) or _HEXADECIMAL.fullmatch(name)):
            yield (
                f"{section}.{key}",
                "expected the name of an environment variable, as in DEEPINFRA_TOKEN: set that variable to the secret",
            )


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
    written = repr(share) if isinstance(share, str) else f"{share:g}"
    return f"expected a percentage from 0% to 100%, as in 5%, not {written}"


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
    elif ",http" in url:
        yield place, "names several URLs: write them as a list, as in [http://a:9200, http://b:9200]"
    elif not (url.isascii() and url.isprintable()) or " " in url:
        yield place, f"a URL may contain only printable ASCII characters and no spaces, not {url!r}"
    elif not usable:
        yield place, f"expected a URL like {example}, not {url!r}"


def _query_from_problems(place: QueryFrom) -> Iterator[tuple[str, str]]:
    if place.header and (problem := not_query_text(place.header)):
        yield "query_from.header", f"{place.header!r} {problem}"


def _reranker_problems(route: RouteSettings) -> Iterator[tuple[str, str]]:
    if route.tier != "auto" and route.fast_above_rate != FAST_ABOVE_RATE:
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


_NOT_IN_PATTERNS = frozenset(',<>"|?\\/# \u201c\u201d\u2018\u2019')
