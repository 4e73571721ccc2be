"""Which text is the user's where clauses differ, and whether it is certain which of them hold it."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from proxy.bounds import READ_SIZE, TEXT_CLAUSES
from proxy.parsing.evidence import LinkedFields
from proxy.parsing.query_text import UserQuery, find_user_query, text_of_clause
from proxy.parsing.words import MATCH_ALL

PASSAGE = ("title", "brand", "body")
KEYWORDS = frozenset({"status", "title.raw"})
AMBIGUOUS = (None, "ambiguous_text")


def found(query: Any, given: str | None = None) -> UserQuery | None:
    return find_user_query(query, PASSAGE, lambda path: path not in KEYWORDS, given)


def match(field: str, text: str, boost: float = 1) -> dict[str, Any]:
    return {"match": {field: {"query": text, "boost": boost}}}


def multi(text: str, fields: Sequence[str] = ("title", "body"), **more: Any) -> dict[str, Any]:
    return {"multi_match": {"query": text, "fields": list(fields), **more}}


def must(*clauses: Any) -> dict[str, Any]:
    return {"bool": {"must": list(clauses)}}


def should(*clauses: Any, **more: Any) -> dict[str, Any]:
    return {"bool": {"should": list(clauses), **more}}


def line(written: str, **options: Any) -> dict[str, Any]:
    return {"query_string": {"query": written, **options}}


def in_each_field(word: str) -> dict[str, Any]:
    """One typed word as shops write it: full, as a prefix, with typing errors, and as n-grams."""
    return should(
        match("title.exact", word, 9),
        {"match_phrase_prefix": {"title.exact": {"query": word, "boost": 7}}},
        {"match": {"title.exact": {"query": word, "fuzziness": "auto", "boost": 5}}},
        match("title.ngrams", word, 3),
        {"nested": {"path": "maker", "query": match("maker.name", word, 2)}},
    )


BRAND = match("brand", "velloway")
SHELF = match("shelf", "boots")

ONE_TEXT = [
    # a clause for each typed word
    (must(in_each_field("dry"), in_each_field("feet")), "dry feet"),
    (should(in_each_field("dry"), in_each_field("feet")), "dry feet"),
    (should(match("title", "dry"), match("title", "warm"), match("title", "feet")), "dry warm feet"),
    (should(match("title", "dry"), match("title", "feet"), minimum_should_match="75%"), "dry feet"),
    # a word that was typed twice has twice the clauses
    (should(match("title", "dry"), match("title", "dry"), match("title", "feet")), "dry feet"),
    (
        should(*[match(path, word, 2) for word in ["the", "dry", "the", "feet"] for path in ("title", "body")]),
        "the dry feet",
    ),
    # a typed word may be within another one
    (must(*[in_each_field(word) for word in ["dry", "in", "rain"]]), "dry in rain"),
    (should(*[match("title", word) for word in ["not", "a", "boot", "to", "go"]]), "not a boot to go"),
    (should(match("title", "boots"), match("title.stem", "boot")), "boots"),
    (should(multi("a", boost=1), multi("storm coat", boost=0.1)), "a"),
    (should(multi("warm rain boot"), match("title.shingles", "rainboot")), "warm rain boot"),
    (must(in_each_field("rain"), in_each_field("raincoat"), in_each_field("boots")), "rain raincoat boots"),
    # synonyms that contain the typed text
    (should(multi("coat", boost=1), multi("storm coat", boost=0.1), multi("coat of rain", boost=0.1)), "coat"),
    (should(multi("dry", boost=2), multi("feet", boost=2), multi("dry feet", type="phrase")), "dry feet"),
    # where the boost is on a query around the clause
    (
        should(
            *[{"bool": {"must": [multi(text)], "boost": boost}} for text, boost in (("coat", 1), ("storm coat", 0.1))]
        ),
        "coat",
    ),
    (
        should(
            *[
                {"constant_score": {"filter": match("title", text), "boost": boost}}
                for text, boost in (("galosh", 1), ("boot", 5))
            ]
        ),
        "boot",
    ),
    (should({"dis_max": {"queries": [match("title", "sock", 3)], "boost": 0.1}}, match("title", "boot")), "boot"),
    # typed words with a hyphen or an apostrophe are words as well
    (must(in_each_field("mid-cut"), in_each_field("boot")), "mid-cut boot"),
    (must(multi("boot"), multi("l'hiver")), "boot l'hiver"),
    (should(match("title", "mid-cut"), match("title", "boot")), "mid-cut boot"),
    (should(in_each_field("boot"), in_each_field("4.5mm")), "boot 4.5mm"),
    # a quoted part and the rest
    (must(multi("rubber sole", type="phrase"), multi("dry feet")), "rubber sole dry feet"),
    (must(match("title", "dry feet"), {"match_phrase": {"title": "rubber sole"}}), "dry feet rubber sole"),
    (
        must(multi("dry feet", ["title", "title.stem"]), {"match_phrase": {"title": "rubber sole"}}),
        "dry feet rubber sole",
    ),
    (should(match("title", "sofa"), match("title.synonyms", "couch")), "sofa"),
    # the same text over and over
    (must(should(match("title", "Dry Feet"), match("body", "dry feet"), match("shelf", "dry feet"))), "Dry Feet"),
    (should(match("title_en", "dry feet"), match("title_de", "dry feet"), match("title_fr", "dry feet")), "dry feet"),
    (must(multi("dry feet"), should(match("title", "dry"), match("title", "feet"))), "dry feet"),
    ({"dis_max": {"queries": [match("title", "rain boot"), match("title.shingles", "rainboot")]}}, "rain boot"),
    # expansions beside the typed text
    (should(match("title", "dry feet", 10), match("title", "wet shoes", 0.1), match("title", "sock", 0.1)), "dry feet"),
    (should(match("title", "galosh", 0.1), match("title", "boot", 10)), "boot"),
    (should(match("title", "boot", 10), match("title", "bootlace", 5), match("title", "boots", 2)), "boot"),
    (should(multi("dry boot", boost=2), multi("dry boots")), "dry boot"),
    (should(match("title", "c++", 2), match("title", "storm coat")), "c++"),
    (should(match("title", "boots", 10), match("title", "boot", 2)), "boots"),
    # a part of the text that the application prefers in another field
    (should(multi("acme boots"), match("shelf", "acme", 5)), "acme boots"),
    (must(should(multi("acme boots"), match("shelf", "boot", 5))), "acme boots"),
    (should(multi("dry feet"), match("tags", "waterproof")), "dry feet"),
    # the same text in parts of the document, where a filter beside it may be a second one
    (
        should(
            multi("dry feet"),
            {"nested": {"path": "files", "query": must(match("files.text", "dry feet"), match("files.kind", "final"))}},
        ),
        "dry feet",
    ),
    (
        should(must(match("files.text", "dry feet"), match("files.kind", "final")), multi("dry feet")),
        "dry feet",
    ),
    # the whole text in a field outside the passage, and its parts in the passage
    (
        should(
            match("everything", "dry warm feet"),
            {"match_phrase": {"title": {"query": "dry warm", "boost": 3}}},
            {"match_phrase": {"title": {"query": "warm feet", "boost": 3}}},
        ),
        "dry warm feet",
    ),
    # what is left of the text after the application took its words out
    (should(multi("*"), line("* (title:feet*^20 OR body:feet*)", fields=["title", "body"])), "feet"),
    # what an application escapes
    (multi(r"dry \(feet\)"), "dry (feet)"),
]


@pytest.mark.parametrize(("query", "text"), ONE_TEXT)
def test_typed_words_are_collected_once_and_in_order(query: Any, text: str) -> None:
    user_query = found(query)
    assert user_query is not None
    assert text == user_query.text
    assert user_query.relaxed is not None


FILTERS_APART = [
    must(SHELF, multi("dry feet")),
    must(match("title", "dry feet"), SHELF),
    must({"match_phrase": {"shelf": "boots"}}, multi("dry feet")),
    must(multi("boots", ["shelf", "shelf.raw"]), multi("dry feet")),
    must(multi("dry feet"), {"query_string": {"query": "shelf:boots OR shelf:socks"}}),
    must({"query_string": {"query": "+shelf:(boots OR socks)"}}, {"query_string": {"query": "dry feet"}}),
    must(multi("dry feet"), {"query_string": {"query": "shelf:boots tags:boots", "fields": ["title", "body"]}}),
    {"bool": {"must": [SHELF], "should": [match("title", "dry feet"), match("body", "dry feet")]}},
    {"bool": {"must": [SHELF], "should": [multi("dry feet")], "minimum_should_match": 1}},
]


@pytest.mark.parametrize("query", FILTERS_APART)
def test_a_text_for_one_field_outside_the_passage_stays_a_filter(query: Any) -> None:
    user_query = found(query)
    assert user_query is not None
    assert user_query.text == "dry feet"
    assert user_query.relaxed is not None
    assert ("boots" in str(user_query.relaxed), "dry feet" in str(user_query.relaxed)) == (True, False)


VALUES_IN_LINES = [
    line("dry feet AND shelf:boots"),
    line("shelf:boots AND (dry feet)"),
    line("+shelf:boots dry feet", fields=["title^2", "body"]),
    line("dry feet shelf:(boots OR socks)"),
    line("dry feet AND shelf.raw:boots AND status:new"),
    line("dry feet AND (shelf:boots OR tags:boots)"),
    line("dry feet AND (shelf:boots tags:boots)"),
    line("(title:(dry feet) OR body:(dry feet)) AND (shelf:boots OR shelf:socks)"),
    line('dry feet AND brand:"boots"'),
    line("title:(dry feet) AND shelf:boots"),
    line("title.folded:(dry feet) AND shelf:boots"),
    line("everything:(dry feet) AND brand:boots"),
    line("dry body:feet AND shelf:boots", fields=["title^2", "body"]),
]
VALUES_AS_THE_WORDS = [
    line("title:boots AND shelf:boots"),
    line("shelf:boots AND title:(boots)"),
    line("title:(boots) shelf:boots", default_operator="AND"),
    line("(title:boots OR body:boots) AND shelf:boots"),
]


@pytest.mark.parametrize("query", VALUES_IN_LINES)
def test_a_field_value_in_a_query_string_stays_a_filter(query: Any) -> None:
    user_query = find_user_query(query, PASSAGE, lambda _: True, links=LinkedFields(frozenset({"everything"})))
    assert user_query is not None
    assert user_query.text == "dry feet"
    assert "boots" in str(user_query.relaxed)


@pytest.mark.parametrize("query", VALUES_AS_THE_WORDS)
def test_the_value_of_another_field_in_a_line_stays_if_it_is_the_text(query: Any) -> None:
    user_query = found(query)
    assert user_query is not None
    assert user_query.text == "boots"
    assert "shelf:boots" in str(user_query.relaxed)


@pytest.mark.parametrize(
    "written", ['"boots"^5 OR (boots) AND shelf:boots', "title:boots OR body:boots AND shelf:boots"]
)
def test_a_line_with_the_text_as_a_value_beside_alternatives_is_not_relaxed(written: str) -> None:
    user_query = found(line(written))
    assert user_query is not None
    assert ("boots", None, "query_syntax") == (user_query.text, user_query.relaxed, user_query.unrelaxed)


@pytest.mark.parametrize(
    "written",
    ["title:boots OR shelf:(boots) OR tags:boots", "title:boots shelf:boots", "title:boots AND title.stem:boots"],
)
def test_alternatives_with_the_text_in_any_fields_are_relaxed(written: str) -> None:
    assert UserQuery("boots", MATCH_ALL) == found(line(written))


@pytest.mark.parametrize("written", ["shelf:boots", "shelf:(boots)", "shelf:boots OR tags:boots"])
def test_a_query_string_with_only_field_values_has_them_as_text(written: str) -> None:
    user_query = found(line(written))
    assert user_query is not None
    assert user_query.text == "boots"


UNCERTAIN = [
    # a brand, which is a field of the passage, and the words
    (must(BRAND, match("title", "dry feet")), "dry feet"),
    (must(match("title", "dry feet"), BRAND), "dry feet"),
    (must(BRAND, multi("dry feet")), "dry feet"),
    ({"bool": {"must": [BRAND], "should": [multi("dry feet")], "minimum_should_match": 1}}, "dry feet"),
    ({"bool": {"must": [BRAND], "should": [multi("dry feet", ["tags", "shelf"])]}}, "velloway dry feet"),
    (should(BRAND, multi("dry feet"), minimum_should_match=2), "dry feet"),
    # one line for each field, as derived finders write them
    (
        must(
            {"query_string": {"query": "velloway", "fields": ["brand^1.0"]}},
            {"query_string": {"query": "boot", "fields": ["title^1.0"]}},
        ),
        "boot",
    ),
    # two searches over several fields
    (must(multi("velloway boots", ["brand", "shelf"]), multi("dry feet")), "dry feet"),
    # none of them where people search: both may be typed
    (must(BRAND, match("everything", "dry feet")), "velloway dry feet"),
    # two texts in the same field: a facet's value and the words, or all of it typed
    (must(match("title", "rain boots"), match("title", "dry feet")), "rain boots dry feet"),
]


@pytest.mark.parametrize(("query", "text"), UNCERTAIN)
def test_an_ambiguous_text_prevents_relaxing(query: Any, text: str) -> None:
    user_query = found(query)
    assert user_query is not None
    assert (text, *AMBIGUOUS) == (user_query.text, user_query.relaxed, user_query.unrelaxed)


@pytest.mark.parametrize("query", [query for query, text in UNCERTAIN if text == "dry feet"])
def test_only_clauses_with_the_given_text_are_relaxed(query: Any) -> None:
    user_query = found(query, "dry feet")
    assert user_query is not None
    assert user_query.text == "dry feet"
    assert "velloway" in str(user_query.relaxed)
    assert "dry feet" not in str(user_query.relaxed)


@pytest.mark.parametrize("query", [*(query for query, _ in UNCERTAIN), BRAND, multi("dry feet in the rain")])
def test_a_given_text_in_no_clause_relaxes_nothing(query: Any) -> None:
    given = UserQuery("warm hands", None)
    user_query = found(query, "warm hands")
    assert given == user_query
    assert user_query is not None
    assert user_query.unrelaxed == "given_text"


def test_given_text_is_found_in_one_clause_per_word() -> None:
    user_query = found(must(in_each_field("dry"), in_each_field("feet"), BRAND), "Dry feet")
    assert user_query is not None
    assert user_query.text == "Dry feet"
    assert "velloway" in str(user_query.relaxed)
    assert "feet" not in str(user_query.relaxed)


def test_a_required_single_word_of_the_text_stays_a_filter() -> None:
    user_query = found(must(match("brand", "velloway"), multi("velloway boots")))
    assert UserQuery("velloway boots", must(match("brand", "velloway"), MATCH_ALL)) == user_query


@pytest.mark.parametrize(
    ("fields", "stays"),
    [
        (("title", "sku"), MATCH_ALL),
        (("shelf",), multi("dry feet", ("shelf",))),
        (("shelf", "tags"), multi("dry feet", ("shelf", "tags"))),
    ],
)
def test_a_filter_with_the_same_text_stays_a_filter(fields: Any, stays: Any) -> None:
    query = {"bool": {"filter": [multi("dry feet", fields)], "must": [multi("dry feet")]}}
    assert UserQuery("dry feet", {"bool": {"filter": [stays], "must": [MATCH_ALL]}}) == found(query)


@pytest.mark.parametrize("given", [None, "boots"])
def test_a_category_equal_to_the_text_stays_required(given: str | None) -> None:
    query = must(SHELF, multi("boots"), match("body", "boots"))
    assert UserQuery("boots", must(SHELF, MATCH_ALL, MATCH_ALL)) == found(query, given)


BRANDS = LinkedFields(also_keywords=frozenset({"brand", "maker"}))


@pytest.mark.parametrize("given", [None, "velloway"])
@pytest.mark.parametrize(
    "words", [multi("velloway"), line("velloway"), match("title", "velloway"), match("body", "velloway")]
)
def test_a_brand_that_is_called_like_the_text_stays_required(words: Any, given: str | None) -> None:
    for around in (must, lambda words, brand: {"bool": {"must": [brand], "should": [words]}}):
        user_query = find_user_query(around(words, BRAND), PASSAGE, lambda _: True, given, BRANDS)
        assert UserQuery("velloway", around(MATCH_ALL, BRAND)) == user_query


@pytest.mark.parametrize(
    "beside",
    [
        match("maker", "velloway"),
        match("shelf", "velloway"),
        should(match("name_en", "velloway"), match("name_de", "velloway")),
    ],
)
def test_of_a_brand_and_other_fields_with_the_text_any_may_be_a_filter(beside: Any) -> None:
    for around in (must, lambda brand, beside: {"bool": {"must": [brand], "should": [beside]}}):
        query = around(BRAND, beside)
        user_query = find_user_query(query, (*PASSAGE, "maker"), lambda _: True, links=BRANDS)
        assert user_query is not None
        assert ("velloway", *AMBIGUOUS) == (user_query.text, user_query.relaxed, user_query.unrelaxed)


@pytest.mark.parametrize("more", [{}, {"filter": [{"term": {"status": "new"}}]}])
def test_a_value_that_a_search_prefers_is_no_query_text(more: Any) -> None:
    """As a category that the user often visits."""
    query = {"bool": {"should": [multi("boots"), match("maker", "velloway boots", 2)], **more}}
    user_query = find_user_query(query, PASSAGE, lambda _: True, links=BRANDS)
    assert user_query is not None
    assert user_query.text == "boots"


def test_a_brand_that_is_called_like_the_given_text_stays_required() -> None:
    words = should(match("name_en", "velloway"), match("name_de", "velloway"))
    user_query = find_user_query(must(words, BRAND), PASSAGE, lambda _: True, "velloway", BRANDS)
    assert user_query is not None
    assert user_query.relaxed == must(should(MATCH_ALL, MATCH_ALL), BRAND)


def test_a_field_outside_the_passage_and_its_multi_fields_are_one() -> None:
    query = must(match("everything", "dry feet"), match("everything.folded", "dry feet"))
    assert UserQuery("dry feet", must(MATCH_ALL, MATCH_ALL)) == found(query)


def test_required_and_optional_clauses_with_the_text_are_relaxed_together() -> None:
    query = {"bool": {"must": [match("body", "dry feet")], "should": [match("title", "dry feet")]}}
    assert UserQuery("dry feet", {"bool": {"must": [MATCH_ALL], "should": [MATCH_ALL]}}) == found(query)


VALUES_WITH_THE_WORDS = [
    match("shelf", "boots"),
    match("shelf", "warm boots"),
    {"match_phrase": {"shelf": "boots and socks"}},
    should(match("readers", "boots"), match("readers", "socks"), minimum_should_match=1),
    {"nested": {"path": "readers", "query": match("readers.name", "boots socks")}},
    line("shelf:(boots OR socks)"),
    line("boots OR socks", default_field="shelf"),
]
"""Filters by values that contain the typed text, and more."""


@pytest.mark.parametrize("given", [None, "boots"])
@pytest.mark.parametrize(
    "words",
    [
        multi("boots"),
        line("boots"),
        line("boots", fields=["title^5", "body"]),
        multi("boots", ["*"]),
        in_each_field("boots"),
    ],
)
@pytest.mark.parametrize("filter_", VALUES_WITH_THE_WORDS)
@pytest.mark.parametrize(
    "around",
    [
        must,
        lambda words, filter_: must(filter_, words),
        lambda words, filter_: {"bool": {"must": [filter_], "should": [words], "minimum_should_match": 1}},
        lambda words, filter_: should(words, filter_, minimum_should_match=2),
    ],
)
def test_a_filter_by_a_value_that_contains_the_text_stays_required(
    around: Any, filter_: Any, words: Any, given: str | None
) -> None:
    relaxed = found(words)
    user_query = found(around(words, filter_), given)
    assert relaxed is not None
    assert user_query is not None
    assert ("boots", around(relaxed.relaxed, filter_)) == (user_query.text, user_query.relaxed)


@pytest.mark.parametrize(
    "words", [multi("boots"), line("boots"), should(match("name_en", "boots"), match("name_de", "boots"))]
)
@pytest.mark.parametrize("required", VALUES_WITH_THE_WORDS)
def test_a_required_text_outside_the_passage_beside_a_part_of_it_may_be_a_filter(required: Any, words: Any) -> None:
    """Or it is the whole text, and words of it in other fields only raise the score."""
    user_query = found({"bool": {"must": [required], "should": [words]}})
    assert user_query is not None
    assert required in (user_query.relaxed or must(required))["bool"]["must"]


@pytest.mark.parametrize(
    "optional", [match("title", "dry warm"), match("title", "dry warm feet"), match("tags", "warm")]
)
def test_a_required_text_in_several_fields_is_relaxed_beside_a_part_of_it(optional: Any) -> None:
    words = multi("dry warm feet", ["words", "words_boosted"])
    user_query = found({"bool": {"must": [words], "should": [optional]}})
    assert user_query is not None
    assert user_query.text == "dry warm feet"
    assert user_query.relaxed is not None
    assert user_query.relaxed["bool"]["must"] == [MATCH_ALL]


def test_the_whole_text_is_read_beside_parts_of_it_in_the_title() -> None:
    user_query = found(
        {"bool": {"must": [match("everything", "dry warm feet")], "should": [match("title", "dry warm")]}}
    )
    assert user_query is not None
    assert ("dry warm feet", *AMBIGUOUS) == (user_query.text, user_query.relaxed, user_query.unrelaxed)


def test_a_brand_that_contains_the_text_may_be_a_filter() -> None:
    user_query = found(must(multi("boots"), match("brand", "velloway boots")))
    assert user_query is not None
    assert ("boots", *AMBIGUOUS) == (user_query.text, user_query.relaxed, user_query.unrelaxed)


@pytest.mark.parametrize(
    "query",
    [
        must(match("tenant", "velloway"), match("shelf", "velloway boots")),
        must(match("tenant", "velloway"), match("shelf", "velloway")),
    ],
)
def test_of_filters_outside_the_passage_that_repeat_each_other_none_is_relaxed(query: Any) -> None:
    user_query = found(query)
    assert user_query is not None
    assert AMBIGUOUS == (user_query.relaxed, user_query.unrelaxed)


FUNCTIONS = [{"filter": match("title", "boot"), "weight": 9}, {"filter": match("body", "boot"), "weight": 2}]
UNSCORED = [
    {"function_score": {"query": {"match_all": {}}, "functions": FUNCTIONS, "min_score": 2}},
    {"function_score": {"functions": [*FUNCTIONS, {"filter": {"term": {"status": "new"}}, "weight": 3}]}},
    {"bool": {"filter": [match("title", "boot"), {"term": {"status": "new"}}]}},
    {"bool": {"filter": {"bool": {"should": [match("title", "boot"), match("shelf", "boot")]}}}},
    {"intervals": {"title": {"match": {"query": "boot", "ordered": True}}}},
    {"bool": {"must": [{"span_near": {"clauses": [{"span_term": {"title": "boot"}}], "slop": 2}}]}},
    # a part of a word or more, anywhere in a field
    should(*({"wildcard": {path: {"value": "*boot*"}}} for path in ("title", "body", "shelf"))),
    must({"wildcard": {"title": "*boot*"}}, {"wildcard": {"shelf": "*socks*"}}),
    {"bool": {"filter": [{"wildcard": {"title.raw": "*boot*"}}]}},
]


@pytest.mark.parametrize("query", UNSCORED)
def test_text_only_in_filters_is_found_but_not_relaxed(query: Any) -> None:
    user_query = found(query)
    assert user_query is not None
    assert ("boot", None, "text_in_filter") == (user_query.text, user_query.relaxed, user_query.unrelaxed)


FILTERS_BESIDE = [
    lambda words: must(words, SHELF),
    lambda words: must(SHELF, should(words, {"term": {"status": "new"}})),
    lambda words: {"bool": {"must": [SHELF], "should": [words], "minimum_should_match": 1}},
    lambda words: {"bool": {"must": [words], "should": [match("tags", "promotion", 3)]}},
    lambda words: must({"function_score": {"query": words, "weight": 2}}, SHELF),
    lambda words: must(words, line("shelf:boots")),
]
PARTS_OF_WORDS = [
    {"wildcard": {"title": "*jack*"}},
    {"wildcard": {"title.raw": {"value": "*jack*", "case_insensitive": True}}},
    {"intervals": {"title": {"match": {"query": "jack"}}}},
    {"span_near": {"clauses": [{"span_term": {"title": "jack"}}], "slop": 1}},
]


@pytest.mark.parametrize("words", PARTS_OF_WORDS)
@pytest.mark.parametrize("around", [*FILTERS_BESIDE, lambda words: {"bool": {"must": [SHELF], "filter": [words]}}])
def test_a_text_beside_word_prefixes_prevents_relaxing(around: Any, words: Any) -> None:
    user_query = found(around(words))
    assert user_query is not None
    assert ("jack", None, "text_in_filter") == (user_query.text, user_query.relaxed, user_query.unrelaxed)


@pytest.mark.parametrize(
    "words",
    [
        {"prefix": {"title": "jack"}},
        {"prefix": {"title.raw": {"value": "Jack"}}},
        {"wildcard": {"title": "jack*"}},
        {"regexp": {"title": {"value": ".*jack.*"}}},
        {"term": {"title": "jack"}},
        {"terms": {"title": ["rain", "jack"]}},
        {"terms_set": {"title": {"terms": ["jack"], "minimum_should_match_field": "n"}}},
        {"more_like_this": {"fields": ["title"], "like": "jack"}},
        {"span_multi": {"match": {"prefix": {"title": "jack"}}}},
    ],
)
@pytest.mark.parametrize("around", FILTERS_BESIDE)
def test_a_text_beside_unreadable_clauses_is_not_taken(around: Any, words: Any) -> None:
    assert found(around(words)) is None


SAME_WORDS = [
    {"prefix": {"title.raw": "dry feet"}},
    {"prefix": {"title": {"value": "dry", "boost": 3}}},
    {"wildcard": {"title.raw": {"value": "*dry feet*", "case_insensitive": True}}},
    {"wildcard": {"title": "*dry*feet*"}},
    {"regexp": {"title": {"value": ".*dry.*", "flags": "ALL"}}},
    {"term": {"title": "feet"}},
    {"terms": {"title": ["dry", "feet"]}},
    {"terms_set": {"title": {"terms": ["dry", "feet"], "minimum_should_match_field": "n"}}},
    {"more_like_this": {"fields": ["title"], "like": ["dry feet"], "min_doc_freq": 1}},
    {"intervals": {"title": {"all_of": {"intervals": [{"match": {"query": "dry"}}, {"prefix": {"prefix": "fee"}}]}}}},
    {"span_near": {"clauses": [{"span_term": {"title": "dry"}}, {"span_term": {"title": {"value": "feet"}}}]}},
]


@pytest.mark.parametrize("beside", SAME_WORDS)
@pytest.mark.parametrize("around", [must, should, lambda *two: {"bool": {"must": [two[0]], "should": [two[1]]}}])
def test_prefixes_of_the_same_words_do_not_prevent_relaxing(around: Any, beside: Any) -> None:
    user_query = found(around(match("everything", "dry feet"), beside))
    assert user_query is not None
    assert ("dry feet", around(MATCH_ALL, beside)) == (user_query.text, user_query.relaxed)


ALIASES = {"label": "title", "maker": "brand", "text": "everything"}


@pytest.mark.parametrize(
    ("query", "relaxed"),
    [
        (must(match("label", "dry feet"), SHELF), must(MATCH_ALL, SHELF)),
        (must(multi("dry feet", ["maker", "body"]), SHELF), must(MATCH_ALL, SHELF)),
        (must(match("text", "dry feet"), SHELF), must(MATCH_ALL, SHELF)),
        (must(match("label", "dry feet"), match("maker", "velloway")), None),
        (must(line("dry feet", fields=["label^3"]), SHELF), must(MATCH_ALL, SHELF)),
        (line("label:(dry feet) AND shelf:boots"), must(line("label:(dry feet)"), line("shelf:boots"))),
    ],
)
def test_a_field_alias_is_treated_as_its_field(query: Any, relaxed: Any) -> None:
    links = LinkedFields(frozenset({"everything"}), ALIASES)
    user_query = find_user_query(query, PASSAGE, lambda _: True, links=links)
    assert user_query is not None
    assert ("dry feet", relaxed) == (user_query.text, user_query.relaxed)


@pytest.mark.parametrize(
    "beside",
    [
        {"bool": {"filter": [{"prefix": {"title.raw": "A"}}]}},
        {"term": {"title.raw": "Jacket"}},
        {"terms": {"brand": ["velloway"]}},
        {"prefix": {"shelf": "boo"}},
        {"exists": {"field": "title"}},
        {"bool": {"must_not": [{"wildcard": {"title": "*jack*"}}]}},
    ],
)
def test_filters_do_not_prevent_relaxing(beside: Any) -> None:
    user_query = found(must(match("everything", "dry feet"), beside))
    assert user_query is not None
    assert ("dry feet", must(MATCH_ALL, beside)) == (user_query.text, user_query.relaxed)


@pytest.mark.parametrize(
    "query",
    [
        {"bool": {"filter": [match("shelf", "boots")]}},
        {"bool": {"filter": [match("status", "boots")]}},
        {"bool": {"must": [{"wildcard": {"shelf": "*boots*"}}]}},
        {"function_score": {"functions": [{"filter": match("shelf", "boots"), "weight": 2}]}},
    ],
)
def test_a_filter_on_a_field_outside_the_passage_is_a_filter(query: Any) -> None:
    assert found(query) is None


@pytest.mark.parametrize("beside", UNSCORED)
def test_text_of_scoring_clauses_takes_precedence(beside: Any) -> None:
    user_query = found(should(multi("dry feet"), beside))
    assert user_query is not None
    assert user_query.text == "dry feet"
    assert user_query.relaxed is not None


def test_above_the_limit_of_texts_none_is_found() -> None:
    words = [match("title", f"w{number}") for number in range(TEXT_CLAUSES + 1)]
    user_query = found(should(*words[:-1]))
    assert user_query is not None
    assert " ".join(f"w{number}" for number in range(TEXT_CLAUSES)) == user_query.text
    assert found(should(*words)) is None


@pytest.mark.parametrize(
    ("clause", "text"),
    [
        ({"match": {"title": {"query": "dry feet", "_name": "typed"}}}, "dry feet"),
        (multi("dry feet", _name="typed"), "dry feet"),
        ({"bool": {"must": [in_each_field("dry"), in_each_field("feet")], "_name": "typed"}}, "dry feet"),
        ({"query_string": {"query": "dry AND feet", "_name": "typed"}}, "dry feet"),
    ],
)
def test_a_named_clause_gives_the_query_text(clause: Any, text: str) -> None:
    query = {"bool": {"must": [BRAND, clause], "filter": [{"term": {"status": {"value": "x", "_name": "other"}}}]}}
    assert text == text_of_clause(query, "typed", PASSAGE, lambda _: True)


@pytest.mark.parametrize("query", [None, {}, BRAND, {"term": {"status": {"value": "x", "_name": "typed"}}}, [[]], 7])
def test_a_missing_named_clause_gives_no_query_text(query: Any) -> None:
    assert text_of_clause(query, "typed", PASSAGE, lambda _: True) is None


def test_many_fields_and_long_paths_are_read_quickly() -> None:
    fields = ["title", *(f"f{number}" + "." * 1000 for number in range(READ_SIZE // 20))]
    user_query = found(must(multi("dry feet", fields), *(match(f"g{n}.x", f"w{n} v") for n in range(TEXT_CLAUSES - 1))))
    assert user_query is not None
    assert user_query.text == "dry feet"


def test_each_nested_query_is_relaxed_once() -> None:
    query: Any = must(multi("dry feet"), {"term": {"status": "new"}})
    for _ in range(60):
        query = {"nested": {"path": "a", "query": query}}
    user_query = found(query)
    assert user_query is not None
    assert "dry feet" not in str(user_query.relaxed)
    assert "new" in str(user_query.relaxed)


def test_a_copy_to_field_of_the_passage_counts_as_passage() -> None:
    """It tells the query text from a category or a brand; without it, neither can be told from a filter."""
    words = match("everything.folded", "dry feet")
    for filter_, relaxed in ((SHELF, must(SHELF, MATCH_ALL)), (BRAND, None)):
        query = must(filter_, words)
        expected = UserQuery("dry feet", relaxed)
        assert expected == find_user_query(
            query, PASSAGE, lambda _: True, links=LinkedFields(frozenset({"everything"}))
        )
        unknown = found(query)
        assert unknown is not None
        assert unknown.relaxed is None


TENANT = match("tenant", "velloway")
ALSO_KEYWORDS = LinkedFields(also_keywords=frozenset({"tenant", "title", "about"}))


@pytest.mark.parametrize(
    "query",
    [
        TENANT,
        must({"match_all": {}}, TENANT),
        {"bool": {"must": [TENANT], "filter": [{"term": {"status": "new"}}]}},
        should(TENANT, match("tenant", "public"), minimum_should_match=1),
        multi("velloway", ["tenant^2", "tenant.folded"]),
        match("tenant.folded", "velloway"),
        line("tenant:velloway"),
        line("velloway", default_field="tenant"),
        {"nested": {"path": "tenant", "query": match("tenant.name", "velloway")}},
    ],
)
def test_the_only_text_may_be_a_filter_by_a_field_that_is_also_a_keyword(query: Any) -> None:
    user_query = find_user_query(query, PASSAGE, lambda _: True, links=ALSO_KEYWORDS)
    assert user_query is not None
    assert AMBIGUOUS == (user_query.relaxed, user_query.unrelaxed)
    given = find_user_query(query, PASSAGE, lambda _: True, user_query.text, ALSO_KEYWORDS)
    assert given is not None
    assert given.relaxed is not None


@pytest.mark.parametrize(
    "query",
    [
        must(TENANT, match("about", "public")),
        must(TENANT, {"match_phrase": {"about": "shown in public"}}, {"range": {"price": {"lt": 9}}}),
        must(should(TENANT, match("tenant", "other")), match("about.folded", "public")),
        {"bool": {"must": [TENANT], "should": [match("about", "public")]}},
    ],
)
def test_different_values_outside_the_passage_are_no_query_text(query: Any) -> None:
    """A list of documents in the engine's order, which a reranker has nothing to compare with."""
    assert find_user_query(query, PASSAGE, lambda _: True, links=ALSO_KEYWORDS) is None
    given = find_user_query(query, PASSAGE, lambda _: True, "velloway", ALSO_KEYWORDS)
    assert given is not None


