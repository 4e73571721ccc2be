"""The settings: the file, profiles, routes, per-request options and TLS."""
