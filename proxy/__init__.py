"""A proxy in front of Elasticsearch or OpenSearch that reranks searches and passes on everything else.

The path of a request, module by module:

http1             HTTP as bytes
    listener      a port: which connections are accepted, how long they may wait, how it closes
    inbound       a client's connection: its requests one after the other
    exchange      one of these requests, its body and its response
    relay         an exchange passed on, client and engine bound to each other (outbound: a connection to a node;
                  rejections: of single searches inside the response to an `_msearch`)
    messages      heads and framing (headers: hop-by-hop fields; callers: caller identity; flow: when to read)
context           the record of a request: made where it enters, handed down, concluded once at its end
    tracing       its trace: what carries on its client's, and the spans of the calls of models
outcomes          how a search can end: reranked, degraded(stages) or bypassed(reason), one table of reasons
app               which way a request goes: classified by settings.routes → an endpoint, or passed through
    process       `serve`: opens the ports, reloads the settings, drains (generation: what one configuration made)
    admin         the admin port: health, metrics, controls (control: state, kill switch; breakers: of the models)

endpoints         search, multi_search (multi_search_lines), async_search; nodes: the addresses that clients sniff
    front         what they share: the caller, the body (media), the response to a search's result
    answering     answers a search of any endpoint: its route, its plan, its result or bypass(reason); in one turn of
                  the loop it parses one search (turns)
    shadowing     reranks a search behind its response, to log what would have changed
    passthrough   what is not ours, or bypassed: passed on byte for byte

parsing           what a search says
    search_request    the body, as far as it is understood (search_keys: one table; source_filter, filter_path)
    aggregations      which of them count what kNN added
    sort_values       the sort order, and the values that a client continues after
    query_text        the text that the user typed, and the query with that text made optional
    clauses, query_string     the tables it reads by (wildcards, words: spellings of one text; json_text: raw members)
    evidence          how the texts of several clauses make up one
    boost_query       the query with that text made a constant: what it says beyond the words
catalog           what is known of the engine
    indices       what index names resolve to, and which route covers them
    dialects      how an engine spells kNN (pipelines: which leave hits alone; vectors: of unit length)

ranking           one order of documents
    planning      what will be done for a search: model, vectors, limits (pressure: fewer candidates under load;
                  tiers: a faster model above a rate of searches)
    pipeline      runs the stages; a stage that fails is skipped (stages: the services they use, and the budget)
    searches      the body of each search that the proxy adds
    retrieval     the client's own search ∥ kNN
    ordering      fusion, then reranking ∥ rendering (explaining; kept: exact matches keep their place)
    boosts        what the query says beyond its words: the engine's boosts and pins in the reranked order
    passages      the text of a document that the reranker reads (markup: HTML removed; tokens: estimated,
                  and cut; chunks: the second one of a long document)
    rank_changes  how far two orders differ
    paging        one ranking cut into pages (heads: cached for some seconds; repeats: the same search made again)
    search_response   the engine's response, its hits in another order
telemetry         log: headers, one counter a request, a line a search (log_writer: from a thread of its own;
                  slow_routes: warns of timeouts); metrics: what Prometheus reads; ecs: the log's fields by their
                  names in the Elastic Common Schema; spans, traces: OpenTelemetry

upstream          clients of the services: engine (pool, nodes, addresses; spares: connections for the next clients;
                  discovery: what each caller was told of indices; accepted, added: limits on what the proxy adds),
                  embedder, reranker (transport, sharing; charges: tokens and cost in responses; latency: a model that
                  is too slow is not asked)
    score_cache   the reranker for passages that are neither cached nor in a call (windows: equal ones once, batches;
                  score_entries: a query's scores as bytes)
    guard         around each call of a model: breaker, bulkhead (concurrent calls), retries
    spending      what calls cost: meter and ledger by route, model and day, caps, prices, state (the file), report
    canary        known pairs, scored once per deployment: does a model still rank?
    state_files   how spend and the canary's scores are kept: files that are replaced as a whole
    providers     how the APIs of models differ (provider_errors: the messages in their errors)
store             what is kept for later searches, as bytes by key (contract: Store, Keys)
    memory        S3-FIFO in this process (redis_store: shared between proxies, sealing: encrypted; layered: both)
    opening       the caches that the settings name
errors            what can go wrong upstream
settings          config, the frozen tree (config_file: loads it; contradictions: what no type excludes; yaml_file:
                  errors with key and line; credentials: secrets from the environment), profiles, routes, tls;
                  effective: what is in force, secrets masked; request_options: what a request may set; bypass_rules:
                  what a route bypasses by its text; redaction: what it sends to no model; rollout: by its mode and
                  share; passage_template: what the models read
bounds            every limit on input, and what happens beyond
commands          serving, checking, loading (index, backfill), mapping, profiles, evaluation, local_models, costs,
                  warming; imported when they run (console: how they print; advice: what to do next)
cli               the command line

Nothing flows back: each step takes a frozen value and returns the next. What may import what is checked by
import-linter, see pyproject.toml.
"""
