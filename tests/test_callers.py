"""Who asks is told by all that may tell it, and what one caller was shown is never another's."""

import pytest

from proxy.http1.callers import Field, can_be_repeated, carried, field_value, identity

ALICE: list[Field] = [(b"Authorization", b"Basic YTph")]


@pytest.mark.parametrize(
    "field",
    [
        (b"Authorization", b"Basic Yjpi"),
        (b"es-security-runas-user", b"bob"),
        (b"Cookie", b"sid=2"),
        (b"X-Forwarded-User", b"bob"),
        (b"X-Forwarded-For", b"10.0.0.1"),
        (b"X-Nobody-Knows", b""),
    ],
)
def test_any_header_that_may_name_somebody_makes_another_caller(field: Field) -> None:
    assert identity(ALICE) != identity([*ALICE, field])


@pytest.mark.parametrize(
    "name",
    [
        *(b"User-Agent", b"x-opaque-id", b"Content-Length", b"Accept-Encoding"),
        *(b"TraceParent", b"baggage", b"b3", b"X-B3-TraceId", b"x-datadog-parent-id", b"Elastic-Apm-Traceparent"),
    ],
)
def test_what_says_nothing_of_who_asks_makes_none(name: bytes) -> None:
    assert identity(ALICE) == identity([(name, b"x"), *ALICE])


def test_order_and_spelling_of_names_make_none() -> None:
    one: list[Field] = [(b"A", b"1"), (b"b", b"2")]
    assert identity(one) == identity([(b"B", b"2"), (b"a", b"1")])


@pytest.mark.parametrize(
    ("one", "other"),
    [([(b"a", b"1"), (b"b", b"2")], [(b"a", b"1b2")]), ([(b"ab", b"c")], [(b"a", b"bc")]), ([(b"a", b"")], [])],
)
def test_no_two_lists_of_headers_look_alike(one: list[Field], other: list[Field]) -> None:
    assert identity(one) != identity(other)


def test_the_digest_shows_no_secret() -> None:
    assert (32, False) == (len(identity(ALICE)), b"YTph" in identity(ALICE))


def test_all_that_is_not_of_this_one_message_goes_along() -> None:
    fields: list[Field] = [
        (b"Authorization", b"ApiKey a"),
        (b"X-Opaque-Id", b"7"),
        (b"Accept", b"*/*"),
        (b"Host", b"proxy"),
        (b"Content-Length", b"2"),
        (b"Content-Encoding", b"gzip"),
        (b"Expect", b"100-continue"),
        (b"Connection", b"keep-alive, X-Hop"),
        (b"x-hop", b"1"),
    ]
    assert (("Authorization", "ApiKey a"), ("X-Opaque-Id", "7"), ("Accept", "*/*")) == carried(fields)


@pytest.mark.parametrize(
    "field",
    [(b"X-A", b"\xe9"), (b"X-A", b"a\x01"), (b"X-A", b"\x7f"), (b"X-\x0b", b"a"), (b'X-"A"', b"a"), (b"", b"a")],
)
def test_a_header_that_is_not_plain_text_cannot_go_along(field: Field) -> None:
    assert carried([field]) is None


def test_a_headers_values_are_joined() -> None:
    fields: list[Field] = [(b"Accept", b"a"), (b"x", b"y"), (b"accept", b"b")]
    assert (b"a, b", b"") == (field_value(fields, b"accept"), field_value(fields, b"none"))


@pytest.mark.parametrize(
    ("credentials", "repeated"),
    [
        (b"Basic YTph", True),
        (b"ApiKey a", True),
        (b"Bearer a.b", True),
        (b"Negotiate YII=", False),
        (b"negotiate", False),
        (b"NTLM TlRM", False),
        (b"Digest username=a", False),
        (b"AWS4-HMAC-SHA256 Credential=a/b", False),
    ],
)
def test_what_proves_one_request_or_connection_is_good_for_no_other(credentials: bytes, *, repeated: bool) -> None:
    assert repeated == can_be_repeated([(b"authorization", credentials)])
