"""The client's query with its words made one constant: what the engine then scores is what it says beyond them."""

from typing import Any

import pytest

from proxy.parsing.boost_query import BoostQuery
from proxy.parsing.query_text import find_user_query, with_rescores

TYPED = {"multi_match": {"query": "rain jacket", "fields": ["title^5", "text"]}}
PHRASE = {"match_phrase": {"title": {"query": "rain jacket", "boost": 10}}}
SOLD = {"field_value_factor": {"field": "sold", "missing": 1}}
PIN = {"ids": {"values": ["5"], "boost": 1e6}}
ON_SALE = {"filter": {"match_phrase": {"text": "on sale"}}, "weight": 2}
WEIGHED = {"filter": TYPED, "weight": 10}
SCORED = {"function_score": {"query": {"match_all": {}}, "functions": [SOLD]}}
FRENCH = {"term": {"language": "fr"}}
SEVEN = {"match_all": {"boost": 7.0}}
TEXTS = {"title", "title.stemmed", "title.synonyms", "text", "brand"}


BEST_BET = {"match": {"brand": {"query": "rain jacket", "operator": "and", "boost": 10000}}}


def boosts(query: Any) -> BoostQuery | None:
    found = find_user_query(query, ["title", "text"], TEXTS.__contains__)
    assert found is not None
    return found.boosts


def of_bool(**clauses: Any) -> dict[str, Any]:
    return {"bool": clauses}


def scored(query: Any, **said: Any) -> dict[str, Any]:
    return {"function_score": {"query": query, **said}}


