"""Who asks is told by all that may tell it, and what one caller was shown is never another's."""

import pickle
from collections.abc import Iterable, Iterator, Sequence

import pytest

from proxy.http1.callers import (
    SAMPLE,
    CallerIdentities,
    Field,
    can_be_repeated,
    carried,
    field_value,
    not_ignorable,
    not_query_text,
)

ALICE: list[Field] = [(b"Authorization", b"Basic YTph")]
identity = CallerIdentities().identity


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
def test_any_header_that_may_identify_a_caller_changes_the_identity(field: Field) -> None:
    assert identity(ALICE) != identity([*ALICE, field])


@pytest.mark.parametrize(
    "name",
    [
        *(b"User-Agent", b"x-opaque-id", b"Content-Length", b"Accept-Encoding"),
        *(b"TraceParent", b"baggage", b"b3", b"X-B3-TraceId", b"x-datadog-parent-id", b"Elastic-Apm-Traceparent"),
    ],
)
def test_irrelevant_headers_do_not_change_the_identity(name: bytes) -> None:
    assert identity(ALICE) == identity([(name, b"x"), *ALICE])


def test_order_and_case_of_header_names_do_not_change_the_identity() -> None:
    one: list[Field] = [(b"A", b"1"), (b"b", b"2")]
    assert identity(one) == identity([(b"B", b"2"), (b"a", b"1")])


@pytest.mark.parametrize(
    ("one", "other"),
    [([(b"a", b"1"), (b"b", b"2")], [(b"a", b"1b2")]), ([(b"ab", b"c")], [(b"a", b"bc")]), ([(b"a", b"")], [])],
)
def test_different_headers_have_different_identities(one: list[Field], other: list[Field]) -> None:
    assert identity(one) != identity(other)


def test_the_identity_contains_no_secret() -> None:
    assert (32, False) == (len(identity(ALICE)), b"YTph" in identity(ALICE))


def test_end_to_end_headers_are_sent_with_added_searches() -> None:
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
def test_a_header_that_is_not_printable_ascii_cannot_be_sent_on(field: Field) -> None:
    assert carried([field]) is None


def test_values_of_a_repeated_header_are_joined() -> None:
    fields: list[Field] = [(b"Accept", b"a"), (b"x", b"y"), (b"accept", b"b")]
    assert (b"a, b", b"") == (field_value(fields, b"accept"), field_value(fields, b"none"))


# Headers that a CDN adds.


def test_an_ignored_header_does_not_change_the_identity() -> None:
    callers = CallerIdentities(["CF-Ray"])
    assert callers.identity(ALICE) == callers.identity([*ALICE, (b"cf-ray", b"1")]) == identity(ALICE)
    assert callers.identity(ALICE) != callers.identity([*ALICE, (b"cf-ray2", b"1")])


@pytest.mark.parametrize(
    "name", ["cf-ray", "X-Amz-Cf-Id", "x-azure-ref", "X-Forwarded-For", "true-client-ip", "cf-visitor", "user-agent"]
)
def test_a_cdns_header_may_be_ignored(name: str) -> None:
    assert "" == not_ignorable(name)


OF_IDENTITY = (
    *("Authorization", "proxy-authorization", "es-secondary-authorization", "Cookie", "x-api-key"),
    *("es-security-runas-user", "opendistro_security_impersonate_as", "securitytenant", "security_tenant"),
    *("x-proxy-user", "x-proxy-roles", "x-proxy-ext-department", "x-forwarded-user", "x-forwarded-groups"),
    *("x-auth-request-email", "remote-user", "x-webauth-user", "x-consumer-username", "x-ssl-client-s-dn"),
    *("x-amzn-oidc-data", "x-goog-iap-jwt-assertion", "cf-access-jwt-assertion", "x-ms-client-principal"),
    *("x-amz-security-token", "x-client-cert", "x-forwarded-email", "x-tenant-id", "x-session-id"),
)


