"""Settings are what the file, the environment and the command line say; what cannot be meant is refused."""

import ast
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.dialects import ELASTICSEARCH, OPENSEARCH
from proxy.settings.config import (
    Admin,
    BypassRules,
    Cache,
    Callers,
    Config,
    Engine,
    Fusion,
    Listen,
    Log,
    Models,
    Redact,
    RouteSettings,
    Section,
    Semantic,
    TraceSettings,
)
from proxy.settings.config_file import (
    EXAMPLES,
    KNOWN_KEYS,
    KNOWN_WORDS,
    REMOVED_KEYS,
    SECRET_KEYS,
    SECTIONS,
    load,
    read,
)
from proxy.settings.profiles import AUTO, PRIORITIES, PROFILES, TIERS
from proxy.settings.request_options import ALLOWED
from proxy.settings.routes import Route, build_routes
from proxy.settings.yaml_file import ConfigError

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "config.yaml"
ROUTE = "routes: [{index: a}]"
SECRET = "s3cret-t0ken"


def refusal(text: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, "f.yaml", environment or {})
    return str(caught.value)


def only_route(**settings: Any) -> Route:
    (route,) = build_routes(Config(routes=(msgspec.convert({"index": "a"} | settings, RouteSettings),)))
    return route


# The shipped file


def shipped() -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    return settings


def test_the_shipped_file_is_valid() -> None:
    assert load(SHIPPED, {}).routes[0].index == "products*"


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ("listen", Listen),
        ("engine", Engine),
        ("models", Models),
        ("callers", Callers),
        ("cache", Cache),
        ("log", Log),
        ("admin", Admin),
        ("traces", TraceSettings),
    ],
)
def test_the_shipped_file_shows_every_key_with_the_defaults_of_the_code(section: str, kind: type[Section]) -> None:
    assert shipped()[section] == msgspec.json.decode(msgspec.json.encode(kind()))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("spend: {max_usd_per_day: 5}", "spend.max_usd_per_day"),
        ("routes: [{index: a, spend: {max_usd_per_day: 5}}]", "routes[0].spend.max_usd_per_day"),
    ],
)
def test_a_daily_cap_needs_the_state_file(text: str, place: str) -> None:
    """Without it, every restart of a crash loop could spend the day's maximum."""
    assert f"f.yaml:1: {place}: set `spend.file` too" in refusal(text)
    read(text + "\nspend: {file: spend.json}" if "routes" in text else text[:-1] + ", file: s.json}", "f.yaml", {})
    read("spend: {max_usd_per_minute: 5}", "f.yaml", {})


def test_a_cap_must_be_positive() -> None:
    assert "spend.max_usd_per_minute" in refusal("spend: {max_usd_per_minute: 0}")


def test_the_shipped_route_shows_every_key_and_the_defaults_of_the_code_and_the_profile() -> None:
    (route,) = shipped()["routes"]
    commented = set(re.findall(r"^\s+# (\w+):", SHIPPED.read_text(encoding="utf-8"), re.MULTILINE))
    assert route.keys() | route["semantic"].keys() | route["fusion"].keys() | commented == {
        *KNOWN_KEYS["routes[]"],
        *KNOWN_KEYS["routes[].semantic"],
        *KNOWN_KEYS["routes[].fusion"],
        *KNOWN_KEYS["routes[].query_from"],
        *KNOWN_KEYS["routes[].share_by"],
        *KNOWN_KEYS["routes[].spend"],
    }
    assert route["bypass"] == msgspec.to_builtins(BypassRules())
    assert route["redact"] == msgspec.json.decode(msgspec.json.encode(Redact()))
    assert route["fusion"] == msgspec.to_builtins(Fusion())
    assert route["semantic"]["timeout_seconds"] == Semantic(field="v", dimensions=1).timeout_seconds
    bare = RouteSettings(index="a")
    assert [route[key] for key in ("profile", "rerank", "blend", "budget_ms", "on_zero_hits")] == [
        bare.profile,
        bare.rerank,
        bare.blend,
        bare.budget_ms,
        bare.on_zero_hits,
    ]
    profile = PROFILES[bare.profile]
    assert (route["tier"], route["rank_window_size"]) == (profile.tier, profile.rank_window_size)


def test_the_shipped_file_lists_all_per_request_options() -> None:
    assert tuple(shipped()["steering"]) == ALLOWED == Config().steering


def test_every_key_of_the_shipped_file_is_commented() -> None:
    """A section's own line needs no comment if its keys have one."""
    lines = [line for line in SHIPPED.read_text(encoding="utf-8").splitlines() if re.match(r"\s*(- |# )?\w+:", line)]
    sections = {"listen:", "engine:", "models:", "callers:", "cache:", "log:", "admin:", "fusion:"}
    assert [line for line in lines if not re.search(r"\S\s+# \S", line) and line.strip() not in sections] == []


