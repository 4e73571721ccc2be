"""Lines of operators: the words meant, what the signs demand or forbid, and when that cannot be said."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.bounds import QUERY_STRING_LINE
from proxy.parsing.query_string import FieldKinds, read_line
from proxy.parsing.words import MATCH_ALL
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
        ("+(gaming laptop)", "gaming laptop", MATCH_ALL),
        ("+(laptop gaming) +price:[10 TO 20]", "laptop gaming", must("price:[10 TO 20]")),
        ("+(title:gaming^4 text:gaming) +(title:laptop^4 text:laptop)", "gaming laptop", MATCH_ALL),
        (
            '+("gaming laptop") -brand:apple',
            "gaming laptop",
            {"bool": must('"gaming laptop"')["bool"] | must_not("brand:apple")["bool"]},
        ),
        ("+(gaming laptop) cheap", "gaming laptop cheap", must("(gaming laptop)")),
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
        ("laptop OR phone", "laptop phone", MATCH_ALL),
        ("OR", "", None),
        ("laptop && phone", "laptop phone", MATCH_ALL),
        ("laptop || phone", "laptop phone", MATCH_ALL),
        ("(gaming laptop)", "gaming laptop", MATCH_ALL),
        ("lapt*", "lapt", MATCH_ALL),
        ("laptop~1", "laptop", MATCH_ALL),
        ("laptop^2 phone", "laptop phone", MATCH_ALL),
        ("price:[10 TO 20] laptop", "laptop", must("price:[10 TO 20]")),
        ("laptop NOT (gaming", "laptop gaming", None),
        (r"c\+\+", "c++", MATCH_ALL),
    ],
)
def test_a_line_is_split_into_text_requirements_and_exclusions(line: str, text: str, rest: Any) -> None:
    typed = read_line("query_string", {**OPTIONS, "query": line, "boost": 2}, line)
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
def test_simple_query_string_has_no_word_operators(line: str, text: str, occurs: Any) -> None:
    name = "simple_query_string"
    typed = read_line(name, {**OPTIONS, "query": line}, line)
    rest = {occur: [clause(each, name) for each in said] for occur, said in occurs.items()}
    assert (text, {"bool": rest} if rest else MATCH_ALL) == (typed.text, typed.rest)


@pytest.mark.parametrize("line", ["laptop | phone", "(laptop)", "lap*", "laptop~2", "a + b"])
def test_other_operators_of_simple_query_string_exclude_nothing(line: str) -> None:
    assert MATCH_ALL == read_line("simple_query_string", {"query": line}, line).rest


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("rain jacket - blue", "rain jacket - blue"),
        ("rain -", "rain -"),
        ("- rain", "- rain"),
        ("C++ developer", "C++ developer"),
        ("*rain coat", "rain coat"),
        ("C++", "C++"),
        ("Disney+ films", "Disney+ films"),
        ('27" monitor', '27" monitor'),
        ('"rain jacket', '"rain jacket'),
        ("jacket (blue", "jacket (blue"),
        ("jacket) blue :)", "jacket) blue :)"),
        ("jacket ((rain) blue", "jacket rain blue"),
        ("-(rain", "-(rain"),
    ],
)
def test_what_simple_query_string_ignores_is_typed_text(line: str, text: str) -> None:
    """Seen on OpenSearch 3.6.0: `_validate/query?explain` has the words only."""
    typed = read_line("simple_query_string", {"query": line}, line)
    assert (text, MATCH_ALL) == (typed.text, typed.rest)


@pytest.mark.parametrize("line", ["-", "+", '"', "(", ")", "- -"])
def test_signs_alone_are_no_query_text(line: str) -> None:
    assert "" == read_line("simple_query_string", {"query": line}, line).text


@pytest.mark.parametrize("sign", ["-", "+", "!"])
def test_a_sign_before_a_space_is_no_operator(sign: str) -> None:
    """Seen on OpenSearch 3.6.0, as in Lucene's grammar."""
    for line, text in ((f"rain {sign} blue", "rain blue"), (f"{sign} (rain blue)", "rain blue")):
        assert (text, MATCH_ALL) == read_line("query_string", {"query": line}, line)[:2]
    excluded = read_line("query_string", OPTIONS, f"rain {sign} blue -red")
    assert ("rain blue", must_not("red")) == (excluded.text, excluded.rest)


