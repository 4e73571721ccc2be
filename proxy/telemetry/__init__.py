"""The end of a request: response headers, metrics and log lines."""
