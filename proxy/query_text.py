"""What the user typed, found in the client's query, and that query without the demand for those words.

A semantic retriever finds what says the same in other words, so exactly one thing is relaxed for it: that the
words of the user's query occur. Every other required clause stays as it is, and so the relaxed query is the
client's own with the clauses that hold these words replaced by `match_all`, which keeps `minimum_should_match`
and the rest of the tree exact.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Query = Mapping[str, Any]
MATCH_ALL: Query = {"match_all": {}}


@dataclass(frozen=True, slots=True)
class UserQuery:
    """The user's words, and what a document must fulfil without them."""

    text: str
    relaxed: Query | None
    """None: the words carry operators whose meaning for excluded documents is not known here."""


@dataclass(frozen=True, slots=True)
class _Typed:
    """The words in one clause, and what of that clause stays required without them."""

    text: str
    rest: Query | None


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A text clause of the query: where it stands decides whether it holds the user's words."""

    clause: Query
    typed: _Typed
    fields: tuple[str, ...]
    required: bool


def find_user_query(query: Any, passage: Sequence[str], is_text: Callable[[str], bool]) -> UserQuery | None:
    """Find the user's words: in `must` before `should`, in several fields or a passage's field before others.

    Clauses that hold the same words are one. A clause on fields where no words are searched is a filter.
    """
    leaves = [leaf for leaf in _leaves(query, required=True) if _searches_words(leaf, is_text)]
    if not leaves:
        return None
    chosen = min(leaves, key=lambda leaf: _rank(leaf, passage))
    same = [leaf for leaf in leaves if leaf.typed.text == chosen.typed.text]
    if any(leaf.typed.rest is None for leaf in same):
        return UserQuery(chosen.typed.text, None)
    relaxed = _substitute(query, [(leaf.clause, leaf.typed.rest) for leaf in same])
    return UserQuery(chosen.typed.text, without_inner_hits(relaxed))


def _rank(leaf: _Leaf, passage: Sequence[str]) -> tuple[bool, bool]:
    plain = [field.split("^", 1)[0] for field in leaf.fields]
    central = len(plain) != 1 or any(_same_field(field, path) for field in plain for path in passage)
    return not leaf.required, not central


def _same_field(field: str, path: str) -> bool:
    """Whether a field is a passage's path or a multi-field of it."""
    return "*" in field or field == path or field.startswith(f"{path}.")


def _searches_words(leaf: _Leaf, is_text: Callable[[str], bool]) -> bool:
    fields = [field for field in leaf.fields if "*" not in field]
    return len(fields) < len(leaf.fields) or not fields or any(is_text(field) for field in fields)


def _leaves(query: Any, *, required: bool) -> Iterator[_Leaf]:
    """Walk down `bool` to the clauses that hold words, in the order they are written."""
    match query:
        case {"bool": dict() as clauses} if len(query) == 1:
            for clause in _listed(clauses.get("must")):
                yield from _leaves(clause, required=required)
            alone = not clauses.get("must") and not clauses.get("filter")
            for clause in _listed(clauses.get("should")):
                yield from _leaves(clause, required=required and alone)
        case dict() if len(query) == 1:
            ((name, body),) = query.items()
            reader = _READERS.get(name)
            if reader and isinstance(body, dict) and (read := reader(name, body)):
                yield _Leaf(query, *read, required)


def _listed(clauses: Any) -> Sequence[Any]:
    return clauses if isinstance(clauses, list) else [] if clauses is None else [clauses]


_Read = tuple[_Typed, tuple[str, ...]] | None


def _match(_: str, body: Query) -> _Read:
    """`match`, `match_phrase`: one field, its words bare or in `query`."""
    if len(body) != 1:
        return None
    ((field, value),) = body.items()
    text = value.get("query") if isinstance(value, dict) else value
    return (_Typed(text.strip(), MATCH_ALL), (field,)) if isinstance(text, str) and text.strip() else None


def _multi_match(_: str, body: Query) -> _Read:
    """`multi_match`, `combined_fields`: the words in `query`, the fields in a list."""
    text, fields = body.get("query"), _fields(body)
    if not isinstance(text, str) or not text.strip() or fields is None:
        return None
    return _Typed(text.strip(), MATCH_ALL), fields


def _query_string(name: str, body: Query) -> _Read:
    """`query_string`, `simple_query_string`: words among operators."""
    text, fields = body.get("query"), _fields(body)
    if not isinstance(text, str) or fields is None:
        return None
    typed = read_operators(name, body, text)
    return (typed, fields) if typed.text else None


