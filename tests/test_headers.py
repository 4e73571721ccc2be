"""Headers of one hop stay behind, all others go on as they were written."""

import json

import pytest

from proxy.http1.headers import HOP_BY_HOP, binds_connection, end_to_end, header_lines, own_error, request_lines
from proxy.http1.messages import Line, RequestHead, read_request_head


def head(*raw: bytes) -> RequestHead:
    return read_request_head(b"GET / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in raw) + b"\r\n")


def lines(*raw: bytes) -> tuple[Line, ...]:
    return head(*raw).lines


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_hop_by_hop_headers_are_dropped(name: bytes) -> None:
    assert [] == list(end_to_end(lines(name + b": x", name.upper() + b": y")))


@pytest.mark.parametrize(
    ("options", "dropped"),
    [
        (b"X-A", [b"x-a"]),
        (b"close, x-a ,X-B", [b"x-a", b"x-b"]),
        (b"Content-Length, Transfer-Encoding, Host", []),
        (b"", []),
    ],
)
def test_headers_named_by_connection_are_dropped_except_framing(options: bytes, dropped: list[bytes]) -> None:
    """If Content-Length were dropped, the engine would read another request than the client sent."""
    given = lines(b"Host: h", b"Content-Length: 1", b"X-A: 1", b"X-B: 2", b"Connection: " + options)
    kept = [line.key for line in end_to_end(given)]
    assert [key for key in (b"host", b"content-length", b"x-a", b"x-b") if key not in dropped] == kept


def test_the_host_header_is_the_engines_and_other_lines_are_unchanged() -> None:
    given = lines(b"hOst: proxy", b"X-A:  1 ", b"x-a:2", b"X-Folded: a\r\n b")
    assert b"hOst: es:9200\r\nX-A:  1 \r\nx-a:2\r\nX-Folded: a\r\n b\r\n" == b"".join(
        request_lines(given, b"es:9200", replayed=False)
    )


@pytest.mark.parametrize(("replayed", "sent"), [(False, [b"Expect: 100-continue\r\n"]), (True, [])])
def test_expect_is_dropped_for_a_body_already_read(sent: list[bytes], *, replayed: bool) -> None:
    assert sent == list(request_lines(lines(b"Expect: 100-continue"), b"es", replayed=replayed))


def test_each_header_is_written_on_its_own_line() -> None:
    assert b"a: 1\r\nb: \r\n" == header_lines([(b"a", b"1"), (b"b", b"")])


def test_the_proxys_errors_have_the_engines_format() -> None:
    cause = {"type": "engine_unreachable", "reason": 'no "node"'}
    said = {"error": {"root_cause": [cause], **cause}, "status": 502}
    assert said == json.loads(own_error(502, "engine_unreachable", 'no "node"'))


@pytest.mark.parametrize(
    ("line", "binds"),
    [
        (b"Authorization: Negotiate YII=", True),
        (b"authorization: ntlm TlRM", True),
        (b"WWW-Authenticate: Basic realm=a, Negotiate", True),
        (b"WWW-Authenticate: NTLM", True),
        (b'WWW-Authenticate: Basic realm="security", ApiKey', False),
        (b"Authorization: Basic bmVnb3RpYXRl", False),
        (b"X-A: Negotiate", False),
    ],
)
def test_connection_based_authentication_binds_the_connection(line: bytes, *, binds: bool) -> None:
    assert binds == binds_connection(head(line).control)
