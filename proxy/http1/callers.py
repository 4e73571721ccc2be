"""Whose search it is: what of a request's head decides what its caller may see, and what is carried along.

What one caller was shown is never given to another, so everything kept between requests has the caller in its key.
A header that is not known to be irrelevant counts as part of who asks: an identity may come in any of them.
"""

import hashlib
import re
from collections.abc import Sequence

from proxy.http1.messages import TOKEN

Field = tuple[bytes, bytes]

STEERING = b"x-rerank-"
"""What is said to this proxy, and neither tells who asks nor goes along."""

# Says nothing of who asks or of what they may see.
_IRRELEVANT = frozenset(
    b"accept accept-charset accept-encoding accept-language cache-control connection content-encoding "
    b"content-length content-type date dnt expect host if-none-match keep-alive origin pragma priority "
    b"proxy-connection referer sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode "
    b"sec-fetch-site te trailer transfer-encoding upgrade user-agent via x-elastic-client-meta".split(),
)

# Another value in each request, by which monitoring follows it: W3C Trace Context and Baggage, B3, and vendors' own.
_TRACING = frozenset(
    b"b3 baggage elastic-apm-traceparent grpc-trace-bin newrelic sentry-trace traceparent tracestate uber-trace-id "
    b"x-amzn-trace-id x-cloud-trace-context x-correlation-id x-dynatrace x-instana-l x-instana-s x-instana-t "
    b"x-opaque-id x-ot-span-context x-request-id x-request-start".split(),
)
_IRRELEVANT_PREFIXES = (STEERING, b"x-b3-", b"x-datadog-", b"ot-tracer-")

# Belongs to this one message (RFC 9110, section 7.6.1 and 8.4) and is made anew for each search.
_OF_THE_MESSAGE = frozenset(
    b"connection content-encoding content-length expect host keep-alive proxy-connection te trailer "
    b"transfer-encoding upgrade".split(),
)

# What these schemes prove holds for one request or one connection, and the proxy's own searches are neither: tokens of
# Kerberos and Digest are refused a second time, NTLM goes on over one connection, signatures cover method and path.
_OF_ONE_REQUEST = frozenset(b"aws4-ecdsa-p256-sha256 aws4-hmac-sha256 digest hawk negotiate ntlm".split())

_PLAIN = re.compile(rb"[\t -~]*")


def identity(fields: Sequence[Field]) -> bytes:
    """Digest whatever may tell callers apart; secrets go in, none can be read out."""
    telling = sorted((name.lower(), value) for name, value in fields if not _is_irrelevant(name.lower()))
    digest = hashlib.sha256()
    for name, value in telling:
        digest.update(b"%d:%s%d:%s" % (len(name), name, len(value), value))
    return digest.digest()


def _is_irrelevant(name: bytes) -> bool:
    return name in _IRRELEVANT or name in _TRACING or name.startswith(_IRRELEVANT_PREFIXES)


def can_be_repeated(fields: Sequence[Field]) -> bool:
    """Whether the caller's credentials are good for searches made on the caller's behalf."""
    return not any(name.lower() == b"authorization" and scheme(value) in _OF_ONE_REQUEST for name, value in fields)


def scheme(credentials: bytes) -> bytes:
    """Return how somebody proves who they are: the first word (RFC 9110, section 11.4)."""
    return credentials.strip().partition(b" ")[0].lower()


def carried(fields: Sequence[Field]) -> tuple[tuple[str, str], ...] | None:
    """Return the headers that go along with a search made for this caller; None where one is not plain text."""
    named = {
        name.strip().lower() for key, value in fields if key.lower() == b"connection" for name in value.split(b",")
    }
    kept = [
        (name, value)
        for name, value in fields
        if name.lower() not in _OF_THE_MESSAGE | named and not name.lower().startswith(STEERING)
    ]
    if not all(TOKEN.fullmatch(name) and _PLAIN.fullmatch(value) for name, value in kept):
        return None
    return tuple((name.decode("ascii"), value.decode("ascii")) for name, value in kept)


def field_value(fields: Sequence[Field], name: bytes) -> bytes:
    """Return a header's value, several joined by comma (RFC 9110, section 5.3); empty where there is none."""
    return b", ".join(value for key, value in fields if key.lower() == name)