_READERS: Mapping[str, Callable[[str, Query], _Read]] = {
    "match": _match,
    "match_phrase": _match,
    "multi_match": _multi_match,
    "combined_fields": _multi_match,
    "query_string": _query_string,
    "simple_query_string": _query_string,
}


def _fields(body: Query) -> tuple[str, ...] | None:
    fields = body.get("fields", body.get("default_field", []))
    listed = [fields] if isinstance(fields, str) else fields
    if not isinstance(listed, list) or not all(isinstance(field, str) for field in listed):
        return None
    return tuple(listed)


# What is plain enough to say for certain what it excludes: words, "phrases", field:value, each with a sign or not.
_PIECE = re.compile(
    r"""(?P<sign>[+\-!]|NOT\s+)?
        (?P<field>[\w.]+:)?
        (?P<said>"[^"\\]*"|[^\s+\-!=&|<>(){}\[\]^"~*?:\\/][^\s=&|<>(){}\[\]^"~*?:\\/!]*)
        (?=\s|$)\s*""",
    re.VERBOSE,
)
_OPERATOR_WORDS = frozenset({"AND", "OR", "NOT"})
# Options of the whole line that have no meaning for a piece of it.
_WHOLE_LINE = frozenset({"query", "minimum_should_match", "boost", "_name"})
_NOISE = re.compile(
    r"""\[[^\]]*\] | \{[^}]*\} | /[^/]*/ | [~^][\d.]*
        | (?:^|(?<=[\s(]))(?:-|!|NOT\s+)(?:[\w.]+:)?(?:"[^"]*"|[^\s()]+)
        | [\w.]+: | \b(?:AND|OR|NOT)\b | [+\-=&|<>!(){}\[\]"*?:\\/]""",
    re.VERBOSE,
)


def read_operators(name: str, options: Query, line: str) -> _Typed:
    """Read a line of `query_string` syntax: the words meant, and what its signs demand or forbid.

    `+word`, `"a phrase"` and `field:value` stay required, `-word` stays forbidden. A line with any other
    operator gives its words, and no statement on what it excludes.
    """
    pieces = _pieces(line.strip())
    if pieces is None or (pieces and options.get("flags", "ALL") != "ALL"):
        return _Typed(" ".join(_NOISE.sub(" ", line).split()), None)
    kept = {key: value for key, value in options.items() if key not in _WHOLE_LINE}
    required = [{name: kept | {"query": said}} for sign, said, plain in pieces if sign in {"", "+"} and not plain]
    forbidden = [{name: kept | {"query": said}} for sign, said, _ in pieces if sign == "-"]
    clauses = {"must": required, "must_not": forbidden}
    text = " ".join(_words(said) for sign, said, _ in pieces if sign != "-")
    stays = {key: value for key, value in clauses.items() if value}
    return _Typed(text.strip(), {"bool": stays} if stays else MATCH_ALL)


def _pieces(line: str) -> list[tuple[str, str, bool]] | None:
    """Cut a line into (sign, what was said, whether it is a plain word); None where more than that is in it."""
    found: list[tuple[str, str, bool]] = []
    position = 0
    while position < len(line):
        piece = _PIECE.match(line, position)
        if piece is None or piece["said"] in _OPERATOR_WORDS:
            return None
        sign = "-" if (piece["sign"] or "").strip() in {"-", "!", "NOT"} else piece["sign"] or ""
        field, said = piece["field"] or "", piece["said"]
        found.append((sign, field + said, not (sign or field or said.startswith('"'))))
        position = piece.end()
    return found


def _words(said: str) -> str:
    return said.rpartition(":")[2].strip('"') if '"' not in said else said.partition('"')[2].rstrip('"')


def _substitute(query: Any, replacements: Sequence[tuple[Query, Query | None]]) -> Any:
    """Copy a query with some of its clauses, told by identity, replaced.

    A `bool` around them matches more than before, so it no longer bears its name: hits report it.
    """
    for clause, rest in replacements:
        if query is clause:
            return rest
    match query:
        case {"bool": dict() as clauses}:
            return {"bool": {key: _substitute(value, replacements) for key, value in clauses.items() if key != "_name"}}
        case list():
            return [_substitute(clause, replacements) for clause in query]
        case _:
            return query


_JOINING = ("nested", "has_child", "has_parent")


def without_inner_hits(query: Any) -> Any:
    """Copy a query without its `inner_hits`: two of one name in a search are an error, and no filter shows any."""
    match query:
        case dict():
            copied = {key: without_inner_hits(value) for key, value in query.items()}
            for name in _JOINING:
                if isinstance(copied.get(name), dict):
                    copied[name] = {key: value for key, value in copied[name].items() if key != "inner_hits"}
            return copied
        case list():
            return [without_inner_hits(clause) for clause in query]
        case _:
            return query
