"""Computes the ranking of a search: retrieval, fusion, reranking and pagination."""
