"""Heads keep their bytes, and a body ends where the engine sees it end, or the message is refused."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.bounds import CHUNK_LINES_A_TURN, HEAD_LINES, REPEATED_HEAD_BYTES
from proxy.http1.framing import BadMessage, BodyReader, Chunked, Framing, NoBody, Sized, UntilClose
from proxy.http1.messages import head_length, read_request_head, read_response_head
from tests import strategies


def request(*lines: bytes, start: bytes = b"POST /_search HTTP/1.1") -> bytes:
    return b"".join(line + b"\r\n" for line in (start, *lines, b""))


def response(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return request(*lines, start=start)


# Where a head ends


@pytest.mark.parametrize(
    ("sent", "length"),
    [
        (b"", None),
        (b"GET / HTTP/1.1\r\n", None),
        (b"GET / HTTP/1.1\r\nA: b\r\n\r", None),
        (b"GET / HTTP/1.1\r\n\r\nbody", 18),
        (b"GET / HTTP/1.1\n\nbody", 16),
        (b"GET / HTTP/1.1\r\n\nbody", 17),
        (b"GET / HTTP/1.1\r\nA: b\r\n\r\n\r\n\r\n", 24),
    ],
)
def test_a_head_ends_with_its_empty_line(sent: bytes, length: int | None) -> None:
    assert length == head_length(bytearray(sent))


@given(st.data())
def test_the_end_of_a_head_is_found_in_any_pieces(data: st.DataObject) -> None:
    whole = request(b"A: b", b"C: d") + b"body"
    buffer, looked_at, found = bytearray(), 0, None
    for piece in data.draw(strategies.cut(whole)):
        buffer += piece
        found = head_length(buffer, looked_at)
        if found is not None:
            break
        looked_at = len(buffer)
    assert len(whole) - len(b"body") == found


# What a head says


@pytest.mark.parametrize(
    ("start", "method", "target", "version"),
    [
        (b"GET /a?b HTTP/1.1", b"GET", b"/a?b", b"HTTP/1.1"),
        (b"GET /a b HTTP/1.0", b"GET", b"/a b", b"HTTP/1.0"),
        (b"GET /a", b"GET", b"/a", b""),
        (b"GET /a HTTP/11", b"GET", b"/a HTTP/11", b""),
        (b"GET", b"GET", b"", b""),
    ],
)
def test_an_incomplete_request_line_is_parsed_as_far_as_possible(
    start: bytes, method: bytes, target: bytes, version: bytes
) -> None:
    head = read_request_head(request(start=start))
    assert (start, method, target, version) == (head.start, head.method, head.target, head.version)


def test_headers_keep_their_order_and_case() -> None:
    head = read_request_head(request(b"Host:  engine ", b"X-A:", b"x-a: \xfc", b"folded: a", b"  b", b"odd"))
    expected = ((b"Host", b"engine"), (b"X-A", b""), (b"x-a", b"\xfc"), (b"folded", b"a   b"), (b"odd", b""))
    assert expected == head.fields
    assert [b"host", b"x-a", b"x-a", b"folded", b"odd"] == [line.key for line in head.lines]


names = st.text("abcXYZ-", min_size=1, max_size=8).map(str.encode)
header_values = st.binary(max_size=20).filter(lambda value: not set(value) & set(b"\r\n\0"))
folds = st.lists(st.binary(max_size=5).filter(lambda value: not set(value) & set(b"\r\n\0")), max_size=2)
ENDINGS = (b"\r\n", b"\n")
endings = st.sampled_from(ENDINGS)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Heads whose framing is certain, with folded lines and either line end."""
    lines = [b"GET / HTTP/1.1" + draw(endings)]
    for name, value in draw(st.lists(st.tuples(names, header_values), max_size=5)):
        folded = b"".join(draw(endings) + b" " + more for more in draw(folds))
        lines.append(name + b":" + value + folded + draw(endings))
    return b"".join(lines) + draw(endings)


@given(heads())
def test_the_lines_of_a_head_keep_its_bytes(raw: bytes) -> None:
    head = read_request_head(raw)
    joined = b"".join(line.raw for line in head.lines)
    assert raw in [head.start + first + joined + last for first in ENDINGS for last in ENDINGS]


@given(st.binary())
def test_any_head_is_parsed_or_rejected(noise: bytes) -> None:
    for read in (lambda: read_request_head(request(noise)), lambda: read_response_head(response(noise), b"GET")):
        try:
            head = read()
        except BadMessage:
            continue
        assert isinstance(head.framing, Framing)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], False),
        ([b"Expect: 100-continue"], True),
        ([b"expect: 100-Continue"], True),
        ([b"Expect: 100-continue", b"Expect: 100-continue"], True),
    ],
)
def test_expect_100_continue_is_recognised(lines: Sequence[bytes], expected: bool) -> None:  # noqa: FBT001
    assert expected is read_request_head(request(*lines)).expects_continue