@pytest.mark.parametrize(
    "query",
    [
        TYPED,
        of_bool(must=[TYPED], filter=[FRENCH]),
        of_bool(must=[TYPED, FRENCH]),
        of_bool(must=[TYPED], should=[PHRASE]),
        of_bool(should=[TYPED, PHRASE], minimum_should_match=1),
        of_bool(must=[TYPED, {"range": {"price": {"lte": 9}}}], must_not=[FRENCH]),
        of_bool(must=[TYPED], should=[{"term": {"title.raw": "Rain jacket"}}]),
        of_bool(must=[TYPED], should=[{"match": {"title": "rain"}}, {"match": {"title": "anorak"}}]),
        of_bool(should=[{"match": {"title": "rain jackets"}}, {"match": {"title.stemmed": "rain jacket"}}]),
        of_bool(must=[TYPED], should=[{"match": {"title.synonyms": "anorak"}}]),
        of_bool(must=[TYPED], should=[{"prefix": {"title": {"value": "rain", "boost": 5}}}]),
        of_bool(must=[TYPED], should=[{"wildcard": {"brand": "*jacket*"}}, {"regexp": {"title": ".*rain jacket.*"}}]),
        of_bool(must=[TYPED], should=[{"more_like_this": {"fields": ["text"], "like": "jacket rain"}}]),
        of_bool(must=TYPED, should=[FRENCH, {"term": {"language": "en"}}], minimum_should_match=1),
        of_bool(should=[TYPED, {"match": {"brand": "hats"}}], minimum_should_match=2),
        of_bool(must=[FRENCH], should=[{"match": {"brand": "hats"}}, TYPED], minimum_should_match="100%"),
        of_bool(must=[TYPED], should=[of_bool(must=[{"match_phrase": {"title": "rain"}}])]),
        # filters by values that are words of the text
        of_bool(
            must=TYPED, should=[{"match": {"brand": "rain"}}, {"match": {"brand": "hats"}}], minimum_should_match=1
        ),
        of_bool(must=[TYPED, of_bool(should=[{"match": {"brand": "rain"}}, {"match": {"brand": "hats"}}])]),
        of_bool(must=[of_bool(must=[{"match": {"brand": "rain jacket"}}, {"match": {"brand": "red"}}]), TYPED]),
        of_bool(must=[TYPED, {"dis_max": {"queries": [{"match": {"brand": "rain"}}, {"match": {"brand": "red"}}]}}]),
        {"dis_max": {"queries": [TYPED, PHRASE], "tie_breaker": 0.3}},
        {"constant_score": {"filter": TYPED, "boost": 4}},
        {"nested": {"path": "n", "query": {"match": {"title": "rain jacket"}}}},
        scored(TYPED),
        scored(TYPED, functions=[{"filter": PHRASE, "weight": 3}]),
        scored(TYPED, functions=[{"filter": PHRASE, "weight": 1000}]),
        scored(TYPED, functions=[{"filter": of_bool(should=[BEST_BET, PHRASE]), "weight": 1000}]),
        scored(TYPED, functions=[{"filter": BEST_BET, "weight": 99}]),
        scored(TYPED, functions=[{"filter": BEST_BET, "weight": "1000"}]),
        of_bool(filter=[TYPED]),
        of_bool(filter=[TYPED], boost=4),
        of_bool(filter=[TYPED], must=[FRENCH]),
        of_bool(must=[of_bool(filter=[TYPED])]),
        scored(of_bool(filter=[TYPED])),
        scored({"match_all": {}}, functions=[WEIGHED, {"filter": PHRASE, "weight": 3}]),
        of_bool(must=[TYPED], should=[{"match_all": {}}]),
        of_bool(should=[TYPED, {"match_none": {}}]),
        of_bool(must=[TYPED], should=[{"match": {"brand": {"query": "rain jacket", "boost": 100}}}]),
        of_bool(must=[TYPED], should=[{"match": {"title": {"query": "rain jacket", "boost": 10000}}}]),
        of_bool(should=[BEST_BET, {"match": {"title": {"query": "rain jacket", "boost": 1000}}}]),
        BEST_BET,
    ],
)
def test_a_query_with_only_query_text_has_no_boosts(query: Any) -> None:
    """So it needs no search of its own for boosts."""
    assert boosts(query) is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (scored(TYPED, functions=[SOLD], min_score=2), scored(SEVEN, functions=[SOLD])),
        (scored(TYPED, **SOLD, boost_mode="sum"), scored(SEVEN, **SOLD, boost_mode="sum")),
        (scored(TYPED, functions=[SOLD, {"filter": PHRASE, "weight": 3}]), scored(SEVEN, functions=[SOLD])),
        (
            scored(TYPED, functions=[SOLD, {"filter": {"match": {"title": "case"}}, "weight": 0.2}]),
            scored(SEVEN, functions=[SOLD, {"filter": {"match": {"title": "case"}}, "weight": 0.2}]),
        ),
        (
            scored(TYPED, functions=[{"filter": {"match": {"title": "jacket"}}, "weight": 3}, ON_SALE]),
            scored(SEVEN, functions=[ON_SALE]),
        ),
        (of_bool(should=[TYPED, PIN], minimum_should_match=1), of_bool(should=[SEVEN, PIN])),
        (of_bool(should=[TYPED, PHRASE, PIN]), of_bool(should=[SEVEN, PIN])),
        (
            of_bool(must=[TYPED], should=[{"prefix": {"sku": "A7"}}]),
            of_bool(must=[SEVEN], should=[{"prefix": {"sku": "A7"}}]),
        ),
        (of_bool(should=[TYPED, PHRASE, BEST_BET]), of_bool(should=[SEVEN, BEST_BET])),
        ({"dis_max": {"queries": [BEST_BET, TYPED]}}, {"dis_max": {"queries": [BEST_BET, SEVEN]}}),
        (
            scored(TYPED, functions=[{"filter": of_bool(should=[BEST_BET]), "weight": 100}]),
            scored(SEVEN, functions=[{"filter": of_bool(should=[BEST_BET]), "weight": 100}]),
        ),
        (
            of_bool(should=[TYPED, of_bool(must=[{"match": {"brand": "rain jacket"}}], boost=1000)]),
            of_bool(should=[SEVEN, of_bool(must=[{"match": {"brand": "rain jacket"}}], boost=1000)]),
        ),
        (
            of_bool(must=[TYPED, FRENCH], should=[PHRASE, PIN], must_not=[{"term": {"x": 1}}]),
            of_bool(must=[SEVEN], should=[PIN], filter=[FRENCH], must_not=[{"term": {"x": 1}}]),
        ),
        (
            of_bool(must=[TYPED, scored({"match_all": {}}, functions=[SOLD])]),
            of_bool(must=[SEVEN, scored({"match_all": {}}, functions=[SOLD])]),
        ),
        (of_bool(must=[TYPED], filter=[TYPED], should=[PIN]), of_bool(must=[SEVEN], should=[PIN])),
        # words that do not score: in filters, functions, wildcards
        (of_bool(filter=[TYPED, FRENCH], should=[PIN]), of_bool(filter=[TYPED, FRENCH], should=[PIN])),
        (of_bool(filter=[TYPED], must=[FRENCH, SCORED]), of_bool(filter=[TYPED, FRENCH], must=[SCORED])),
        (
            scored(of_bool(filter=[TYPED]), **SOLD, boost_mode="sum"),
            scored(of_bool(filter=[TYPED]), **SOLD, boost_mode="sum"),
        ),
        (
            of_bool(must=[scored(of_bool(filter=[of_bool(must=[TYPED])]), functions=[SOLD], boost_mode="sum")]),
            of_bool(must=[scored(of_bool(filter=[of_bool(must=[TYPED])]), functions=[SOLD], boost_mode="sum")]),
        ),
        (
            scored(SEVEN, functions=[WEIGHED, {"filter": PHRASE, "weight": 3}, SOLD], score_mode="sum", min_score=2),
            scored(SEVEN, functions=[{"weight": 10}, SOLD], score_mode="sum"),
        ),
        (
            of_bool(should=[{"wildcard": {"title": "*rain jacket*"}}, PIN]),
            of_bool(should=[SEVEN, PIN]),
        ),
        (
            {"dis_max": {"queries": [PIN, scored(TYPED, functions=[SOLD])]}},
            {"dis_max": {"queries": [PIN, scored(SEVEN, functions=[SOLD])]}},
        ),
        (
            {"boosting": {"positive": TYPED, "negative": FRENCH, "negative_boost": 0.2}},
            {"boosting": {"positive": SEVEN, "negative": FRENCH, "negative_boost": 0.2}},
        ),
        (
            {"script_score": {"query": TYPED, "script": {"source": "_score * 2"}, "min_score": 1}},
            {"script_score": {"query": SEVEN, "script": {"source": "_score * 2"}}},
        ),
        (
            {"pinned": {"ids": ["1"], "organic": of_bool(must=[TYPED], should=[PIN])}},
            of_bool(must=[SEVEN], should=[PIN]),
        ),
        (
            of_bool(should=[of_bool(must=[TYPED], filter=[FRENCH], boost=5), TYPED]),
            of_bool(should=[of_bool(must=[SEVEN], filter=[FRENCH], boost=5), SEVEN]),
        ),
    ],
)
def test_the_query_text_is_replaced_and_other_clauses_stay(query: Any, expected: Any) -> None:
    found = boosts(query)
    assert found is not None
    assert (expected, False, False) == (found.with_constant(7.0), found.random, found.alone)


