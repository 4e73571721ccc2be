"""The user's words are found wherever they stand, and what else a query demands holds for what kNN finds, too.

kNN is told to find everything, so that the answer is exactly what the query without its words lets through; that
query is written here by hand, and the engine says what it admits.
"""

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.conftest import Open, Sides
from tests.integration.engines import WITH_KNN
from tests.integration.models import ShopModels

pytestmark = [pytest.mark.engine, WITH_KNN]

EVERYTHING = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "min_similarity": -1}
WORDS = {"match": {"title": "laptop"}}
ALL: dict[str, Any] = {"match_all": {}}
ACME = {"term": {"brand": "acme"}}
OFFICE = {"match": {"description": "office"}}
CHEAP = {"range": {"price": {"lt": 700}}}
SOLD_OUT = {"term": {"in_stock": False}}
PRAISED = {"nested": {"path": "reviews", "query": {"range": {"reviews.stars": {"gte": 3}}}}}


def _not(*clauses: Any) -> Any:
    return {"bool": {"must_not": clauses}}


def _all(*clauses: Any) -> Any:
    return {"bool": {"filter": clauses}}


def _title(text: str) -> Any:
    return {"match": {"title": text}}


def _line(text: str, **options: Any) -> Any:
    return {"query_string": {"query": text, "fields": ["title"], **options}}


def _simple(text: str, **options: Any) -> Any:
    return {"simple_query_string": {"query": text, "fields": ["title"], **options}}


def _wrapped(query: Any) -> Any:
    return {"wrapper": {"query": base64.b64encode(json.dumps(query).encode()).decode()}}


QUERIES: dict[str, tuple[Any, Any]] = {
    # lines with operators
    "minus": (_line("laptop -acme"), _not(_title("acme"))),
    "NOT": (_line("laptop NOT acme"), _not(_title("acme"))),
    "AND NOT": (_line("laptop AND NOT acme"), _not(_title("acme"))),
    "exclamation mark": (_line("laptop !acme"), _not(_title("acme"))),
    "minus a field": (_line("laptop -brand:acme"), _not(ACME)),
    "minus a phrase": (_line('laptop -"acme laptop"'), _not({"match_phrase": {"title": "acme laptop"}})),
    "AND a field": (_line("laptop AND brand:acme"), ACME),
    "a field before": (_line("brand:acme AND laptop"), ACME),
    "plus": (_line("laptop +acme"), _title("acme")),
    "two demands": (_line("laptop +acme -brand:globex +brand:acme"), _all(ACME, _title("acme"))),
    "simple minus": (_simple("laptop -acme", default_operator="and"), _not(_title("acme"))),
    "simple plus": (_simple("laptop +acme"), _title("acme")),
    # clauses beside the words
    "two musts": ({"bool": {"must": [WORDS, ACME]}}, ACME),
    "two musts, both match": ({"bool": {"must": [WORDS, {"match": {"brand": "acme"}}]}}, ACME),
    "other text": ({"bool": {"must": [WORDS, OFFICE]}}, OFFICE),
    "must_not": ({"bool": {"must": [WORDS], "must_not": [ACME, OFFICE]}}, _not(ACME, OFFICE)),
    "nested filter": ({"bool": {"must": [WORDS], "filter": [PRAISED]}}, PRAISED),
    "nested must_not": ({"bool": {"must": [WORDS], "must_not": [PRAISED]}}, _not(PRAISED)),
    "minimum_should_match": (
        {"bool": {"must": [WORDS], "should": [ACME, CHEAP, PRAISED], "minimum_should_match": 2}},
        {"bool": {"should": [ACME, CHEAP, PRAISED], "minimum_should_match": 2}},
    ),
    "minimum_should_match in percent": (
        {"bool": {"must": [WORDS], "should": [ACME, CHEAP], "minimum_should_match": "100%"}},
        _all(ACME, CHEAP),
    ),
    "a promotion": ({"bool": {"must": [WORDS], "should": [{"match": {"title": {"query": "acme", "boost": 9}}}]}}, ALL),
    "words in should, a filter beside": (
        {"bool": {"filter": [ACME], "should": [WORDS], "minimum_should_match": 1}},
        ACME,
    ),
    "must in must": ({"bool": {"must": [{"bool": {"must": [WORDS], "filter": [CHEAP]}}, ACME]}}, _all(CHEAP, ACME)),
    # queries around the words
    "function_score": (
        {
            "function_score": {
                "query": {"bool": {"must": [WORDS], "filter": [ACME]}},
                "functions": [{"weight": 2, "filter": CHEAP}],
            }
        },
        ACME,
    ),
    "script_score": (
        {"script_score": {"query": {"bool": {"must": [WORDS], "filter": [ACME]}}, "script": {"source": "_score * 2"}}},
        ACME,
    ),
    "constant_score": ({"constant_score": {"filter": {"bool": {"must": [WORDS, ACME]}}}}, ACME),
    "boosting": ({"boosting": {"positive": WORDS, "negative": ACME, "negative_boost": 0.2}}, ALL),
    "dis_max": ({"dis_max": {"queries": [WORDS, {"match": {"description": "laptop"}}]}}, ALL),
    "dis_max of words and filter": ({"bool": {"must": [{"dis_max": {"queries": [WORDS]}}], "filter": [ACME]}}, ACME),
    "wrapper": (_wrapped({"bool": {"must": [WORDS], "filter": [ACME]}}), ACME),
    "wrapper around the words": ({"bool": {"must": [_wrapped(WORDS)], "filter": [ACME]}}, ACME),
    "nested words": (
        {
            "bool": {
                "must": [{"nested": {"path": "reviews", "query": {"match": {"reviews.text": "laptop"}}}}],
                "filter": [ACME],
            },
        },
        ACME,
    ),
    "half a word in a phrase": (
        {"bool": {"must": [{"match_phrase_prefix": {"title": "acme laptop 1"}}], "must_not": [SOLD_OUT]}},
        _not(SOLD_OUT),
    ),
    "half a word": (
        {"bool": {"must": [{"match_bool_prefix": {"title": {"query": "acme laptop 1", "operator": "and"}}}, CHEAP]}},
        CHEAP,
    ),
    "the same words twice": (
        {"bool": {"must": [WORDS, {"match": {"description": "laptop"}}], "filter": [ACME]}},
        ACME,
    ),
    "long form": ({"bool": {"must": {"match": {"title": {"query": "laptop", "fuzziness": 1}}}, "filter": ACME}}, ACME),
    "several fields": (
        {"bool": {"must": {"multi_match": {"query": "laptop", "fields": ["title^3", "description"]}}, "filter": ACME}},
        ACME,
    ),
}