@pytest.mark.parametrize(
    ("version", "lines", "expected"),
    [
        (b"HTTP/1.1", [], True),
        (b"HTTP/1.1", [b"Connection: Close"], False),
        (b"HTTP/1.1", [b"Connection: x", b"Connection: y, close"], False),
        (b"HTTP/1.0", [], False),
        (b"HTTP/1.0", [b"Connection: Keep-Alive"], True),
        (b"HTTP/2.0", [b"Connection: keep-alive"], False),
        (b"nonsense", [b"Connection: keep-alive"], False),
    ],
)
def test_keep_alive_follows_version_and_connection(version: bytes, lines: list[bytes], expected: bool) -> None:  # noqa: FBT001
    assert expected is read_request_head(request(*lines, start=b"GET / " + version)).keep_alive


# Where a body ends


@pytest.mark.parametrize(
    ("lines", "framing"),
    [
        ([], NoBody()),
        ([b"Content-Length: 0"], Sized(0)),
        ([b"content-length:5"], Sized(5)),
        ([b"Content-Length: 5, 5"], Sized(5)),
        ([b"Content-Length: 5", b"Content-Length: 5"], Sized(5)),
        ([b"Transfer-Encoding: Chunked"], Chunked()),
        ([b"X-Content-Length: 5"], NoBody()),
    ],
)
def test_a_requests_framing_follows_its_headers(lines: list[bytes], framing: Framing) -> None:
    assert framing == read_request_head(request(*lines)).framing


