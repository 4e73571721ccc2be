"""A proxy in front of Elasticsearch or OpenSearch that reranks searches and hands on everything else.

The way of a request, module by module:

listener          a client's connection: requests one after the other, each an Exchange (http1, wire: the bytes; tls)
app               which way it goes: routes.classify → a search by its endpoint, or not ours
passthrough       not ours, or bypassed: handed on byte for byte (headers: what HTTP gives to each hop)

endpoints         single, multi (multi_search: its lines), asynchronous; nodes: the addresses that clients are told
    front             what they share: who asks (callers), is it JSON (media), its answer; journey: its line in the log
searching         one search, whichever endpoint it came by, from names and bytes to a plan, or bypass(reason)
    indices           what the index names stand for, and which route covers all of it
    steering          what the request says of its own reranking (json_text: cut out of the body)
    search_request    the body as far as it is understood (search_keys: one table; source_filter, filter_path)
    query_text        the user's words, and the query without the demand for them (query_clauses, query_string: tables)
    left_out          what a route leaves to the engine by what was typed (pipelines: by what OpenSearch runs)
    planning          by which model, vectors and limits (dialects: how an engine spells kNN)
pipeline          awaits the stages, of which one that fails is left out (stages: who does them, and their time)
    searches          the body of each search that is made for the client's
    retrieval         the client's own search ∥ kNN
    ordering          hits of both by fusion, then reranking ∥ rendering (explaining: how each came to its place)
    paging            one ranking cut into pages (heads: remembered for some seconds)
    search_response   the engine's answer opened and closed again, its hits in another order
telemetry         how it ended: header, stage times, one line in the log

upstream          the doers, who decide nothing: origin (raw connections), engine, embedder (vectors), reranker; errors
config            the frozen settings (yaml_file: complaints with key and line; profiles: the uses and tiers)
cli               the command line; checking, loading (index, backfill), mappings, local_models are its commands

Nothing flows back: each step takes a frozen value and gives the next. What may import what is checked by
import-linter, see pyproject.toml.
"""
