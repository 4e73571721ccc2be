"""Which searches a route leaves to the engine because of what was typed."""

import pytest

from proxy.outcomes import Bypass
from proxy.parsing.query_text import UserQuery
from proxy.settings.bypass_rules import TextBypass, text_bypass
from proxy.settings.config import BypassRules


def reason(rules: BypassRules, text: str, *, autocomplete: bool = False, is_page: bool = False) -> str | None:
    found = text_bypass(rules).bypass(UserQuery(text, None, autocomplete), is_page=is_page)
    return found.reason if found else None


@pytest.mark.parametrize(
    "text",
    [
        "XPS-13-9310",
        "B07FZ8S74R",
        "4006381333931",
        "978-3-16-148410-0",
        "WH1000XM4",
        "wh-1000xm4",
        "DS-2CD2143G0-I",
        "RTX4090",
        "90210",
        "2024",
        "A/123.4",
        "part#77",
        "user_id_7",
        "10.0.0.1",
        "6ES7214-1AG40-0XB0",
    ],
)
def test_a_part_number_is_an_identifier(text: str) -> None:
    assert "identifier" == reason(BypassRules(identifiers=True), text)


@pytest.mark.parametrize(
    "text",
    [
        "iphone 12",
        "laptop",
        "wi-fi",
        "e-commerce",
        "usb-c",
        "ps5",
        "4k",
        "12",
        "720",
        "laptop 2024",
        "XPS-13-9310 charger",
        "C++",
        "café-au-lait",
        "-13",
        "13-",
        "",
    ],
)
def test_words_and_short_numbers_are_no_identifiers(text: str) -> None:
    assert reason(BypassRules(identifiers=True), text) is None


@pytest.mark.parametrize("text", ["opening hours", "Opening  HOURS", " opening hours "])
def test_a_phrase_is_bypassed_however_it_is_spelled(text: str) -> None:
    assert "navigational" == reason(BypassRules(phrases=["Opening hours"]), text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("order 17", "navigational"), ("ORDER 17", "navigational"), ("my order 17", None), ("order 17 late", None)],
)
def test_a_pattern_must_match_the_whole_text(text: str, expected: str | None) -> None:
    assert expected == reason(BypassRules(patterns=[r"order \d+"]), text)


def test_autocomplete_is_bypassed_unless_the_route_reranks_it() -> None:
    assert "autocomplete" == reason(BypassRules(), "lap", autocomplete=True)
    assert [None, None] == [
        reason(BypassRules(), "lap"),
        reason(BypassRules(autocomplete=False), "lap", autocomplete=True),
    ]


def test_a_page_of_results_is_no_autocomplete_list() -> None:
    """Some applications search for `lap*` in their results, too."""
    assert reason(BypassRules(), "lap", autocomplete=True, is_page=True) is None
    assert "identifier" == reason(BypassRules(), "XPS-13-9310", autocomplete=True, is_page=True)


def test_by_default_identifiers_and_autocomplete_are_bypassed() -> None:
    assert TextBypass(identifiers=True, autocomplete=True) == text_bypass(BypassRules())
    assert TextBypass().bypass(UserQuery("XPS-13-9310", None, autocomplete=True)) is None


def test_a_rule_reports_its_reason() -> None:
    assert Bypass("identifier") == TextBypass(identifiers=True).bypass(UserQuery("XPS-13-9310", None))


@pytest.mark.parametrize("text", ["A1-" * 200 + "A1", "a" * 500 + "1", "laptop " * 100])
def test_a_long_text_is_compared_with_no_rule(text: str) -> None:
    """A pattern in the settings may backtrack."""
    assert reason(BypassRules(identifiers=True, patterns=["(a+)+", "(.*)*!"], phrases=[text]), text) is None