ALL_TEXT = match("all_text", "dry feet")


@pytest.mark.parametrize(
    "query",
    [
        must(TENANT, ALL_TEXT),
        must(ALL_TEXT, TENANT, match("about", "public")),
        must(TENANT, line("dry feet", default_field="all_text")),
        must(should(TENANT, match("tenant", "public")), match("about", "shown"), ALL_TEXT),
        {"bool": {"must": [TENANT], "should": [ALL_TEXT]}},
        {"bool": {"must": [ALL_TEXT], "should": [TENANT]}},
        must(match("shelf", "boots"), multi("dry feet", ["all_text", "names"])),
    ],
)
def test_a_value_that_is_required_beside_a_text_of_all_fields_is_no_query_text(query: Any) -> None:
    """Outside the passage, too; but the text may be a value as well, so nothing is relaxed."""
    user_query = find_user_query(query, PASSAGE, lambda _: True, links=ALSO_KEYWORDS)
    assert user_query is not None
    assert ("dry feet", *AMBIGUOUS) == (user_query.text, user_query.relaxed, user_query.unrelaxed)


@pytest.mark.parametrize(
    "words", [match("title", "dry feet"), multi("dry feet", ["tenant", "about"]), match("everything", "dry feet")]
)
def test_text_in_the_passage_in_several_fields_or_in_text_alone_is_the_users(words: Any) -> None:
    expected = UserQuery("dry feet", MATCH_ALL)
    assert expected == find_user_query(words, PASSAGE, lambda _: True, links=ALSO_KEYWORDS)