UNREADABLE = [
    *(("query_string", line) for line in ["laptop (", ") laptop", 'laptop "', "a -", "a OR - b", "+ +", "laptop ~"]),
    *(("simple_query_string", line) for line in ["+ +", '(a "b) c"', "--a", "~2"]),
]


@pytest.mark.parametrize(("name", "line"), UNREADABLE)
def test_exclusions_of_an_unreadable_line_are_unknown(name: str, line: str) -> None:
    assert read_line(name, {"query": line}, line).rest is None


KEYWORDS = frozenset({"status", "rank"})


@pytest.mark.parametrize(
    ("line", "text", "rest"),
    [
        # written by applications
        ('warm OR light OR ("warm light")^1.5', "warm light", MATCH_ALL),
        ('(rain~^1.0 coat~^0.9) OR ("rain coat")^1.5', "rain coat", MATCH_ALL),
        ('(head lamp) OR ("head lamp")^1.5 OR (headlamp^2)^0.9', "head lamp", MATCH_ALL),
        ('warm light "warm light"~3^2', "warm light", MATCH_ALL),
        ('coat "coat"^2', "coat", MATCH_ALL),
        ('warm dry coat "warm dry"^2 "dry coat"^2', "warm dry coat", MATCH_ALL),
        ('(dry^0.3 ) (rain^0.3 ) (coat^0.4 ) "dry rain"^0.6 "rain coat"^0.8', "dry rain coat", MATCH_ALL),
        ('(rain^0.4 "shower"^0.1) (coat^0.6 "mac"^0.2 "anorak"^0.2) "rain coat"^1.2', "rain coat", MATCH_ALL),
        ('((rain)^0.4 (coat OR ("mac" "anorak")^0.2)^0.6 ("rain coat"~2)^1.5)', "rain coat", MATCH_ALL),
        ('coat OR "mac"^0.2', "coat", MATCH_ALL),
        ("(women's^0.4 ) (boots^0.6 ) \"women's boots\"^1.2", "women's boots", MATCH_ALL),
        ('((knee-high)^0.4 (socks)^0.6 ("knee-high socks"~2)^1.5)', "knee-high socks", MATCH_ALL),
        ('rain coat "dry rain"', "rain coat dry rain", must('"dry rain"')),
        ('coat "rain coat" rain', "coat rain coat rain", must('"rain coat"')),
        ('rain (coat "long one")', "rain coat long one", must('"long one"')),
        ('("wool" AND "socks")', "wool socks", MATCH_ALL),
        ('("knee-high" AND "socks")', "knee-high socks", MATCH_ALL),
        ('"knee-high" OR "socks"', "knee-high", MATCH_ALL),
        ('"jacket" OR "coat"', "jacket", MATCH_ALL),
        ("(rain jacket) OR (storm coat)^0.1", "rain jacket", MATCH_ALL),
        ("title:(rain coat)^3 OR body:(rain coat)", "rain coat", MATCH_ALL),
        ("title:(rain coat) body:(rain coat)^2", "rain coat", MATCH_ALL),
        ("(all.en:(rain coat) all.de:(rain coat) title.\\*:(rain coat)^2)", "rain coat", MATCH_ALL),
        (
            "(title:(rain coat) body:(rain coat)) AND status:new",
            "rain coat",
            must("status:new"),
        ),
        ("rain coat OR rain* coat*", "rain coat", MATCH_ALL),
        ("rain* rain~ coat* coat~", "rain coat", MATCH_ALL),
        ("rain rain~1 coat coat*", "rain coat", MATCH_ALL),
        ("rain*^2 coat*^2 rain coat", "rain coat", MATCH_ALL),
        ("duran duran", "duran duran", MATCH_ALL),
        ("new york new york~", "new york new york", MATCH_ALL),
        ("(title:rain OR body:rain) AND (title:coat OR body:coat)", "rain coat", MATCH_ALL),
        ("*rain*", "rain", MATCH_ALL),
        (r"dry \(in rain\)\?", "dry (in rain)?", MATCH_ALL),
        # negated groups
        ("jacket -(rain OR storm)", "jacket", must_not("(rain OR storm)")),
        ("(jacket AND NOT (rain))", "jacket", must_not("(rain)")),
        ("jacket NOT title:(rain storm)", "jacket", must_not("title:(rain storm)")),
        # values of fields in which no words are searched
        (
            "status:active AND rank:>3 AND jacket",
            "jacket",
            {"bool": {"must": [clause("status:active"), clause("rank:>3")]}},
        ),
        ("_exists_:title AND jacket", "jacket", must("_exists_:title")),
        ("status:active OR jacket", "jacket", None),
        ("jacket OR -rain", "jacket", None),
        ("(jacket OR status:new) rain", "jacket rain", None),
    ],
)
def test_syntax_added_by_applications_is_not_query_text(line: str, text: str, rest: Any) -> None:
    typed = read_line("query_string", {**OPTIONS, "query": line}, line, FieldKinds(lambda path: path not in KEYWORDS))
    assert (text, rest) == (typed.text, typed.rest)


