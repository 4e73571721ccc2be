"""Names with wildcards, as in index names, source filters and `filter_path`: `*` alone is special."""

from collections.abc import Callable


def matches(pattern: str, name: str) -> bool:
    """Whether a name is one that a pattern stands for: each `*` for any characters or none."""
    return matcher(pattern)(name)


def matcher(pattern: str) -> Callable[[str], bool]:
    """Prepare a pattern for many names.

    In one pass over a name, since both may be a client's: a regular expression tries ways without end.
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
