"""Every key of a search's body and every parameter of its URL: what the engine makes of it stays, whatever the order.

Each is sent straight and through. What the engine refuses is refused in its words; a bypassed search is the engine's
own to the byte; of a reranked one everything but order, scores and total is the engine's, document by document.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from proxy.parsing.search_keys import BODY_KEYS, PARAMETERS
from tests.integration.comparing import assert_handed_on, beside_hits, but_score
from tests.integration.conftest import Open, Sides
from tests.integration.engines import EVERYWHERE, RealEngine
from tests.integration.sending import Reply

pytestmark = [pytest.mark.engine, EVERYWHERE]

WORDS = {"match": {"title": {"query": "laptop", "_name": "words"}}}
HIGHLIGHT: dict[str, Any] = {"fields": {"title": {}}}
SCRIPT = {"twice": {"script": "doc['price'].value * 2"}}
NEAR = {"field": "embedding", "query_vector": [1, 0, 0, 0, 0, 0, 0, 0.5], "k": 3, "num_candidates": 30}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is said beside the words, and how the search ends where the engine takes it."""

    body: Mapping[str, Any] = field(default_factory=dict)
    url: str = ""
    outcome: str = "reranked"


OWN_SCORES = "own_scores"
"""The outcome of a search that is reranked, and that kNN does not fit for this reason."""


def of_body(outcome: str = "reranked", **body: Any) -> Asked:
    return Asked(body, outcome=outcome)


def of_url(url: str, outcome: str = "reranked", **body: Any) -> Asked:
    return Asked(body, url, outcome)


