"""The error of the loading commands."""


class CannotLoad(Exception):
    """Loading cannot start or continue; the message says what is wrong and what to do."""
