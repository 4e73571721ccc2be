"""A proxy in front of Elasticsearch or OpenSearch that reranks searches and hands on everything else.

The way of a request, module by module:

http1             HTTP as bytes
    listener      a port: who is taken, who has waited too long, how it closes
    inbound       a client's connection: requests one after the other
    exchange      one of these requests, its body and its response
    relay         an exchange handed on, client and engine bound to each other (outbound: a connection to a node)
    messages      heads and framing (headers: what HTTP gives to each hop; callers: who asks; flow: when to read)
app               which way it goes: routes.classify → a search by its endpoint, or not ours
passthrough       not ours, or bypassed: handed on byte for byte

endpoints         single, multi (multi_search: its lines), asynchronous; nodes: the addresses that clients are told
    front         what they share: the caller, the body (media), the response to a search's result
context           the record of a request: made where it enters, handed down, concluded once at its end
searching         one search, whichever endpoint it came by: its route, its plan, its result or bypass(reason)
    indices       what the index names stand for (wildcards), and which route covers all of it
    left_out      what a route leaves to the engine by what was typed (pipelines: by what OpenSearch runs)
    planning      by which model, vectors and limits (dialects: how an engine spells kNN)

request           what a search says
    search_request    the body as far as it is understood (search_keys: one table; source_filter, filter_path)
    sort_values       the order it asks for, and the values behind which a client goes on
    steering      what it says of its own reranking (json_text: cut out of the body)
query             which text the user typed
    text          that text, and the query without the demand for it (clauses, query_string: tables)
    reading       how the texts of several clauses make up one (words: what is one text in another spelling)

ranking           one order of documents
    pipeline      awaits the stages, of which one that fails is left out (stages: who does them, and their time)
    searches      the body of each search that is made for the client's
    retrieval     the client's own search ∥ kNN
    ordering      hits of both by fusion, then reranking ∥ rendering (explaining: how each came to its place;
                  kept: exact matches, which fall no lower than their place in the client's own order)
    paging        one ranking cut into pages (heads: remembered for some seconds)
    search_response   the engine's answer opened and closed again, its hits in another order
telemetry         its end: headers, one counter, a line in the log (log_writer: from a thread of its own)
    outcomes      reranked, degraded(stages) or bypassed(reason): one table of reasons

upstream          the doers, who decide nothing: nodes (addresses), engine (pool; catalog: what each caller was told of
                  indices; accepted: whose searches may cost money; added: how many the proxy may add); embedder,
                  reranker (transport, sharing); errors, advice
config            the frozen settings (yaml_file: complaints with key and line; profiles: the uses and tiers; tls)
bounds            what no input takes more of, and what happens beyond
cli               the command line; checking, loading (index, backfill, mappings), evaluation, local_models are its
                  commands

Nothing flows back: each step takes a frozen value and gives the next. What may import what is checked by
import-linter, see pyproject.toml.
"""
