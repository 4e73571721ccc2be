"""HTTP/1.1 at the level of bytes: client connections, engine connections, and the relay between them."""
