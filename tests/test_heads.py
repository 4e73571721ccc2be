"""Heads are remembered for those who asked, for what they asked, and no longer."""

import sys

import pytest

from proxy.ranking.heads import Heads, head_key, size_of
from proxy.ranking.hits import DocKey, Scored
from proxy.ranking.paging import Head
from proxy.settings.config import RouteSettings
from tests.plans import plan_of

HEAD = Head((Scored(DocKey("i", "1"), 1.0),), None, 0, untouched=False, failures=())
QUERY = {"query": {"match": {"title": "laptop"}}}
ME = b"caller"


def test_a_head_is_found_again_by_its_key_alone() -> None:
    heads = Heads(10, 60.0)
    heads.put(b"a", HEAD)
    assert HEAD == heads.get(b"a")
    assert heads.get(b"b") is None


def test_the_oldest_of_too_many_is_forgotten() -> None:
    heads = Heads(1, 60.0)
    heads.put(b"a", HEAD)
    heads.put(b"b", HEAD)
    assert (None, HEAD) == (heads.get(b"a"), heads.get(b"b"))


def test_none_is_remembered_where_there_is_no_room() -> None:
    heads = Heads(0, 60.0)
    heads.put(b"a", HEAD)
    assert heads.get(b"a") is None


def head_of(documents: int, length: int = 1) -> Head:
    ranking = tuple(Scored(DocKey("i" * length, f"{n}"), 1.0) for n in range(documents))
    return Head(ranking, None, 0, untouched=False, failures=())


def test_heads_are_bounded_in_bytes_and_the_oldest_go_first() -> None:
    heads = Heads(1000, 60.0, bytes_max=10 * size_of(head_of(10)))
    for number in range(20):
        heads.put(b"%d" % number, head_of(10))
    assert list(range(10, 20)) == [number for number in range(20) if heads.get(b"%d" % number)]
    heads.put(b"large", head_of(50))
    assert 5 >= len([number for number in range(20) if heads.get(b"%d" % number)])


def test_a_head_that_is_larger_than_all_may_be_is_not_remembered() -> None:
    heads = Heads(1000, 60.0, bytes_max=size_of(head_of(10)))
    heads.put(b"a", head_of(10))
    heads.put(b"b", head_of(11))
    heads.put(b"c", head_of(10, length=1000))
    assert (True, None, None) == (heads.get(b"a") is not None, heads.get(b"b"), heads.get(b"c"))


def test_an_estimate_is_no_less_than_what_python_says() -> None:
    """The objects of a head alone, measured one by one: the largest window takes no more than it is counted for."""
    head = head_of(1000, length=40)
    parts = [part for scored in head.ranking for part in (scored, scored.key, scored.key.id, scored.key.index)]
    measured = sys.getsizeof(head.ranking) + sum(map(sys.getsizeof, parts))
    assert measured <= size_of(head) <= 5 * measured


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
def test_the_pages_of_one_search_have_one_head(query_string: str, body: dict[str, object]) -> None:
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
def test_another_search_has_another_head(query_string: str, body: dict[str, object]) -> None:
    assert head_key(plan_of(body=QUERY), ME) != head_key(plan_of(query_string, body), ME)


def test_another_caller_index_or_route_has_another_head() -> None:
    mine = head_key(plan_of(body=QUERY), ME)
    others = {
        head_key(plan_of(body=QUERY), b"somebody"),
        head_key(plan_of(body=QUERY, indices="products-2"), ME),
        head_key(plan_of(body=QUERY, settings=RouteSettings(index="products*")), ME),
    }
    assert len({mine, *others}) == 4


def test_parameters_have_no_order() -> None:
    one, other = plan_of("routing=r&preference=p", QUERY), plan_of("preference=p&routing=r", QUERY)
    assert head_key(one, ME) == head_key(other, ME)