@pytest.mark.parametrize(
    ("query", "alone"),
    [
        (scored(TYPED, **SOLD, boost_mode="replace"), True),
        (of_bool(must=[scored(TYPED, **SOLD, boost_mode="replace")], filter=[FRENCH]), True),
        ({"script_score": {"query": TYPED, "script": {"source": "doc['sold'].value"}}}, True),
        ({"script_score": {"query": TYPED, "script": "_score + doc['sold'].value"}}, False),
        ({"script_score": {"query": TYPED, "script": {"id": "stored"}}}, False),
        (scored(TYPED, script_score={"script": {"source": "_score * 2"}}, boost_mode="replace"), False),
        (scored(TYPED, script_score={"script": {"source": "doc['a'].value"}}, boost_mode="replace"), True),
        (scored(TYPED, script_score={"script": {"source": "doc['b_score'].value"}}, boost_mode="replace"), True),
        ({"script_score": {"query": TYPED, "script": {"source": "params._score + doc['_score'].value"}}}, True),
        ({"script_score": {"query": TYPED, "script": {"source": "knn_score", "lang": "knn"}}}, True),
        ({"script_score": {"query": TYPED, "script": {"source": "Math.log(_score)"}}}, False),
        (scored(of_bool(filter=[TYPED]), **SOLD, boost_mode="replace"), True),
        (scored(of_bool(filter=[TYPED]), **SOLD, boost_mode="sum"), False),
        ({"script_score": {"query": of_bool(filter=[TYPED]), "script": "doc['sold'].value"}}, True),
        (scored(TYPED, functions=[SOLD, {"filter": PHRASE, "weight": 3}], boost_mode="replace"), False),
        (of_bool(should=[TYPED, scored(TYPED, **SOLD, boost_mode="replace")]), False),
    ],
)
def test_boosts_that_score_without_the_query_text_are_detected(query: Any, alone: bool) -> None:  # noqa: FBT001
    found = boosts(query)
    assert found is not None
    assert alone is found.alone


