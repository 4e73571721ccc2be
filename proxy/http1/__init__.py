"""HTTP/1.1 as bytes: a client's requests, one after the other, and what HTTP gives to each hop."""