def test_of_required_texts_that_may_all_be_values_the_one_in_the_passage_is_the_users() -> None:
    """Dynamic mappings give each text field a keyword."""
    links = LinkedFields(also_keywords=frozenset({"title", "body", "shelf"}))
    for query in (
        must(match("body", "dry feet"), match("shelf", "boots")),
        must(match("shelf", "boots"), match("body", "dry feet")),
    ):
        user_query = find_user_query(query, PASSAGE, lambda _: True, links=links)
        assert user_query is not None
        assert ("dry feet", *AMBIGUOUS) == (user_query.text, user_query.relaxed, user_query.unrelaxed)


@pytest.mark.parametrize(
    "preferred",
    [
        [match("shelf", "acme", 2)],
        [match("title", "dry", 2), match("title", "feet")],
        [match("shelf", "acme", 2), match("title", "dry")],
    ],
)
def test_what_a_search_only_prefers_is_not_the_text_that_its_filters_require(preferred: Any) -> None:
    links = LinkedFields(also_keywords=frozenset({"shelf"}))
    query = {"bool": {"filter": [multi("dry feet")], "should": preferred}}
    user_query = find_user_query(query, PASSAGE, lambda _: True, links=links)
    assert user_query is not None
    assert ("dry feet", None, "text_in_filter") == (user_query.text, user_query.relaxed, user_query.unrelaxed)


