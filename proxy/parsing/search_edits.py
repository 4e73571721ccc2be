"""Changes in a search as its client sent it: the engine's sort values in `search_after`, no vectors in `_source`.

What cannot be read is returned unchanged.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import parse_qsl

from proxy.parsing.decoding import Parameters, is_too_complex
from proxy.parsing.json_text import decoder_of, read, take_member, with_members_set
from proxy.parsing.search_request import hides_source, shown_sort
from proxy.parsing.sort_values import Walk, engine_values, walk_of
from proxy.parsing.source_filter import PathPlace, SourceFilter, read_source, source_of_url


def translated(query_string: str, content: bytes) -> tuple[bytes, Walk | None]:
    """Translate a `search_after` with the proxy's own sort values to the engine's, so that the engine can continue.

    The engine has no position for a hit of the reranked head: there it starts from the beginning.
    """
    if b'"search_after"' not in content or is_too_complex(content):  # then no earlier page was reranked, either
        return content, None
    try:
        decoded = json.loads(content)
        url = dict(parse_qsl(query_string, keep_blank_values=True))
        sort = shown_sort(decoded, url)
        walk = walk_of(decoded["search_after"], sort)
        if not isinstance(walk, Walk):
            return content, None
        if walk.in_head:
            return take_member(content, ("search_after",))[0], walk
        values = engine_values(decoded["search_after"], sort, walk)
        return with_members_set(content, {"search_after": values}), walk
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return content, None


def excluding(content: bytes, parameters: Parameters, paths: Sequence[str]) -> tuple[bytes, Parameters]:
    """Exclude these paths from `_source` of a search, unless it requests them; returns its body and its parameters.

    A search that copies documents (scroll, slice, point in time) is returned unchanged, and so is one whose `_source`
    cannot be read or is not returned.
    """
    url, in_body = dict(parameters), bool(content.strip())
    try:
        decoded = read(content, _about_source) if in_body else {}
    except (ValueError, RecursionError):
        return content, parameters
    if not isinstance(decoded, dict) or _OF_COPIES & {*decoded, *url}:
        return content, parameters
    named = source_of_url(url)
    source = named or read_source(decoded.get("_source", True))
    if source is None or source.too_complex or not source.shows_any(paths) or hides_source(url, decoded):
        return content, parameters
    fewer = source.without(paths)
    if fewer == source:
        return content, parameters
    if in_body and named is None:
        return _with_source(content, fewer), parameters
    kept = tuple(pair for pair in parameters if pair[0] not in _OF_SOURCE)
    return content, (*kept, *replace(fewer, place=PathPlace.URL).parameters())


def _with_source(content: bytes, source: SourceFilter) -> bytes:
    try:
        return with_members_set(content, {"_source": source.render()})
    except ValueError:  # names that occur twice, in a body with too many values to find them
        return content


_OF_SOURCE = frozenset({"_source", "_source_includes", "_source_excludes"})
_OF_COPIES = frozenset({"scroll", "slice", "pit", "source"})
_about_source = decoder_of((*_OF_COPIES, "_source", "script_fields", "stored_fields"))
