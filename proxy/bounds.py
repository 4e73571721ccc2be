"""All limits on input and memory: each constant with its row of the table in docs/limits.md.

Limits that an operator sets are configuration keys; they have rows without a constant. tests/test_cost.py measures the
CPU time of one input: at most five times that of decoding and encoding as many bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Of(StrEnum):
    """The source of the limited input, or the part that uses the memory."""

    CLIENT = "client"
    ENGINE = "engine"
    MODEL = "model server"
    PROXY = "proxy"
    FILE_OF_SCORES = "`models.canary_file`"
    FILE = "file of `index` or `backfill`"
    LOCAL = "client of `models`"
    EVALUATION = "`eval`"
    WARMING = "file of `warm`"
    REDIS = "Redis"


@dataclass(frozen=True, slots=True)
class Bound:
    """A row of the table."""

    of: Of
    what: str
    most: str
    beyond: str


_rows: list[Bound] = []


def _bound(of: Of, what: str, most: int, beyond: str) -> int:
    _rows.append(Bound(of, what, _shown(most, what), beyond))
    return most


def _setting(of: Of, what: str, key: str, beyond: str) -> None:
    _rows.append(Bound(of, what, f"`{key}`", beyond))


def _shown(most: int, what: str) -> str:
    for size, unit in ((2**20, "MB"), (2**10, "KB")):
        if "bytes" in what and most % size == 0:
            return f"{most // size} {unit}"
    return f"{most:,}"


_TOO_COMPLEX = "bypassed, `too_complex`"
_TOO_LARGE = "bypassed, `too_large`"
_MALFORMED = "degraded, `malformed`"

REQUEST_HEAD_BYTES = _bound(Of.CLIENT, "bytes of a request's head", 256 * 2**10, "rejected with 431")
HEAD_LINES = _bound(
    Of.CLIENT, "lines of the head of a request or response", 4096, "rejected with 431 (request) or 502 (response)"
)
REPEATED_HEADS = _bound(
    Of.CLIENT, "heads of requests, and of responses, that are not parsed again", 256, "parsed again"
)
REPEATED_LINE_BYTES = _bound(Of.CLIENT, "bytes of a header line that is not parsed again", 256, "parsed each time")
REPEATED_HEAD_BYTES = _bound(Of.CLIENT, "bytes of one of these heads", 2048, "parsed each time")
SEARCH_RAW_FACTOR = _bound(
    Of.CLIENT,
    "bytes of a chunked search body with its chunk sizes, extensions and trailers, as a multiple of the body",
    2,
    "bypassed, `too_large`",
)
CHUNK_LINE_BYTES = _bound(
    Of.CLIENT, "bytes of a line between chunks", 16 * 2**10, "rejected with 400, or the connection is reset"
)
CHUNK_BYTES = _bound(
    Of.CLIENT,
    "bytes of one chunk (Netty stores the size in 32 bits)",
    2**31 - 1,
    "rejected with 400, or the connection is reset",
)
CHUNK_LINES_A_TURN = _bound(
    Of.CLIENT, "lines between chunks that are read before other connections are served", 2000, "read later"
)
WAITING_BODY_BYTES = _bound(Of.CLIENT, "bytes of a body that are read before they are needed", 64 * 2**10, "read later")
PIPELINED_BYTES = _bound(
    Of.CLIENT, "bytes of requests behind one without a response that are read", 64 * 2**10, "read later"
)
ADMIN_CONNECTIONS = _bound(
    Of.CLIENT,
    "connections to the admin port; fewer if few files may be open",
    32,
    "the one that has waited longest is closed",
)
UNREAD_BODY_BYTES = _bound(
    Of.CLIENT,
    "bytes of an unneeded body that are read to keep a connection open",
    256 * 2**10,
    "the connection is closed",
)
REPEATED_BYTES = _bound(
    Of.CLIENT, "bytes of a GET that are kept, to send it again if its connection has closed", 64 * 2**10, "not kept"
)
WRITE_BUFFER_BYTES = _bound(
    Of.PROXY, "bytes that wait to be written to a connection", 256 * 2**10, "reading from the other side pauses"
)
PROXY_HOPS = _bound(Of.CLIENT, "proxies of this product that a request may pass", 3, "rejected with 508")
RESPONSE_HEAD_BYTES = _bound(Of.ENGINE, "bytes of a response's head", 256 * 2**10, "rejected with 502")
ITEMS_INFLATED_A_TURN = _bound(
    Of.ENGINE,
    "bytes of a compressed response to an `_msearch` that are read for 401 and 403 before other work continues",
    64 * 2**10,
    "read later",
)
ITEMS_INFLATION = _bound(
    Of.ENGINE,
    "times its compressed size (at least 4 KB) that such a response is decompressed to be read",
    200,
    "passed on without being read to its end",
)
INTERIM_RESPONSES = _bound(Of.ENGINE, "interim responses (1xx) to one request", 32, "rejected with 502")
SEARCH_RESPONSE_BYTES = _bound(
    Of.ENGINE, "bytes of a response to a search, compressed and decompressed", 64 * 2**20, _TOO_LARGE
)

HELD_RESPONSES_BYTES = _bound(
    Of.ENGINE,
    "bytes of such responses for all requests together, until their clients have read what is made of them",
    256 * 2**20,
    "bypassed, `too_large`, or degraded, `malformed`",
)

SEARCH_BODY_BYTES = _bound(Of.CLIENT, "bytes of a search body, compressed and decompressed", 8 * 2**20, _TOO_LARGE)
PARAMETERS_BYTES = _bound(Of.CLIENT, "bytes of the query string of a search's URL", 8 * 2**10, _TOO_COMPLEX)
INDEX_NAMES_BYTES = _bound(
    Of.CLIENT,
    "bytes of the index names of one search (the engines' default for a whole request line is 4 KB)",
    8 * 2**10,
    _TOO_COMPLEX,
)
BODY_CLAUSES = _bound(
    Of.CLIENT, "objects and arrays in a search body, counted before it is decoded", 20_000, _TOO_COMPLEX
)
BODY_DEPTH = _bound(
    Of.CLIENT, "nesting of objects and arrays in a search body (30 nested `bool` queries have 90)", 200, _TOO_COMPLEX
)
TEXT_CLAUSES = _bound(Of.CLIENT, "clauses with query text in one query", 300, "bypassed, `no_query_text`")
READ_SIZE = _bound(
    Of.CLIENT,
    "clauses with query text, their fields, and a sixteenth of their characters, counted again if combined",
    5000,
    "bypassed, `no_query_text`",
)
QUERY_STRING_LINE = _bound(
    Of.CLIENT,
    "characters of one `query_string` query that are parsed",
    2000,
    "reranked by the text before the limit; kNN is skipped",
)
QUERY_STRING_LINES = _bound(
    Of.CLIENT,
    "characters of all `query_string` queries in one search, plus 16 for each",
    3500,
    "bypassed, `no_query_text`",
)
WRAPPED_BYTES = _bound(Of.CLIENT, "bytes of a query that contains a `wrapper`", 16 * 2**10, "bypassed, `no_query_text`")
BYPASS_RULE_CHARACTERS = _bound(
    Of.CLIENT,
    "characters of query text that a route's `identifiers`, `phrases` and `patterns` are compared with",
    500,
    "longer text does not match",
)
AGGREGATIONS_READ_BYTES = _bound(
    Of.CLIENT,
    "bytes of aggregations that may read scores (such as `top_hits`), read to see if they do",
    8 * 2**10,
    "they keep the results of the client's own search, without what kNN added",
)
FILTER_PATH_PARTS = _bound(Of.CLIENT, "names and wildcards in `filter_path`", 200, _TOO_COMPLEX)
FILTER_PATH_PATTERNS = _bound(Of.CLIENT, "names with a wildcard, such as `_s*`, in `filter_path`", 8, _TOO_COMPLEX)
FILTER_PATH_COMPARISONS = _bound(
    Of.ENGINE, "names in a response, times the names with a wildcard in `filter_path`", 4000, _TOO_COMPLEX
)
FILTER_PATH_STATES = _bound(Of.CLIENT, "states of the `filter_path` automaton for one response", 256, _TOO_COMPLEX)
FILTER_PATH_DEPTH = _bound(Of.ENGINE, "levels of a response that `filter_path` descends into", 64, _TOO_COMPLEX)
INDENTED_DEPTH = _bound(
    Of.ENGINE, "levels of a response to a search with `pretty`, which indents each of them", 500, _TOO_COMPLEX
)
SOURCE_PATTERNS = _bound(Of.CLIENT, "names with a wildcard in the filters of `_source`", 100, _TOO_COMPLEX)
MSEARCH_ITEMS = _bound(Of.CLIENT, "items of one `_msearch`", 1000, "bypassed, `too_many`")
_setting(
    Of.CLIENT,
    "items of one `_msearch` that are reranked",
    "engine.multi_search_reranked",
    "the others are bypassed, `too_many`",
)
_setting(Of.CLIENT, "hits that a request may have reranked", "rank_window_size", "lowered to the route's")
BUDGET_MS_MAX = _bound(Of.CLIENT, "milliseconds of a request's budget", 60_000, "lowered")
BACKGROUND_CALL_S = _bound(
    Of.MODEL, "seconds of a call for a search with the option `background`", 660, "degraded, `timeout`"
)
BACKGROUND_BUDGET_S = _bound(
    Of.CLIENT, "seconds of the budget of such a search", 2 * BACKGROUND_CALL_S, "degraded, `timeout`"
)
BACKGROUND_CALLS = _bound(
    Of.PROXY, "concurrent calls of one model for such searches", 16, "wait, in addition to those of other searches"
)
_rows.append(
    Bound(
        Of.CLIENT,
        "per-request options that change the text sent to a model: `query`, `profile`, `instruction`",
        "`steering`",
        "rejected with 400",
    )
)
_setting(Of.CLIENT, "characters of the query text that models receive", "models.query_max_chars", "cut")
_setting(Of.ENGINE, "tokens of a document that the reranker receives, as estimated", "models.passage_max_tokens", "cut")
REDACTION_MARGIN = _bound(
    Of.PROXY,
    "characters beyond the cut of a text that are read to redact what the cut would divide",
    400,
    "longer matches may be cut before they are recognised",
)
MODEL_RESPONSE_BYTES = _bound(
    Of.MODEL, "bytes of a response, compressed and decompressed, in addition to those below", 64 * 2**10, _MALFORMED
)
MODEL_SCORE_BYTES = _bound(
    Of.MODEL, "bytes of a response for each score, plus twice the bytes of the request", 256, _MALFORMED
)
MODEL_NUMBER_BYTES = _bound(Of.MODEL, "bytes of a response for each number of a vector", 32, _MALFORMED)
_setting(Of.MODEL, "seconds for a query vector", "models.embed_timeout_seconds", "degraded, `timeout`")
_setting(Of.MODEL, "seconds for the scores", "models.rerank_timeout_seconds", "degraded, `timeout`")
ASYNC_SEARCHES_BYTES = _bound(
    Of.PROXY,
    "bytes of incomplete asynchronous searches",
    64 * 2**20,
    "the oldest keep the engine's order",
)
OUTCOME_LIST_BYTES = _bound(
    Of.PROXY, "characters of `X-Rerank` for an `_msearch`", 2000, "`more;items=N` replaces the last ones"
)
SHADOW_RUNS = _bound(
    Of.PROXY, "searches in `mode: shadow` that are reranked at a time, for the log alone", 8, "dropped; the log says so"
)
SHADOW_S = _bound(Of.PROXY, "seconds for each of them", 10, "given up; the log says so")
TRACE_SPANS = _bound(Of.PROXY, "spans of model calls in one request's trace", 256, "not recorded")
TRACE_QUEUE = _bound(Of.PROXY, "spans that wait for the collector of traces", 2048, "dropped, and counted")
LOG_ID = _bound(Of.CLIENT, "characters of an `X-Opaque-Id` in the log", 128, "cut")
LOG_VALUE = _bound(Of.PROXY, "characters of any other value in the log", 4000, "truncated; the length is added")
LOG_TRACEBACK = _bound(Of.PROXY, "characters of a traceback in the log", 32_000, "truncated; the length is added")
LOG_QUEUE_BYTES = _bound(
    Of.PROXY, "bytes of log lines that wait to be written", 2**20, "dropped; `log_lines_dropped` has their number"
)
LOG_FLUSH_S = _bound(Of.PROXY, "seconds that the process waits for the log at shutdown", 1, "the last lines are lost")

OUTCOME_KEY = _bound(Of.CLIENT, "characters of a client's key in `X-Rerank`", 64, "cut")
LOG_DETAIL = _bound(Of.PROXY, "characters of an error message in the log line of a search", 300, "cut")
SHOWN_VALUE = _bound(Of.CLIENT, "characters of a wrong option that are repeated in its error", 40, "cut")
INNER_HITS = _bound(Of.CLIENT, "`inner_hits` of a `collapse`", 4, "bypassed, `collapse`")
"""The engine runs one search more for each group of the window and each of these."""
RESCORED_HITS = _bound(Of.CLIENT, "`from` plus `size` of a search with its own `rescore`", 1000, "bypassed, `rescore`")
NAMES_IN_A_URL = _bound(
    Of.ENGINE,
    "characters of index names in one request for mappings",
    2000,
    "the patterns of the route are requested instead",
)
GIVEN_TEXT = _bound(
    Of.CLIENT,
    "characters of query text that a request sends where `query_from` points",
    2000,
    "the text is read from the query instead",
)
MARKS = _bound(
    Of.CLIENT,
    "combining marks in a row in a query text, unless in NFC (as in UAX #15, Stream-Safe Text Format)",
    30,
    "the rest is removed",
)
COMPARED_TEXTS = _bound(Of.CLIENT, "texts of one query that are compared for spelling variants", 100, "not compared")
COMPARED_CHARACTERS = _bound(Of.CLIENT, "characters of these texts", 20_000, "not compared")
FIELD_DEPTH = _bound(
    Of.CLIENT,
    "dots in a field's name (the engines' default limit)",
    20,
    "the rest is ignored",
)
BRACKET_DEPTH = _bound(
    Of.CLIENT, "nested brackets in a `query_string` query", 10, "reranked by the text; kNN is skipped"
)
PIT_INDICES = _bound(Of.ENGINE, "indices of a point in time", 1000, "further indices count as outside the route")
BACK_OFF_S_MAX = _bound(Of.ENGINE, "seconds until an unreachable node is tried again", 30, "tried again")
SPARE_CONNECTIONS = _bound(Of.PROXY, "connections to the engine that are opened in advance", 16, "not opened")
CHUNKED_CHARACTERS = _bound(
    Of.ENGINE, "characters of a document that are searched for its second passage", 20_000, "the rest is not searched"
)
CHUNKED_WORDS = _bound(Of.CLIENT, "words of the query text that it is searched for", 16, "the others are ignored")
SOURCE_BYTES_A_TURN = _bound(
    Of.ENGINE, "bytes of documents that are made into passages before other work continues", 64 * 2**10, "made later"
)
RERANK_BATCH_MAX = _bound(Of.MODEL, "passages in one call (DeepInfra's limit)", 1024, "several calls")
_setting(Of.PROXY, "passages in one of the parallel calls of a search", "models.rerank_batch_size", "several calls")
SCORES_OF_QUERY = _bound(Of.PROXY, "cached scores of one query", 2000, "the oldest are dropped")
REFUSED_CALLS = _bound(
    Of.PROXY, "calls that are not repeated for some seconds, as refused", 500, "the oldest are repeated"
)
TIMED_CALLS = _bound(Of.PROXY, "calls of a model that its latency is estimated from", 32, "the oldest are forgotten")
WATCHED_SEARCHES = _bound(
    Of.PROXY, "searches of a route that the warning `slow_models` is made of", 200, "the oldest are forgotten"
)
MODEL_DIMENSIONS = _bound(
    Of.MODEL, "dimensions of a vector, if those of the model are unknown", 8192, "degraded, `malformed`"
)
MODEL_CALLS_WAITING = _bound(Of.PROXY, "calls of one model that wait for a slot", 64, "degraded, `busy`")
_setting(Of.PROXY, "calls of one model at a time", "models.concurrent_calls", "wait for a slot")
MODELS_GUARDED = _bound(
    Of.ENGINE, "models whose failures are tracked (an index may name its own model)", 64, "the oldest are dropped"
)
SPEND_MODELS = _bound(Of.ENGINE, "models whose spend is counted apart", 64, "counted together as `other`")
SPEND_DAYS = _bound(Of.PROXY, "days whose spend is kept", 62, "the oldest are dropped")
SPEND_FILE_BYTES = _bound(Of.PROXY, "bytes of the state file of the spend meter", 16 * 2**20, "renamed; counted from 0")
CANARY_FILE_BYTES = _bound(Of.FILE_OF_SCORES, "bytes", 64 * 2**10, "not read; `canary_file_unusable` in the log")
RETRY_AFTER_S_MAX = _bound(Of.MODEL, "seconds of `Retry-After` that a retry waits, within its timeout", 60, "lowered")
MODEL_MESSAGE = _bound(Of.MODEL, "characters of a provider's error message in the log", 200, "cut")
INFLATED_BYTES_A_TURN = _bound(
    Of.MODEL,
    "bytes of a response that are decompressed before other work continues",
    64 * 2**10,
    "decompressed later",
)
ACCEPTED_CALLERS = _bound(
    Of.PROXY, "callers whose searches the engine has recently accepted", 4096, "the oldest are dropped"
)
ACCEPTED_INDICES = _bound(Of.PROXY, "sets of indices for each of these callers", 64, "the oldest are dropped")
CATALOG_CALLERS = _bound(
    Of.PROXY,
    "callers whose index names, mappings and rights are cached",
    2048,
    "the oldest are dropped and requested again",
)
CATALOG_QUESTIONS = _bound(
    Of.PROXY,
    "responses with index metadata cached for each of these callers",
    64,
    "the oldest are dropped and requested again",
)
CATALOG_BYTES = _bound(
    Of.PROXY,
    "bytes of these responses as received; equal ones are stored once",
    64 * 2**20,
    "the oldest are dropped and requested again",
)
CATALOG_IN_FLIGHT = _bound(Of.PROXY, "concurrent requests for index metadata", 32, "sent later")
CATALOG_WAITING = _bound(Of.PROXY, "requests for index metadata, sent or waiting", 1024, "bypassed, `unresolved`")
SHARED_VALUE_BYTES = _bound(Of.REDIS, "bytes of a cached value", 2**20, "not written, and not read")
SHARED_READ_BYTES = _bound(
    Of.REDIS, "bytes of the values that are read together", 4 * 2**20, "each is limited to its share"
)
SHARED_CONNECTIONS = _bound(Of.PROXY, "connections to Redis", 4, "wait for one, within `cache.redis_timeout_ms`")
KNOWN_CALLERS = _bound(
    Of.PROXY,
    "known callers, to find a header that makes every request a new caller",
    4096,
    "the oldest are dropped",
)
SAMPLED_HEADERS = _bound(Of.CLIENT, "headers whose values are compared for this purpose", 32, "not compared")
NEW_CALLER_WARNINGS = _bound(Of.PROXY, "warnings about such headers", 16, "not logged")
LOG_WRITE_BYTES = _bound(
    Of.PROXY, "bytes of log lines that are written at once, unless one line is longer", 64 * 2**10, "written next"
)
DOCUMENT_VALUES = _bound(Of.FILE, "values of one document", 2_000_000, "reported, and skipped")
DOCUMENT_BYTES = _bound(
    Of.FILE, "bytes of one document (the engines' limit for a request)", 100 * 2**20, "reported, and skipped"
)
DOCUMENT_DEPTH = _bound(Of.FILE, "nesting of objects and arrays in a document", 200, "reported, and skipped")
EMBEDDED_CHARACTERS = _bound(Of.FILE, "characters of a document that are embedded", 8000, "cut")
LOADED_BYTES = _bound(
    Of.FILE, "bytes of documents that are embedded together, unless one is larger", 4 * 2**20, "embedded next"
)
LOCAL_TOKENS = _bound(Of.LOCAL, "tokens of a text that the model reads", 256, "cut")
LOCAL_CACHE_BYTES = _bound(Of.LOCAL, "bytes of cached vectors", 512 * 2**20, "the oldest are dropped")
LOCAL_WAITING = _bound(Of.LOCAL, "requests that wait", 64, "rejected with 429 if they request that")
LOCAL_BODY_BYTES = _bound(Of.LOCAL, "bytes of a request", 64 * 2**20, "rejected with 413")
KEYWORD_CHARACTERS = _bound(
    Of.CLIENT, "characters of a text that a keyword field is compared with", 500, "no exact match is recognised"
)
KEYWORD_FIELDS = _bound(Of.CLIENT, "keyword fields that are compared with one text", 20, "not compared")
KEYWORD_COMPARISONS = _bound(Of.CLIENT, "comparisons with keyword fields in one query", 200, "not compared")
EVALUATED_RESPONSE_BYTES = _bound(Of.EVALUATION, "bytes of a response", 64 * 2**20, "the query counts as failed")
EVALUATED_AT_ONCE = _bound(Of.EVALUATION, "concurrent queries", 64, "rejected")
EVALUATED_HITS = _bound(Of.EVALUATION, "hits of one address (about 1 GB of ids for both)", 5_000_000, "rejected")
JUDGMENTS_BYTES = _bound(Of.EVALUATION, "bytes of a file of queries or judgments", 256 * 2**20, "rejected")
JUDGED_QUERIES = _bound(Of.EVALUATION, "queries", 100_000, "rejected")
TEMPLATE_DEPTH = _bound(Of.EVALUATION, "nesting of objects and arrays in the template", 200, "rejected")
WARMED_BYTES = _bound(Of.WARMING, "bytes of the file", 256 * 2**20, "rejected")
WARMED_LINE_BYTES = _bound(Of.WARMING, "bytes of a line, as of a search body", SEARCH_BODY_BYTES, "rejected")
WARMED_SEARCHES = _bound(Of.WARMING, "different searches", 200_000, "rejected")
_FORGOTTEN = "those that are used least are dropped"
_setting(Of.PROXY, "megabytes of cached rankings", "cache.rankings_mb", _FORGOTTEN)
_setting(Of.PROXY, "megabytes of cached scores", "cache.scores_mb", _FORGOTTEN)
_setting(Of.PROXY, "megabytes of cached query vectors", "cache.vectors_mb", _FORGOTTEN)
_setting(Of.PROXY, "milliseconds for a look-up in Redis", "cache.redis_timeout_ms", "answered from memory alone")
_setting(Of.PROXY, "concurrent searches added by the proxy", "engine.added_searches", "degraded, `busy`")

BOUNDS: Sequence[Bound] = tuple(_rows)
"""The table."""
