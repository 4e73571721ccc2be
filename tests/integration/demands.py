"""Queries of every shape around a user's words, and each without them: the engine says what that admits."""

from typing import Any

from hypothesis import strategies as st

WORDS = {"match": {"title": "laptop"}}
ANYTHING: dict[str, Any] = {"match_all": {}}

FILTERS = st.one_of(
    st.sampled_from(["acme", "globex", "initech"]).map(lambda brand: {"term": {"brand": brand}}),
    st.lists(st.sampled_from(["laptop", "phone", "camera"]), min_size=1).map(
        lambda found: {"terms": {"category": found}}
    ),
    st.integers(100, 1500).map(lambda price: {"range": {"price": {"gte": price}}}),
    st.booleans().map(lambda stock: {"term": {"in_stock": stock}}),
    # under `filter`, since the first words under `must` are the user's
    st.sampled_from(["office", "film"]).map(lambda word: {"bool": {"filter": {"match_phrase": {"description": word}}}}),
    st.integers(0, 5).map(
        lambda user: {"nested": {"path": "reviews", "query": {"term": {"reviews.author": f"user{user}"}}}},
    ),
)


@st.composite
def queries(draw: st.DrawFn, filters: st.SearchStrategy[Any] = FILTERS, depth: int = 2) -> tuple[Any, Any]:
    """Draw a query with the user's words somewhere in its `must`, and the same query without them."""
    if depth == 0:
        return WORDS, ANYTHING
    inner, relaxed = draw(queries(filters, draw(st.integers(0, depth - 1))))
    some = st.lists(filters, max_size=2)
    must, must_not, held, should = draw(some), draw(some), draw(some), draw(some)
    place = draw(st.integers(0, len(must)))
    needed = draw(st.integers(0, min(1, len(should))))
    rest = {"must_not": must_not, "filter": held, "should": should, "minimum_should_match": needed}
    return (
        {"bool": rest | {"must": [*must[:place], inner, *must[place:]]}},
        {"bool": rest | {"must": [*must[:place], relaxed, *must[place:]]}},
    )
