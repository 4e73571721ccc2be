"""Names with wildcards, as in index names, source filters and `filter_path`: `*` alone is special."""


def matches(pattern: str, name: str) -> bool:
    """Whether a name is one that a pattern stands for: each `*` for any characters or none.

    In one pass, since both may be a client's: a regular expression tries ways without end.
    """
    begin, *others = pattern.split("*")
    if not others:
        return name == pattern
    *middle, end = others
    at = len(begin)
    if not name.startswith(begin):
        return False
    for part in middle:
        found = name.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return name.endswith(end) and at + len(end) <= len(name)
