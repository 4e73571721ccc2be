"""A proxy in front of Elasticsearch or OpenSearch that reranks searches and hands on everything else.

The way of a request, module by module:

listener          a client's connection: requests one after the other, each an Exchange (http1, wire: the bytes)
app               which way it goes: routes.classify → a search, or not ours
passthrough       not ours, or bypassed: handed on byte for byte (headers: what HTTP gives to each hop)

callers, indices  who asks; what the index names stand for, and which route covers all of it
media             whether body and answer are JSON
search_request    the body read as far as it is understood, or Bypass(reason)
query_text        the user's words in the client's query, and that query without the demand for them
planning          what is asked of whom: a body for each search (dialects: how an engine spells kNN)
pipeline          awaits the stages: retrieve ∥, fuse, rerank ∥ render; a stage that fails is left out
    fusion            rankings merged by rank
    reranking         the text of a document that models see
    paging            one ranking cut into pages (heads: remembered for some seconds)
    search_response   the engine's answer opened and closed again, its hits in another order
telemetry         how it ended: header, stage times, one line in the log

upstream          the doers, who decide nothing: origin (raw connections), engine, embedder, reranker
config            the frozen settings (yaml_file: complaints with key and line; profiles: the uses and tiers; tls)
cli               the command line; checking, loading (index, backfill), local_models are its commands

Nothing flows back: each step takes a frozen value and gives the next. What may import what is checked by
import-linter, see pyproject.toml.
"""
