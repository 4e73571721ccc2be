"""How each body key and URL parameter of a search is used: two tables.

A search with a key in neither table is bypassed. Sources: the search APIs of Elasticsearch 8 and 9 and of OpenSearch 2
and 3. Their keys share one table, because an engine itself rejects the keys that it does not know.
"""

from collections.abc import Mapping
from enum import Enum


class Use(Enum):
    """What a body key or URL parameter is needed for, besides the client's own search."""

    LEXICAL = "the client's own search only: totals, analysis"
    FACETS = "the client's own search, and every search that returns its aggregations"
    ORDER = "every search with the client's scores"
    PER_HIT = "every search whose hits are returned"
    SORTED = "every search in the client's own order, and every search whose hits are returned, for their sort values"
    EVERYWHERE = "every search for this request"
    CONSUMED = "set by the proxy"


BODY_KEYS: Mapping[str, Use | str] = {
    "query": Use.CONSUMED,
    "from": Use.CONSUMED,
    "size": Use.CONSUMED,
    "_source": Use.CONSUMED,
    "post_filter": Use.CONSUMED,
    "search_after": Use.CONSUMED,
    "sort": Use.SORTED,
    "aggs": Use.CONSUMED,
    "aggregations": Use.CONSUMED,
    "suggest": Use.LEXICAL,
    "profile": Use.LEXICAL,
    "track_total_hits": Use.LEXICAL,
    "track_scores": Use.LEXICAL,
    "indices_boost": Use.ORDER,
    "timeout": Use.FACETS,
    "stats": Use.LEXICAL,
    "min_score": Use.ORDER,
    "rescore": Use.ORDER,
    "retriever": Use.CONSUMED,
    "knn": Use.ORDER,
    "ext": Use.LEXICAL,
    "search_pipeline": Use.LEXICAL,
    "explain": Use.PER_HIT,
    "fields": Use.PER_HIT,
    "stored_fields": Use.PER_HIT,
    "docvalue_fields": Use.PER_HIT,
    "script_fields": Use.PER_HIT,
    "highlight": Use.PER_HIT,
    "version": Use.PER_HIT,
    "seq_no_primary_term": Use.PER_HIT,
    "include_named_queries_score": Use.PER_HIT,
    "collapse": Use.CONSUMED,
    "runtime_mappings": Use.EVERYWHERE,
    "derived": Use.EVERYWHERE,
    "pit": Use.EVERYWHERE,
    "rank": "rank",
    "sub_searches": "rank",
    "slice": "slice",
    "terminate_after": "terminate_after",
    "verbose_pipeline": "pipeline",
}
"""Body keys of a search: their use, or the reason why a search with them is bypassed."""

PARAMETERS: Mapping[str, Use | str] = {
    "from": Use.CONSUMED,
    "size": Use.CONSUMED,
    "_source": Use.CONSUMED,
    "_source_includes": Use.CONSUMED,
    "_source_excludes": Use.CONSUMED,
    "filter_path": Use.CONSUMED,
    "source": Use.CONSUMED,
    "source_content_type": Use.CONSUMED,
    "q": Use.LEXICAL,
    "df": Use.LEXICAL,
    "analyzer": Use.LEXICAL,
    "analyze_wildcard": Use.LEXICAL,
    "default_operator": Use.LEXICAL,
    "lenient": Use.LEXICAL,
    "sort": Use.SORTED,
    "track_total_hits": Use.LEXICAL,
    "track_scores": Use.LEXICAL,
    "rest_total_hits_as_int": Use.LEXICAL,
    "typed_keys": Use.FACETS,
    "stats": Use.LEXICAL,
    "suggest_field": Use.LEXICAL,
    "suggest_mode": Use.LEXICAL,
    "suggest_size": Use.LEXICAL,
    "suggest_text": Use.LEXICAL,
    "timeout": Use.FACETS,
    "batched_reduce_size": Use.LEXICAL,
    "phase_took": Use.LEXICAL,
    "search_pipeline": Use.LEXICAL,
    "search_type": Use.ORDER,
    "pre_filter_shard_size": Use.LEXICAL,
    "request_cache": Use.LEXICAL,
    "error_trace": Use.LEXICAL,
    "_source_exclude_vectors": Use.PER_HIT,
    "explain": Use.PER_HIT,
    "force_synthetic_source": Use.PER_HIT,
    "human": Use.PER_HIT,
    "pretty": Use.PER_HIT,
    "docvalue_fields": Use.PER_HIT,
    "stored_fields": Use.PER_HIT,
    "version": Use.PER_HIT,
    "seq_no_primary_term": Use.PER_HIT,
    "include_named_queries_score": Use.PER_HIT,
    "allow_no_indices": Use.EVERYWHERE,
    "allow_partial_search_results": Use.EVERYWHERE,
    "cancel_after_time_interval": Use.EVERYWHERE,
    "ccs_minimize_roundtrips": Use.EVERYWHERE,
    "expand_wildcards": Use.EVERYWHERE,
    "ignore_throttled": Use.EVERYWHERE,
    "ignore_unavailable": Use.EVERYWHERE,
    "max_concurrent_shard_requests": Use.EVERYWHERE,
    "preference": Use.EVERYWHERE,
    "routing": Use.EVERYWHERE,
    "format": Use.LEXICAL,
    "scroll": "scroll",
    "terminate_after": "terminate_after",
    "verbose_pipeline": "pipeline",
}
"""The same for URL parameters."""
