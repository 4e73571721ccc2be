"""Why a run cannot be evaluated."""


class CannotEvaluate(Exception):
    """An evaluation cannot begin or go on; the message says what, why, and what to do."""
