"""Wildcard patterns, as in index names, source filters and `filter_path`: only `*` is special."""

from collections.abc import Callable


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern matches a name: each `*` stands for any number of characters."""
    return matcher(pattern)(name)


def matcher(pattern: str) -> Callable[[str], bool]:
    """Compile a pattern that is compared with many names.

    Linear time, since a client may choose both: a regular expression could backtrack exponentially.
    """
    begin, *others = pattern.split("*")
    if not others:
        return pattern.__eq__
    *middle, end = others
    wanted, least = list(filter(None, middle)), len(begin) + len(end)

    def matches_name(name: str) -> bool:
        if not (name.startswith(begin) and name.endswith(end) and len(name) >= least):
            return False
        at, last = len(begin), len(name) - len(end)
        for part in wanted:
            found = name.find(part, at, last)
            if found < 0:
                return False
            at = found + len(part)
        return True

    return matches_name
