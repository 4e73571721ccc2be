"""The user's words in a query of the engine's language, and the query without the demand for them."""