IN_BODY: dict[str, Asked] = {
    "query": of_body(),
    "from": Asked({"from": 0}),
    "size": of_body(size=40),
    "_source": of_body(_source={"includes": ["title", "reviews.*"], "excludes": ["reviews.stars"]}),
    "post_filter": of_body(post_filter={"range": {"price": {"lt": 1000}}}),
    "sort": of_body(sort=["_score"]),
    "aggs": of_body(aggs={"brands": {"terms": {"field": "brand"}}}),
    "aggregations": of_body(aggregations={"mean": {"avg": {"field": "price"}}}),
    "suggest": of_body(suggest={"spelling": {"text": "laptpo", "term": {"field": "title"}}}),
    "profile": of_body(profile=True),
    "track_total_hits": of_body(track_total_hits=3),
    "track_scores": of_body(track_scores=True),
    "indices_boost": of_body(indices_boost=[{"shop-*": 1.5}]),
    "timeout": of_body(timeout="30s"),
    "stats": of_body(stats=["group"]),
    "min_score": of_body(OWN_SCORES, min_score=0.2),
    "retriever": Asked({"retriever": {"standard": {"query": WORDS}}}),
    "knn": of_body(OWN_SCORES, knn=NEAR),
    "ext": of_body(ext={}),
    "search_pipeline": of_body(search_pipeline="_none"),
    "explain": of_body(explain=True),
    "fields": of_body(fields=["title", {"field": "released", "format": "yyyy"}, "reviews.*"]),
    "stored_fields": of_body(stored_fields=["title"]),
    "docvalue_fields": of_body(docvalue_fields=["brand", {"field": "price", "format": "0.00"}]),
    "script_fields": of_body(script_fields=SCRIPT),
    "highlight": of_body(highlight=HIGHLIGHT),
    "version": of_body(version=True),
    "seq_no_primary_term": of_body(seq_no_primary_term=True),
    "include_named_queries_score": of_body(include_named_queries_score=True),
    "collapse": of_body(collapse={"field": "title.exact"}),
    "runtime_mappings": of_body(
        runtime_mappings={"half": {"type": "double", "script": "emit(doc['price'].value / 2)"}}, fields=["half"]
    ),
    "derived": of_body(
        derived={"half": {"type": "double", "script": {"source": "emit(doc['price'].value / 2)"}}}, fields=["half"]
    ),
    "pit": of_body("bypassed;reason=engine_refused", pit={"id": "no such point"}),
    "rank": of_body("bypassed;reason=rank", rank={"rrf": {}}),
    "sub_searches": of_body("bypassed;reason=rank", sub_searches=[{"query": WORDS}]),
    "rescore": of_body(rescore={"query": {"rescore_query": {"match_all": {}}}}),
    "search_after": of_body("bypassed;reason=search_after", search_after=[10.0], sort=["_score"]),
    "slice": of_body("bypassed;reason=slice", slice={"id": 0, "max": 2}),
    "terminate_after": of_body("bypassed;reason=terminate_after", terminate_after=1),
    "verbose_pipeline": of_body("bypassed;reason=pipeline", verbose_pipeline=True),
    "unknown": of_body('bypassed;reason=unknown_key;key="siez"', siez=1),
}
IN_URL: dict[str, Asked] = {
    "from": of_url("from=0"),
    "size": of_url("size=30"),
    "_source": of_url("_source=title,reviews.*"),
    "_source_includes": of_url("_source_includes=re*"),
    "_source_excludes": of_url("_source_excludes=reviews,embedding*"),
    "filter_path": of_url("filter_path=hits.hits._id,hits.hits._source.title,hits.total"),
    "source": of_url("source=%7B%22size%22:1%7D&source_content_type=application/json"),
    "source_content_type": of_url("source_content_type=application/json"),
    "q": of_url("q=title:laptop+OR+laptop"),
    "df": of_url("q=laptop&df=title"),
    "analyzer": of_url("q=Laptop&df=title&analyzer=standard"),
    "analyze_wildcard": of_url("q=laptop&df=title&analyze_wildcard=true"),
    "default_operator": of_url("q=acme+laptop&df=title&default_operator=AND"),
    "lenient": of_url("q=laptop&df=title&lenient=true"),
    "sort": of_url("sort=_score"),
    "sort by a field": of_url("sort=price:asc", "bypassed;reason=sort"),
    "sort added to the body's": of_url("sort=price:asc", sort=["_score"]),
    "track_total_hits": of_url("track_total_hits=3"),
    "track_scores": of_url("track_scores=true"),
    "rest_total_hits_as_int": of_url("rest_total_hits_as_int=true"),
    "typed_keys": of_url("typed_keys=true", aggs={"brands": {"terms": {"field": "brand"}}}),
    "stats": of_url("stats=group"),
    "suggest_field": of_url("suggest_field=title&suggest_text=laptpo"),
    "suggest_mode": of_url("suggest_field=title&suggest_text=laptpo&suggest_mode=always"),
    "suggest_size": of_url("suggest_field=title&suggest_text=laptpo&suggest_size=2"),
    "suggest_text": of_url("suggest_field=title&suggest_text=laptop"),
    "timeout": of_url("timeout=30s"),
    "batched_reduce_size": of_url("batched_reduce_size=2"),
    "phase_took": of_url("phase_took=true"),
    "search_pipeline": of_url("search_pipeline=_none"),
    "search_type": of_url("search_type=dfs_query_then_fetch"),
    "pre_filter_shard_size": of_url("pre_filter_shard_size=1"),
    "request_cache": of_url("request_cache=true"),
    "error_trace": of_url("error_trace=true"),
    "_source_exclude_vectors": of_url("_source_exclude_vectors=true&_source_excludes=embedding_hash"),
    "vectors beside names": of_url("_source=title&_source_exclude_vectors=false"),
    "vectors beside excludes": of_url("_source_excludes=desc*,embedding_hash&_source_exclude_vectors=true"),
    "vectors requested": of_url("_source_exclude_vectors=false"),
    "vectors beside nothing": of_url("_source=false&_source_exclude_vectors=false"),
    "vectors unsaid": of_url("_source_exclude_vectors="),
    "explain": of_url("explain=true"),
    "force_synthetic_source": of_url("force_synthetic_source=false"),
    "human": of_url("human=true"),
    "pretty": of_url("pretty=true"),
    "docvalue_fields": of_url("docvalue_fields=price", docvalue_fields=["brand"]),
    "stored_fields": of_url("stored_fields=title"),
    "version": of_url("version=true"),
    "seq_no_primary_term": of_url("seq_no_primary_term=true"),
    "include_named_queries_score": of_url("include_named_queries_score=true"),
    "allow_no_indices": of_url("allow_no_indices=false"),
    "allow_partial_search_results": of_url("allow_partial_search_results=false"),
    "cancel_after_time_interval": of_url("cancel_after_time_interval=30s"),
    "ccs_minimize_roundtrips": of_url("ccs_minimize_roundtrips=true"),
    "expand_wildcards": of_url("expand_wildcards=open"),
    "ignore_throttled": of_url("ignore_throttled=false"),
    "ignore_unavailable": of_url("ignore_unavailable=true"),
    "max_concurrent_shard_requests": of_url("max_concurrent_shard_requests=1"),
    "preference": of_url("preference=_shards:0"),
    "routing": of_url("routing=a"),
    "format": of_url("format=json"),
    "another format": of_url("format=yaml", "bypassed;reason=format"),
    "scroll": of_url("scroll=1m", "bypassed;reason=scroll"),
    "terminate_after": of_url("terminate_after=1", "bypassed;reason=terminate_after"),
    "verbose_pipeline": of_url("verbose_pipeline=true", "bypassed;reason=pipeline"),
    "unknown": of_url("nosuch=1", 'bypassed;reason=unknown_parameter;key="nosuch"'),
    "twice": of_url("size=1&size=2", 'bypassed;reason=unknown_parameter;key="size"'),
}
_SHOWN = {"size": 50, "_source": ["title", "brand"]}
_HIDES_SOURCE = ("_source", "_source_includes", "_source_excludes", "source", "stored_fields", "script_fields")


