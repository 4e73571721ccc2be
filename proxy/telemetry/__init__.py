"""The end of a request: headers, counters, the log."""
