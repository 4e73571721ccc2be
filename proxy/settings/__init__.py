"""The frozen settings: the file, its profiles and routes, what a request may set, and TLS."""
