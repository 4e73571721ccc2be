"""URL and body are decoded as strictly as an engine decodes them; what it may reject is left to it."""

from collections.abc import Mapping

import pytest

from proxy.bounds import BODY_CLAUSES, PARAMETERS_BYTES
from proxy.outcomes import BYPASS_REASONS, Bypass
from proxy.parsing.decoding import NotUnderstood, decode
from proxy.parsing.search_keys import BODY_KEYS, PARAMETERS, Use
from tests import strategies


def refusal(query_string: str, body: bytes) -> Bypass:
    with pytest.raises(NotUnderstood) as refused:
        decode(query_string, body)
    return refused.value.why


REFUSED_BODIES = [reason_of for reason_of in BODY_KEYS.items() if isinstance(reason_of[1], str)]
REFUSED_PARAMETERS = [reason_of for reason_of in PARAMETERS.items() if isinstance(reason_of[1], str)]


@pytest.mark.parametrize(("key", "reason"), REFUSED_BODIES)
def test_each_bypassed_body_key_has_its_reason(key: str, reason: str) -> None:
    assert Bypass(reason) == refusal("", strategies.compact({key: 1}))


@pytest.mark.parametrize(("name", "reason"), REFUSED_PARAMETERS)
def test_each_bypassed_parameter_has_its_reason(name: str, reason: str) -> None:
    assert Bypass(reason) == refusal(f"{name}=1", b"")


@pytest.mark.parametrize("table", [BODY_KEYS, PARAMETERS])
def test_every_reason_in_the_tables_is_explained(table: Mapping[str, Use | str]) -> None:
    assert {use for use in table.values() if isinstance(use, str)} <= BYPASS_REASONS.keys()


@pytest.mark.parametrize(
    ("query_string", "body", "reason"),
    [
        ("", b"{", "not_json"),
        ("", b"{} x", "not_json"),
        ("", b"[]", "not_json"),
        ("", b"7", "not_json"),
        ("", b'{"size":1,"size":2}', "not_json"),
        ("", b'{"query":{"term":{"a":1,"a":2}}}', "not_json"),
        ("", b'{"query":{"term":{"a":NaN}}}', "not_json"),
        ("", b'{"query":{"term":{"a":1e400}}}', "not_json"),
        ("", b'{"query":{"term":{"a":"\\ud800"}}}', "not_json"),
        ("", b"\xff{}", "not_json"),
        ("", b"\xef\xbb\xbf{}", "not_json"),
        ("", b'{"query":' + b"[" * 50_000, "too_complex"),
        ("", b'{"query":' + b"[" * BODY_CLAUSES + b"]" * BODY_CLAUSES + b"}", "too_complex"),
        ("", b'{"aggs":[%s]}' % b",".join([b"{}"] * BODY_CLAUSES), "too_complex"),
        ("q=" + "a" * PARAMETERS_BYTES, b"", "too_complex"),
        ("source={}", b"", "format"),
        ("format=yaml", b"", "format"),
        ("format=", b"", "format"),
        ("source={}&source_content_type=application/yaml", b"", "format"),
        ("source={}&source_content_type=application/json", b"{}", "unknown_parameter"),
        ("source_content_type=application/json", b"{}", "unknown_parameter"),
        ("", b'{"zzz":1}', "unknown_key"),
        ("zzz", b"", "unknown_parameter"),
        ("zzz=1", b"", "unknown_parameter"),
        ("size=1&size=2", b"", "unknown_parameter"),
        ("q=%FF", b"", "unknown_parameter"),
        ("q=a;size=3", b"", "unknown_parameter"),
    ],
)
def test_what_an_engine_may_reject_or_read_differently_is_not_decoded(
    query_string: str, body: bytes, reason: str
) -> None:
    assert Bypass(reason) == refusal(query_string, body)


def test_json_may_be_requested_by_name() -> None:
    assert (("format", "json"),) == decode("format=json", b"").parameters


def test_clauses_and_names_up_to_the_limit_are_read() -> None:
    aggregations = b'{"_source":%s,"aggs":[%s]}' % (
        strategies.compact([f"{number}" for number in range(200_000)]),
        b",".join([b"{}"] * (BODY_CLAUSES - 3)),
    )
    assert decode("filter_path=" + ".".join(["a"] * 200), aggregations)
