"""What a search says, in its URL and in its body, and what of it the proxy understands."""
