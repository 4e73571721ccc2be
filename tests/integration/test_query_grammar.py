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
REVIEWED = {"nested": {"path": "reviews", "query": {"match": {"reviews.text": "notebook"}}}}
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
    "one of several values": (
        _line("laptop AND (brand:acme OR brand:globex)"),
        {"terms": {"brand": ["acme", "globex"]}},
    ),
    "a value of a text field": (_line("laptop AND description:children"), {"match": {"description": "children"}}),
    "fields side by side": (_line("title:laptop description:laptop"), ALL),
    "each word in each field": (
        _line("(title:laptop OR description:laptop) AND (title:acme OR description:acme) AND -brand:globex"),
        _not({"term": {"brand": "globex"}}),
    ),
    "plus": (_line("laptop +acme"), _title("acme")),
    "two demands": (_line("laptop +acme -brand:globex +brand:acme"), _all(ACME, _title("acme"))),
    "simple minus": (_simple("laptop -acme", default_operator="and"), _not(_title("acme"))),
    "simple plus": (_simple("laptop +acme"), _title("acme")),
    "or": (_line("laptop OR notebook"), ALL),
    "a phrase repeated": (_line('laptop OR acme OR ("laptop acme")^1.5'), ALL),
    "brackets around all": (_line("(laptop notebook)", default_operator="OR"), ALL),
    "brackets": (_line("(laptop OR notebook) -acme"), _not(_title("acme"))),
    "minus brackets": (_line("laptop -(acme OR globex)"), _not(_title("acme globex"))),
    "a group for a field": (_line("title:(laptop acme) AND brand:acme"), _all(ACME, _title("laptop acme"))),
    "a boost": (_line("laptop^3 AND brand:acme"), ACME),
    "fuzzy words": (_line("laptop~ -acme"), _not(_title("acme"))),
    "fuzzy": ({"bool": {"must": [{"fuzzy": {"title": {"value": "laptop"}}}, CHEAP]}}, CHEAP),
    "prefix": (_line("laptop* -brand:acme"), _not(ACME)),
    "a range": (_line("laptop AND price:[100 TO 700]"), {"range": {"price": {"gte": 100, "lte": 700}}}),
    "a comparison": (_line("laptop AND price:>700"), {"range": {"price": {"gt": 700}}}),
    "simple prefix": (_simple("laptop* -acme", default_operator="and"), _not(_title("acme"))),
    "simple or": (_simple("laptop | notebook"), ALL),
    "all flags": (_simple("laptop", flags="ALL"), ALL),
    "one flag": (_simple("laptop", flags="PHRASE"), ALL),
    # clauses beside the words
    "two musts": ({"bool": {"must": [WORDS, ACME]}}, ACME),
    "two musts, both match": ({"bool": {"must": [WORDS, {"match": {"brand": "acme"}}]}}, ACME),
    "other text": (
        {"bool": {"must": [_title("acme laptop"), REVIEWED]}},
        REVIEWED,
    ),
    "a clause for each word": ({"bool": {"must": [_title("acme"), _title("laptop")], "filter": [CHEAP]}}, CHEAP),
    "one of the words": ({"bool": {"should": [_title("acme"), _title("laptop")], "filter": [CHEAP]}}, CHEAP),
    "a phrase and the rest": (
        {"bool": {"must": [{"match_phrase": {"title": "acme laptop"}}, _title("100 124")], "filter": [CHEAP]}},
        CHEAP,
    ),
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
async def test_knn_respects_all_requirements_but_the_query_text(
    query: Any, admits: Any, open_sides: Open, models: ShopModels
) -> None:
    """All hits of the query, and all documents that satisfy the rest of it; none that it excludes."""
    sides = await open_sides(semantic=EVERYTHING, bypass={"autocomplete": False})
    own, admitted = await _ids(sides, query), await _ids(sides, admits)
    through = await sides.through.search({"query": query, "size": 100})
    assert ("reranked", own | admitted, True) == (through.outcome, set(through.ids), bool(own))
    assert "laptop" in models.reranked[0]["queries"][0]


def _span(word: str) -> Any:
    return {"span_term": {"title": word}}


