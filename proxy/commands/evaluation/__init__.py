"""The command `eval`: sends the searches of judged queries to two addresses, and compares the rankings.

command     the command, from its options to its exit code
addresses   the two addresses and their credentials, from the options of the command line
client      sends the search of each query to both addresses, some queries at a time
report      the report as text and as JSON (runs: the rankings as TREC run files)
comparison  measures, queries won and lost with the documents that moved, the verdict
measures    nDCG@10, MRR and recall by ir-measures, an optional dependency
bootstrap   the confidence interval of a mean difference, by resampling the queries
outcomes    the outcome that the proxy's header reports
collection  queries and judgments: TREC qrels, CSV, tab-separated values or NDJSON
template    the search body, with the query text filled in
errors      why a run cannot be evaluated
"""

INSTALL = "pip install -c constraints.txt '.[eval]' in a checkout of this project"
"""The package is on no index, so it is installed from a checkout."""
