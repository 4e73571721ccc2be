"""The commands `index` and `backfill`: load documents with vectors, and keep the vectors of an index current.

commands    both commands, from their options to their reports
mappings    settings and mappings of a new index, from es_mappings, for either engine
documents   read documents from a file or standard input (arrays: split a JSON array into its elements)
clients     the official client of Elasticsearch or OpenSearch
target      create the index if it is missing, and check that its vectors fit
passages    embed texts in batches, with retries while the provider is busy (patience)
index       write documents and their vectors
backfill    add vectors to documents that are already in the index
dry_run     the same without writes and model calls, to count what a run would cost
stopping    what happens at SIGTERM and Ctrl-C
progress    progress bar, rate and remaining time
"""
