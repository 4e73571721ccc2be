"""Heads are cut out of a client's bytes, however these are divided."""

import pytest

from proxy.bounds import PIPELINED_BYTES, REQUEST_HEAD_BYTES
from proxy.http1.framing import BadMessage
from proxy.http1.unread import UnreadBytes

HEAD = b"GET /_search HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\n\r\n\r\n"])
@pytest.mark.parametrize("behind", [b"", b"{}", HEAD])
def test_a_head_and_what_is_behind_it_are_told_apart(before: bytes, behind: bytes) -> None:
    unread = UnreadBytes()
    assert unread.take_head(before + HEAD + behind) == (HEAD, behind)
    assert not unread.kept


def test_a_head_may_arrive_byte_by_byte() -> None:
    unread = UnreadBytes()
    *early, last = (bytes([each]) for each in b"\r\n" + HEAD)
    assert {None} == {unread.take_head(each) for each in early}
    assert (HEAD, b"") == unread.take_head(last)


def test_pipelined_requests_wait_until_their_turn() -> None:
    unread = UnreadBytes()
    unread.keep(HEAD)
    unread.keep(HEAD + b"GET")
    assert (HEAD, HEAD + b"GET") == unread.take_head()
    unread.keep(HEAD + b"GET")
    assert not unread.is_full
    unread.keep(b"x" * PIPELINED_BYTES)
    assert unread.is_full
    unread.clear()
    assert not unread.kept
    assert unread.take_head() is None


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_a_head_that_is_too_large_is_rejected(end: bytes) -> None:
    with pytest.raises(BadMessage, match="too large") as caught:
        UnreadBytes().take_head(b"GET /" + b"a" * REQUEST_HEAD_BYTES + end)
    assert 431 == caught.value.status


def test_tls_on_a_plain_port_is_named() -> None:
    with pytest.raises(BadMessage, match="TLS on a plain port"):
        UnreadBytes().take_head(b"\x16\x03\x01\x02")
