"""Lines of operators: the words meant, what the signs demand or forbid, and when that cannot be said."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.query.query_string import MATCH_ALL, read_operators
from tests import strategies

OPTIONS: Any = {"fields": ["title"], "default_operator": "AND"}


def clause(said: str, name: str = "query_string") -> Any:
    return {name: {**OPTIONS, "query": said}}


def must(*said: str) -> Any:
    return {"bool": {"must": [clause(each) for each in said]}}


def must_not(*said: str) -> Any:
    return {"bool": {"must_not": [clause(each) for each in said]}}


@pytest.mark.parametrize(
    ("line", "text", "rest"),
    [
        ("laptop", "laptop", MATCH_ALL),
        ("  gaming   laptop ", "gaming laptop", MATCH_ALL),
        ("wi-fi 4.5mm laptop", "wi-fi 4.5mm laptop", MATCH_ALL),
        ("gaming AND laptop", "gaming laptop", MATCH_ALL),
        ("+laptop", "laptop", must("laptop")),
        ("+laptop gaming", "laptop gaming", must("laptop")),
        ("laptop -gaming", "laptop", must_not("gaming")),
        ("laptop !gaming", "laptop", must_not("gaming")),
        ("laptop NOT gaming", "laptop", must_not("gaming")),
        ("laptop AND NOT gaming", "laptop", must_not("gaming")),
        ('laptop -"gaming pc"', "laptop", must_not('"gaming pc"')),
        ("laptop -brand:apple", "laptop", must_not("brand:apple")),
        ('"gaming laptop"', "gaming laptop", must('"gaming laptop"')),
        ("laptop brand:apple", "laptop apple", must("brand:apple")),
        ('laptop brand.name:"Apple Inc"', "laptop Apple Inc", must('brand.name:"Apple Inc"')),
        (
            "+laptop -gaming brand:apple",
            "laptop apple",
            {"bool": {"must": [clause("laptop"), clause("brand:apple")], "must_not": [clause("gaming")]}},
        ),
        ("-gaming", "", must_not("gaming")),
        ("laptop OR phone", "laptop phone", None),
        ("OR", "", None),
        ("laptop && phone", "laptop phone", None),
        ("laptop || phone", "laptop phone", None),
        ("(gaming laptop)", "gaming laptop", None),
        ("lapt*", "lapt", None),
        ("laptop~1", "laptop", None),
        ("laptop^2 phone", "laptop phone", None),
        ("price:[10 TO 20] laptop", "laptop", None),
        ("laptop NOT (gaming", "laptop gaming", None),
        (r"c\+\+", "c", None),
    ],
)
def test_a_line_says_words_demands_and_negations(line: str, text: str, rest: Any) -> None:
    typed = read_operators("query_string", {**OPTIONS, "query": line, "boost": 2}, line)
    assert (text, rest) == (typed.text, typed.rest)


@pytest.mark.parametrize(
    ("line", "text", "occurs"),
    [
        ("laptop", "laptop", {}),
        ("laptop AND NOT gaming", "laptop AND NOT gaming", {}),
        ("ratio 16:9 mm:inch", "ratio 16:9 mm:inch", {}),
        ("laptop?", "laptop?", {}),
        ("laptop -gaming", "laptop", {"must_not": ["gaming"]}),
        ('+laptop "gaming pc"', "laptop gaming pc", {"must": ["laptop", '"gaming pc"']}),
    ],
)
def test_the_simple_line_knows_signs_alone(line: str, text: str, occurs: Any) -> None:
    name = "simple_query_string"
    typed = read_operators(name, {**OPTIONS, "query": line}, line)
    rest = {occur: [clause(each, name) for each in said] for occur, said in occurs.items()}
    assert (text, {"bool": rest} if rest else MATCH_ALL) == (typed.text, typed.rest)


@pytest.mark.parametrize("line", ["laptop | phone", "(laptop)", "lap*", "laptop~2", '"gaming pc"~2', "a + b"])
def test_the_simple_lines_other_operators_are_not_read(line: str) -> None:
    assert read_operators("simple_query_string", {"query": line}, line).rest is None


@given(strategies.query_lines, st.sampled_from(["query_string", "simple_query_string"]))
def test_what_is_forbidden_or_demanded_is_said_in_the_lines_own_words(line: str, name: str) -> None:
    rest = read_operators(name, {"query": line}, line).rest
    occurs = rest.get("bool", {}) if rest else {}
    said = [each[name]["query"] for clauses in occurs.values() for each in clauses]
    assert [] == [each for each in said if each not in line]


@pytest.mark.parametrize("name", ["query_string", "simple_query_string"])
@pytest.mark.parametrize("piece", ["a", "a.", "[", "{", "/ ", '"', '(-"', "-", "NOT ", "a:", "~1", "word "])
def test_a_line_without_end_is_read_to_its_end(name: str, piece: str) -> None:
    """It may be a user's: a regular expression that looks twice at each letter would take hours."""
    assert read_operators(name, {}, piece * 200_000 + " (").rest is None