def test_every_known_key_and_parameter_is_tested() -> None:
    """Each key and parameter that is known has its row here."""
    assert (set(), set()) == (BODY_KEYS.keys() - IN_BODY.keys(), PARAMETERS.keys() - IN_URL.keys())


@pytest.mark.parametrize("key", IN_BODY)
async def test_a_body_key_has_the_engines_effect(key: str, open_sides: Open, real_engine: RealEngine) -> None:
    asked = IN_BODY[key]
    body = {**({} if "retriever" in asked.body else {"query": WORDS}), **_SHOWN, **asked.body}
    await _compare(await open_sides(), key, _on(real_engine, asked), body)


@pytest.mark.parametrize("key", IN_URL)
async def test_a_url_parameter_has_the_engines_effect(key: str, open_sides: Open, real_engine: RealEngine) -> None:
    asked = IN_URL[key]
    shown = {name: value for name, value in _SHOWN.items() if name != "_source" or key not in _HIDES_SOURCE}
    await _compare(await open_sides(), key, _on(real_engine, asked), {"query": WORDS, **shown, **asked.body})


def _on(engine: RealEngine, asked: Asked) -> Asked:
    return replace(asked, outcome=engine.without_knn(OWN_SCORES)) if asked.outcome == OWN_SCORES else asked


async def _compare(sides: Sides, key: str, asked: Asked, body: Mapping[str, Any]) -> None:
    straight, through = await sides.straight.search(body, asked.url), await sides.through.search(body, asked.url)
    if straight.status != 200:
        assert straight.body == through.body
        assert straight.status == through.status
        return
    if not asked.outcome.startswith("reranked"):
        if key == "scroll":  # its id is new each time
            assert (asked.outcome, straight.hits) == (through.outcome, through.hits)
            return
        assert asked.outcome == through.outcome
        assert_handed_on(straight, through)
        return
    assert asked.outcome == through.outcome
    if key == "filter_path":
        assert straight.json.keys() == through.json.keys()
        assert {tuple(hit) for hit in straight.hits} == {tuple(hit) for hit in through.hits}
        return
    assert list(straight.json) == list(through.json)
    assert straight.json["hits"].keys() == through.json["hits"].keys()
    assert _comparable(straight) == _comparable(through)
    _assert_same_documents(straight, through)
    _assert_same_total(straight, through)


_MEASURED = ("profile", "phase_took")


def _comparable(reply: Reply) -> Any:
    """Everything beside the hits; of what is measured anew each time, or counts what kNN added, the names."""
    rest = beside_hits(reply)
    names = {name: list(value) if name == "aggregations" else _names(value) for name, value in rest.items()}
    return {name: names[name] if name in {*_MEASURED, "aggregations"} else value for name, value in rest.items()}


def _names(value: Any) -> Any:
    match value:
        case dict():
            return {name: _names(inner) for name, inner in value.items()}
        case list():
            return [_names(inner) for inner in value]
        case _:
            return type(value).__name__


def _assert_same_documents(straight: Reply, through: Reply) -> None:
    """What the client's own query finds is all there, each document as the engine shows it."""
    theirs = {hit["_id"]: _but_scores(hit) for hit in straight.hits}
    ours = {hit["_id"]: _but_scores(hit) for hit in through.hits}
    assert theirs == {name: hit for name, hit in ours.items() if name in theirs}
    assert len(ours) == len(through.hits)


def _but_scores(hit: Any) -> Any:
    """A hit without its score, which is the first of its sort values, too."""
    shown = but_score(hit)
    return shown | {"sort": hit["sort"][1:]} if "sort" in hit else shown


def _assert_same_total(straight: Reply, through: Reply) -> None:
    """What only kNN found is counted beside what the client's own query matches, if all of that is counted."""
    more = len(set(through.ids) - set(straight.ids))
    match straight.total:
        case {"value": value, "relation": "eq"}:
            assert {"value": value + more, "relation": "eq"} == through.total
        case int() as value:
            assert value + more == through.total
        case _:
            assert straight.total == through.total
