"""Relaxes a query: a copy that no longer requires some of its clauses, and so matches more documents."""

from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.parsing.compound_queries import COMPOUNDS, Inseparable, ids_above
from proxy.parsing.words import Query


def relaxed_query(query: Any, rests: Mapping[int, Query | None]) -> Query | None:
    """Copy a query with some clauses, given by identity, replaced; None if that is impossible."""
    above = ids_above(query, rests)

    def relax(clause: Any) -> Any:
        if id(clause) in rests:
            return rests[id(clause)]
        if id(clause) not in above:
            return clause
        ((name, body),) = clause.items()
        found = COMPOUNDS[name].relax(name, body, relax)
        if found is None:
            raise Inseparable
        return found

    try:
        relaxed: Query = relax(query)
    except Inseparable:
        return None
    return relaxed


_JOINING = frozenset({"nested", "has_child", "has_parent"})


def bare(query: Any) -> Any:
    """Copy a query without `inner_hits` and `_name`, which have no use in a filter.

    Two `inner_hits` with the same name are an error, and of two queries with one `_name` only the last is reported.
    """
    written = msgspec.json.encode(query)  # faster than traversing all of it
    return _bare(query) if b'"_name"' in written or b'"inner_hits"' in written else query


def _bare(query: Any) -> Any:
    if isinstance(query, list):
        return [_bare(clause) if isinstance(clause, dict | list) else clause for clause in query]
    if not isinstance(query, dict):
        return query
    copied = {
        key: _bare(value) if isinstance(value, dict | list) else value
        for key, value in query.items()
        if key != "_name" or len(query) == 1
    }
    for name in _JOINING.intersection(copied):
        if isinstance(copied[name], dict):
            copied[name] = {key: value for key, value in copied[name].items() if key != "inner_hits"}
    return copied