async def _ids(sides: Sides, query: Any, **rest: Any) -> set[str]:
    return set((await sides.straight.search({"query": query, "size": 100, **rest})).ids)


@pytest.mark.parametrize(("query", "admits"), QUERIES.values(), ids=QUERIES)
async def test_demands(query: Any, admits: Any, open_sides: Open, models: ShopModels) -> None:
    """What the query finds is there, and all that fulfils it but for the words; nothing that it excludes."""
    sides = await open_sides(semantic=EVERYTHING)
    own, admitted = await _ids(sides, query), await _ids(sides, admits)
    through = await sides.through.search({"query": query, "size": 100})
    assert ("reranked", own | admitted, True) == (through.outcome, set(through.ids), bool(own))
    assert "laptop" in models.reranked[0]["queries"][0]


INSEPARABLE: dict[str, Any] = {
    "parentheses": _line("(laptop OR notebook) -acme"),
    "a group for a field": _line("title:(laptop notebook) AND brand:acme"),
    "a boost": _line("laptop^3 AND brand:acme"),
    "fuzzy": _line("laptp~ -acme"),
    "wildcard": _line("lapt* -brand:acme"),
    "range in a line": _line("laptop AND price:[100 TO 700]"),
    "prefix": _simple("lap* -acme"),
    "or": _simple("laptop | notebook"),
    "score demanded": {"function_score": {"query": {"bool": {"must": [WORDS], "filter": [ACME]}}, "min_score": 0.01}},
    "script's score demanded": {"script_score": {"query": WORDS, "script": {"source": "_score"}, "min_score": 0.01}},
}


@pytest.mark.parametrize("query", INSEPARABLE.values(), ids=INSEPARABLE)
async def test_inseparable(query: Any, open_sides: Open) -> None:
    """Where a query cannot be split, kNN is left out, and the client's own hits alone are reranked."""
    sides = await open_sides(semantic=EVERYTHING)
    through = await sides.through.search({"query": query, "size": 100})
    assert ("reranked", await _ids(sides, query), True) == (through.outcome, set(through.ids), bool(through.ids))


async def test_min_score(open_sides: Open) -> None:
    """A score that the client demands of every hit leaves kNN out."""
    sides = await open_sides(semantic=EVERYTHING)
    body = {"query": WORDS, "min_score": 0.5, "size": 100}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert ("reranked", set(straight.ids), straight.total) == (through.outcome, set(through.ids), through.total)


NOT_MEANT: dict[str, Any] = {
    "filter alone": {"bool": {"filter": [WORDS]}},
    "must_not alone": {"bool": {"must": [ACME], "must_not": [WORDS]}},
    "ids": {"ids": {"values": ["p00"]}},
    "wildcard": {"wildcard": {"title": "lap*"}},
    "negated words alone": _line("-acme"),
    "match on a keyword": {"match": {"brand": "acme"}},
    "match on a date": {"match": {"released": "2012-01-11"}},
}


