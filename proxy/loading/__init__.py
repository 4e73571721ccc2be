"""Filling an index: documents read, their passages embedded, both written, and vectors kept current later on.

mappings    the eleven files of es_mappings → what creates an index, on either engine
documents   a file or standard input → documents, and the lines that are none (arrays: the elements of a JSON array)
clients     the engine, Elasticsearch or OpenSearch, by the client its makers wrote
target      the index: created where it is missing, its vectors' model and length held against what is wanted
passages    texts → vectors, a batch at a time, again where a provider is busy
index       documents → the index
backfill    an index → the same with vectors, and with current ones while feeds go on writing
stopping    what is written before a signal ends a load
progress    how far, how fast, how long still
"""
