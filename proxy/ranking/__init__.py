"""One ranking for a search: what is retrieved, fused, reranked and cut into pages."""
