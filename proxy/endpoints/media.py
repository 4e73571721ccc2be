"""Media types and compression: whether a search and its response are JSON, and the content of a gzip body."""

import re
import zlib
from collections.abc import Sequence

from proxy.http1.callers import Field, field_value
from proxy.outcomes import Bypass


def _media_type(*names: str) -> re.Pattern[bytes]:
    """Compile a pattern of these media types, also with a vendor prefix, with parameters that have no effect here."""
    forms = "|".join(rf"{name}|vnd\.(?:elasticsearch|opensearch)\+{name}" for name in names)
    parameters = r"\s*(?:;\s*(?:charset=\"?utf-8\"?|compatible-with=\d+)\s*)*"
    return re.compile(rf"application/(?:{forms}){parameters}".encode(), re.IGNORECASE)


_JSON = _media_type("json")
_LINES = _media_type("json", "x-ndjson")


def not_json(fields: Sequence[Field], *, has_body: bool, ndjson: bool = False) -> Bypass | None:
    """Return the bypass reason if a search or its response is not JSON; None if both are."""
    accept = field_value(fields, b"accept").strip()
    # The engine ignores a list, and responds with JSON.
    if accept not in {b"", b"*/*"} and b"," not in accept and not _JSON.fullmatch(accept):
        return Bypass("accept")
    known = _LINES if ndjson else _JSON
    if has_body and not known.fullmatch(field_value(fields, b"content-type").strip()):
        return Bypass("content_type")
    if field_value(fields, b"content-encoding").strip().lower() not in {b"", b"identity", b"gzip"}:
        return Bypass("content_encoding")
    return None


def is_gzipped(fields: Sequence[Field]) -> bool:
    return field_value(fields, b"content-encoding").strip().lower() == b"gzip"


def content(fields: Sequence[Field], body: bytes, limit: int) -> bytes | Bypass:
    """Return the content of a body, decompressed if necessary; at most `limit` bytes."""
    if not is_gzipped(fields):
        return body
    inflating = zlib.decompressobj(wbits=31)
    try:
        inflated = inflating.decompress(body, limit + 1)
    except zlib.error:
        return Bypass("content_encoding")
    if len(inflated) > limit:
        return Bypass("too_large")
    return inflated if inflating.eof and not inflating.unused_data else Bypass("content_encoding")


def gzipped(body: bytes) -> bytes:
    """Compress like the engine (`http.compression_level` 3)."""
    deflating = zlib.compressobj(level=3, wbits=31)
    return deflating.compress(body) + deflating.flush()
