"""Why something cannot be loaded."""


class CannotLoad(Exception):
    """Loading cannot begin or go on; the message says what, why, and what to do."""