@pytest.mark.parametrize("random", [{}, {"field": "_seq_no"}, {"seed": None}])
def test_random_scores_without_a_seed_are_removed(random: Any) -> None:
    found = boosts(scored(TYPED, functions=[{"random_score": random}, SOLD]))
    assert found is not None
    assert (True, scored(SEVEN, functions=[SOLD])) == (found.random, found.with_constant(7.0))
    only = boosts(scored(TYPED, random_score=random))
    assert only is not None
    assert (True, SEVEN) == (only.random, only.with_constant(7.0))


def test_seeded_random_scores_are_a_boost() -> None:
    query = scored(TYPED, functions=[{"random_score": {"seed": 7, "field": "_seq_no"}}])
    found = boosts(query)
    assert found is not None
    assert not found.random


def rescore(query: Any, **weights: Any) -> dict[str, Any]:
    return {"window_size": 99, "query": {"rescore_query": query, **weights}}


def boosts_with(query: Any, *rescores: Any) -> BoostQuery | None:
    found = find_user_query(query, ["title", "text"], TEXTS.__contains__)
    assert found is not None
    return with_rescores(found, rescores, TEXTS.__contains__).boosts


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (rescore(PIN), {"rescore_query": PIN}),
        (rescore(scored({"match_all": {}}, **SOLD)), {"rescore_query": scored({"match_all": {}}, **SOLD)}),
        (rescore(scored(PHRASE, **SOLD)), {"rescore_query": scored(SEVEN, **SOLD)}),
        (rescore(of_bool(should=[PHRASE, PIN])), {"rescore_query": of_bool(should=[SEVEN, PIN])}),
        (
            rescore(PIN, query_weight=2, rescore_query_weight=0.5, score_mode="multiply"),
            {"rescore_query": PIN, "query_weight": 2, "rescore_query_weight": 0.5, "score_mode": "multiply"},
        ),
    ],
)
def test_a_rescore_boosts_by_what_it_says_beyond_the_query_text(entry: Any, expected: Any) -> None:
    for query, without_words in ((TYPED, SEVEN), (of_bool(should=[TYPED, PIN]), of_bool(should=[SEVEN, PIN]))):
        found = boosts_with(query, rescore(PHRASE), entry)
        assert found is not None
        assert without_words == found.with_constant(7.0)
        assert [{"window_size": 3, "query": expected}] == found.rescored(7.0, 3)


DEEP: Any = PIN
for _ in range(3000):
    DEEP = of_bool(must=[DEEP])


@pytest.mark.parametrize(
    "entry",
    [
        rescore(PHRASE),
        rescore({"match_phrase": {"brand": {"query": "Rain jacket", "slop": 9}}}),
        rescore({"match_all": {}}),
        rescore({"sltr": {"model": "m", "params": {"keywords": "rain jacket"}}}),
        rescore(7),
        {"window_size": 9, "learning_to_rank": {"model_id": "m"}},
        {"query": 7},
        rescore(DEEP),
        rescore(of_bool(should=[PIN, *[{"match": {"title": "other words"}}] * 400])),
    ],
)
def test_a_rescore_by_query_text_by_a_trained_model_or_beyond_limits_is_no_boost(entry: Any) -> None:
    assert boosts_with(TYPED, entry) is None


def test_nesting_does_not_multiply_the_work() -> None:
    query: Any = of_bool(must=[TYPED], should=[PIN])
    for _ in range(60):
        query = {"nested": {"path": "n", "query": query}}
    found = boosts(query)
    assert found is not None