@pytest.mark.parametrize("name", OF_IDENTITY)
def test_headers_that_may_identify_a_caller_are_never_ignored(name: str) -> None:
    assert "may identify a caller" in not_ignorable(name)


@pytest.mark.parametrize(
    "name",
    [
        *OF_IDENTITY,
        *(
            "X-Key",
            "X_Access_Key",
            "ApiKey",
            "X-Auth-Query",
            "X-Token-Text",
            "X-User",
            "AccessKey",
            "RemoteUser",
            "X-Userid",
            "X-Roles",
            "Login",
        ),
        *("X-Password", "X-Secret", "X-Customer-Number", "Set-Cookie", "X-Amz-Security-Token"),
    ],
)
def test_headers_that_may_identify_a_caller_are_never_query_text(name: str) -> None:
    assert "may identify a caller" in not_query_text(name)


@pytest.mark.parametrize(
    "name",
    [
        *("X-Keywords", "X-Search-Keyword", "X-Query", "X-Monkey", "X-Hockey-Search", "X-Certain-Words"),
        *("X-User-Query", "X-Customer-Search", "X-Session-Search-Term", "User-Agent-Text", "X-Rolex", "X-Q"),
    ],
)
def test_names_that_only_contain_identity_words_may_hold_query_text(name: str) -> None:
    assert "" == not_query_text(name)


@pytest.mark.parametrize("name", ["", "cf-*", "*", "a b", "a:", "é", "a\n"])
def test_an_invalid_header_name_is_rejected(name: str) -> None:
    assert "is not a valid header name" in not_ignorable(name)
    assert "is not a valid header name" in not_query_text(name)


def warnings_of(requests: Iterable[list[Field]], ignore: Sequence[str] = ()) -> list[str]:
    said: list[str] = []
    callers = CallerIdentities(ignore, said.append)
    for fields in requests:
        callers.identity(fields)
    return said


def numbered(name: bytes, count: int = SAMPLE) -> Iterator[list[Field]]:
    return ([*ALICE, (name, b"%d" % number)] for number in range(count))


def test_a_header_that_makes_every_request_a_new_caller_is_reported_once() -> None:
    assert ["cf-ray"] == warnings_of(numbered(b"CF-Ray", 5 * SAMPLE))


def test_several_such_headers_are_each_reported() -> None:
    requests = ([*fields, (b"x-azure-ref", b"%d" % number)] for number, fields in enumerate(numbered(b"cf-ray")))
    assert ["cf-ray", "x-azure-ref"] == warnings_of(requests)


@pytest.mark.parametrize(
    "requests",
    [
        list(numbered(b"cf-ray", SAMPLE - 1)),
        [[*ALICE, (b"x-forwarded-for", b"%d" % (number % 20))] for number in range(4 * SAMPLE)],
        list(numbered(b"authorization", 4 * SAMPLE)),
        [[(b"cookie", b"%d" % number), (b"cf-ray", b"%d" % number)] for number in range(4 * SAMPLE)],
        [ALICE] * SAMPLE,
    ],
    ids=["few", "some addresses", "new users", "new users behind a CDN", "one caller"],
)
def test_known_callers_and_really_new_callers_cause_no_warning(requests: list[list[Field]]) -> None:
    assert [] == warnings_of(requests)


def test_an_ignored_header_causes_no_warning() -> None:
    assert [] == warnings_of(numbered(b"cf-ray"), ["cf-ray"])


def test_warnings_and_memory_of_callers_are_bounded() -> None:
    """Whatever number of names and values a client sends."""
    said: list[str] = []
    callers = CallerIdentities(warn=said.append)
    for sample in range(200):
        for number in range(SAMPLE):
            callers.identity([(b"x-%d-%d" % (sample, column), b"%d" % number) for column in range(40)])
    assert 16 == len(said)
    assert len(pickle.dumps(callers._newcomers)) < 2**20  # noqa: SLF001


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
def test_credentials_of_one_request_or_connection_cannot_be_repeated(credentials: bytes, *, repeated: bool) -> None:
    assert repeated == can_be_repeated([(b"authorization", credentials)])