@pytest.mark.parametrize("query", NOT_MEANT.values(), ids=NOT_MEANT)
async def test_no_words(query: Any, open_sides: Open, models: ShopModels) -> None:
    """What no user typed is no query text, and nothing of it goes to a model."""
    sides = await open_sides(semantic=EVERYTHING)
    straight, through = await sides.straight.search({"query": query}), await sides.through.search({"query": query})
    assert ("bypassed;reason=no_query_text", straight.hits, []) == (through.outcome, through.hits, models.requests)


# a property over queries

_filter = st.one_of(
    st.sampled_from(["acme", "globex", "initech"]).map(lambda brand: {"term": {"brand": brand}}),
    st.integers(100, 1500).map(lambda price: {"range": {"price": {"gte": price}}}),
    st.sampled_from(["office", "film", "travel"]).map(lambda word: _all({"match": {"description": word}})),
    st.integers(1, 5).map(
        lambda stars: {"nested": {"path": "reviews", "query": {"term": {"reviews.stars": stars}}}},
    ),
    st.booleans().map(lambda there: {"bool": {"must_not": [{"term": {"in_stock": there}}]}}),
)
_some = st.lists(_filter, max_size=2)
_Split = tuple[Any, Any]
"""A query, and the same without its words; None where it cannot be split."""

_LEAVES: list[_Split] = [
    (WORDS, ALL),
    ({"match": {"title": {"query": "laptop notebook", "operator": "or"}}}, ALL),
    ({"multi_match": {"query": "laptop", "fields": ["title", "description"], "type": "cross_fields"}}, ALL),
    ({"match_phrase": {"title": {"query": "acme laptop", "slop": 3}}}, ALL),
    (_line("laptop -acme"), _not(_title("acme"))),
    (_line("laptop AND brand:acme"), ACME),
    (_line("laptop OR (acme AND NOT globex)"), None),
    (_simple("laptop -globex"), _not(_title("globex"))),
    ({"nested": {"path": "reviews", "query": {"match": {"reviews.text": "laptop"}}}}, ALL),
]


@st.composite
def _bool(draw: st.DrawFn, inner: _Split) -> _Split:
    must, must_not, filters, should = draw(_some), draw(_some), draw(_some), draw(_some)
    place, needed = draw(st.integers(0, len(must))), draw(st.integers(0, min(1, len(should))))
    rest = {"must_not": must_not, "filter": filters, "should": should, "minimum_should_match": needed}
    query, relaxed = ({"bool": rest | {"must": [*must[:place], clause, *must[place:]]}} for clause in inner)
    return query, relaxed if inner[1] is not None else None


def _around(inner: _Split) -> st.SearchStrategy[_Split]:
    query, relaxed = inner
    function = {"functions": [{"filter": CHEAP, "weight": 3}]}
    return st.one_of(
        _bool(inner),
        st.sampled_from(
            [
                ({"function_score": {"query": query, **function}}, relaxed),
                ({"function_score": {"query": query, **function, "min_score": 0.1}}, None),
                ({"script_score": {"query": query, "script": {"source": "_score + 1"}}}, relaxed),
                ({"constant_score": {"filter": query}}, relaxed),
                ({"boosting": {"positive": query, "negative": ACME, "negative_boost": 0.5}}, relaxed),
                ({"dis_max": {"queries": [query]}}, relaxed),
                (_wrapped(query), relaxed),
            ],
        ),
    )


def _grown(inner: st.SearchStrategy[_Split]) -> st.SearchStrategy[_Split]:
    return inner.flatmap(_around)


_queries = st.recursive(st.sampled_from(_LEAVES), _grown, max_leaves=4)


@pytest.fixture
def proxies() -> dict[str, Sides]:
    """What the examples of one property share."""
    return {}


@given(drawn=_queries, post=st.none() | _filter)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_query(drawn: _Split, post: Any, open_sides: Open, proxies: dict[str, Sides]) -> None:
    """Whatever the query: nothing it excludes appears, all it finds is there, and all it admits but for the words."""
    if "sides" not in proxies:
        proxies["sides"] = await open_sides(semantic=EVERYTHING)
    sides, (query, relaxed) = proxies["sides"], drawn
    rest = {"post_filter": post} if post else {}
    own = await _ids(sides, query, **rest)
    admitted = own if relaxed is None else await _ids(sides, relaxed, **rest)
    through = await sides.through.search({"query": query, "size": 100, **rest})
    expected = ("reranked", own | admitted) if own else ("bypassed;reason=zero_hits", own)
    assert (*expected, len(through.ids)) == (through.outcome, set(through.ids), len(set(through.ids)))