SMUGGLING = [
    [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
    [b"Content-Length: 5", b"Content-Length: 6"],
    [b"Content-Length: 5, 6"],
    [b"Content-Length: 5,"],
    [b"Content-Length:"],
    [b"Content-Length: +5"],
    [b"Content-Length: -5"],
    [b"Content-Length: 0x5"],
    [b"Content-Length: 5 5"],
    [b"Content-Length: 5\x0b"],
    [b"Content-Length: \xb2"],
    [b"Content-Length: 1000000000000000000"],
    [b"Content-Length : 5"],
    [b" Content-Length: 5"],
    [b"\tContent-Length: 5"],
    [b"Content-Length\x0b: 5"],
    [b"Content-Length"],
    [b"Content-Length:", b" 5"],
    [b"Content-Length: 5", b" 5"],
    [b"Transfer-Encoding: chunked\x0c"],
    [b"Transfer-Encoding : chunked"],
    [b" Transfer-Encoding: chunked"],
    [b"Transfer-Encoding"],
    [b"Transfer-Encoding:"],
    [b"Transfer-Encoding:", b" chunked"],
    [b"Transfer-Encoding: chunked", b" "],
    [b"Transfer-Encoding: identity"],
    [b"Transfer-Encoding: xchunked"],
    [b'Transfer-Encoding: "chunked"'],
    [b"Transfer-Encoding: gzip, chunked"],
    [b"Transfer-Encoding: chunked, identity"],
    [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    [b"Transfer-Encoding: chunked", b"transfer-encoding: identity"],
    [b"X: a\rContent-Length: 5"],
    [b"X: a\0"],
]


@pytest.mark.parametrize("lines", SMUGGLING)
def test_ambiguous_framing_is_rejected(lines: list[bytes]) -> None:
    with pytest.raises(BadMessage):
        read_request_head(request(*lines))
    with pytest.raises(BadMessage):
        read_response_head(response(*lines), b"GET")


@pytest.mark.parametrize("start", [b"POST / HTTP/1.0", b"POST / HTTP/2.0", b"POST /"])
def test_chunked_framing_needs_http_1_1(start: bytes) -> None:
    with pytest.raises(BadMessage, match=r"before HTTP/1\.1"):
        read_request_head(request(b"Transfer-Encoding: chunked", start=start))


@pytest.mark.parametrize(
    ("method", "start", "lines", "framing", "keep_alive"),
    [
        (b"GET", b"HTTP/1.1 200 OK", [b"Content-Length: 5"], Sized(5), True),
        (b"GET", b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked"], Chunked(), True),
        (b"GET", b"HTTP/1.1 200 OK", [b"Content-Length: 5", b"Connection: close"], Sized(5), False),
        (b"GET", b"HTTP/1.1 200", [], UntilClose(), False),
        (b"HEAD", b"HTTP/1.1 200 OK", [b"Content-Length: 5"], NoBody(), True),
        (b"GET", b"HTTP/1.1 204 No Content", [b"Content-Length: 5"], NoBody(), True),
        (b"GET", b"HTTP/1.1 304 Not Modified", [b"Content-Length: 5"], NoBody(), True),
        (b"GET", b"HTTP/1.1 100 Continue", [], NoBody(), True),
        (b"GET", b"HTTP/1.0 200 OK", [b"Content-Length: 5"], Sized(5), False),
    ],
)
def test_a_responses_framing_depends_on_method_status_and_headers(
    method: bytes, start: bytes, lines: list[bytes], framing: Framing, *, keep_alive: bool
) -> None:
    head = read_response_head(response(*lines, start=start), method)
    assert (start, framing, keep_alive) == (head.start, head.framing, head.keep_alive)


@pytest.mark.parametrize(("status", "expected"), [(100, True), (103, True), (199, True), (200, False), (500, False)])
def test_an_interim_response_is_not_final(status: int, expected: bool) -> None:  # noqa: FBT001
    head = read_response_head(response(start=b"HTTP/1.1 %d Status" % status), b"GET")
    assert (status, expected) == (head.status, head.interim)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 20",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 abc",
        b"HTTP/11 200 OK",
        b"ICY 200 OK",
        b"200 OK",
    ],
)
def test_an_invalid_status_line_is_rejected(start: bytes) -> None:
    with pytest.raises(BadMessage, match="not a status line"):
        read_response_head(response(start=start), b"GET")


# A body through the bytes that come


def read_body(framing: Framing, pieces: Sequence[bytes]) -> tuple[bytes, bytes, bool]:
    """Feed pieces to the end of the body: the raw bytes that are the body's, their content, whether it ended."""
    reader = BodyReader(framing)
    raw, content = b"", b""
    for piece in pieces:
        if reader.done:
            break
        position, found = 0, list[bytes]()
        while position < len(piece) and not reader.done:
            position = reader.feed(piece, position, found)
        raw += piece[:position]
        content += b"".join(found)
    return raw, content, reader.done


@st.composite
def chunked_bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A body in chunks with extensions, odd sizes and trailers, and its content."""
    chunks = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=4))
    written = b""
    for chunk in chunks:
        extension = draw(st.sampled_from([b"", b";a=b", b" ; a", b"\t"]))
        size = draw(st.sampled_from([b"%x", b"%X", b"00%x"])) % len(chunk)
        written += size + extension + draw(endings) + chunk + draw(endings)
    trailers = draw(st.sampled_from([b"", b"A: b\r\n", b"A: b\nC: d\r\n"]))
    return written + b"0" + draw(endings) + trailers + draw(endings), b"".join(chunks)


@given(chunked_bodies(), st.binary(max_size=5), st.data())
def test_a_chunked_body_has_the_same_content_in_any_pieces(
    body: tuple[bytes, bytes], following: bytes, data: st.DataObject
) -> None:
    sent, content = body
    pieces = data.draw(strategies.cut(sent + following))
    assert (sent, content, True) == read_body(Chunked(), pieces)


@given(st.binary(max_size=30), st.binary(max_size=5), st.data())
def test_a_sized_body_has_the_same_content_in_any_pieces(sent: bytes, following: bytes, data: st.DataObject) -> None:
    pieces = data.draw(strategies.cut(sent + following))
    assert (sent, sent, True) == read_body(Sized(len(sent)), pieces)


@given(st.lists(st.binary(min_size=1)))
def test_a_body_until_close_takes_all_bytes(pieces: list[bytes]) -> None:
    assert (b"".join(pieces), b"".join(pieces), False) == read_body(UntilClose(), pieces)


def test_a_message_without_a_body_is_complete_at_once() -> None:
    assert (b"", b"", True) == read_body(NoBody(), [b"next"])


BROKEN = [
    b"\r\n",
    b"x\r\n",
    b"-1\r\n",
    b"+1\r\n",
    b"0x1\r\n",
    b" 1\r\n",
    b"1 1\r\n",
    b"1;a\rb\r\n",
    b"1;\0\r\n",
    b"1234567890abcdef\r\n",
    b"80000000\r\n",
    b"100000002\r\n",
    b"1\r\nab\r\n",
    b"1\r\na0\r\n\r\n",
    b"2\r\na\r\n\r\n",
    b"1" * 17_000,
    b"0\r\n" + b"a" * 17_000 + b"\r\n\r\n",
]


@pytest.mark.parametrize(
    "trailer", [b"\r}x: 1", b"a: b\rc: d", b"a: \0", b" folded", b"\tx: 1", b"\x01: 1", b'}"x": 1', b"x"]
)
def test_a_malformed_trailer_is_rejected(trailer: bytes) -> None:
    """Netty stops reading after one, and would never answer a request behind it."""
    with pytest.raises(BadMessage, match="malformed trailer"):
        BodyReader(Chunked()).feed(b"0\r\n" + trailer + b"\r\n\r\n")
    reader = BodyReader(Chunked())
    reader.feed(b"0\r\na: b c\r\nX-Checksum:1\n\r\n")
    assert reader.done


@pytest.mark.parametrize("sent", BROKEN)
def test_a_malformed_chunk_is_rejected(sent: bytes) -> None:
    with pytest.raises(BadMessage):
        read_body(Chunked(), [sent])
    with pytest.raises(BadMessage):
        read_body(Chunked(), [sent[place : place + 1] for place in range(len(sent))])


@given(st.binary(), st.data())
def test_rejection_does_not_depend_on_how_bytes_arrive(sent: bytes, data: st.DataObject) -> None:
    noise = data.draw(st.sampled_from([sent, b"3\r\nabc" + sent, b"0\r\n" + sent]))
    assert tried([noise]) == tried(data.draw(strategies.cut(noise)))


def tried(pieces: Sequence[bytes]) -> tuple[bytes, bytes, bool] | str:
    try:
        return read_body(Chunked(), pieces)
    except BadMessage as refusal:
        return str(refusal)


def test_a_body_of_tiny_chunks_is_read_over_several_turns() -> None:
    reader, sent = BodyReader(Chunked()), b"1\r\na\r\n" * CHUNK_LINES_A_TURN + b"0\r\n\r\nnext"
    content: list[bytes] = []
    first = reader.feed(sent, 0, content)
    assert (CHUNK_LINES_A_TURN // 2 * len(b"1\r\na\r\n"), False) == (first, reader.done)
    second = reader.feed(sent, first, content)
    third = reader.feed(sent, second, content)
    assert (len(sent) - len(b"next"), True, CHUNK_LINES_A_TURN) == (third, reader.done, len(content))


HEAD_OF_ONE = b"GET /%s HTTP/1.1\r\nHost: a\r\nContent-Length: %s\r\n\r\n"


def _long(head: bytes) -> bytes:
    """Return the head with a line that makes it too long to be remembered."""
    return head.replace(b"\r\n\r\n", b"\r\nx: %s\r\n\r\n" % (b"a" * REPEATED_HEAD_BYTES))


def test_cached_header_lines_do_not_change_parsing() -> None:
    heads = [HEAD_OF_ONE % values for values in ((b"a", b"1"), (b"b", b"1"), (b"b", b"2"))]
    heads += [heads[-1].replace(b"HTTP/1.1", version) for version in (b"HTTP/1.0", b"HTTP/1.1", b"FTP")]
    for head in (*heads, *heads):
        short, long = read_request_head(head), read_request_head(_long(head))
        assert (short.start, short.target, short.framing) == (long.start, long.target, long.framing)
        assert (short.version, short.keep_alive, short.control) == (long.version, long.keep_alive, long.control)
        assert short.lines == long.lines[:-1]


def test_expect_is_ignored_before_http_1_1() -> None:
    """HTTP/1.0 has no interim responses, whatever the previous request on the connection was."""
    lines = b"expect: foo\r\n\r\n"
    for _ in range(2):
        assert b"HTTP/1.0" == read_request_head(b"GET / HTTP/1.0\r\n" + lines).version
        with pytest.raises(BadMessage):
            read_request_head(b"GET / HTTP/1.1\r\n" + lines)


def test_the_framing_of_a_response_depends_on_the_method() -> None:
    raw = response(b"content-length: 5")
    for method, framing in ((b"GET", Sized(5)), (b"HEAD", NoBody())) * 2:
        assert framing == read_response_head(raw, method).framing
        assert framing == read_response_head(_long(raw), method).framing


def test_rejected_lines_are_rejected_again() -> None:
    for good, bad in ((HEAD_OF_ONE % (b"a", b"1"), HEAD_OF_ONE % (b"a", b"+1")),) * 2:
        with pytest.raises(BadMessage):
            read_request_head(bad)
        assert Sized(1) == read_request_head(good).framing


def test_a_head_with_too_many_lines_is_rejected() -> None:
    with pytest.raises(BadMessage) as refused:
        read_request_head(request(*[b"a: b"] * HEAD_LINES))
    assert 431 == refused.value.status


@pytest.mark.parametrize(("status", "framing"), [(b"200", NoBody()), (b"407", Sized(5))])
def test_a_successful_connect_response_has_no_body(status: bytes, framing: Framing) -> None:
    head = response(b"content-length: 5", start=b"HTTP/1.1 " + status + b" So")
    assert framing == read_response_head(head, b"CONNECT").framing


def test_heads_that_connections_share_cannot_be_changed() -> None:
    raw = b"GET / HTTP/1.1\r\nAuthorization: a\r\nVia: b\r\nVia: c\r\n\r\n"
    head = read_request_head(raw)
    assert head.control is read_request_head(raw).control
    with pytest.raises(TypeError):
        head.control[b"via"] = ()  # type: ignore[index]  # as a defect would
    assert ({(b"a",), (b"b", b"c")}, tuple) == ({*head.control.values()}, type(head.lines))
