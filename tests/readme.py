"""The tables of README.md and docs/, generated from the code; `python -m tests.readme` writes them.

`COLUMNS=112 make demo ONCE=1 > FILE`, then `python -m tests.readme FILE`, updates the output of the demo.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, on whichever page. test_docs.py compares each with
what is generated here. Words that the code does not contain are here, under a name that is looked up in the code: a
missing name, or one too many, fails.
"""

import argparse
import ast
import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

import proxy
from demo.engines import ENGINES, Engine, Family
from proxy.app import open_proxy
from proxy.app.process import Process
from proxy.bounds import BOUNDS, Of
from proxy.catalog import dialects as spellings
from proxy.catalog.dialects import Dialect, KnnSearch
from proxy.cli import build_parser
from proxy.cli.arguments import CONFIG_VARIABLE
from proxy.commands.checking.routes import ADVICE
from proxy.commands.loading.mappings import LANGUAGES
from proxy.errors import MODEL_REASONS, EqualScores, UpstreamError
from proxy.outcomes import BYPASS_REASONS
from proxy.parsing.query_text import UNRELAXED
from proxy.parsing.search_keys import BODY_KEYS, PARAMETERS, Use
from proxy.settings import config as settings
from proxy.settings.config_file import KNOWN_KEYS
from proxy.settings.profiles import BLENDS, CHOICES, PRIORITIES, PRIORITY_MEANINGS, PROFILES, TIERS, blend_of
from proxy.settings.request_options import ALLOWED, Option, takes
from proxy.telemetry.ecs import FIELDS
from proxy.telemetry.metrics import PREFIX
from proxy.upstream.spending.prices import PRICES, embed_tokens, rerank_tokens
from tests.clients.run import PROGRAMS
from tests.clients.test_python_clients import SUITES
from tests.integration.outcomes import FILE as OUTCOMES

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = (
    README,
    ROOT / "SECURITY.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
"""The documentation."""
BLOCK = re.compile(r"<!-- (?P<kind>table|text): (?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- end -->", re.DOTALL)

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the documentation."""

    columns: Row
    rows: Sequence[Row]

    @property
    def markdown(self) -> str:
        return "".join(_line(row) for row in (self.columns, ("---",) * len(self.columns), *self.rows))


def _line(row: Row) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n"


def code(word: object) -> str:
    return f"`{word}`"


def codes(words: Sequence[str]) -> str:
    return ", ".join(map(code, words))


@dataclass(frozen=True, slots=True)
class QueryForm:
    """A way of writing a search whose words are found, with an example that test_docs.py reads."""

    name: str
    url: str
    query: Mapping[str, Any] | None
    kept: str


_MATCH = {"match": {"title": "red shoes"}}
_TERM = {"term": {"brand": "kite"}}
_SPANS = [{"span_term": {"title": "red"}}, {"span_term": {"title": "shoes"}}]
_SPAN = {"span_near": {"clauses": _SPANS, "slop": 1}}
_NOTHING, _AS_IN_QUERY_STRING, _NO_KNN = "-", "as in `query_string`", "kNN is skipped"
_INSIDE = "what the query inside requires"

QUERY_FORMS = (
    QueryForm("match", "", _MATCH, _NOTHING),
    QueryForm("match_phrase", "", {"match_phrase": {"title": {"query": "red shoes", "slop": 1}}}, _NOTHING),
    QueryForm("match_phrase_prefix", "", {"match_phrase_prefix": {"title": "red shoes"}}, _NOTHING),
    QueryForm("match_bool_prefix", "", {"match_bool_prefix": {"title": "red shoes"}}, _NOTHING),
    QueryForm("multi_match", "", {"multi_match": {"query": "red shoes", "fields": ["title^2", "body"]}}, _NOTHING),
    QueryForm("combined_fields", "", {"combined_fields": {"query": "red shoes", "fields": ["title"]}}, _NOTHING),
    QueryForm(
        "query_string",
        "",
        {"query_string": {"query": "red shoes -kids"}},
        '`+word`, `"a phrase"` and `field:value` stay required, and `+(a group)` beside parts without a sign; `-word` '
        "and `-(a group)` stay excluded; if OR joins words with a field or a negation, kNN is skipped",
    ),
    QueryForm(
        "simple_query_string",
        "",
        {"simple_query_string": {"query": "red shoes -kids", "fields": ["title"]}},
        _AS_IN_QUERY_STRING,
    ),
    QueryForm("fuzzy", "", {"fuzzy": {"title": {"value": "red shoes", "fuzziness": 2}}}, _NOTHING),
    QueryForm("?q=", "q=red+shoes", None, _AS_IN_QUERY_STRING),
    QueryForm("semantic", "", {"semantic": {"field": "meaning", "query": "red shoes"}}, _NOTHING),
    QueryForm(
        "sparse_vector",
        "",
        {"sparse_vector": {"field": "tokens", "inference_id": "elser", "query": "red shoes"}},
        _NOTHING,
    ),
    QueryForm(
        "text_expansion",
        "",
        {"text_expansion": {"tokens": {"model_id": "elser", "model_text": "red shoes"}}},
        _NOTHING,
    ),
    QueryForm("neural", "", {"neural": {"meaning": {"query_text": "red shoes", "filter": _TERM}}}, "its `filter`"),
    QueryForm("neural_sparse", "", {"neural_sparse": {"tokens": {"query_text": "red shoes"}}}, _NOTHING),
    QueryForm("intervals", "", {"intervals": {"title": {"match": {"query": "red shoes"}}}}, _NO_KNN),
    QueryForm("wildcard", "", {"wildcard": {"title": "*red shoes*"}}, _NO_KNN),
    QueryForm("span_term", "", {"span_term": {"title": "red shoes"}}, _NO_KNN),
    QueryForm("span_near", "", {"span_near": {"clauses": _SPANS, "slop": 1}}, _NO_KNN),
    QueryForm("span_or", "", {"span_or": {"clauses": _SPANS}}, _NO_KNN),
    QueryForm("span_first", "", {"span_first": {"match": _SPAN, "end": 3}}, _NO_KNN),
    QueryForm("span_not", "", {"span_not": {"include": _SPAN, "exclude": {"span_term": {"title": "kids"}}}}, _NO_KNN),
    QueryForm("span_containing", "", {"span_containing": {"big": _SPAN, "little": _SPAN}}, _NO_KNN),
    QueryForm("span_within", "", {"span_within": {"big": _SPAN, "little": _SPAN}}, _NO_KNN),
    QueryForm(
        "knn",
        "",
        {"knn": {"field": "meaning", "query_vector_builder": {"text_embedding": {"model_text": "red shoes"}}}},
        "its `filter`",
    ),
    QueryForm(
        "bool",
        "",
        {"bool": {"must": _MATCH, "filter": _TERM}},
        "every other clause: `filter`, `must_not`, other `must`, `minimum_should_match`",
    ),
    QueryForm("dis_max", "", {"dis_max": {"queries": [_MATCH, _TERM]}}, "-, if one of its queries is query text"),
    QueryForm("boosting", "", {"boosting": {"positive": _MATCH, "negative": _TERM, "negative_boost": 0.5}}, _INSIDE),
    QueryForm("constant_score", "", {"constant_score": {"filter": _MATCH}}, _INSIDE),
    QueryForm(
        "function_score",
        "",
        {"function_score": {"query": _MATCH, "field_value_factor": {"field": "sold"}}},
        f"{_INSIDE}; with `min_score`, {_NO_KNN} unless another clause may match instead",
    ),
    QueryForm(
        "script_score",
        "",
        {"script_score": {"query": _MATCH, "script": {"source": "_score"}}},
        "as in `function_score`",
    ),
    QueryForm(
        "nested",
        "",
        {"nested": {"path": "parts", "query": {"match": {"parts.title": "red shoes"}}}},
        f"{_INSIDE}, if it is more than query text",
    ),
    QueryForm(
        "has_child",
        "",
        {"has_child": {"type": "part", "query": _MATCH}},
        f"that such children exist, `min_children`, and {_INSIDE}; with `max_children`, {_NO_KNN} as well",
    ),
    QueryForm(
        "has_parent",
        "",
        {"has_parent": {"parent_type": "brand", "query": _MATCH}},
        f"that such a parent exists, and {_INSIDE}",
    ),
    QueryForm("pinned", "", {"pinned": {"ids": ["1"], "organic": _MATCH}}, f"{_INSIDE}; pinned documents stay on top"),
    QueryForm(
        "rule",
        "",
        {"rule": {"ruleset_ids": ["r"], "match_criteria": {"query": "red shoes"}, "organic": _MATCH}},
        "as in `pinned`",
    ),
    QueryForm(
        "rule_query",
        "",
        {"rule_query": {"ruleset_ids": ["r"], "match_criteria": {"query": "red shoes"}, "organic": _MATCH}},
        "as in `pinned`",
    ),
    QueryForm("hybrid", "", {"hybrid": {"queries": [_MATCH, _TERM]}}, _NO_KNN),
)
"""The queries that `proxy.parsing.query_text` reads, and their conditions that also apply to what only kNN found."""


NOT_RUN = frozenset(
    {
        "semantic",
        "sparse_vector",
        "text_expansion",
        "neural",
        "neural_sparse",
        "knn",
        "pinned",
        "rule",
        "rule_query",
        "hybrid",
    }
)
"""Forms that no test runs through the proxy on a real engine; their shapes are those of the engines' documentation."""


def reranked() -> Table:
    rows = tuple(
        (
            f"{code(form.name)}{' †' if form.name in NOT_RUN else ''}",
            code(msgspec.json.encode(form.query).decode() if form.query else f"?{form.url}"),
            form.kept,
        )
        for form in QUERY_FORMS
    )
    return Table(("query", "example", "what still applies to documents that only kNN found"), rows)


def outcomes() -> Table:
    """The outcome of each kind of search, as the tests on real engines saw it."""
    seen: Mapping[str, Mapping[str, str]] = json.loads(OUTCOMES.read_text(encoding="utf-8"))
    rows = [(way, *(_in_short(by_engine.get(each.name, "")) for each in ENGINES)) for way, by_engine in seen.items()]
    return Table(("search", *map(_title, ENGINES)), [*sorted(rows, key=_by_outcome), *_RECORDED])


_BY_SHAPES = "reranked (recorded requests only)"
_RECORDED = (
    *((way, _BY_SHAPES, _BY_SHAPES, "-", "-") for way in ("`_async_search`", "Kibana's Discover by relevance")),
    ("OpenSearch Dashboards' Discover by relevance", "-", "-", _BY_SHAPES, _BY_SHAPES),
)


def _title(engine: Engine) -> str:
    names = {Family.ELASTICSEARCH: "Elasticsearch", Family.OPENSEARCH: "OpenSearch"}
    return f"{names[engine.family]} {engine.version}"


_OUTCOME = re.compile(r'(?P<kind>reranked|bypassed|degraded)(?:;stages="[\w ]+")?;reason=(?P<reason>\w+)')
_NOT_THERE = "-"
_KINDS = ("reranked", "degraded", "bypassed", "refused", "untouched")


def _in_short(outcome: str) -> str:
    found = _OUTCOME.fullmatch(outcome)
    if found is None:
        return outcome or _NOT_THERE
    kind = "reranked, without kNN" if found["kind"] == "reranked" else found["kind"]
    return f"{kind}: {code(found['reason'])}"


def _by_outcome(row: Row) -> tuple[int, str]:
    first = next(cell for cell in row[1:] if cell != _NOT_THERE)
    return _KINDS.index(re.split(r"\W", first)[0]), row[0]


_AN_EXAMPLE = KnnSearch("embedding", (0.1, 0.2), 50, 100, ())
DIALECTS: Mapping[str, tuple[str, str]] = {
    "elasticsearch": ("`dense_vector`, Elasticsearch 8.4 and later", "nested vectors, too"),
    "elasticsearch before 8.4": (
        "`dense_vector`, Elasticsearch before 8.4",
        "every document that passes the filters is compared; the script was run, but not on such a version",
    ),
    "opensearch": (
        "`knn_vector`, OpenSearch with k-NN, engines lucene and faiss",
        "the filter of an alias is repeated inside kNN; nested vectors with filters are compared one by one",
    ),
}
"""Where each syntax of kNN is used, and what is particular about it."""


def known_dialects() -> Mapping[str, Dialect]:
    return {each.name: each for each in vars(spellings).values() if isinstance(each, Dialect)}


def dialects() -> Table:
    rows = tuple(
        (where, code(msgspec.json.encode(known_dialects()[name].knn(_AN_EXAMPLE)).decode()), particular)
        for name, (where, particular) in DIALECTS.items()
    )
    return Table(("vectors", "search", "remarks"), rows)


@dataclass(frozen=True, slots=True)
class SteeringForm:
    """A per-request option, with an example that test_docs.py reads both ways."""

    header: str
    member: Any
    meaning: str


STEERING_FORMS: Mapping[Option, SteeringForm] = {
    "enabled": SteeringForm(
        "off",
        member=False,
        meaning="bypass this search; `on`: rerank it also outside the route's `share`, and with `mode: opt_in`",
    ),
    "query": SteeringForm(
        "garden hose",
        "garden hose",
        "the query text; kNN relaxes only clauses with exactly this text, and is skipped if there is none",
    ),
    "budget_ms": SteeringForm("200", 200, "milliseconds that may be added to the engine's own time for your query"),
    "window": SteeringForm("20", 20, "a smaller window than the route's `rank_window_size`"),
    "profile": SteeringForm("legal", "legal", "the models receive the instruction of this profile"),
    "instruction": SteeringForm("Prefer what is new.", "Prefer what is new.", "the models receive this instruction"),
    "explain": SteeringForm("on", member=True, meaning="add `_rerank` to each hit: how it got its place"),
    "cost": SteeringForm(
        "on",
        member=True,
        meaning="return in `X-Rerank-Cost` what the model calls of this search cost, in US dollars",
    ),
    "background": SteeringForm(
        "on",
        member=True,
        meaning="nobody waits for the response: model calls may take ten minutes, on the provider's cheap service tier",
    ),
}


def steering() -> Table:
    rows = tuple(
        (
            code(f"{header_of(name)}: {form.header}"),
            code(_member(name, form)),
            takes(name),
            form.meaning,
            "yes" if name in ALLOWED else "no",
        )
        for name, form in STEERING_FORMS.items()
    )
    return Table(("header", "in `ext.rerank_proxy`", "values", "meaning", "allowed by default"), rows)


def header_of(option: str) -> str:
    return f"X-Rerank-{option.replace('_', '-').title()}"


def _member(option: str, form: SteeringForm) -> str:
    return f"{json.dumps(option)}: {json.dumps(form.member)}"


def understood() -> Table:
    """The keys and parameters that may stand beside a query, by what is done with them."""
    rows = tuple((use.value, codes(_of_use(BODY_KEYS, use)), codes(_of_use(PARAMETERS, use))) for use in Use)
    return Table(("used for", "in the body", "in the URL"), rows)


def _of_use(table: Mapping[str, Use | str], use: Use | str) -> list[str]:
    return [name for name, found in table.items() if found == use]


def bounds() -> Table:
    rows = tuple(
        (row.of, row.what, row.most, row.beyond) for row in sorted(BOUNDS, key=lambda row: list(Of).index(row.of))
    )
    return Table(("from the", "what", "at most", "beyond"), rows)


def bypass() -> Table:
    rows = tuple((code(reason), meaning, _triggers(reason)) for reason, meaning in sorted(BYPASS_REASONS.items()))
    return Table(("reason", "meaning", "triggered by"), rows)


def _triggers(reason: str) -> str:
    in_body, in_url = _of_use(BODY_KEYS, reason), [f"?{name}=" for name in _of_use(PARAMETERS, reason)]
    return codes([*in_body, *in_url])


def engines() -> Table:
    """The engines that the tests start, and the Java that each takes."""
    rows = tuple(
        (_title(each), f"{each.javas.minimum} {f'to {each.javas.maximum}' if each.javas.maximum else 'or later'}")
        for each in ENGINES
    )
    return Table(("engine", "JDK"), rows)


_PYTHON_CLIENTS = {
    "elasticsearch8": "elasticsearch-py 8, sync and async, with its DSL",
    "elasticsearch9": "elasticsearch-py 9, sync and async, with its DSL",
    "opensearch": "opensearch-py, sync and async",
    "langchain": "langchain-elasticsearch",
    "llama_index": "llama-index's Elasticsearch store",
    "haystack": "haystack's Elasticsearch store",
}


def clients() -> Table:
    """The clients that are run, and on which engines."""
    met: dict[str, list[str]] = {}
    for suite in SUITES:
        if not suite.name.endswith("-refused"):  # the engine's own refusal of a client too new for it
            met.setdefault(_PYTHON_CLIENTS[suite.environment], []).extend(suite.engines)
    python = [(name, _titles(engines)) for name, engines in met.items()]
    others = [(each.name, _titles([engine.name for engine in each.engines])) for each in PROGRAMS]
    return Table(("client", "on"), (*python, *others))


def _titles(names: Sequence[str]) -> str:
    return ", ".join(_title(engine) for engine in ENGINES if engine.name in names)


@cache
def syntax_trees() -> tuple[ast.AST, ...]:
    return tuple(ast.parse(path.read_text(encoding="utf-8")) for path in Path(proxy.__file__).parent.rglob("*.py"))


def _calls(name: str) -> Iterator[Sequence[Any]]:
    """Find the arguments of each call of a function or method; None for one that is computed."""
    for node in (node for tree in syntax_trees() for node in ast.walk(tree)):
        if isinstance(node, ast.Call) and name == getattr(node.func, "id", getattr(node.func, "attr", None)):
            yield [argument.value if isinstance(argument, ast.Constant) else None for argument in node.args]


def failures() -> Mapping[str, set[str]]:
    """Find each reason why a stage can be left out, and the stages that name it."""
    of_all = {kind.reason for kind in UpstreamError.__subclasses__()} - MODEL_REASONS.keys()
    from_upstream = {"boosts": of_all, "facets": of_all}  # they ask no model
    found: dict[str, set[str]] = {}
    for stage, reason, *_ in filter(None, _calls("Failure")):
        if stage is not None:
            for name in [reason] if reason else from_upstream.get(stage, of_all | MODEL_REASONS.keys()):
                found.setdefault(name, set()).add(stage)
    return {**found, EqualScores.reason: {"rerank"}}


_FAILURE_MEANINGS = {
    "internal_error": "an error in the proxy, which is a bug: the log has the cause",
    "no_passage": "no candidate has text in any field of the route's `passage`: does the mapping name them so?",
    "partial": "some shards did not answer the kNN search, the search that fetches its hits, the one that counts "
    "facets, or the one that scores boosts, in time",
}


def degraded() -> Table:
    kinds: tuple[type[UpstreamError], ...] = (*UpstreamError.__subclasses__(), EqualScores)
    said = {kind.reason: _in_a_cell(kind.__doc__ or "") for kind in kinds}
    meanings = {**said, **MODEL_REASONS, **ADVICE, **_FAILURE_MEANINGS}
    rows = tuple((code(reason), codes(sorted(stages)), meanings[reason]) for reason, stages in failures().items())
    return Table(("reason", "stages", "meaning, and what to do"), tuple(sorted(rows)))


def unrelaxed() -> Table:
    return Table(
        ("reason", "why nothing is searched for by kNN"),
        tuple((code(reason), why) for reason, why in sorted(UNRELAXED.items())),
    )


def _in_a_cell(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def timed_stages() -> set[str]:
    """Find what is timed by name: `stage("rerank")`, and searches added as a stage, `search("render", ...)`."""
    named = [*filter(None, _calls("stage")), *filter(None, _calls("search"))]
    return {name for name, *_ in named if isinstance(name, str) and name.isidentifier()} | {"total"}


_STAGES = {
    "names": "resolving index names and reading mappings; no time if they are cached",
    "lexical": "the client's own search, with the window as its size",
    "embed": "the vector of the query; no time if it is cached",
    "semantic": "the kNN search",
    "groups": "with `collapse`: the first document of each group that only kNN found",
    "passages": "reading passage fields that the hits do not contain in full",
    "rerank": "the reranker's scores",
    "render": "fetching documents that only kNN found, as the client's query shows them, and counting facets with "
    "them; in parallel with `rerank`",
    "facets": "on a page after the reranked head: counting facets with the documents that only kNN found; in parallel "
    "with `lexical`",
    "boosts": "scores of the candidates by the query without its words; in parallel with `rerank`",
    "total": "everything until the response",
}


def stages() -> Table:
    said = tuple((code(name), _STAGES.get(name, "")) for name in sorted(timed_stages() | _STAGES.keys(), key=_place))
    return Table(("stage", "time for"), said)


def _place(stage: str) -> int:
    return list(_STAGES).index(stage) if stage in _STAGES else -1


SECTIONS: Mapping[str, type[settings.Section]] = {
    "": settings.Config,
    "listen": settings.Listen,
    "engine": settings.Engine,
    "models": settings.Models,
    "callers": settings.Callers,
    "cache": settings.Cache,
    "spend": settings.Spend,
    "log": settings.Log,
    "admin": settings.Admin,
    "traces": settings.TraceSettings,
    "routes[]": settings.RouteSettings,
    "routes[].semantic": settings.Semantic,
    "routes[].fusion": settings.Fusion,
    "routes[].query_from": settings.QueryFrom,
    "routes[].bypass": settings.BypassRules,
    "routes[].redact": settings.Redact,
    "routes[].share_by": settings.ShareBy,
    "routes[].spend": settings.SpendCaps,
}


def setting_paths() -> Mapping[str, tuple[str, str]]:
    """Name each key that is no section by its path, and the section it stands in."""
    keys = [(section, key) for section, keys in KNOWN_KEYS.items() for key in keys]
    paths = {f"{section}.{key}".lstrip("."): (section, key) for section, key in keys}
    return {path: place for path, place in paths.items() if not {path, f"{path}[]"} & SECTIONS.keys()}


def config_keys() -> Table:
    meanings = config_comments((ROOT / "config.yaml").read_text(encoding="utf-8"))
    rows = [
        (code(path), _default(SECTIONS[section], key), meanings[path])
        for path, (section, key) in setting_paths().items()
    ]
    return Table(("key", "default", "meaning"), rows)


def _default(section: type[settings.Section], key: str) -> str:
    (field,) = [field for field in msgspec.structs.fields(section) if field.name == key]
    if field.required:
        return "required"
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if default in (None, msgspec.UNSET):
        return ""
    written = list(default) if isinstance(default, tuple) else default
    return code(yaml.safe_dump(written, default_flow_style=True, width=1000).split("\n")[0].strip("'"))


_KEY = re.compile(r"(?P<indent> *)(?P<item>- )?(?:# )?(?P<key>\w+):(?:[^#]|#(?! ))*(?:# (?P<comment>.*))?")
_MORE = re.compile(r" {12,}# (?P<comment>.*)")


def config_comments(text: str) -> Mapping[str, str]:
    """Read the shipped file's comments by the path of the key that each stands beside."""
    found: dict[str, str] = {}
    path, parents = "", {0: ""}
    for line in text.splitlines():
        if more := _MORE.fullmatch(line):
            found[path] += f" {more['comment']}"
        elif (key := _KEY.fullmatch(line)) and not line.startswith("#"):
            depth = len(key["indent"]) + len(key["item"] or "")
            if key["item"]:
                parents[depth] = f"{parents[len(key['indent'])]}[]"
            above = parents[max(place for place in parents if place <= depth)]
            path = f"{above}.{key['key']}".lstrip(".")
            parents = {place: name for place, name in parents.items() if place <= depth}
            parents[depth + 2] = path
            found[path] = key["comment"] or ""
    return found


def tiers() -> Table:
    rows = tuple(
        (code(name), code(models.embedding), str(models.dimensions), code(models.rerank), models.when)
        for name, models in TIERS.items()
    )
    return Table(("`tier`", "embedding model", "dimensions", "reranker", "when"), rows)


def blends() -> Table:
    rerankers = (*(models.rerank for models in TIERS.values()), *BLENDS)
    rows = tuple((code(name), f"{blend_of(name).weight:g}", blend_of(name).why) for name in rerankers)
    return Table(("reranker", "`blend`", "why"), rows)


def priorities() -> Table:
    rows = tuple((code(name), code(tier), PRIORITY_MEANINGS[name]) for name, tier in PRIORITIES.items())
    return Table(("`priority`", "tier", "meaning"), rows)


def profiles() -> Table:
    rows = tuple(
        (code(name), each.use, code(each.tier), str(each.rank_window_size), codes(each.passage))
        for name, each in PROFILES.items()
    )
    return Table(("`profile`", "for", "tier", "window", "passage"), rows)


def costs() -> Table:
    """Compute what a thousand searches cost by the published prices."""
    query, instruction = "q" * 30, PROFILES["e-commerce"].instruction
    rows = []
    for window in (20, 50, 100):
        for characters in (200, 800, 2000):
            tokens = rerank_tokens(query, ["p" * characters] * window, instruction)
            asked = embed_tokens([query + instruction])
            usd = [
                1000 * (tokens * PRICES[tier.rerank] + asked * PRICES[tier.embedding]) / 1e6 for tier in TIERS.values()
            ]
            rows.append((str(window), f"{characters} characters", *(f"${each:.2f}" for each in usd)))
    return Table(("window", "passage", *map(code, TIERS)), tuple(rows))


def choices() -> Table:
    return Table(
        ("set-up", "in the route", "when"), tuple((each.name, code(each.settings), each.when) for each in CHOICES)
    )


_VARIABLES = {
    CONFIG_VARIABLE: "the settings file, instead of `config.yaml` in the current folder",
    "RERANK_PROXY_LISTEN": "`listen`, for example `0.0.0.0:9201`",
    "RERANK_PROXY_ENGINE_URL": "`engine.url`",
    "RERANK_PROXY_MODELS_URL": "`models.url`",
    settings.Models().token_env: "the token of the models; `models.token_env` can name another variable",
    settings.Admin().token_env: "the token of the admin port; `admin.token_env` can name another variable",
    settings.Cache().key_env: "the secret of the caches, with Redis; `cache.key_env` can name another variable",
    settings.Cache().redis_password_env: (
        "the password of Redis; `cache.redis_password_env` can name another variable"
    ),
    "RERANK_PROXY_CACHE": "the cache folder of `make demo` and `make test`",
}


def variables_in(*folders: str) -> set[str]:
    """Find the environment variables of this project's own that these sources name."""
    sources = [path.read_text(encoding="utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return {name for source in sources for name in re.findall(r"\bRERANK_PROXY_[A-Z_]+", source)}


def variables() -> Table:
    return Table(("variable", "sets"), tuple((code(name), said) for name, said in _VARIABLES.items()))


def commands() -> Table:
    return Table(("command", "does"), tuple((code(name), said) for name, said in command_meanings().items()))


def command_meanings() -> Mapping[str, str]:
    (subcommands,) = [
        action
        for action in build_parser()._actions  # noqa: SLF001  argparse names its commands nowhere else
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
    ]
    return {name: " ".join(str(parser.description).split()) for name, parser in subcommands.choices.items()}


_SIDES = ("baseline", "through")


def bench() -> Table:
    """What the last `make bench` found that was kept."""
    cases = json.loads((ROOT / "tests/bench/results.json").read_text())["cases"]
    rows = tuple(
        (
            case["name"],
            case["meaning"],
            *(f"{case[side]:.3g} {case['unit']}" for side in _SIDES),
            f"{case['ratio']:.2f}",
        )
        for case in cases
    )
    return Table(("case", "request", "direct", "through the proxy", "ratio"), rows)


def bench_passthrough() -> Table:
    """Return what a request that passes through costs, beside other proxies."""
    found = json.loads((ROOT / "tests/bench/results.json").read_text())["passthrough"]
    rows = tuple(
        (row["name"], *map(_cost, row["costs"].values()), *(f"{ratio:.2f}" for ratio in row["ratios"].values()))
        for row in found["rows"]
    )
    idle = ("memory of an idle client connection", *(f"{size:.1f} KB" for size in found["idle_kb"].values()), "", "")
    names, baselines = found["rows"][0]["costs"], found["rows"][0]["ratios"]
    return Table(("response", *names, *(f"CPU / {name}'s" for name in baselines)), (*rows, idle))


def bench_reranked() -> Table:
    """Return what a reranked search costs, beside the same made by hand: with fixed delays, and on a real engine."""
    found = json.loads((ROOT / "tests/bench/results.json").read_text())
    rows = tuple(
        _beside_hand(row, engine)
        for key, engine in (("reranked", "fixed delays"), ("reranked_real", "a real engine"))
        for row in found.get(key, {"rows": ()})["rows"]
    )
    columns = ("window, searches", "engine", "by hand", "rerank-proxy", "p50", "p95", "CPU", "engine searches and CPU")
    return Table(columns, rows)


def _beside_hand(row: Mapping[str, Any], engine: str) -> tuple[str, ...]:
    hand, ours = row["costs"].values()
    times = [f"p50 {cost['p50_ms']:.1f}, p95 {cost['p95_ms']:.1f} ms; {cost['cpu_ms']:.1f} ms" for cost in (hand, ours)]
    use = [f"{cost['engine_searches']:.1f}, {cost['engine_cpu_ms']:.1f} ms" for cost in (hand, ours)]
    ratios = (f"{row['added_ms']:+.1f} ms", f"{row['p95']:.2f}", f"{row['cpu']:.2f}")
    return (row["name"], engine, *times, *ratios, " / ".join(use))


def bench_stalled() -> Table:
    """Return what searches get while the models stall."""
    rows = tuple(
        (
            row["name"],
            f"{row['p50_ms']:.0f} ms",
            f"{row['p99_ms']:.0f} ms",
            "" if row["allowed_p99_ms"] is None else f"{row['allowed_p99_ms']:.0f} ms",
            f"{row['rate']:.0f}/s" + ("" if row["rate_ratio"] is None else f", {row['rate_ratio']:.2f} times"),
            str(row["errors"]),
        )
        for row in json.loads((ROOT / "tests/bench/results.json").read_text())["stalled"]["rows"]
    )
    return Table(("models", "p50", "p99", "allowed p99", "searches", "errors"), rows)


def _cost(cost: Mapping[str, float]) -> str:
    return f"{cost['cpu_us']:.0f} µs; {cost['rate']:,.0f}/s, p99 {cost['p99_ms']:.1f} ms"


def figures() -> Table:
    """The figures of README: relevance from the output of the demo above, the others from the kept run of the bench."""
    found = json.loads((ROOT / "tests/bench/results.json").read_text())
    ((queries, straight, through),) = DEMO_GAIN.findall(README.read_text(encoding="utf-8"))
    (search,) = [case for case in found["cases"] if case["name"] == "a reranked search"]
    by_case = {row["name"]: row["ratios"] for row in found["passthrough"]["rows"]}
    ratios, each = by_case["11 KB"], by_case["11 KB, a connection each"]
    without_keep_alive = f"{each['nginx']:.1f} and {each['aiohttp']:.1f} times"
    rows = (
        (
            "relevance, nDCG@10",
            f"{straight} → {through}",
            f"`make demo`: {queries} searches, its own catalogue, local model ({OTHER_MACHINE}); no benchmark",
        ),
        (
            "time that the proxy adds to a reranked search",
            f"{search['through'] - search['baseline']:.1f} ms",
            "without the time of its engine and model calls; a real reranker takes longer than everything else",
        ),
        (
            "CPU of a request that passes through, 11 KB",
            f"{ratios['nginx']:.1f} times nginx, {ratios['aiohttp']:.1f} times an aiohttp proxy",
            f"two processors, connections kept alive; with one for each request {without_keep_alive}",
        ),
    )
    return Table(("what", "figure", "measured"), rows)


OTHER_MACHINE = "0.581 on another machine"
DEMO_GAIN = re.compile(r"nDCG@10 over (\d+) searches: straight ([\d.]+), through the proxy ([\d.]+)")


def languages() -> str:
    return f"{codes(sorted(LANGUAGES))}\n"


def the_map() -> str:
    """The way of a request, from `proxy/__init__.py`."""
    _, _, told = (proxy.__doc__ or "").partition("module by module:\n\n")
    return f"```text\n{told.partition('Data flows in one direction')[0].rstrip()}\n```\n"


LOG_FIELDS: Mapping[str, tuple[str, str]] = {
    "timestamp": ("all", "when, in UTC"),
    "level": ("all", "`info`, `warning` or `error`; a degraded search is a warning"),
    "event": ("all", "what happened: `search`, `access`, `listening`, ..."),
    "detail": ("all", "an explanation, as an error says it; otherwise the name of the event"),
    "id": ("search, access", "the client's `X-Opaque-Id`; for a search without one, a generated id; also as `id`"),
    "trace": ("search, access", "the trace id of the client's `traceparent` header (W3C Trace Context)"),
    "ms": ("search, access", "milliseconds of each stage and in `total`, which `event.duration` has in nanoseconds"),
    "route": ("search", "the route, as its `index` is written"),
    "outcome": ("search", "`reranked`, `degraded`, `bypassed`, `cancelled` (the client left) or `failed`"),
    "reason": ("search", "why it was degraded or bypassed, as in `X-Rerank`"),
    "stages": ("search", "the stages that were skipped"),
    "key": ("search", "the key or parameter that it was bypassed for"),
    "window": ("search", "the window that was used"),
    "candidates": ("search", "how many hits were candidates"),
    "without_text": ("search", "candidates that the reranker did not read, without a value in any field of `passage`"),
    "shadow": ("search", "in shadow mode: what reranking would have changed"),
    "tier": ("search", "with `tier: auto`, the tier of the reranker that was called"),
    "engine_searches": ("search", "searches that the engine ran for it, its own included"),
    "passages_sent": ("search", "passages that were sent to the reranker"),
    "passages_cached": (
        "search",
        "passages whose score was reused: cached, of another search's call, or of an equal passage",
    ),
    "tokens_saved": ("search", "tokens that the reused scores would have used, as estimated"),
    "tokens": ("search", "tokens that the models' provider counted"),
    "cost_usd": ("search", "US dollars that the models' provider charged, or else by the configured prices"),
    "estimated_usd": ("search", "the part of it that is estimated, of calls whose response was not read"),
    "background": ("search", "`true` if nobody waited for it: the per-request option `background`"),
    "query": ("search", "the query text, with `log.query_text: true`"),
    "method": ("access", "the method"),
    "path": ("access", "the path, without the query string"),
    "query_string": ("access", "the query string, with `log.query_text: true`"),
    "status": ("access, refused", "the status of the response"),
    "ended": ("access", "`answered`, `client_left`, `broken_off` or `refused`"),
}
"""The fields of the lines of requests, by their short names: which lines have them, and what they say."""


def log_fields() -> Table:
    rows = tuple((code(ecs_name(name)), where, meaning) for name, (where, meaning) in LOG_FIELDS.items())
    return Table(("field", "in", "meaning"), rows)


def ecs_name(name: str) -> str:
    return "message" if name == "detail" else FIELDS.get(name, name)


def metric_families() -> Sequence[Metric]:
    """Return what a proxy that has just started shows to Prometheus."""

    async def text() -> bytes:
        async with AsyncExitStack() as stack:
            return Process(await open_proxy(settings.Config(), None, {}, stack), None, {}).metrics()

    return list(text_string_to_metric_families(asyncio.run(text()).decode()))


def metrics() -> Table:
    rows = tuple(
        (code(f"{family.name}{'_total' if family.type == 'counter' else ''}"), family.type, family.documentation)
        for family in sorted(metric_families(), key=lambda family: family.name)
        if family.name.startswith(PREFIX)
    )
    return Table(("metric", "type", "meaning"), rows)


TABLES: Mapping[str, Callable[[], Table]] = {
    "log_fields": log_fields,
    "metrics": metrics,
    "commands": commands,
    "reranked": reranked,
    "unrelaxed": unrelaxed,
    "outcomes": outcomes,
    "dialects": dialects,
    "engines": engines,
    "clients": clients,
    "steering": steering,
    "understood": understood,
    "bounds": bounds,
    "bypass": bypass,
    "degraded": degraded,
    "stages": stages,
    "config": config_keys,
    "tiers": tiers,
    "blends": blends,
    "priorities": priorities,
    "profiles": profiles,
    "choices": choices,
    "costs": costs,
    "variables": variables,
    "figures": figures,
    "bench": bench,
    "passthrough": bench_passthrough,
    "reranked_by_hand": bench_reranked,
    "stalled_models": bench_stalled,
}
TEXTS: Mapping[str, Callable[[], str]] = {"languages": languages, "map": the_map}


def made(kind: str, name: str) -> str:
    return TABLES[name]().markdown if kind == "table" else TEXTS[name]()


def updated(page: str) -> str:
    """Write every block anew."""

    def block(found: re.Match[str]) -> str:
        kind, name = found["kind"], found["name"]
        return f"<!-- {kind}: {name} -->\n{made(kind, name)}<!-- end -->"

    return BLOCK.sub(block, page)


DEMO = re.compile(r"(?<=<!-- output: make demo -->\n).*?(?=<!-- end -->)", re.DOTALL)
DEMO_QUERY = "show me laptops that won't break when my kids use them"


def of_demo(output: str) -> str:
    """Take one search of the demo's output, the figure over all of them, and how many got better and worse."""
    search = output.partition(f"“{DEMO_QUERY}”")[2].partition("\n\n")[0]
    gain = "\n".join(output[output.index("nDCG@10 over ") :].splitlines()[:2])
    return f"```text\n“{DEMO_QUERY}”{search}\n\n{gain}\n```\n"


def main(output: Path | None = None) -> None:
    for page in PAGES:
        page.write_text(updated(page.read_text(encoding="utf-8")), encoding="utf-8")
    if output:
        shown = of_demo(output.read_text(encoding="utf-8"))
        README.write_text(DEMO.sub(lambda _: shown, README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
