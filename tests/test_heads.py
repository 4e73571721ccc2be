"""Heads are remembered for those who asked, for what they asked, and no longer."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Failure
from proxy.ranking.explaining import Boost, Explanation, Kept, Origin
from proxy.ranking.heads import Heads, decode_head, encode_head, head_key, scope_of
from proxy.ranking.hits import DocKey, Scored
from proxy.ranking.paging import Head, Proof, Recipe
from proxy.ranking.search_response import Total
from proxy.settings.config import Config, RouteSettings
from proxy.settings.config_file import read
from proxy.store.contract import Kind
from proxy.store.memory import memory_region
from tests.plans import plan_of
from tests.strategies import finite

HEAD = Head((Scored(DocKey("i", "1"), 1.0),), None, 0, untouched=False, failures=())
DEGRADED = replace(HEAD, failures=(Failure("rerank", "timeout"),))
QUERY = {"query": {"match": {"title": "laptop"}}}
ME = b"caller"


def heads_in(size: int, scope: bytes = b"") -> Heads:
    return Heads(memory_region(Kind.RANKINGS, size), scope)


async def test_a_cached_ranking_is_found_by_its_key() -> None:
    heads = heads_in(10_000)
    await heads.put(b"a", HEAD)
    assert HEAD == await heads.get(b"a")
    assert await heads.get(b"b") is None


async def test_without_room_no_ranking_is_cached() -> None:
    heads = heads_in(0)
    await heads.put(b"a", HEAD)
    assert await heads.get(b"a") is None


async def test_a_complete_ranking_is_not_replaced_by_a_degraded_one() -> None:
    heads = heads_in(10_000)
    await heads.put(b"a", DEGRADED)
    assert DEGRADED == await heads.get(b"a")
    await heads.put(b"a", HEAD)
    await heads.put(b"a", DEGRADED)
    assert HEAD == await heads.get(b"a")


async def test_proxies_with_other_settings_do_not_share_rankings() -> None:
    region = memory_region(Kind.RANKINGS, 10_000)
    await Heads(region, b"one").put(b"a", HEAD)
    assert (HEAD, None) == (await Heads(region, b"one").get(b"a"), await Heads(region, b"other").get(b"a"))


@pytest.mark.parametrize(
    "text",
    [
        "engine: {url: 'http://other:9200'}",
        "engine: {host: other}",
        "models: {url: 'http://other'}",
        "models: {embed_api: openai}",
        "models: {rerank_api: cohere}",
        "models: {rerank_url: 'http://other'}",
        "models: {query_max_chars: 1}",
        "models: {passage_max_tokens: 1}",
        "callers: {ignore: [x-other]}",
        "routes: [{index: a}]",
    ],
)
def test_settings_that_affect_the_order_change_the_scope(text: str) -> None:
    assert scope_of(Config()) != scope_of(read(text, "f.yaml", {}))


@pytest.mark.parametrize(
    "text", ["listen: {port: 1}", "models: {concurrent_calls: 1}", "log: {level: debug}", "cache: {scores_mb: 1}"]
)
def test_settings_that_do_not_affect_the_order_keep_the_scope(text: str) -> None:
    assert scope_of(Config()) == scope_of(read(text, "f.yaml", {}))


origins = st.none() | st.builds(Origin, st.integers(1, 1000), finite)
explanations = st.builds(
    Explanation,
    origins,
    origins,
    st.none() | finite,
    st.none() | finite,
    st.none() | st.text("0123456789abcdef", min_size=16, max_size=16),
    st.none() | st.integers(0, 2000),
    st.none() | st.builds(Kept, st.integers(1, 3), st.sampled_from(["exact_match", "identifier"])),
    st.none() | st.builds(Boost, finite, st.integers(1, 5)),
)


def recipes_of(found: list[DocKey]) -> st.SearchStrategy[Recipe]:
    counts = st.integers(0, 2**31)
    proofs = st.builds(Proof, st.binary(), counts, st.text(), counts, counts, counts, st.text())
    documents = st.lists(st.sampled_from(found)).map(tuple) if found else st.just(())
    return st.builds(
        Recipe, st.dictionaries(st.sampled_from(["render", "boosts"]), documents), finite, st.none() | proofs
    )


@st.composite
def any_heads(draw: st.DrawFn) -> Head:
    some = st.text(max_size=5)
    found = draw(st.lists(st.builds(DocKey, some, some, some | st.just("")), unique=True, max_size=8))
    return Head(
        tuple(Scored(key, draw(finite)) for key in found),
        draw(st.none() | st.builds(Total, st.integers(0, 2**40), st.sampled_from(["eq", "gte"]))),
        draw(st.integers(0, 1000)),
        untouched=draw(st.booleans()),
        failures=tuple(draw(st.lists(st.builds(Failure, some, some, st.just(""), st.booleans()), max_size=3))),
        groups=draw(st.fixed_dictionaries({key: st.none() | st.binary(max_size=5) for key in found}) | st.just({})),
        explanations={key: draw(explanations) for key in found if draw(st.booleans())},
        counted=draw(st.none() | st.booleans() | st.integers(0, 2**31)),
        recipe=draw(recipes_of(found)),
    )


def test_every_field_of_a_ranking_is_stored() -> None:
    """A new one is to be encoded, and drawn above."""
    parts = {"ranking", "total", "extras", "untouched", "failures", "groups", "explanations", "counted", "recipe"}
    assert parts == {field.name for field in fields(Head)}


@given(any_heads())
def test_encoding_a_ranking_is_reversible(head: Head) -> None:
    found = decode_head(encode_head(head))
    assert (head, type(head.counted)) == (found, type(found and found.counted))


@given(any_heads(), st.data())
def test_corrupt_bytes_are_decoded_without_an_error(head: Head, data: st.DataObject) -> None:
    value = bytearray(encode_head(head))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    assert isinstance(decode_head(bytes(value)), Head | None)


async def test_error_messages_of_services_are_not_stored() -> None:
    heads = heads_in(10_000)
    failure = Failure("rerank", "refused", "reranker: status 400: <the query>")
    await heads.put(b"a", replace(HEAD, failures=(failure,)))
    found = await heads.get(b"a")
    assert found is not None
    assert (replace(failure, detail=""),) == found.failures


def test_the_largest_ranking_takes_little_memory() -> None:
    ranking = tuple(Scored(DocKey("products-2026-11", f"{number:020}"), 0.5) for number in range(1000))
    assert 40_000 > len(encode_head(replace(HEAD, ranking=ranking)))


@pytest.mark.parametrize(
    ("query_string", "body"),
    [
        ("from=10&size=20", QUERY),
        ("", QUERY | {"from": 10}),
        ("", QUERY | {"aggs": {"a": {"terms": {"field": "b"}}}}),
        ("", QUERY | {"_source": ["title"], "highlight": {}}),
        ("pretty&track_total_hits=true", QUERY),
    ],
)
def test_pages_of_one_search_share_a_ranking(query_string: str, body: dict[str, object]) -> None:
    assert head_key(plan_of(body=QUERY), ME) == head_key(plan_of(query_string, body), ME)


@pytest.mark.parametrize(
    ("query_string", "body"),
    [
        ("routing=r", QUERY),
        ("preference=_local", QUERY),
        ("q=laptop", QUERY),
        ("", {"query": {"match": {"title": "phone"}}}),
        ("", QUERY | {"post_filter": {"term": {"a": 1}}}),
        ("", QUERY | {"runtime_mappings": {"a": {"type": "keyword"}}}),
        ("", QUERY | {"indices_boost": [{"i": 2}]}),
        ("search_type=dfs_query_then_fetch", QUERY),
        ("", QUERY | {"min_score": 0.5}),
        ("", QUERY | {"knn": {"field": "v", "query_vector": [1.0], "k": 3}}),
        ("", {"retriever": {"standard": {**QUERY, "min_score": 0.5}}}),
        ("", QUERY | {"search_pipeline": {"phase_results_processors": []}}),
    ],
)
def test_another_search_has_another_ranking(query_string: str, body: dict[str, object]) -> None:
    assert head_key(plan_of(body=QUERY), ME) != head_key(plan_of(query_string, body), ME)


def test_another_caller_index_or_route_has_another_ranking() -> None:
    mine = head_key(plan_of(body=QUERY), ME)
    others = {
        head_key(plan_of(body=QUERY), b"somebody"),
        head_key(plan_of(body=QUERY, indices="products-2"), ME),
        head_key(plan_of(body=QUERY, settings=RouteSettings(index="products*")), ME),
    }
    assert len({mine, *others}) == 4


def test_the_order_of_parameters_does_not_matter() -> None:
    one, other = plan_of("routing=r&preference=p", QUERY), plan_of("preference=p&routing=r", QUERY)
    assert head_key(one, ME) == head_key(other, ME)
