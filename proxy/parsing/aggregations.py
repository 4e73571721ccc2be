"""Which aggregations count documents beside those that the client's own query matches.

One that reads scores, or ignores the query, keeps the result of the client's own search: the score of an added document
means nothing, and `global` with the query repeated inside cannot see it.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from proxy.bounds import AGGREGATIONS_READ_BYTES
from proxy.parsing.json_text import members_of, read

_BODY_KEYS = ("aggs", "aggregations")
_BY_SCORE = frozenset({"sampler", "diversified_sampler"})
_SCORE = re.compile(r"(?<!\w)_score(?!\w)")
_SUSPECTS = (b'"global"', b'sampler"', b'"top_hits"', b"_score", b'"id"', b'"buckets_path"', b"\\")
"""An aggregation without any of these counts added documents; the last one is an escape, which may spell another."""


def facets_of(members: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """Return the aggregations of a body that count added documents too, by name, in the client's bytes.

    Those that may read scores are read up to a limit in bytes; beyond it, they are taken to do so.
    """
    given = [members[name] for name in members if name in _BODY_KEYS]
    if not given:
        return {}
    try:
        asked = members_of(given[-1])
        suspects = _suspects(given[-1], asked)
        sizes = itertools.accumulate(map(len, suspects.values()))
        read_of = [name for name, size in zip(suspects, sizes, strict=True) if size <= AGGREGATIONS_READ_BYTES]
        readable = {name: read(suspects[name]) for name in read_of}
    except (ValueError, RecursionError):
        return {}
    own = {name for name in suspects if name not in readable or _is_own(readable[name])}
    own |= _computed_from(own, readable)
    return {name: raw for name, raw in asked.items() if name not in own} if own else asked


def _suspects(whole: bytes, asked: Mapping[str, msgspec.Raw]) -> dict[str, bytes]:
    there = [each for each in _SUSPECTS if each in bytes(whole)]
    texts = {name: bytes(raw) for name, raw in asked.items()} if there else {}
    return {name: text for name, text in texts.items() if any(each in text for each in there)}


def _computed_from(own: AbstractSet[str], aggregations: Mapping[str, Any]) -> set[str]:
    """Return the aggregations that are computed from these, directly or not."""
    outputs: dict[str, list[str]] = {}
    for name, aggregation in aggregations.items():
        for given in _inputs(aggregation):
            outputs.setdefault(given, []).append(name)
    found: set[str] = set()
    inputs = list(own)
    while inputs:
        new = [name for name in outputs.pop(inputs.pop(), ()) if name not in found]
        found.update(new)
        inputs += new
    return found


def merged(own: msgspec.Raw, counted: Mapping[str, msgspec.Raw]) -> msgspec.Raw:
    """Put results in the places of the client's own, unless these are unreadable.

    With `typed_keys`, a result may have another type (`umterms`).
    """
    try:
        results = members_of(own)
    except (ValueError, RecursionError):
        return own
    renamed = {_untyped(name): name for name in counted if name not in results}
    names = {name: name if name in counted else renamed.get(_untyped(name), name) for name in results}
    placed = {names[name]: counted.get(names[name], result) for name, result in results.items()}
    return msgspec.Raw(msgspec.json.encode(placed))


def _untyped(name: str) -> str:
    return name.partition("#")[2]


def _is_own(aggregation: Any) -> bool:
    """Whether an aggregation, or one inside it, reads scores or ignores the query."""
    inside = [aggregation]
    while inside:
        members = inside.pop()
        if not isinstance(members, dict):
            return True
        for name, value in members.items():
            if name in _BODY_KEYS:
                inside += value.values() if isinstance(value, dict) else []
            elif name != "meta" and _reads_scores(name, value):
                return True
    return False


def _reads_scores(kind: str, options: Any) -> bool:
    by_score = kind in _BY_SCORE or (kind == "top_hits" and _shows_scores(options))
    return kind == "global" or by_score or any(map(_SCORE.search, _texts(options))) or _runs_stored_script(options)


def _shows_scores(top_hits: Any) -> bool:
    match top_hits:
        case {"sort": sort} if sort:
            return bool(top_hits.get("track_scores") or top_hits.get("explain"))
        case _:
            return True


def _runs_stored_script(options: Any) -> bool:
    scripts = (each.get("script") for each in _objects(options))
    return any(isinstance(script, dict) and "id" in script for script in scripts)


def _inputs(aggregation: Any) -> Iterator[str]:
    """Return the names of the aggregations that a pipeline aggregation is computed from."""
    for each in _objects(aggregation):
        for path in _texts(each.get("buckets_path")):
            first = path.partition(">")[0]
            yield from (first, first.partition(".")[0])


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    return (each for each in _walk(value) if isinstance(each, dict))


def _texts(value: Any) -> Iterator[str]:
    """Return all texts in a value, names of members included."""
    for each in _walk(value):
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            yield from each


def _walk(value: Any) -> Iterator[Any]:
    inside = [value]
    while inside:
        yield (each := inside.pop())
        if isinstance(each, dict):
            inside += each.values()
        elif isinstance(each, list):
            inside += each
