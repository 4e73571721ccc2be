"""Caller identity: which request headers decide what a caller may see, and which are sent with the proxy's searches.

A response for one caller is never given to another, so the key of every cache contains the caller identity. A header
that is not known to be irrelevant is part of it, because any header may carry credentials.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence

from cachetools import LRUCache

from proxy.bounds import KNOWN_CALLERS, NEW_CALLER_WARNINGS, SAMPLED_HEADERS
from proxy.http1.framing import TOKEN
from proxy.http1.messages import connection_options

Field = tuple[bytes, bytes]

STEERING = b"x-rerank-"
"""Prefix of the per-request options: not part of the caller identity, and never sent to the engine."""

# Does not affect who the caller is or what the caller may see.
_IRRELEVANT = frozenset(
    b"accept accept-charset accept-encoding accept-language cache-control connection content-encoding "
    b"content-length content-type date dnt expect host if-none-match keep-alive origin pragma priority "
    b"proxy-connection referer sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode "
    b"sec-fetch-site te trailer transfer-encoding upgrade user-agent via x-elastic-client-meta".split(),
)

# Tracing headers, which differ in each request: W3C Trace Context and Baggage, B3, and those of vendors.
_TRACING = frozenset(
    b"b3 baggage elastic-apm-traceparent grpc-trace-bin newrelic sentry-trace traceparent tracestate uber-trace-id "
    b"x-amzn-trace-id x-cloud-trace-context x-correlation-id x-dynatrace x-instana-l x-instana-s x-instana-t "
    b"x-opaque-id x-ot-span-context x-request-id x-request-start".split(),
)
_IRRELEVANT_PREFIXES = (STEERING, b"x-b3-", b"x-datadog-", b"ot-tracer-")
_IGNORED = _IRRELEVANT | _TRACING

# A header whose name contains one of these may identify a caller or decide what the caller may see: credentials,
# cookies, run-as (es-security-runas-user), OpenSearch's tenants (securitytenant) and proxy authentication
# (x-proxy-user, x-proxy-roles, x-proxy-ext-*), headers that gateways add (x-forwarded-user, x-auth-request-email,
# x-amzn-oidc-data, x-ssl-client-s-dn, cf-access-jwt-assertion, x-consumer-username, x-ms-client-principal).
_ANYWHERE = (
    r"auth|cookie|tenant|token|secret|jwt|ssl-client|-dn$|credential|identity|principal|run-?as|impersonat|passw|"
    r"(?:api|app|access|client|private)-?key|remote-?user|saml|oidc|(?:^|-)sso|assertion|^x-proxy-|^es-|^security"
)
_WORDS = r"user|role|group|session|cert|key|account|customer|consumer|subject|login|mail|permission|scope|claim"
_OF_IDENTITY = re.compile(f"{_ANYWHERE}|{_WORDS}")
# An operator chooses the header that holds query text. In its name these match only as whole words, and not at all
# if the name ends with a word for text: X-Keywords and X-User-Query are allowed.
_NOT_TEXT = re.compile(
    rf"{_ANYWHERE}|(?<![a-z])(?:e-?)?(?:{_WORDS})(?:s|-?ids?|-?names?)?(?![a-z])(?!.*[-_](?:query|text|search|terms?)$)"
)

# Hop-by-hop fields (RFC 9110, section 7.6.1) and fields of the body (section 8.4): written anew for each search.
_OF_THE_MESSAGE = frozenset(
    b"connection content-encoding content-length expect host keep-alive proxy-connection te trailer "
    b"transfer-encoding upgrade".split(),
)

# Credentials of these schemes are valid for one request or one connection, so the proxy's own searches cannot use
# them: Kerberos and Digest tokens are rejected the second time, NTLM authenticates a connection, and signatures cover
# the method and path.
_OF_ONE_REQUEST = frozenset(b"aws4-ecdsa-p256-sha256 aws4-hmac-sha256 digest hawk negotiate ntlm".split())

_PLAIN = re.compile(rb"[\t -~]*")


def not_query_text(name: str) -> str:
    """Return the reason why a header may not hold query text, which is sent to the models; empty if it may."""
    if problem := _no_name(name):
        return problem
    if _NOT_TEXT.search(name.lower()):
        return "may identify a caller or their rights, and query text is sent to the models: use another header"
    return ""


def _no_name(name: str) -> str:
    if TOKEN.fullmatch(name.encode()) and "*" not in name:
        return ""
    return "is not a valid header name: list each header, without patterns"


def not_ignorable(name: str) -> str:
    """Return the reason why a header may not be excluded from the caller identity; empty if it may."""
    if problem := _no_name(name):
        return problem
    spelled = name.lower()
    if spelled.encode() in _IGNORED or not _OF_IDENTITY.search(spelled):
        return ""
    return "may identify a caller or their rights, so it cannot be ignored: remove it"


class CallerIdentities:
    """Computes caller identities, and warns about a header that makes nearly every request a new caller."""

    def __init__(self, ignore: Iterable[str] = (), warn: Callable[[str], object] = lambda _: None) -> None:
        """Exclude the headers `ignore` besides those always irrelevant; `warn` is called with a header name."""
        self._ignored = _IGNORED | {name.lower().encode() for name in ignore}
        self._newcomers = Newcomers()
        self._warn = warn

    def identity(self, fields: Sequence[Field]) -> bytes:
        """Return a digest of all headers that may identify the caller; the headers cannot be recovered from it."""
        telling = sorted(
            (low, value)
            for name, value in fields
            if (low := name.lower()) not in self._ignored and not low.startswith(_IRRELEVANT_PREFIXES)
        )
        digest = hashlib.sha256(
            b"".join(b"%d:%s%d:%s" % (len(name), name, len(value), value) for name, value in telling)
        )
        found = digest.digest()
        for name in self._newcomers.note(found, telling):
            self._warn(name)
        return found


SAMPLE = 256
"""Requests in one sample."""
_NEARLY_ALL = 0.9


class Newcomers:
    """Finds headers, such as a CDN's request id, that make returning callers look like new ones.

    Memory is bounded: digests of callers, and for one sample the hashes of the values of a limited number of headers.
    """

    def __init__(self) -> None:
        self._known: LRUCache[bytes, None] = LRUCache(KNOWN_CALLERS)
        self._warned: set[bytes] = set()
        self._restart()

    def _restart(self) -> None:
        self._seen = self._new = 0
        self._values: dict[bytes, set[int]] = {}

    def note(self, caller: bytes, telling: Sequence[Field]) -> Sequence[str]:
        """Count a request; after a sample, return the headers that made nearly all of it new callers, each once."""
        self._seen += 1
        if caller in self._known:
            self._known[caller] = None
        else:
            self._new += 1
            self._known[caller] = None
            self._note_values(telling)
        if self._seen < SAMPLE:
            return ()
        found = self._found() if self._new >= SAMPLE * _NEARLY_ALL else ()
        self._restart()
        return found

    def _note_values(self, telling: Sequence[Field]) -> None:
        for name, value in telling:
            if name in self._values or len(self._values) < SAMPLED_HEADERS:
                self._values.setdefault(name, set()).add(hash(value))

    def _found(self) -> Sequence[str]:
        """Return the headers with many values; none if an identity header is one of them: the callers are new."""
        many = [name for name, values in self._values.items() if len(values) >= self._new * _NEARLY_ALL]
        named = {name: name.decode("latin-1") for name in many}
        if any(_OF_IDENTITY.search(shown) for shown in named.values()):
            return ()
        fresh = [name for name in many if name not in self._warned][: NEW_CALLER_WARNINGS - len(self._warned)]
        self._warned.update(fresh)
        return [named[name] for name in fresh if not not_ignorable(named[name])]


def can_be_repeated(fields: Sequence[Field]) -> bool:
    """Whether the proxy's own searches can use the caller's credentials."""
    return not any(name.lower() == b"authorization" and scheme(value) in _OF_ONE_REQUEST for name, value in fields)


def scheme(credentials: bytes) -> bytes:
    """Return the authentication scheme, the first word of Authorization (RFC 9110, section 11.4)."""
    return credentials.strip().partition(b" ")[0].lower()


def carried(fields: Sequence[Field]) -> tuple[tuple[str, str], ...] | None:
    """Return the headers sent with a search on behalf of the caller; None if a value is not printable ASCII."""
    dropped = _OF_THE_MESSAGE | connection_options(field_value(fields, b"connection"))
    kept = [
        (name, value) for name, value in fields if name.lower() not in dropped and not name.lower().startswith(STEERING)
    ]
    if not all(TOKEN.fullmatch(name) and _PLAIN.fullmatch(value) for name, value in kept):
        return None
    return tuple((name.decode("ascii"), value.decode("ascii")) for name, value in kept)


def field_value(fields: Sequence[Field], name: bytes) -> bytes:
    """Return the value of a header, several joined by commas (RFC 9110, section 5.3); empty if it is absent."""
    return b", ".join(value for key, value in fields if key.lower() == name)