def test_every_key_is_read_somewhere() -> None:
    """No key is without effect."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "proxy").rglob("*.py")]
    read_names = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {key for keys in KNOWN_KEYS.values() for key in keys} - read_names == set()


# What a file may not say


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "engine:\n  search_connections: 5",
            (
                "f.yaml:2: engine.search_connections: is gone: each client connection has its own to the engine; "
                "`engine.added_searches` limits what the proxy adds"
            ),
        ),
        (
            "engine:\n  via: true\n  multi_search_concurrency: 8",
            (
                "f.yaml:3: engine.multi_search_concurrency: is gone: the searches of an `_msearch` run side by side; "
                "`engine.multi_search_reranked` limits how many of them are reranked"
            ),
        ),
        (
            "engine: {discovery_env: A}",
            "f.yaml:1: engine.discovery_env: is now called `engine.authorization_env`",
        ),
        (
            "pages:\n  cache_entries: 10000",
            (
                "f.yaml:1: pages: is gone: `cache_seconds` is now `cache.rankings_seconds`; instead of "
                "`cache_entries`, `cache.rankings_mb` limits the memory"
            ),
        ),
        ("models: {vector_cache_mb: 1}", "f.yaml:1: models.vector_cache_mb: is now called `cache.vectors_mb`"),
        (
            "models:\n  vector_cache_entries: 10000",
            "f.yaml:2: models.vector_cache_entries: is gone: `cache.vectors_mb` limits the memory instead",
        ),
    ],
)
def test_a_removed_key_is_an_error_naming_its_replacement(text: str, said: str) -> None:
    assert said == refusal(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        *((f"engine: {{{key}: x}}", "engine.authorization_env") for key in ("user", "password", "api_key")),
        *((f"models: {{{key}: x}}", "models.token_env") for key in ("token", "api_key")),
    ],
)
def test_a_secret_in_the_file_is_an_error_naming_the_key_for_its_variable(text: str, key: str) -> None:
    assert f"no secrets in this file: `{key}` names the environment variable" in refusal(text)


def test_keys_of_secrets_are_unknown_and_their_replacements_exist() -> None:
    known = {f"{section}.{key}" for section, keys in KNOWN_KEYS.items() for key in keys}
    assert set() == known & SECRET_KEYS.keys()
    assert set() == {name for said in SECRET_KEYS.values() for name in re.findall(r"`(\w+\.\w+)`", said)} - known


def test_removed_keys_are_unknown_and_their_replacements_exist() -> None:
    known = {f"{section}.{key}" for section, keys in KNOWN_KEYS.items() for key in keys}
    assert set() == known & REMOVED_KEYS.keys()
    assert set() == {name for said in REMOVED_KEYS.values() for name in re.findall(r"`(\w+\.\w+)`", said)} - known
    assert all("`" in said for said in REMOVED_KEYS.values())


def written(path: str, value: str) -> str:
    """A file with one key, and what its section requires."""
    required: dict[str, dict[str, Any]] = {"routes[]": {"index": "a"}, "semantic": {"field": "v", "dimensions": 3}}
    tree: Any = yaml.safe_load(value)
    *sections, key = path.split(".")
    for section, inner in zip([*reversed(sections), ""], [key, *reversed(sections)], strict=True):
        tree = required.get(section, {}) | {inner.removesuffix("[]"): [tree] if inner == "routes[]" else tree}
    return yaml.safe_dump(tree)


KEYS_WITH_VALUES = [
    f"{path}.{key}" if path else key
    for path, keys in KNOWN_KEYS.items()
    for key in keys
    if not {key, f"{path}.{key}"} & SECTIONS.keys()
]


def complaint(text: str) -> str:
    """What is said about a file; empty if it is accepted."""
    try:
        read(text, "f.yaml", {})
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("path", KEYS_WITH_VALUES)
def test_the_example_of_a_key_is_accepted(path: str) -> None:
    """It may only contradict other keys."""
    assert "expected" not in complaint(written(path, EXAMPLES[path].partition(": ")[2]))


@pytest.mark.parametrize("path", KEYS_WITH_VALUES)
@pytest.mark.parametrize("value", ["3", "[3]", "{a: {}}", "null", "2026-01-01"])
def test_a_value_of_another_type_is_an_error_with_an_example(path: str, value: str) -> None:
    said = complaint(written(path, value))
    assert ", got " not in said or said.endswith(f" as in `{EXAMPLES[path]}`")


@pytest.mark.parametrize("path", KNOWN_KEYS)
def test_an_unknown_key_is_an_error_with_line_and_suggestion(path: str) -> None:
    first = KNOWN_KEYS[path][0]
    routes = "routes:\n  - index: a\n"
    text = {
        "": "\n{key}: 1",
        "routes[]": routes + "    {key}: 1",
        "routes[].semantic": routes + "    semantic: {{field: v, dimensions: 3,\n     {key}: 1}}",
        "routes[].fusion": routes + "    fusion:\n      {key}: 1",
        "routes[].query_from": routes + "    query_from:\n      {key}: 1",
        "routes[].share_by": routes + "    share_by:\n      {key}: 1",
        "routes[].redact": routes + "    redact:\n      {key}: 1",
        "routes[].bypass": routes + "    bypass:\n      {key}: 1",
        "routes[].spend": routes + "    spend:\n      {key}: 1",
    }.get(path, path + ":\n  {key}: 1")
    said = refusal(text.format(key=f"{first}x"))
    line = text.count("\n") + 1
    place = path.replace("[]", "[0]")
    assert said == f"f.yaml:{line}: {place + '.' if place else ''}{first}x: unknown key, did you mean `{first}`?"


@pytest.mark.parametrize(
    ("key", "words"), [(key, words) for key, words in KNOWN_WORDS.items() if key not in KNOWN_KEYS[""]]
)
def test_an_unknown_value_is_an_error_with_a_suggestion(key: str, words: tuple[str, ...]) -> None:
    word = f"{words[0]}x"
    text = f"routes: [{{index: a, {key}: {word}}}]"
    place = key
    if key in KNOWN_KEYS["routes[].redact"]:
        place, value = (f"{key}[0]", f"[{word}]") if key == "kinds" else (key, word)
        text = f"routes: [{{index: a, redact: {{{key}: {value}}}}}]"
    if key in KNOWN_KEYS["log"]:
        text = f"log: {{{key}: {word}}}"
    if key in KNOWN_KEYS["routes[].semantic"]:
        text = f"routes: [{{index: a, semantic: {{{key}: {word}, field: v, dimensions: 3}}}}]"
    if key in KNOWN_KEYS["models"]:
        text = f"models: {{{key}: {word}}}"
    assert f"{place}: unknown value '{word}', did you mean `{words[0]}`?" in refusal(text)


def test_ports_of_different_addresses_may_be_equal() -> None:
    read("listen: {host: 10.0.0.1}\nadmin: {port: 9201}", "f.yaml", {})
    read("listen: {port: 0}\nadmin: {port: 0}", "f.yaml", {})


def test_the_allowed_similarities_are_those_of_the_dialects() -> None:
    assert set(KNOWN_WORDS["similarity"]) == {
        name for dialect in (ELASTICSEARCH, OPENSEARCH) for name in dialect.similarity
    }


def test_the_values_of_tier_and_priority_are_those_of_the_decision_matrix() -> None:
    assert KNOWN_WORDS["tier"] == (*TIERS, AUTO)
    assert KNOWN_WORDS["priority"] == tuple(PRIORITIES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listen: {port: 65536}", "f.yaml:1: listen.port: expected a whole number <= 65535"),
        (
            "listen: {port: '80'}",
            "listen.port: expected a whole number, got text: write it without quotes and without",
        ),
        (
            "listen: 9201",
            "got a whole number: write its keys in the lines below it, indented, as in `listen: {host: 127.0.0.1}`",
        ),
        (
            "engine: {hosts: [a]}",
            "f.yaml:1: engine.hosts: `engine.url` names the engine; for several nodes, it is a list",
        ),
        (
            "routes: [{index: a, model: m}]",
            "f.yaml:1: routes[0].model: unknown key, did you mean `embedding_model` or `rerank_model`?",
        ),
        ("cache: {redis_password: x}", "`cache.redis_password_env` names the environment variable with it"),
        ("1: 2", "f.yaml"),
        ("?", "f.yaml"),
        ("listen: {2001-01-01: 1}", "f.yaml"),
        ("!!set {a}", "f.yaml"),
        ("- a", "f.yaml: expected a section with keys, got a list"),
        ("engine: {connect_timeout_seconds: 0}", "f.yaml:1: engine.connect_timeout_seconds: expected a number > 0"),
        ("routes: [{profile: rag}]", "f.yaml:1: routes[0]: the key `index` is missing"),
        ("routes: [{index: a, rank_window_size: 1001}]", "routes[0].rank_window_size: expected a whole number <= 1000"),
        (
            "routes: [{index: a, semantic: {field: v, dimensions: 4097}}]",
            "dimensions: expected a whole number <= 4096",
        ),
        ("routes: [{index: a, semantic: {field: v, dimensions: 3, min_similarity: 2}}]", "min_similarity: expected"),
        ("engine: {url: localhost}", "f.yaml:1: engine.url: expected a URL like"),
        ("engine: {url: 'http://a:9200,http://b:9200'}", "engine.url: names several URLs: write them as a list"),
        ("engine: {url: 9200}", "engine.url: expected text or a list, got a whole number: put it in quotes"),
        ("engine:", "f.yaml:1: engine: expected a section with keys, got nothing: indent its keys below it, or"),
        ("engine: {via: 'yes'}", "engine.via: expected true or false, got text: write it without quotes"),
        ("cache: {scores_mb: 0.5}", "cache.scores_mb: expected a whole number, got a number with decimals"),
        ("routes: [{index: a, passage: [title, Brand: x]}]", "passage[1]: expected text, got a section with keys: put"),
        ("routes: [{index: a, passage: title}]", "passage: expected a list or null, got text: write it in brackets"),
        ("routes: [{index: a, semantic: v}]", "semantic: expected a section with keys or null, got text"),
        ("routes: [{index: a, window: 5}]", "routes[0].window: unknown key, did you mean `rank_window_size`?"),
        (
            "routes:\n- index: a\n  semantic:\n  field: v",
            "f.yaml:4: routes[0].field: unknown key; it is a key of `routes[].semantic`: check the indentation",
        ),
        ("routes: [{index: a, mode: null}]", "routes[0].mode: expected text, got nothing"),
        ("url: a", "f.yaml:1: url: unknown key; it is a key of `engine`: check the indentation"),
        ("engine: {tier: a}", "engine.tier: unknown key; it is a key of `routes[]`: check the indentation"),
        ("routes: [{index: “products*”}]", "routes[0].index: '“products*”' is not an index name or pattern"),
        ("log: {level: WARN}", "log.level: unknown value 'WARN', did you mean `warning`?"),
        ("listen: {host: '0.0.0.0:9201'}", "listen.host: expected an address or host name without port, as in"),
        ("admin: {host: ''}", "f.yaml:1: admin.host: expected an address or host name without port"),
        ("admin: {port: 9201}", "f.yaml:1: admin.port: is the port of `listen` too: choose another one"),
        ("engine: {url: 'ftp://a'}", "f.yaml:1: engine.url: expected a URL like"),
        ("engine: {url: []}", "f.yaml:1: engine.url: name at least one node"),
        ("engine:\n  url:\n    - http://a\n    - b", "f.yaml:4: engine.url[1]: expected a URL like"),
        ("engine: {url: 'http://a/?x=1'}", "f.yaml:1: engine.url: remove the query string"),
        ("models: {url: 'http://a/#x'}", "f.yaml:1: models.url: remove the query string"),
        ("routes: [{index: ''}]", "f.yaml:1: routes[0].index: name at least one index"),
        ("routes: [{index: []}]", "f.yaml:1: routes[0].index: name at least one index"),
        ("routes: [{index: 'a,b'}]", "'a,b' is not an index name or pattern"),
        ("routes: [{index: ['a', '-b']}]", "'-b' is not an index name or pattern"),
        ("routes: [{index: a, profile: ecommerce}]", "unknown profile 'ecommerce', did you mean `e-commerce`?"),
        ("routes: [{index: a, tier: fast, priority: critical}]", "set either `tier` or `priority`"),
        ("routes: [{index: a, rerank: false}]", "a route with neither `semantic` nor `rerank` changes nothing"),
        (
            "routes: [{index: a, rerank: false, rerank_model: m, semantic: {field: v, dimensions: 3}}]",
            "routes[0].rerank_model: has no effect with `rerank: false`",
        ),
        (
            "routes: [{index: a, rerank: false, tier: auto, semantic: {field: v, dimensions: 3}}]",
            "routes[0].tier: `auto` chooses the reranker, and has no effect with `rerank: false`",
        ),
        (
            "routes: [{index: a, redact: {patterns: ['\\bKD-\\d{6}', 'a+']}}]",
            "routes[0].redact.patterns[1]: 'a+': only characters, \\d, \\w and classes",
        ),
        (
            "models: {canary: false, canary_file: c.json}",
            "models.canary_file: has no effect with `canary: false`",
        ),
        (
            "routes: [{index: a, tier: auto, rerank_model: m}]",
            "routes[0].rerank_model: has no effect with `tier: auto`",
        ),
        ("routes: [{index: a, query_from: {header: 'a b'}}]", "'a b' is not a valid header name"),
        ("routes: [{index: a, query_from: {header: X-Proxy-Roles}}]", "'X-Proxy-Roles' may identify a caller"),
        (
            "routes: [{index: a, query_from: {header: Authorization}}]",
            "'Authorization' may identify a caller or their rights, and query text is sent to the models",
        ),
        (
            "routes: [{index: a, share: 0.05}]",
            "routes[0].share: expected a percentage from 0% to 100%, as in 5%, not 0.05",
        ),
        ("routes: [{index: a, share: 101%}]", "routes[0].share: expected a percentage from 0% to 100%"),
        ("routes: [{index: a, share: many}]", "routes[0].share: expected a percentage from 0% to 100%"),
        ("routes: [{index: a, mode: opt_in, share: 5%}]", "routes[0].share: has no effect with `mode: opt_in`"),
        (
            "routes: [{index: a, mode: opt_in}]\nsteering: [window]",
            "f.yaml:1: routes[0].mode: `opt_in` needs the option `enabled`, and `steering` does not allow it",
        ),
        ("routes: [{index: a, share_by: {header: 'a b'}}]", "share_by.header: 'a b' is not a valid name of a header"),
        ("routes: [{index: a, share_by: {cookie: 'a;b'}}]", "share_by.cookie: 'a;b' is not a valid name of a cookie"),
        ("routes: [{index: a, on_zero_hits: semantic}]", "`on_zero_hits: semantic` needs `semantic` in the route"),
        (
            "routes: [{index: a, on_zero_hits: semantic, semantic: {field: v, dimensions: 3, adds: false}}]",
            "`on_zero_hits: semantic` needs `semantic.adds: true`",
        ),
        ("routes: [{index: a, passage: ['']}]", "routes[0].passage[0]: is empty: expected the name of a field"),
        (
            "routes:\n- index: a\n  passage:\n  - title\n  - 'Brand: {brand'",
            "5: routes[0].passage[1]: 'Brand: {brand' has an unpaired `{`: write `{field}` for a field",
        ),
        ("routes: [{index: a, passage: []}]", "routes[0].passage: is empty, and the reranker needs at least one field"),
        ("engine: {key_file: a}", "f.yaml:1: engine.key_file: set `certificate_file` too"),
        ("engine:\n  ca_file: a", "f.yaml:2: engine.ca_file: no URL in engine.url begins with https://"),
        (
            "engine:\n  url: [http://a, http://b]\n  certificate_file: a",
            "f.yaml:3: engine.certificate_file: no URL in engine.url begins with https://: change the URL, or remove",
        ),
        ("listen: {key_file: a}", "f.yaml:1: listen.key_file: set `certificate_file` too"),
        (
            "routes:\n  - index: a\n    bypass:\n      patterns:\n        - a\n        - '('",
            "f.yaml:6: routes[0].bypass.patterns[1]: '(' is not a valid regular expression: missing )",
        ),
        (
            "steering: enabled",
            "f.yaml:1: steering: expected a list, got text: write it in brackets, as in `steering: [enabled,",
        ),
        ("engine: {url: 'http://a:x'}", "f.yaml:1: engine.url: expected a URL like"),
        ("engine: {url: 'http://a:65536'}", "f.yaml:1: engine.url: expected a URL like"),
        ("engine: {url: 'http://[::1'}", "f.yaml:1: engine.url: expected a URL like"),
        ("engine: {url: 'http:///a'}", "f.yaml:1: engine.url: expected a URL like"),
        (
            "engine: {url: 'http://a '}",
            "f.yaml:1: engine.url: a URL may contain only printable ASCII characters and no spaces",
        ),
        (
            "engine: {url: ' http://a'}",
            "f.yaml:1: engine.url: a URL may contain only printable ASCII characters and no spaces",
        ),
        (
            'engine: {url: "http://a\\n"}',
            "f.yaml:1: engine.url: a URL may contain only printable ASCII characters and no spaces",
        ),
        (
            "engine: {url: 'http://ä'}",
            "f.yaml:1: engine.url: a URL may contain only printable ASCII characters and no spaces",
        ),
        ("engine: {host: 'a b'}", "f.yaml:1: engine.host: expected a host"),
        ('engine: {host: "a\\r\\nX: y"}', "f.yaml:1: engine.host: expected a host"),
        ("engine: {published_address: a}", "f.yaml:1: engine.published_address: expected host:port"),
        ("engine: {published_address: 'http://a:1'}", "f.yaml:1: engine.published_address: expected host:port"),
        ("cache: {redis_user: a}", "f.yaml:1: cache.redis_user: has no effect without `redis_url`"),
        ("cache: {redis_ca_file: a}", "f.yaml:1: cache.redis_ca_file: has no effect without `redis_url`"),
        (
            "cache:\n  redis_url: redis://a\n  redis_ca_file: a",
            "f.yaml:3: cache.redis_ca_file: cache.redis_url does not begin with rediss://",
        ),
        ("cache: {rankings_mb: -1}", "f.yaml:1: cache.rankings_mb: expected a whole number >= 0"),
        (
            "callers: {ignore: cf-ray}",
            "callers.ignore: expected a list, got text: write it in brackets, as in `ignore: [cf-ray]`",
        ),
        (
            "spend:\n  prices:\n    a.b/c: cheap",
            "f.yaml:2: spend.prices: one of its values: expected a number, got text: write it without quotes",
        ),
        ("spend: {prices: {a: -1}}", "f.yaml:1: spend.prices: one of its values: expected a number >= 0"),
        (
            "routes: [{index: a, passages_per_document: 3}]",
            "f.yaml:1: routes[0].passages_per_document: expected a whole number <= 2",
        ),
        ("routes: [{index: a, redact: {query: omit}}]", "unknown value 'omit'; expected one of: bypass, redact"),
        ("routes: [{index: a, redact: {passage: bypass}}]", "unknown value 'bypass'; expected one of: omit, redact"),
        (
            "routes:\n  - index: a\n    redact: {query: bypass}",
            "f.yaml:3: routes[0].redact.query: has no effect without `kinds` or `patterns`",
        ),
        (
            "routes:\n  - index: a\n    redact: {passage: omit}",
            "f.yaml:3: routes[0].redact.passage: has no effect without `kinds` or `patterns`",
        ),
        (
            "routes:\n  - index: a\n    fast_above_rate: 5",
            "f.yaml:3: routes[0].fast_above_rate: has no effect without `tier: auto`",
        ),
        (
            "traces: {url: 'http://a:b@collector:4318'}",
            "f.yaml:1: traces.url: remove the credentials: set them in OTEL_EXPORTER_OTLP_HEADERS",
        ),
        (
            "callers:\n  ignore:\n    - cf-ray\n    - Cookie",
            "f.yaml:4: callers.ignore[1]: 'Cookie' may identify a caller",
        ),
        ("callers: {ignore: ['cf-*']}", "f.yaml:1: callers.ignore[0]: 'cf-*' is not a valid header name"),
        (
            "routes: [{index: a, semantic: {field: v, dimensions: 3, oversample: 0.5}}]",
            "oversample: expected a number >= 1",
        ),
    ],
)
def test_contradictory_settings_are_an_error_with_key_and_line(text: str, said: str) -> None:
    assert said in refusal(text)


@pytest.mark.parametrize("key", ["engine", "models"])
@pytest.mark.parametrize(
    "url", ["http://user:{}@a", "user:{}@a:9200", "htp://user:{}@a", "http://{}@a", "http://[::1:{}@a"]
)
def test_credentials_in_a_url_are_rejected_without_repeating_them(key: str, url: str) -> None:
    said = refusal(f"{key}: {{url: '{url.format(SECRET)}'}}")
    assert said.startswith(f"f.yaml:1: {key}.url: remove the credentials")
    assert SECRET not in said


@pytest.mark.parametrize("url", ["http://a?token={}", "a?token={}", "http://a#{}"])
def test_a_query_string_in_a_url_is_rejected_without_repeating_it(url: str) -> None:
    said = refusal(f"models: {{url: '{url.format(SECRET)}'}}")
    assert said.startswith("f.yaml:1: models.url: remove the query string")
    assert SECRET not in said


@pytest.mark.parametrize("url", ["redis://user:{}@a", "redis://:{}@a:6379/0", "{}@a"])
def test_credentials_in_the_redis_url_are_rejected_without_repeating_them(url: str) -> None:
    said = refusal(f"cache: {{redis_url: '{url.format(SECRET)}'}}")
    assert said.startswith("f.yaml:1: cache.redis_url: remove the credentials: set `redis_user`")
    assert SECRET not in said


@pytest.mark.parametrize(
    "url",
    ["a:6379", "http://a", "redis:a", "redis://", "redis://a/x", "redis://a:0", "redis://a:99999", "redis://a/1?db=2"],
)
def test_an_invalid_redis_url_is_rejected(url: str) -> None:
    assert refusal(f"cache: {{redis_url: '{url}'}}").startswith("f.yaml:1: cache.redis_url: expected a URL like redis:")


@pytest.mark.parametrize(
    "url", ["redis://a", "redis://127.0.0.1:6380/", "rediss://redis.example:6379/15", "redis://[::1]"]
)
def test_valid_redis_urls_are_accepted(url: str) -> None:
    assert url == read(f"cache: {{redis_url: '{url}'}}", "f.yaml", {}).cache.redis_url


@pytest.mark.parametrize(
    "end",
    ["/v1/openai", "/v1/openai/", "/v1", "/v1/", "/v1/openai/embeddings", "/v1/inference", "/v1/inference/Qwen/Q"],
)
@pytest.mark.parametrize("base", ["https://api.deepinfra.com", "http://models:8080/prefix"])
def test_a_url_of_a_single_api_is_rejected_with_the_right_one(base: str, end: str) -> None:
    """Other clients' documentation shows such URLs; the embeddings' path would become /v1/openai/v1/openai."""
    said = refusal(f"models: {{url: '{base}{end}'}}")
    assert said == f"f.yaml:1: models.url: remove the API path, the proxy adds it itself: write {base}"
    assert read(f"models: {{url: '{base}'}}", "f.yaml", {}).models.url == base


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("https://api.cohere.com/v2/rerank", "https://api.cohere.com"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api"),
        ("http://tei:8080/rerank", "http://tei:8080"),
    ],
)
def test_a_url_of_the_rerank_api_is_rejected_with_the_right_one(url: str, right: str) -> None:
    said = refusal(f"models: {{rerank_url: '{url}'}}")
    assert said == f"f.yaml:1: models.rerank_url: remove the API path, the proxy adds it itself: write {right}"


def test_a_rerank_token_without_a_rerank_url_is_rejected() -> None:
    said = refusal("models: {rerank_token_env: COHERE_TOKEN}")
    assert said.startswith("f.yaml:1: models.rerank_token_env: set `rerank_url` too")


@pytest.mark.parametrize(
    "secret", ["Kx3vSecretOfTheModels", "a3f9c2e4b1d05e6f7a8b", "Basic YWxhZGRpbg==", "token-of-a-user", "1a2b3c", ""]
)
@pytest.mark.parametrize(
    "place",
    [
        "engine.authorization_env",
        "models.token_env",
        "models.rerank_token_env",
        "cache.key_env",
        "cache.redis_password_env",
        "admin.token_env",
    ],
)
def test_a_secret_instead_of_a_variable_name_is_rejected_without_repeating_it(place: str, secret: str) -> None:
    section, _, key = place.partition(".")
    said = refusal(f"{section}: {{{key}: '{secret}'}}")
    assert said.startswith(f"f.yaml:1: {place}: expected the name of an environment variable")
    assert not secret or secret not in said


@pytest.mark.parametrize("name", ["DEEPINFRA_TOKEN", "_T1", "deepinfra_token", "T"])
def test_variable_names_may_be_upper_or_lower_case(name: str) -> None:
    assert name == read(f"models: {{token_env: {name}}}", "f.yaml", {}).models.token_env


def test_a_proxy_url_with_credentials_is_rejected_without_repeating_them() -> None:
    said = refusal(f"models: {{proxy: 'http://user:{SECRET}@proxy:3128'}}")
    assert said.startswith("f.yaml:1: models.proxy: remove the credentials")
    assert SECRET not in said
    assert refusal("models: {proxy: 'proxy:3128'}").startswith("f.yaml:1: models.proxy: expected a URL")


@pytest.mark.parametrize("host", ["a", "a:1", "search.example.com:9200", "[::1]", "[2001:db8::1]:9200"])
def test_valid_hosts_are_accepted(host: str) -> None:
    assert host == read(f"engine: {{host: '{host}'}}", "f.yaml", {}).engine.host


def test_a_missing_file_is_an_error_saying_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: .*Name another file with -c"):
        load(tmp_path / "none.yaml", {})


def test_a_file_that_is_not_text_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "f.yaml", {})


def test_settings_are_immutable() -> None:
    with pytest.raises(AttributeError):
        Config().listen.port = 1  # type: ignore[misc]


# The environment and the command line


@pytest.mark.parametrize(
    ("said", "host", "port"),
    [("0.0.0.0:80", "0.0.0.0", 80), (":9201", "0.0.0.0", 9201), ("[::1]:9201", "::1", 9201), ("proxy:0", "proxy", 0)],
)
def test_an_environment_variable_sets_the_address_to_listen_on(said: str, host: str, port: int) -> None:
    config = read("listen: {host: a, port: 1}", "f.yaml", {"RERANK_PROXY_LISTEN": said})
    assert (config.listen.host, config.listen.port) == (host, port)


@pytest.mark.parametrize("said", ["9201", "a:b", "a:", "a:65536", "a:-1", "a:²"])
def test_an_invalid_address_is_an_error_naming_variable_and_option(said: str) -> None:
    complaint = refusal("", {"RERANK_PROXY_LISTEN": said})
    assert complaint == f"--listen or RERANK_PROXY_LISTEN: expected host:port, as in 0.0.0.0:9201, not {said!r}"


def test_environment_variables_override_single_keys_of_the_file() -> None:
    text = "engine: {url: http://a, added_searches: 7}\nmodels: {url: http://a, token_env: T}"
    environment = {"RERANK_PROXY_ENGINE_URL": "http://b:1/p", "RERANK_PROXY_MODELS_URL": "http://c"}
    config = read(text, "f.yaml", environment)
    assert (config.engine.urls, config.engine.added_searches) == (("http://b:1/p",), 7)
    assert (config.models.url, config.models.token_env) == ("http://c", "T")


def test_the_command_line_overrides_the_environment(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("")
    environment = {"RERANK_PROXY_ENGINE_URL": "http://b"}
    config = load(tmp_path / "f.yaml", environment, {"RERANK_PROXY_ENGINE_URL": "http://c"})
    assert config.engine.urls == ("http://c",)


def test_an_empty_variable_is_ignored() -> None:
    assert read("", "f.yaml", {"RERANK_PROXY_ENGINE_URL": ""}) == Config()


@pytest.mark.parametrize(
    ("variable", "name"),
    [("RERANK_PROXY_ENGINE_URL", "--engine or RERANK_PROXY_ENGINE_URL"), ("RERANK_PROXY_MODELS_URL", "--models or")],
)
def test_an_invalid_variable_is_reported_without_a_line_of_the_file(variable: str, name: str) -> None:
    text = "engine: {url: http://a}\nmodels: {url: http://a}"
    assert refusal(text, {variable: "nowhere"}).startswith(name)


# Tokens


def test_fallbacks_without_a_reranker_are_rejected() -> None:
    said = refusal("routes: [{index: a, rerank: false, semantic: {field: v, dimensions: 3}, rerank_fallbacks: [m]}]")
    assert "rerank_fallbacks: has no effect with `rerank: false`" in said


def test_settings_hold_the_name_of_a_variable_and_never_its_value() -> None:
    environment = {"DEEPINFRA_TOKEN": SECRET, "AUTH": SECRET}
    config = read(ROUTE + "\nengine: {authorization_env: AUTH}", "f.yaml", environment)
    assert SECRET not in repr(config)
    assert SECRET not in repr(build_routes(config))


# Routes and their gaps


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_a_route_defaults_to_its_profile(profile: Any) -> None:
    route = only_route(profile=profile.name)
    models = TIERS[profile.tier]
    assert (route.instruction, route.passage.entries, route.rank_window_size) == (
        profile.instruction,
        profile.passage,
        profile.rank_window_size,
    )
    assert (route.embedding_model, route.rerank_model) == (models.embedding, models.rerank)


@pytest.mark.parametrize(
    ("priority", "size"),
    [("speed-and-cost", "0.6B"), ("balanced", "4B"), ("accuracy", "8B"), ("high-volume", "0.6B"), ("critical", "8B")],
)
def test_a_priority_selects_the_size_of_the_models(priority: str, size: str) -> None:
    route = only_route(priority=priority, profile="rag")
    assert (route.embedding_model, route.rerank_model) == (
        f"Qwen/Qwen3-Embedding-{size}",
        f"Qwen/Qwen3-Reranker-{size}",
    )


@pytest.mark.parametrize(("tier", "size"), [("fast", "0.6B"), ("balanced", "4B"), ("precision", "8B")])
def test_a_tier_is_a_pair_of_models(tier: str, size: str) -> None:
    assert only_route(tier=tier).rerank_model == f"Qwen/Qwen3-Reranker-{size}"


def test_a_route_may_name_its_models() -> None:
    route = only_route(tier="fast", rerank_model="r", embedding_model="e")
    assert (route.rerank_model, route.embedding_model, route.embedding_model_named) == ("r", "e", True)


def test_a_route_without_rerank_has_no_reranker() -> None:
    assert only_route(rerank=False).rerank_model is None


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5))
def test_values_of_any_type_are_accepted_or_rejected_without_a_traceback(value: Any) -> None:
    """Whatever a settings file contains, it causes no traceback."""
    text = yaml.safe_dump({"listen": value, "routes": [{"index": value, "passage": value}]}, allow_unicode=True)
    with pytest.raises(ConfigError, match=r"^f\.yaml"):
        read(text, "f.yaml", {})


@pytest.mark.parametrize(
    ("text", "mode"), [("on", "on"), ("off", "off"), ("'off'", "off"), ("shadow", "shadow"), ("opt_in", "opt_in")]
)
def test_a_mode_is_written_without_quotes(text: str, mode: str) -> None:
    """In YAML 1.1, the words `on` and `off` are booleans."""
    config = read(f"routes: [{{index: a, mode: {text}}}]", "f.yaml", {})
    assert mode == build_routes(config)[0].rollout.mode


# The admin port


@pytest.mark.parametrize("pattern", [r"\bKD-\d{6}\b", "[a-z]{3}@corp", r"DE\d{9}", "[^ ]{12}", r"\+49", r"\w{4}-\w{4}"])
def test_own_patterns_for_redaction_have_a_fixed_length(pattern: str) -> None:
    text = msgspec.json.encode(pattern).decode()
    config = read(f"routes: [{{index: a, redact: {{patterns: [{text}]}}}}]", "f.yaml", {})
    assert (pattern,) == config.routes[0].redact.patterns


@pytest.mark.parametrize(
    "pattern", ["a+", "a*", "a?", "(ab){2}", "a|b", "a{1,9}", "a{2,}", "^a$", "(?i:a)", r"(a)\1", r"\b"]
)
def test_redaction_patterns_without_a_fixed_length_are_rejected(pattern: str) -> None:
    said = refusal(f"routes: [{{index: a, redact: {{patterns: [{msgspec.json.encode(pattern).decode()}]}}}}]")
    assert "routes[0].redact.patterns[0]" in said