@pytest.mark.parametrize("filtered", [match("title", "boots"), match("shelf", "dry feet boots"), multi("dry feet")])
def test_an_optional_text_stays_the_users_beside_filters_of_other_words(filtered: Any) -> None:
    user_query = find_user_query(
        {"bool": {"filter": [filtered], "should": [multi("dry feet")]}}, PASSAGE, lambda _: True
    )
    assert user_query is not None
    assert user_query.text == "dry feet"


def test_a_value_in_filters_alone_is_no_query_text() -> None:
    """A category page, in the order of its boosts."""
    query = {"function_score": {"query": {"bool": {"filter": [BRAND]}}, "functions": [{"weight": 2}]}}
    assert find_user_query(query, PASSAGE, lambda _: True, links=BRANDS) is None
    words = {"bool": {"filter": [match("body", "dry feet"), BRAND]}}
    user_query = find_user_query(words, PASSAGE, lambda _: True, links=BRANDS)
    assert user_query is not None
    assert user_query.unrelaxed == "text_in_filter"


SEARCHES = (
    multi,
    lambda text: match("title", text),
    line,
    lambda text: line(text, fields=["title^5", "body"], default_operator="AND"),
    lambda text: line(f'"{text}"^10 OR ({text})'),
    lambda text: must(*[multi(word) for word in text.split()]),
    lambda text: should(*[match("title", word) for word in text.split()], minimum_should_match="75%"),
    lambda text: must(*[in_each_field(word) for word in text.split()]),
    lambda text: should(multi(text, type="phrase", boost=4), multi(text)),
    lambda text: should(match("name_en", text), match("name_de", text)),
    lambda text: {
        "function_score": {"query": multi(text), "functions": [{"filter": match("title", text), "weight": 2}]}
    },
    lambda text: {"bool": {"must": [multi(text)], "filter": [multi(text)]}},
)
BY_VALUE = (
    lambda value: match("shelf", value),
    lambda value: {"match_phrase": {"shelf": value}},
    lambda value: multi(value, ["shelf", "shelf.folded"]),
    lambda value: line(f"shelf:({value})"),
    lambda value: line(value, default_field="shelf"),
    lambda value: should(match("shelf", value), match("shelf", "other"), minimum_should_match=1),
    lambda value: {"nested": {"path": "shelf", "query": match("shelf.name", value)}},
    lambda value: {"constant_score": {"filter": must(match("shelf", value))}},
    lambda value: {"dis_max": {"queries": [match("shelf", "other"), match("shelf", value)]}},
)
PLACES = (
    must,
    lambda words, by_value: must(by_value, words),
    lambda words, by_value: {"bool": {"must": [by_value], "should": [words]}},
    lambda words, by_value: {"bool": {"must": [by_value], "should": [words], "minimum_should_match": 1}},
    lambda words, by_value: {"bool": {"must": [words], "should": [by_value], "minimum_should_match": 1}},
    lambda words, by_value: {"bool": {"must": [words], "filter": [by_value]}},
    lambda words, by_value: should(words, by_value, minimum_should_match="100%"),
    lambda words, by_value: must(should(words), must(must(by_value))),
)
VALUES = ("dry feet", "feet", "dry", "warm dry feet", "feet sale", "feets", "dryfeet", "feet dry", "other")


@drawn(
    search=st.sampled_from(SEARCHES),
    by_value=st.sampled_from(BY_VALUE),
    place=st.sampled_from(PLACES),
    value=st.sampled_from(VALUES),
    text=st.sampled_from(["dry feet", "feet"]),
    is_given=st.booleans(),
    passage=st.sampled_from([PASSAGE, (*PASSAGE, "shelf")]),
)
def test_a_filter_by_a_value_is_never_relaxed(
    *, search: Any, by_value: Any, place: Any, value: str, text: str, is_given: bool, passage: Sequence[str]
) -> None:
    """Whatever its form and place, and however its value resembles the text; but it may leave kNN no place."""
    links = LinkedFields(also_keywords=frozenset({"shelf"}))
    query = place(search(text), by_value(value))
    user_query = find_user_query(query, passage, lambda _: True, text if is_given else None, links)
    assert user_query is not None
    assert user_query.relaxed is None or "shelf" in str(user_query.relaxed)
