"""A proxy in front of Elasticsearch or OpenSearch that reranks searches and passes on everything else.

The path of a request, module by module:

http1             HTTP messages as bytes
    listener      a port: which connections are accepted, how long they may wait, how it closes
    inbound       a client's connection, with its requests one after the other (unread: bytes of the next ones)
    exchange      one request, its body and its response
    relay         passes a request on: the client's connection has one to the engine (outbound: a connection to a
                  node; pulse: whether the node responds; rejections: of single searches in the response to an
                  `_msearch`)
    messages      heads (headers: hop-by-hop fields; callers: caller identity; flow: when to read)
    framing       where a body ends
context           the record of a request: made on arrival, handed down, logged and counted once at the end
    tracing       its trace: continues the client's trace, with spans of the model calls
outcomes          how a search can end: reranked, degraded(stages) or bypassed(reason), with a table of the reasons
app               classifies requests by settings.routes: to an endpoint, or passed through
    process       `serve`: opens the ports, reloads the settings, drains (generation: all that one configuration needs;
                  gauges: metrics that are read from it)
    admin         the admin port: health, metrics, controls (control: state, kill switch; breakers: of the models)

endpoints         search, multi_search (multi_search_lines), async_search; nodes: the addresses for sniffing
    front         what the endpoints share: the caller, the body (media), the response for the result of a search
    answering     answers a search of any endpoint: its route, its plan, its result or bypass(reason)
    routing       finds the route: which indices the search reaches for its caller, and its per-request options
    planner       makes the plan, from the request, the mappings, load and spend (turns: at most one search is parsed
                  per turn of the event loop)
    shadowing     reranks a search after its response was sent, to log what would have changed
    passthrough   passes other requests and bypassed searches through, byte for byte

parsing           reads a search request
    decoding          URL and body, as strictly as an engine decodes them (search_keys: the names that are known)
    search_request    what they request, as far as it is understood (source_filter, filter_path; json_text: raw
                      members; search_edits: changes in a body that is passed on)
    aggregations      which aggregations count the documents that kNN added
    sort_values       the sort order, and the values of `search_after`
    query_text        the text that the user typed, and the query with that text made optional (relaxing)
    query_reader      reads the text of each clause (compound_queries, leaf_queries: the query DSL; query_string: its
                      text with operators, with query_syntax and wildcards; words: spellings of one text)
    combining         combines the texts of several clauses into one (readings: text and clauses; evidence: which text
                      is the user's, and which the value of a filter)
    boost_query       the query with its text made constant, which shows its other boosts (scripts: do they use scores)
catalog           what is known of the engine
    indices       what index names resolve to, and which route covers them (passage_fields: those that documents lack)
    dialects      the kNN syntax of each engine (pipelines: which leave hits unchanged; vectors: normalized)

ranking           makes one order of documents
    planning      what will be done for a search: model, vectors, limits (load: fewer candidates under load, and a
                  faster model above a rate of searches)
    pipeline      runs the stages; a stage that fails is skipped (stages: the services they use, and the budget)
    searches      the body of each search that the proxy adds
    retrieval     the client's own search and kNN, in parallel
    reading       the texts of documents, some while kNN is awaited (kept: exact matches keep their place)
    ordering      fusion, then reranking and rendering in parallel (explaining)
    boosts        boosts and pins of the query, applied to the reranked order
    passages      the text of a document that the reranker reads (markup: HTML removed; tokens: estimated,
                  and cut; chunks: the second one of a long document)
    rank_changes  how far two orders differ
    paging        cuts one ranking into pages (heads: rankings cached for some seconds; repeats: the same search again)
    search_response   the engine's response with its hits in another order
telemetry         log: headers, one counter a request, one line a search (log_writer: in a thread of its own;
                  slow_routes: warns of timeouts); metrics: for Prometheus; ecs: the names of the log fields in the
                  Elastic Common Schema; spans, traces: OpenTelemetry

upstream          clients of the services: engine (pool, nodes, addresses; spares: connections for the next clients;
                  discovery: resolved indices and mappings by caller; accepted, added: limits on what the proxy adds;
                  held: of the memory for responses), embedder, reranker (transport, sharing; charges: tokens and cost
                  in responses; latency: skips a model that is too slow)
    score_cache   calls the reranker for passages that are neither cached nor in a running call (windows: removes
                  duplicates, makes batches; live_queries: scores and running calls of the queries in use;
                  score_entries: the scores of a query as bytes)
    guard         around each model call: breaker, bulkhead (concurrent calls), retries
    spending      what calls cost: meter and ledger by route, model and day, caps, prices, state (the file), report
    canary        scores known pairs once per deployment, to check that a model still ranks them correctly
    threads       work that may block without end, in threads that do not keep the process alive
    state_files   how spend and the canary's scores are stored: files that are replaced as a whole
    providers     how the APIs of models differ (provider_errors: the messages in their errors)
store             the cache for later searches, bytes by key (contract: Store, Keys)
    memory        S3-FIFO in this process (redis_store: shared between proxies, sealing: encrypted; layered: both)
    opening       opens the caches that the settings name
errors            what can go wrong upstream
settings          config, the frozen tree (config_file: loads it; contradictions: checks that types cannot express;
                  yaml_file: errors with key and line; credentials: secrets from the environment), profiles, routes,
                  tls; effective: the settings in use, secrets masked; request_options: what a request may set;
                  bypass_rules: texts that are not reranked; redaction: texts that are not sent to models; rollout:
                  mode and share of a route; passage_template: what the models read
bounds            every limit on input, and what happens above it
commands          serving, checking, loading (index, backfill), mapping, profiles, evaluation, local_models, costs,
                  warming; imported when they run (console: how they print; advice: what to do next)
cli               the command line (arguments: parts of several commands; loading: mapping, index, backfill;
                  sending: eval, warm)

Data flows in one direction: each step takes a frozen value and returns the next. Which module may import which is
checked by import-linter, see pyproject.toml.
"""
