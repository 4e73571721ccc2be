"""What is bounded, by how much, and what happens beyond: each constant with its row of the table in docs/limits.md.

Bounds that an operator chooses are settings, and have rows without a constant. What one input may cost is measured by
tests/test_cost.py: at most five times decoding and encoding as many bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Of(StrEnum):
    """Where it comes from."""

    CLIENT = "client"
    ENGINE = "engine"
    MODEL = "model server"
    PROXY = "proxy"
    FILE = "file of `index` or `backfill`"
    LOCAL = "client of `models`"
    EVALUATION = "`eval`"


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

REQUEST_HEAD_BYTES = _bound(Of.CLIENT, "bytes of a request's head", 256 * 2**10, "refused with 431")
HEAD_LINES = _bound(
    Of.CLIENT, "lines of a request's head, and of a response's", 4096, "refused with 431, or answered with 502"
)
SEARCH_RAW_FACTOR = _bound(
    Of.CLIENT,
    "bytes of a chunked search body with its chunk sizes, extensions and trailers, as a multiple of the body",
    2,
    "bypassed, `too_large`",
)
CHUNK_LINE_BYTES = _bound(Of.CLIENT, "bytes of a line between chunks", 16 * 2**10, "refused with 400, or broken off")
CHUNK_BYTES = _bound(
    Of.CLIENT, "bytes of one chunk: Netty keeps its size in 32 bits", 2**31 - 1, "refused with 400, or broken off"
)
CHUNK_LINES_A_TURN = _bound(
    Of.CLIENT, "lines between chunks that are read before other connections have their turn", 2000, "read later"
)
WAITING_BODY_BYTES = _bound(
    Of.CLIENT, "bytes of a body that are read before anybody needs it", 64 * 2**10, "read later"
)
UNREAD_BODY_BYTES = _bound(
    Of.CLIENT, "bytes of an unneeded body that are read to keep a connection", 256 * 2**10, "the connection ends"
)
REPEATED_BYTES = _bound(
    Of.CLIENT, "bytes of a GET that are kept to be sent once more if its connection has ended", 64 * 2**10, "not kept"
)
WRITE_BUFFER_BYTES = _bound(
    Of.PROXY, "bytes that wait to be written to a connection", 256 * 2**10, "the other side is not read meanwhile"
)
PROXY_HOPS = _bound(Of.CLIENT, "proxies of this product that a request may pass", 3, "answered with 508")
RESPONSE_HEAD_BYTES = _bound(Of.ENGINE, "bytes of a response's head", 256 * 2**10, "answered with 502")
INTERIM_RESPONSES = _bound(Of.ENGINE, "interim responses (1xx) to one request", 32, "answered with 502")
SEARCH_RESPONSE_BYTES = _bound(
    Of.ENGINE, "bytes of a response to a search, compressed and decompressed", 64 * 2**20, _TOO_LARGE
)

SEARCH_BODY_BYTES = _bound(Of.CLIENT, "bytes of a search body, compressed and decompressed", 8 * 2**20, _TOO_LARGE)
PARAMETERS_BYTES = _bound(Of.CLIENT, "bytes of a search's URL behind the question mark", 8 * 2**10, _TOO_COMPLEX)
BODY_CLAUSES = _bound(
    Of.CLIENT, "objects and arrays in a search body, counted before it is decoded", 20_000, _TOO_COMPLEX
)
_rows.append(Bound(Of.CLIENT, "nesting of a search body", "as deep as Python's stack", _TOO_COMPLEX))
TEXT_CLAUSES = _bound(Of.CLIENT, "clauses with query text in one query", 300, "bypassed, `no_query_text`")
READ_SIZE = _bound(
    Of.CLIENT,
    "clauses with query text, their fields, and 16 characters at a time, once and wherever they are put together",
    5000,
    "bypassed, `no_query_text`",
)
QUERY_STRING_LINE = _bound(
    Of.CLIENT,
    "characters of one `query_string` line that are read",
    2000,
    "reranked by the text of the first ones; kNN is skipped",
)
QUERY_STRING_LINES = _bound(
    Of.CLIENT, "characters of all `query_string` lines in one query, and 16 for each", 3500, "bypassed, `no_query_text`"
)
WRAPPED_BYTES = _bound(Of.CLIENT, "bytes of a query with a `wrapper` in it", 16 * 2**10, "bypassed, `no_query_text`")
BYPASS_RULE_CHARACTERS = _bound(
    Of.CLIENT,
    "characters of query text that a route's `identifiers`, `phrases` and `patterns` are compared with",
    500,
    "longer text matches none",
)
FILTER_PATH_PARTS = _bound(Of.CLIENT, "names and wildcards in `filter_path`", 200, _TOO_COMPLEX)
FILTER_PATH_PATTERNS = _bound(Of.CLIENT, "names with a wildcard in them, like `_s*`, in `filter_path`", 8, _TOO_COMPLEX)
FILTER_PATH_COMPARISONS = _bound(
    Of.ENGINE, "names in a response, times the names with a wildcard in `filter_path`", 4000, _TOO_COMPLEX
)
FILTER_PATH_STATES = _bound(
    Of.CLIENT, "sets of positions in `filter_path` that one response leads to", 256, _TOO_COMPLEX
)
FILTER_PATH_DEPTH = _bound(Of.ENGINE, "levels of a response that `filter_path` leads into", 64, _TOO_COMPLEX)
SOURCE_PATTERNS = _bound(Of.CLIENT, "names with a wildcard in the filters of `_source`", 100, _TOO_COMPLEX)
MSEARCH_ITEMS = _bound(Of.CLIENT, "items of one `_msearch`", 1000, "bypassed, `too_many`")
_setting(
    Of.CLIENT,
    "items of one `_msearch` that are reranked",
    "engine.multi_search_reranked",
    "bypassed, `too_many`, each of the others",
)
_setting(Of.CLIENT, "hits reranked, where a request asks for more", "rank_window_size", "lowered to the route's")
BUDGET_MS_MAX = _bound(Of.CLIENT, "milliseconds of a request's budget", 60_000, "lowered")
_rows.append(
    Bound(
        Of.CLIENT,
        "options that put other text before a model: `query`, `profile`, `instruction`",
        "`steering`",
        "refused with 400",
    )
)
_setting(Of.CLIENT, "characters of the query that models see", "models.query_max_chars", "cut")
_setting(Of.ENGINE, "characters of a document that the reranker sees", "models.passage_max_chars", "cut")
MODEL_RESPONSE_BYTES = _bound(
    Of.MODEL, "bytes of a response, compressed and decompressed, besides those below", 64 * 2**10, _MALFORMED
)
MODEL_SCORE_BYTES = _bound(
    Of.MODEL, "bytes of a response for each score, and twice those of the request", 256, _MALFORMED
)
MODEL_NUMBER_BYTES = _bound(Of.MODEL, "bytes of a response for each number of a vector", 32, _MALFORMED)
_setting(Of.MODEL, "seconds for a vector", "models.embed_timeout_seconds", "degraded, `timeout`")
_setting(Of.MODEL, "seconds for the scores", "models.rerank_timeout_seconds", "degraded, `timeout`")
_setting(Of.PROXY, "megabytes of remembered query vectors", "models.vector_cache_mb", "the oldest are forgotten")
ASYNC_SEARCHES_BYTES = _bound(
    Of.PROXY,
    "bytes of incomplete asynchronous searches",
    64 * 2**20,
    "the oldest stay in the engine's order",
)
OUTCOME_LIST_BYTES = _bound(
    Of.PROXY, "characters of `X-Rerank` for an `_msearch`", 2000, "`more;items=N` stands for the last ones"
)
SHADOW_RUNS = _bound(
    Of.PROXY, "searches in `mode: shadow` that are reranked at a time, for the log alone", 8, "dropped; the log says so"
)
SHADOW_S = _bound(Of.PROXY, "seconds for each of them", 10, "given up; the log says so")
LOG_ID = _bound(Of.CLIENT, "characters of an `X-Opaque-Id` in the log", 128, "cut")
LOG_VALUE = _bound(Of.PROXY, "characters of any other value in the log", 4000, "cut, with its length")
LOG_TRACEBACK = _bound(Of.PROXY, "characters of a traceback in the log", 32_000, "cut, with its length")
LOG_QUEUE_BYTES = _bound(
    Of.PROXY, "bytes of log lines that wait to be written", 2**20, "dropped; `log_lines_dropped` says how many"
)
LOG_FLUSH_S = _bound(Of.PROXY, "seconds that the end of the process waits for the log", 1, "the last lines are lost")

OUTCOME_KEY = _bound(Of.CLIENT, "characters of a client's key in `X-Rerank`", 64, "cut")
LOG_DETAIL = _bound(Of.PROXY, "characters of what an error says, in the log line of a search", 300, "cut")
SHOWN_VALUE = _bound(Of.CLIENT, "characters of a wrong option that its error repeats", 40, "cut")
RESCORED_HITS = _bound(
    Of.CLIENT, "hits of a search with a `rescore` of its own, up to the end of the page", 1000, "bypassed, `rescore`"
)
NAMES_IN_A_URL = _bound(
    Of.ENGINE,
    "characters of index names in one question about mappings",
    2000,
    "asked by the patterns of the route instead",
)
GIVEN_TEXT = _bound(
    Of.CLIENT,
    "characters of query text that a request gives at the place that `query_from` names",
    2000,
    "read from the query instead",
)
COMPARED_TEXTS = _bound(Of.CLIENT, "texts of one query that are compared for spelling variants", 100, "not compared")
COMPARED_CHARACTERS = _bound(Of.CLIENT, "characters of these texts", 20_000, "not compared")
FIELD_DEPTH = _bound(
    Of.CLIENT,
    "dots that are read in a field's name, as many as engines allow by default",
    20,
    "the rest is not read",
)
BRACKET_DEPTH = _bound(
    Of.CLIENT, "brackets within each other in a `query_string` line", 10, "reranked by the text; kNN is skipped"
)
PIT_INDICES = _bound(Of.ENGINE, "indices of a point in time", 1000, "an index beyond them counts as outside the route")
BACK_OFF_S_MAX = _bound(Of.ENGINE, "seconds until a node that cannot be reached is tried again", 30, "tried again")
RERANK_BATCH_MAX = _bound(Of.MODEL, "passages in one call, as DeepInfra takes them", 1024, "several calls")
_setting(Of.PROXY, "passages in one of the parallel calls of a search", "models.rerank_batch_size", "several calls")
TIMED_MODELS = _bound(Of.PROXY, "models whose latency is remembered", 64, "the oldest are forgotten")
TIMED_CALLS = _bound(Of.PROXY, "calls that are remembered of each of them", 32, "the oldest are forgotten")
WATCHED_SEARCHES = _bound(
    Of.PROXY, "searches of a route that the warning `slow_models` is made of", 200, "the oldest are forgotten"
)
MODEL_DIMENSIONS = _bound(
    Of.MODEL, "numbers of a vector, where the model's own number is not known", 8192, "degraded, `malformed`"
)
MODEL_CALLS_WAITING = _bound(Of.PROXY, "calls of one model that wait for their turn", 64, "degraded, `busy`")
_setting(Of.PROXY, "calls of one model at a time", "models.concurrent_calls", "wait for their turn")
MODELS_GUARDED = _bound(
    Of.ENGINE, "models whose failures are remembered: an index names its own", 64, "the oldest are forgotten"
)
RETRY_AFTER_S_MAX = _bound(
    Of.MODEL, "seconds of `Retry-After` that a retry waits, within its time limit", 60, "lowered"
)
MODEL_MESSAGE = _bound(Of.MODEL, "characters of a provider's error message in the log", 200, "cut")
INFLATED_BYTES_A_TURN = _bound(
    Of.MODEL,
    "bytes of a response that are decompressed before other work has its turn",
    64 * 2**10,
    "decompressed later",
)
ACCEPTED_CALLERS = _bound(
    Of.PROXY, "callers of whom it is remembered that the engine accepted a search", 4096, "the oldest are forgotten"
)
ACCEPTED_INDICES = _bound(
    Of.PROXY, "sets of indices that are remembered for each of these callers", 64, "the oldest are forgotten"
)
CATALOG_CALLERS = _bound(
    Of.PROXY,
    "callers for whom names, mappings and rights are remembered",
    2048,
    "the oldest are forgotten, and asked for again",
)
CATALOG_QUESTIONS = _bound(
    Of.PROXY,
    "responses about indices that are remembered for each of these callers",
    64,
    "the oldest are forgotten, and asked for again",
)
CATALOG_BYTES = _bound(
    Of.PROXY,
    "bytes of these responses, as the engine sent them, each distinct one once",
    64 * 2**20,
    "the oldest are forgotten, and asked for again",
)
CATALOG_IN_FLIGHT = _bound(Of.PROXY, "questions about indices that the engine is asked at a time", 32, "asked later")
CATALOG_WAITING = _bound(Of.PROXY, "questions about indices in flight and waiting", 1024, "bypassed, `unresolved`")
HEADS_BYTES = _bound(Of.PROXY, "bytes of remembered rankings, as estimated", 64 * 2**20, "the oldest are forgotten")
KNOWN_CALLERS = _bound(
    Of.PROXY,
    "callers that are known, to notice a header that makes every request a new one",
    4096,
    "the oldest are forgotten",
)
SAMPLED_HEADERS = _bound(Of.CLIENT, "headers whose values are compared for that", 32, "not compared")
NEW_CALLER_WARNINGS = _bound(Of.PROXY, "warnings of such headers", 16, "not logged")
LOG_WRITE_BYTES = _bound(
    Of.PROXY, "bytes of log lines that are written together, unless one line has more", 64 * 2**10, "written next"
)
DOCUMENT_VALUES = _bound(Of.FILE, "values of one document", 2_000_000, "reported, and skipped")
DOCUMENT_BYTES = _bound(Of.FILE, "bytes of one document, as many as engines take", 100 * 2**20, "reported, and skipped")
DOCUMENT_DEPTH = _bound(Of.FILE, "objects and arrays within each other in a document", 200, "reported, and skipped")
EMBEDDED_CHARACTERS = _bound(Of.FILE, "characters of a document that its vector is made of", 8000, "cut")
LOADED_BYTES = _bound(
    Of.FILE, "bytes of documents that are embedded together, unless one alone has more", 4 * 2**20, "embedded next"
)
LOCAL_TOKENS = _bound(Of.LOCAL, "tokens of a text that are read", 256, "cut")
LOCAL_CACHE_BYTES = _bound(Of.LOCAL, "bytes of remembered vectors", 512 * 2**20, "the oldest are forgotten")
LOCAL_WAITING = _bound(Of.LOCAL, "requests that wait", 64, "answered with 429 if they ask for that")
LOCAL_BODY_BYTES = _bound(Of.LOCAL, "bytes of a request", 64 * 2**20, "answered with 413")
KEYWORD_CHARACTERS = _bound(
    Of.CLIENT, "characters of a text that a keyword field is compared with", 500, "no exact match is looked for"
)
KEYWORD_FIELDS = _bound(Of.CLIENT, "keyword fields that are compared with one text", 20, "not compared")
KEYWORD_COMPARISONS = _bound(Of.CLIENT, "comparisons with keyword fields in one query", 200, "not compared")
EVALUATED_RESPONSE_BYTES = _bound(Of.EVALUATION, "bytes of a response", 64 * 2**20, "that query has failed")
EVALUATED_AT_ONCE = _bound(Of.EVALUATION, "queries at a time", 64, "refused")
EVALUATED_HITS = _bound(Of.EVALUATION, "hits of one address (about 1 GB of ids for both)", 5_000_000, "refused")
JUDGMENTS_BYTES = _bound(Of.EVALUATION, "bytes of a file of queries or judgments", 256 * 2**20, "refused")
JUDGED_QUERIES = _bound(Of.EVALUATION, "queries", 100_000, "refused")
TEMPLATE_DEPTH = _bound(Of.EVALUATION, "objects and arrays within each other in the template", 200, "refused")
_setting(Of.PROXY, "remembered rankings", "pages.cache_entries", "the oldest are forgotten")
_setting(Of.PROXY, "searches that are added at a time", "engine.added_searches", "degraded, `busy`")

BOUNDS: Sequence[Bound] = tuple(_rows)
"""The table."""
