"""Parses a search: its body, its URL, and the text that the user typed."""