NOT_RELAXED: dict[str, tuple[str, Any]] = {
    "or a field": ("query_syntax", _line("laptop OR brand:acme")),
    "two texts in the passage": ("ambiguous_text", {"bool": {"must": [WORDS, OFFICE]}}),
    "two texts, one in should": (
        "ambiguous_text",
        {"bool": {"must": [OFFICE], "should": [WORDS], "minimum_should_match": 1}},
    ),
    "other text that contains the optional words": (
        "ambiguous_text",
        {
            "bool": {
                "must": [{"nested": {"path": "reviews", "query": {"match": {"reviews.text": "laptop notebook"}}}}],
                "should": [WORDS],
            }
        },
    ),
    "score demanded": (
        "own_scores",
        {"function_score": {"query": {"bool": {"must": [WORDS], "filter": [ACME]}}, "min_score": 0.01}},
    ),
    "script's score demanded": (
        "own_scores",
        {"script_score": {"query": WORDS, "script": {"source": "_score"}, "min_score": 0.01}},
    ),
    "filter alone": ("text_in_filter", {"bool": {"filter": [WORDS]}}),
    "functions alone": (
        "text_in_filter",
        {"function_score": {"functions": [{"filter": WORDS, "weight": 5}], "min_score": 2, "score_mode": "sum"}},
    ),
    "intervals": ("text_in_filter", {"intervals": {"title": {"match": {"query": "laptop"}}}}),
    "wildcard": ("text_in_filter", {"bool": {"should": [{"wildcard": {"title": "*laptop*"}}]}}),
    "wildcard beside a filter with text": (
        "text_in_filter",
        {"bool": {"must": [{"wildcard": {"title": "*acme*"}}, REVIEWED]}},
    ),
    "span_term": ("text_in_filter", _span("laptop")),
    "span_near": ("text_in_filter", {"span_near": {"clauses": [_span("laptop")], "slop": 2}}),
    "span_or": ("text_in_filter", {"span_or": {"clauses": [_span("laptop"), _span("notebook")]}}),
    "span_first": ("text_in_filter", {"span_first": {"match": _span("laptop"), "end": 9}}),
    "span_not": ("text_in_filter", {"span_not": {"include": _span("laptop"), "exclude": _span("nothing")}}),
    "span_containing": ("text_in_filter", {"span_containing": {"big": _span("laptop"), "little": _span("laptop")}}),
    "span_within": ("text_in_filter", {"span_within": {"big": _span("laptop"), "little": _span("laptop")}}),
}


@pytest.mark.parametrize(("reason", "query"), NOT_RELAXED.values(), ids=NOT_RELAXED)
async def test_queries_that_cannot_be_relaxed_skip_knn(reason: str, query: Any, open_sides: Open) -> None:
    """The client's own hits are reranked, and the headers report why."""
    sides = await open_sides(semantic=EVERYTHING)
    through = await sides.through.search({"query": query, "size": 100})
    expected = f'reranked;stages="semantic";reason={reason}'
    assert (expected, await _ids(sides, query), True) == (through.outcome, set(through.ids), bool(through.ids))


async def test_min_score_skips_knn(open_sides: Open) -> None:
    """A document that only kNN found has no such score."""
    sides = await open_sides(semantic=EVERYTHING)
    body = {"query": WORDS, "min_score": 0.5, "size": 100}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    expected = 'reranked;stages="semantic";reason=own_scores'
    assert (expected, set(straight.ids), straight.total) == (through.outcome, set(through.ids), through.total)


NOT_MEANT: dict[str, Any] = {
    "must_not alone": {"bool": {"must": [ACME], "must_not": [WORDS]}},
    "ids": {"ids": {"values": ["p00"]}},
    "wildcard": {"wildcard": {"title": "lap*"}},
    "negated words alone": _line("-acme"),
    "match on a keyword": {"match": {"brand": "acme"}},
    "match on a date": {"match": {"released": "2012-01-11"}},
}


@pytest.mark.parametrize("query", NOT_MEANT.values(), ids=NOT_MEANT)
async def test_queries_without_typed_text_are_bypassed(query: Any, open_sides: Open, models: ShopModels) -> None:
    """Nothing of them is sent to a model."""
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
    (_line("(laptop OR notebook) AND NOT (acme globex)"), _not(_title("acme globex"))),
    ({"bool": {"must": [_title("laptop"), _title("acme")]}}, ALL),
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
async def test_any_query_keeps_its_requirements(
    drawn: _Split, post: Any, open_sides: Open, proxies: dict[str, Sides]
) -> None:
    """Nothing it excludes appears, all it finds does, and all it admits without the query text."""
    if "sides" not in proxies:
        proxies["sides"] = await open_sides(semantic=EVERYTHING)
    sides, (query, relaxed) = proxies["sides"], drawn
    rest = {"post_filter": post} if post else {}
    own = await _ids(sides, query, **rest)
    admitted = own if relaxed is None else await _ids(sides, relaxed, **rest)
    through = await sides.through.search({"query": query, "size": 100, **rest})
    outcome, _, why = through.outcome.partition(";stages=")
    expected = ("reranked", own | admitted) if own else ("bypassed;reason=zero_hits", own)
    assert (*expected, len(through.ids)) == (outcome, set(through.ids), len(set(through.ids)))
    assert bool(why) is bool(own and relaxed is None)
