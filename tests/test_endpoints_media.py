"""A search is read, and its answer written, where both are JSON, gzipped or not."""

import gzip

import pytest

from proxy.endpoints.media import content, gzipped, not_json
from proxy.outcomes import Bypass

JSON = b"application/json"
GZIP = [(b"content-encoding", b"gzip")]


@pytest.mark.parametrize(
    "content_type",
    [
        JSON,
        b"Application/JSON; charset=UTF-8",
        b'application/json;charset="utf-8"',
        b"application/vnd.elasticsearch+json; compatible-with=8",
        b"application/vnd.elasticsearch+json;compatible-with=9; charset=utf-8",
    ],
)
def test_json_media_types_are_recognised(content_type: bytes) -> None:
    fields = [(b"Content-Type", content_type), (b"Accept", content_type)]
    assert not_json(fields, has_body=True) is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([], "content_type"),
        ([(b"content-type", b"application/x-ndjson")], "content_type"),
        ([(b"content-type", b"application/json; charset=utf-16")], "content_type"),
        ([(b"content-type", JSON), (b"content-type", JSON)], "content_type"),
        ([(b"content-type", JSON), (b"accept", b"application/yaml")], "accept"),
        ([(b"content-type", JSON), (b"accept", b"application/vnd.elasticsearch+cbor;compatible-with=8")], "accept"),
        ([(b"content-type", JSON), (b"content-encoding", b"deflate")], "content_encoding"),
        ([(b"content-type", JSON), (b"content-encoding", b"gzip, gzip")], "content_encoding"),
    ],
)
def test_other_media_types_are_bypassed(fields: list[tuple[bytes, bytes]], reason: str) -> None:
    assert Bypass(reason) == not_json(fields, has_body=True)


@pytest.mark.parametrize(
    "accept",
    [b"*/*", b"", b"application/json, text/plain, */*", b"text/html,*/*;q=0.8", b"application/yaml, text/plain"],
)
def test_without_accept_or_with_a_list_the_response_is_json(accept: bytes) -> None:
    """As 8.19.13 does; axios and browsers send such lists."""
    assert not_json([(b"content-type", JSON), (b"accept", accept)], has_body=True) is None


def test_a_search_without_a_body_needs_no_content_type() -> None:
    assert not_json([(b"accept", b"*/*")], has_body=False) is None


def test_bodies_are_decompressed_and_compressed() -> None:
    assert (b"{}", b"{}") == (content([], b"{}", 10), content(GZIP, gzipped(b"{}"), 2))
    assert b"x" * 999 == gzip.decompress(gzipped(b"x" * 999))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"plain", "content_encoding"),
        (b"", "content_encoding"),
        (gzip.compress(b"{}")[:-1], "content_encoding"),
        (gzip.compress(b"{}") + b"more", "content_encoding"),
        (gzip.compress(b"{}") + gzip.compress(b"{}"), "content_encoding"),
        (gzip.compress(b" " * 2**20), "too_large"),
    ],
    ids=["plain", "empty", "cut off", "followed by more", "two", "too large"],  # a gzip contains the time
)
def test_an_invalid_or_too_large_gzip_body_is_bypassed(body: bytes, reason: str) -> None:
    """A small body can decompress to a very large one; decompression stops at the limit."""
    assert Bypass(reason) == content(GZIP, body, 10)
