"""How good an order is: the searches of judged queries sent to two addresses, and the difference measured.

command     `rerank-proxy eval`, from its options to its exit code
client      the two addresses: each query's search sent to both, some at a time
report      what a person reads, and the same as JSON (runs: the rankings as TREC run files)
comparison  what the rankings are worth: measures, wins and losses with what moved, the verdict
measures    nDCG@10, MRR and recall by ir-measures, which is an extra
bootstrap   how sure a mean difference is, by resampling the queries
outcomes    what the header of a proxy says of a search
collection  queries and judgments, from TREC qrels, CSV, tab-separated columns or NDJSON
template    the body of a search, with the query in it
errors      why a run cannot be evaluated
"""

INSTALL = "pip install '.[eval]' in this project's folder"
"""The package is on no index, so it is installed from a checkout."""
