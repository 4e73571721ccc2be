"""Heads and bodies are cut out of a connection at the same places however its bytes arrive."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http1.messages import BadMessage, Chunked, Framing, NoBody, Sized, UntilClose
from proxy.http1.wire import HEAD_MAX, PIECE, Broken, Incoming
from tests.fakes import chunked

HEAD = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"


def incoming(*pieces: bytes, ends: bool = True) -> Incoming:
    """A connection by which these bytes come."""
    reader = asyncio.StreamReader()
    for piece in pieces:
        reader.feed_data(piece)
    if ends:
        reader.feed_eof()
    return Incoming(reader)


async def read(framing: Framing, source: Incoming) -> tuple[bytes, bytes]:
    raw, content = b"", b""
    async for piece, contents in source.body(framing):
        raw += piece
        content += b"".join(contents)
    return raw, content


async def one_after_the_other(pieces: Sequence[bytes]) -> tuple[bytes, tuple[bytes, bytes], bytes]:
    """Read head, chunked body and the next head while the pieces come one at a time."""
    reader = asyncio.StreamReader()
    source = Incoming(reader)

    async def feed() -> None:
        for piece in pieces:
            reader.feed_data(piece)
            await asyncio.sleep(0)
        reader.feed_eof()

    feeding = asyncio.ensure_future(feed())
    found = await source.head(), await read(Chunked(), source), await source.head()
    await feeding
    return found


BODY = chunked(b"one", b"twice two", trailers=b"X-Sum: 1\r\n")
WHOLE = b"\r\n\n" + HEAD + BODY + b"\r\n" + HEAD


@settings(max_examples=30)
@given(st.lists(st.integers(0, len(WHOLE)), max_size=12).map(sorted))
def test_messages_end_at_the_same_places_however_they_are_cut(cuts: list[int]) -> None:
    edges = [0, *cuts, len(WHOLE)]
    pieces = [WHOLE[start:end] for start, end in pairwise(edges)]
    assert (HEAD, (BODY, b"onetwice two"), HEAD) == asyncio.run(one_after_the_other(pieces))


async def test_empty_lines_before_a_head_are_ignored() -> None:
    source = incoming(b"\r\n\n\r\n" + HEAD)
    assert (True, HEAD, False) == (await source.begins(), await source.head(), await source.begins())


async def test_a_connection_that_ends_between_messages_gives_an_empty_head() -> None:
    assert b"" == await incoming().head()


@pytest.mark.parametrize("cut", [b"G", HEAD[:-1], HEAD[:-2]])
async def test_a_connection_that_ends_in_a_head_is_broken(cut: bytes) -> None:
    with pytest.raises(Broken):
        await incoming(cut).head()


async def test_a_head_without_end_is_refused_with_431() -> None:
    with pytest.raises(BadMessage) as refused:
        await incoming(b"GET / HTTP/1.1\r\nX: " + b"y" * (HEAD_MAX + 2 * PIECE), ends=False).head()
    assert 431 == refused.value.status


@pytest.mark.parametrize(
    ("framing", "sent", "raw", "content", "rest"),
    [
        (NoBody(), b"next", b"", b"", b"next"),
        (Sized(0), b"next", b"", b"", b"next"),
        (Sized(4), b"bodynext", b"body", b"body", b"next"),
        (Chunked(), b"4;x=y\r\nbody\r\n0\r\n\r\nnext", b"4;x=y\r\nbody\r\n0\r\n\r\n", b"body", b"next"),
        (Chunked(), b"0\r\nA: b\r\n\r\nnext", b"0\r\nA: b\r\n\r\n", b"", b"next"),
        (UntilClose(), b"all there is", b"all there is", b"all there is", b""),
    ],
)
async def test_a_body_ends_where_its_framing_says(
    framing: Framing, sent: bytes, raw: bytes, content: bytes, rest: bytes
) -> None:
    source = incoming(sent)
    assert (raw, content) == await read(framing, source)
    assert (rest, rest) == await read(UntilClose(), source)


@pytest.mark.parametrize(
    ("framing", "sent"), [(Sized(5), b"body"), (Chunked(), b"5\r\nbo"), (Chunked(), b"0\r\n"), (Chunked(), b"")]
)
async def test_a_body_that_ends_too_soon_is_broken(framing: Framing, sent: bytes) -> None:
    with pytest.raises(Broken):
        await read(framing, incoming(sent))


@pytest.mark.parametrize("sent", [b"zz\r\n", b"-1\r\n", b"+3\r\nabc", b"3\r\nabcd\r\n", b"\r\n", b"1" * 40_000])
async def test_a_chunk_that_is_not_written_as_one_is_refused(sent: bytes) -> None:
    with pytest.raises(BadMessage):
        await read(Chunked(), incoming(sent))


async def test_a_body_that_is_here_already_is_at_hand_and_no_other() -> None:
    source = incoming(HEAD + b"bodynext")
    await source.head()
    found = [source.at_hand(framing) for framing in (NoBody(), Sized(4), Sized(5), Chunked(), UntilClose())]
    assert [b"", b"body", None, None, None] == found
