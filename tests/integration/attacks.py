"""Oddities of framing and expectation, as an attacker would send them.

Each part of a request (start line, headers, expectation, body and how it is framed) has its table; attacks are drawn
from all of them. What belongs to a request is as a strict reader has it (RFC 9112), such as a balancer in front.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st


@dataclass(frozen=True, slots=True)
class Framing:
    """How a body is sent: `fields` with `{length}` in place, and the bytes, the attack's content being `{content}`."""

    name: str
    fields: tuple[bytes, ...]
    before: bytes = field(default=b"", repr=False)
    after: bytes = field(default=b"", repr=False)
    requests: int = 1
    """How many requests a strict reader sees, with what is behind the first."""
    unfinished: bool = False
    """Whether the body is never sent to its end."""

    def wire(self, content: bytes) -> tuple[tuple[bytes, ...], bytes]:
        """Return the fields and the body as it is sent."""

        def filled(piece: bytes) -> bytes:
            return (
                piece.replace(b"{length}", b"%d" % len(content))
                .replace(b"{less}", b"%d" % (len(content) // 2))
                .replace(b"{more}", b"%d" % (len(content) + 100))
                .replace(b"{size}", b"%x" % len(content))
                .replace(b"{SIZE}", b"%X" % len(content))
            )

        return tuple(map(filled, self.fields)), filled(self.before) + content + filled(self.after)


_CHUNKED = (b"Transfer-Encoding: chunked",)
_LENGTH = b"Content-Length: {length}"
_CHUNK, _END = b"{size}\r\n", b"\r\n0\r\n\r\n"


def _coded(value: bytes, name: bytes = b"Transfer-Encoding") -> Framing:
    return Framing(f"{name!r} {value!r}", (name + b":" + value,), _CHUNK, _END)


def _sized(value: bytes, name: bytes = b"Content-Length") -> Framing:
    return Framing(f"{name!r} {value!r}", (name + b":" + value,))


FRAMINGS: Sequence[Framing] = (
    Framing("sized", (_LENGTH,)),
    Framing("chunked", _CHUNKED, _CHUNK, _END),
    Framing("length twice", (_LENGTH, _LENGTH)),
    Framing("two lengths, short first", (b"Content-Length: 0", _LENGTH)),
    Framing("two lengths, short last", (_LENGTH, b"Content-Length: 0")),
    Framing("too short a length", (b"Content-Length: {less}",), requests=2),
    Framing("a length never reached", (b"Content-Length: {more}",), unfinished=True),
    Framing("no framing", (), requests=2),
    _sized(b" {length}, {length}"),
    _sized(b" {length}, 0"),
    _sized(b" +{length}"),
    _sized(b" -{length}"),
    _sized(b" -0"),
    _sized(b"   {length}  "),
    _sized(b"\t{length}\t"),
    _sized(b"\x0b{length}"),
    _sized(b"\xa0{length}"),
    _sized(b" 00000000000000000000{length}"),
    _sized(b" {length}.0"),
    _sized(b" {length}e0"),
    _sized(b" 0x{size}"),
    _sized(b" {length};a"),
    _sized(b' "{length}"'),
    _sized(b""),
    _sized(b" "),
    _sized(b" 4294967296"),
    _sized(b" 9223372036854775808"),
    _sized(b" 18446744073709551616"),
    _sized(b" 99999999999999999999999999"),
    _sized(b"\r\n {length}"),
    _sized(b" {less}\r\n {length}"),
    _sized(b" {length}", b"Content-Length "),
    _sized(b" {length}", b"content-length\t"),
    Framing("length folded", (b" Content-Length: {length}",), requests=2),
    _sized(b" {length}", b"Content-Length\0"),
    Framing("length with an underscore", (b"Content_Length: {length}",), requests=2),
    _coded(b"chunked"),
    _coded(b" Chunked"),
    _coded(b" chunked "),
    _coded(b" chunked,"),
    _coded(b" , chunked"),
    _coded(b" chunked;a=b"),
    _coded(b' "chunked"'),
    _coded(b" xchunked"),
    _coded(b" identity"),
    _coded(b" gzip"),
    _coded(b" gzip, chunked"),
    _coded(b" chunked, gzip"),
    _coded(b" chunked, chunked"),
    _coded(b" identity, chunked"),
    _coded(b" chunked, identity"),
    _coded(b""),
    _coded(b"\x0bchunked"),
    _coded(b" chun\0ked"),
    _coded(b"\r\n chunked"),
    _coded(b" chunked", b"Transfer-Encoding "),
    Framing("coding folded", (b" Transfer-Encoding: chunked",), requests=2),
    Framing("coding with an underscore", (b"Transfer_Encoding: chunked",), requests=2),
    Framing("coding twice", _CHUNKED * 2, _CHUNK, _END),
    Framing("coding and another", (*_CHUNKED, b"Transfer-Encoding: gzip"), _CHUNK, _END),
    Framing("another and coding", (b"Transfer-Encoding: identity", *_CHUNKED), _CHUNK, _END),
    Framing("chunked and sized", (*_CHUNKED, b"Content-Length: 6"), b"0\r\n\r\n"),
    Framing("sized and chunked", (b"Content-Length: {length}", *_CHUNKED), b"0\r\n\r\n"),
    Framing("chunked, sized to nothing", (*_CHUNKED, b"Content-Length: 0"), _CHUNK, _END),
    Framing("no chunk", _CHUNKED, b"0\r\n\r\n", requests=2),
    Framing("chunks never ended", _CHUNKED, _CHUNK, unfinished=True),
    Framing("a chunk never ended", _CHUNKED, b"7fffffff\r\n", unfinished=True),
    Framing("capitals", _CHUNKED, b"{SIZE}\r\n", _END),
    Framing("leading zeros", _CHUNKED, b"0000000000{size}\r\n", _END),
    Framing("many leading zeros", _CHUNKED, b"0" * 500 + _CHUNK, _END),
    Framing("33 bits", _CHUNKED, b"100000002\r\n{}\r\n0\r\n\r\n", requests=2, unfinished=True),
    Framing("33 bits of nothing", _CHUNKED, b"100000000\r\n\r\n", requests=2, unfinished=True),
    Framing("65 bits", _CHUNKED, b"10000000000000002\r\n{}\r\n0\r\n\r\n", requests=2, unfinished=True),
    Framing("negative as 32 bits", _CHUNKED, b"ffffffff\r\n{}\r\n0\r\n\r\n", requests=2, unfinished=True),
    Framing("signed size", _CHUNKED, b"+{size}\r\n", _END),
    Framing("negative size", _CHUNKED, b"-{size}\r\n", _END),
    Framing("0x", _CHUNKED, b"0x{size}\r\n", _END),
    Framing("no size", _CHUNKED, b"\r\n", _END),
    Framing("no digit", _CHUNKED, b"g\r\n", _END),
    Framing("a blank before the size", _CHUNKED, b" {size}\r\n", _END),
    Framing("blanks behind the size", _CHUNKED, b"{size}  \r\n", _END),
    Framing("a digit behind a blank", _CHUNKED, b"{size} 0\r\n", _END),
    Framing("a tab behind the size", _CHUNKED, b"{size}\t\r\n", _END),
    Framing("extension", _CHUNKED, b"{size};a=b\r\n", _END),
    Framing("quoted extension", _CHUNKED, b'{size};a="b;c\\""\r\n', _END),
    Framing("a line end in an extension", _CHUNKED, b'{size};a="\r\n', _END),
    Framing("a bare line feed in an extension", _CHUNKED, b"{size};a\nb\r\n", _END),
    Framing("a bare return in an extension", _CHUNKED, b"{size};a\rb\r\n", _END),
    Framing("a comma behind the size", _CHUNKED, b"{size},5\r\n", _END),
    Framing("a long extension", _CHUNKED, b"{size};" + b"a" * 10_000 + b"\r\n", _END),
    Framing("bare line feed behind the size", _CHUNKED, b"{size}\n", _END),
    Framing("bare line feed behind the chunk", _CHUNKED, _CHUNK, b"\n0\r\n\r\n"),
    Framing("nothing behind the chunk", _CHUNKED, _CHUNK, b"0\r\n\r\n"),
    Framing("blanks behind the chunk", _CHUNKED, _CHUNK, b"  \r\n0\r\n\r\n"),
    Framing("another line behind the chunk", _CHUNKED, _CHUNK, b"xx\r\n0\r\n\r\n"),
    Framing("bare line feed at the end", _CHUNKED, _CHUNK, b"\r\n0\n\n"),
    Framing("bare return at the end", _CHUNKED, _CHUNK, b"\r\n0\r\r"),
    Framing("zeros at the end", _CHUNKED, _CHUNK, b"\r\n00000\r\n\r\n"),
    Framing("extension at the end", _CHUNKED, _CHUNK, b"\r\n0;a=b\r\n\r\n"),
    Framing("trailer", _CHUNKED, _CHUNK, b"\r\n0\r\nX-Trailer: a\r\n\r\n"),
    Framing("framing in a trailer", _CHUNKED, _CHUNK, b"\r\n0\r\nContent-Length: 100\r\n\r\n"),
    Framing("coding in a trailer", _CHUNKED, _CHUNK, b"\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    Framing("authorization in a trailer", _CHUNKED, _CHUNK, b"\r\n0\r\nAuthorization: Basic eDp5\r\n\r\n"),
    Framing("a trailer that is none", _CHUNKED, _CHUNK, b"\r\n0\r\nGET / HTTP/1.1\r\n\r\n"),
    Framing("a folded trailer", _CHUNKED, _CHUNK, b"\r\n0\r\na: b\r\n c\r\n\r\n"),
    Framing("many trailers", _CHUNKED, _CHUNK, b"\r\n0\r\n" + b"a: b\r\n" * 2000 + b"\r\n"),
)

EXPECTATIONS: Sequence[tuple[bytes, ...]] = (
    (),
    (b"Expect: 100-continue",),
    (b"Expect: 100-Continue",),
    (b"Expect:",),
    (b"Expect: ",),
    (b"Expect: foo",),
    (b"Expect: 100-continue, foo",),
    (b"Expect: foo, 100-continue",),
    (b"Expect: 100-continue;q=1",),
    (b"Expect: 100-continue", b"Expect: 100-continue"),
    (b"Expect: 100-continue", b"Expect: foo"),
    (b"Expect: foo", b"Expect: 100-continue"),
    (b"expect : 100-continue",),
    (b"Expect : foo",),
    (b"Expect:\r\n foo",),
    (b"Expect:\r\n 100-continue",),
    (b"Expect: 100-\r\n continue",),
    (b"Expect: 100-continue\r\n ",),
    (b"Expect: 100-continue\r\n\t",),
    (b"Expect: 100-continue\x0b",),
    (b"Expect: 100-continue\0",),
    (b"Expect: 101-continue",),
    (b"Connection: expect", b"Expect: foo"),
    (b"Expect: foo", b"Connection: close"),
)

HEADERS: Sequence[bytes] = (
    b"es-security-runas-user : {run_as}",
    b"es-security-runas-user: {run_as}",
    b"es-security-runas-user:\r\n {run_as}",
    b"es-security-runas-user\t: {run_as}",
    b"Authorization: Basic eDp5",
    b"Authorization : Basic eDp5",
    b"Authorization: Negotiate YQ==",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: content-length",
    b"Connection: transfer-encoding",
    b"Connection: authorization",
    b"Connection: x-opaque-id",
    b"Connection: upgrade\r\nUpgrade: websocket",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
    b"Proxy-Connection: keep-alive",
    b"Keep-Alive: timeout=1",
    b"TE: trailers",
    b"Trailer: Content-Length",
    b"Host: other",
    b"Content-Encoding: gzip",
    b"Content-Type: application/x-ndjson",
    b"Content-Type : application/json",
    b"X-HTTP-Method-Override: DELETE",
    b"a:\r\n folded",
    b" a: begins with a blank",
    b"a: NUL \0",
    b"a\0: NUL",
    b"a: bare \r return",
    b"a: bare\nContent-Length: 3",
    b"no colon",
    b": no name",
    b"a b: a blank in the name",
    b"a: \xff\xfe",
    b"a: " + b"x" * 9000,
    b"Max-Forwards: 0",
)

METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "PATCH", "CONNECT", "get", "PRI")
TARGETS = (
    "/",
    "/_search",
    "/{index}/_search",
    "/{index}/_doc/mallory",
    "/{index}/_count",
    "/{index}",
    "/_bulk",
    "/_msearch",
    "/_cluster/health",
    "/_nodes",
    "/{index}-missing/_search",
    "/{index}/_no_such_thing",
    "http://engine/{index}/_count",
    "https://other:1/",
    "*",
    "engine:9200",
    "//",
    "/%",
    "/{index}/_doc/mallory?x= y",
    "/{index}/_count#fragment",
)
VERSIONS = (
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "HTTP/0.9",
    "http/1.1",
    "",
)


@dataclass(frozen=True, slots=True)
class Attack:
    """Bytes that are sent part by part on one connection, others being served in between."""

    methods: tuple[str, ...]
    """Of the requests that a strict reader sees in them."""
    parts: tuple[bytes, ...]
    in_step: bool = True
    """Whether, when these are answered, a strict reader would send another request on this connection."""


@dataclass(frozen=True, slots=True)
class Names:
    """What attacks are about."""

    index: str
    authorization: str
    """The attacker's own."""
    run_as: str
    """The user that the attacker would like to be."""

    def filled(self, piece: bytes) -> bytes:
        values = {"index": self.index, "authorization": self.authorization, "run_as": self.run_as}
        for name, value in values.items():
            piece = piece.replace(b"{%s}" % name.encode(), value.encode())
        return piece


ORDINARY = b"\r\n".join(
    (
        b"GET /{index}/_doc/mallory HTTP/1.1",
        b"Host: engine",
        b"Authorization: {authorization}",
        b"X-Opaque-Id: mallory",
        b"",
        b"",
    )
)
"""A request of the attacker's that has nothing odd, also as the body of another."""
CONTENTS: Mapping[str, bytes] = {
    "nothing": b"",
    "{}": b"{}",
    "a search": b'{"query":{"match_all":{}}}',
    "a request": ORDINARY,
    "two requests": ORDINARY * 2,
    "blank lines and a request": b"\r\n\r\n" + ORDINARY,
    "the last chunk and a request": b"0\r\n\r\n" + ORDINARY,
    "a request whose body is to come": ORDINARY.replace(b"\r\n\r\n", b"\r\nContent-Length: 100000\r\n\r\n"),
    "a request whose head is to come": ORDINARY.replace(b"\r\n\r\n", b"\r\nX-Swallow: "),
    "much, and a request": b'{"a":"' + b" " * 300_000 + b'"}' + ORDINARY,
    "very much, and a request": b'{"a":"' + b" " * 2_000_000 + b'"}' + ORDINARY,
}


@dataclass(frozen=True, slots=True)
class Oddity:
    """A request made of rows of the tables."""

    method: str = "POST"
    target: str = "/{index}/_search"
    version: str = "HTTP/1.1"
    expectation: tuple[bytes, ...] = ()
    headers: tuple[bytes, ...] = ()
    framing: Framing = FRAMINGS[0]
    content: str = "{}"
    line_end: bytes = b"\r\n"
    blank_lines: int = 0
    """Before the request."""
    pieces: int = 1
    """Into how many parts it is cut; two at the end of the head, more in the body, too."""
    pipelined: int = 0
    """How many ordinary requests are sent behind it at once."""
    anonymous: bool = False

    def attack(self, names: Names) -> Attack:
        """Write it as it is sent."""
        content = names.filled(CONTENTS[self.content])
        fields, body = self.framing.wire(content)
        start = f"{self.method} {self.target} {self.version}".rstrip().encode()
        lines = [start, b"Host: engine", b"X-Opaque-Id: mallory", *self._authorization(), *self.headers]
        head = self.line_end * self.blank_lines + self.line_end.join([*lines, *self.expectation, *fields, b"", b""])
        behind = names.filled(ORDINARY) * self.pipelined
        requests = self.framing.requests if content else 1
        # A chunk of nothing is the last one, and what is behind it another request.
        sure = (requests == 1 and (content or not self.framing.before)) or self.content == "a request"
        return Attack(
            (self.method, *("GET",) * (requests - 1 + self.pipelined)),
            _cut(names.filled(head), body + behind, self.pieces),
            bool(sure) and not self.framing.unfinished,
        )

    def _authorization(self) -> Sequence[bytes]:
        """Name the attacker, unless the headers do."""
        named = self.anonymous or any(header.startswith(b"Authorization:") for header in self.headers)
        return () if named else (b"Authorization: {authorization}",)


def _cut(head: bytes, body: bytes, pieces: int) -> tuple[bytes, ...]:
    if pieces == 1:
        return (head + body,)
    length = max(1, -(-len(body) // (pieces - 1)))
    return (head, *(body[first : first + length] for first in range(0, len(body), length)))


_few = st.lists(st.sampled_from(HEADERS), max_size=3).map(tuple)
oddities = st.builds(
    Oddity,
    st.sampled_from(METHODS) | st.just("POST"),
    st.sampled_from(TARGETS),
    st.sampled_from(VERSIONS),
    st.just(()) | st.sampled_from(EXPECTATIONS),
    st.just(()) | _few,
    st.just(FRAMINGS[0]) | st.just(FRAMINGS[1]) | st.sampled_from(FRAMINGS),
    st.sampled_from(list(CONTENTS)[:-1]),
    st.just(b"\r\n") | st.sampled_from([b"\r\n", b"\n", b"\r"]),
    st.just(0) | st.integers(0, 3),
    st.integers(1, 4),
    st.just(0) | st.integers(0, 3),
    st.booleans(),
)
"""Any combination."""


def singles() -> dict[str, Oddity]:
    """Return each row of the tables in a request that is ordinary but for it, and has a request as its body."""
    found = {f"expectation {fields!r}": Oddity(expectation=fields, content="a request") for fields in EXPECTATIONS}
    found |= {
        f"expectation {fields!r}, anonymous": Oddity(expectation=fields, content="a request", anonymous=True)
        for fields in EXPECTATIONS
    }
    found |= {
        f"expectation {fields!r}, body held back": Oddity(expectation=fields, content="a request", pieces=3)
        for fields in EXPECTATIONS
    }
    found |= {f"framing {framing.name}": Oddity(framing=framing, content="a request") for framing in FRAMINGS}
    found |= {
        f"framing {framing.name}, body held back": Oddity(framing=framing, content="a request", pieces=3)
        for framing in FRAMINGS
    }
    found |= {f"header {header[:40]!r}": Oddity(headers=(header,), content="a request") for header in HEADERS}
    found |= {f"method {method}": Oddity(method, content="a request") for method in METHODS}
    found |= {f"HEAD {target}": Oddity("HEAD", target, content="nothing") for target in TARGETS}
    found |= {f"GET {target} with a body": Oddity("GET", target, content="a request") for target in TARGETS}
    found |= {
        f"DELETE {target} with a body": Oddity("DELETE", "/{index}/_no/" + target, content="a request")
        for target in TARGETS
    }
    found |= {f"version {version!r}": Oddity(version=version, content="a request") for version in set(VERSIONS)}
    found |= {
        f"chunks of {version!r}": Oddity(version=version, framing=FRAMINGS[1], content="a request")
        for version in set(VERSIONS)
    }
    found |= {f"lines end with {end!r}": Oddity(line_end=end, content="a request") for end in (b"\n", b"\r")}
    wrong = (b"Authorization: Basic eDp5",)
    for framing in FRAMINGS[:2]:
        for pieces in (1, 3):
            held = f"{framing.name}, {pieces} pieces"
            found[f"refused early, {held}"] = Oddity(
                headers=wrong, framing=framing, content="very much, and a request", pieces=pieces
            )
            found[f"wrong method, {held}"] = Oddity(
                "POST", "/_cluster/health", framing=framing, content="very much, and a request", pieces=pieces
            )
            found[f"wrong media type, {held}"] = Oddity(
                headers=(b"Content-Type: a/b",), framing=framing, content="very much, and a request", pieces=pieces
            )
            found[f"wrong method, expectation, {held}"] = Oddity(
                "POST",
                "/_cluster/health",
                expectation=EXPECTATIONS[1],
                framing=framing,
                content="very much, and a request",
                pieces=pieces,
            )
    too_large = Framing("too large", (b"Content-Length: 200000000",), unfinished=True)
    for expectation in EXPECTATIONS[:6]:
        found[f"too large, {expectation!r}"] = Oddity(
            expectation=expectation, framing=too_large, content="a request", pieces=3
        )
    found["pipelined"] = Oddity(content="{}", pipelined=5)
    found["pipelined behind HEAD"] = Oddity("HEAD", "/{index}/_doc/mallory", content="nothing", pipelined=5)
    found["pipelined behind a wrong method"] = Oddity("POST", "/_cluster/health", content="{}", pipelined=5)
    return found