@pytest.mark.parametrize(
    ("flags", "line", "text"),
    [
        ("PHRASE", "rain -coat (new) | old", "rain -coat (new) | old"),
        ("NOT", "rain -coat", "rain"),
        (2, "rain -coat", "rain"),
        ("NONE", '"rain" -coat', '"rain" -coat'),
        (-1, "rain -coat", "rain"),
        ("all", "rain -coat", "rain"),
    ],
)
def test_flags_select_the_operators(flags: Any, line: str, text: str) -> None:
    assert text == read_line("simple_query_string", {"flags": flags}, line).text


@pytest.mark.parametrize("name", ["query_string", "simple_query_string"])
def test_for_a_very_long_line_only_the_text_is_read(name: str) -> None:
    """Parsing it would block the event loop."""
    words = QUERY_STRING_LINE // len("word ")
    short, long = ("word " * words).strip(), ("word " * (words + 1)).strip()
    assert [MATCH_ALL, None] == [read_line(name, {}, line).rest for line in (short, long)]
    assert short == read_line(name, {}, long).text


@pytest.mark.parametrize("flags", ["EVERYTHING", None, 1.5])
def test_invalid_flags_are_not_parsed(flags: Any) -> None:
    assert read_line("simple_query_string", {"flags": flags}, "rain").rest is None


@given(strategies.query_lines, st.sampled_from(["query_string", "simple_query_string"]))
def test_requirements_and_exclusions_keep_the_syntax_of_the_line(line: str, name: str) -> None:
    rest = read_line(name, {"query": line}, line).rest
    occurs = rest.get("bool", {}) if rest else {}
    said = [each[name]["query"] for clauses in occurs.values() for each in clauses]
    assert [] == [each for each in said if each not in line]


@pytest.mark.parametrize("name", ["query_string", "simple_query_string"])
@pytest.mark.parametrize("piece", ["a", "a.", "[", "{", "/ ", '"', '(-"', "-", "NOT ", "a:", "~1", "word "])
def test_a_long_unclosed_line_takes_linear_time(name: str, piece: str) -> None:
    """A regular expression that backtracks would take hours for such a line."""
    assert read_line(name, {}, piece * 200_000 + " (").rest is None
