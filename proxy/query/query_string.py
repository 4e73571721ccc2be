"""The `query_string` syntax, read as far as it is certain what a line demands, forbids and means.

Sources: Elasticsearch, "Query string query" and "Simple query string query". The simple one has no fields, and its
operators are signs alone: AND, OR and NOT are words there.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from proxy.bounds import QUERY_STRING_LINE

Query = Mapping[str, Any]
MATCH_ALL: Query = {"match_all": {}}


class Typed(NamedTuple):
    """The words in one clause, and what of that clause stays required without them."""

    text: str
    rest: Query | None
    """None: what the clause demands besides its words is not known."""


# What is plain enough to say for certain what it excludes: words, "phrases", field:value, each with a sign or not.
_PIECE = re.compile(
    r"""(?P<sign>[+\-!]|NOT\s+)?
        (?P<field>[\w.]+:)?
        (?P<said>"[^"\\]*"|[^\s+\-!=&|<>(){}\[\]^"~*?:\\/][^\s=&|<>(){}\[\]^"~*?:\\/!]*)
        (?=\s|$)\s*""",
    re.VERBOSE,
)
_SIMPLE_PIECE = re.compile(
    r"""(?P<sign>[+\-])?
        (?P<field>)
        (?P<said>"[^"\\]*"|[^\s+\-|"*()~\\][^\s+|"*()~\\]*)
        (?=\s|$)\s*""",
    re.VERBOSE,
)
_OPERATOR_WORDS = frozenset({"OR", "NOT"})
# Options of the whole line that have no meaning for a piece of it.
_WHOLE_LINE = frozenset({"query", "minimum_should_match", "boost", "_name"})
# In one pass over the line, which may be as long as a user likes: nothing is looked for beyond where it must end, and
# a name is tried from its first letter alone.
_NOISE = re.compile(
    r"""\[[^\[\]]*+\] | \{[^{}]*+\} | /[^/]*+/ | [~^][\d.]*+
        | (?:^|(?<=[\s(]))(?:-|!|NOT\s++)(?:[\w.]++:)?(?:"[^"]*+"|[^\s()]++)
        | (?<![\w.])[\w.]++: | \b(?:AND|OR|NOT)\b | [+\-=&|<>!(){}\[\]"*?:\\/]""",
    re.VERBOSE,
)


def read_operators(name: str, options: Query, line: str) -> Typed:
    """Read a line of `query_string` syntax: the words meant, and what its signs demand or forbid.

    `+word`, `"a phrase"` and `field:value` stay required, `-word` stays forbidden, and AND adds nothing to that. A
    line with any other operator gives its words, and no statement on what it excludes.
    """
    simple = name == "simple_query_string"
    pieces = _pieces(line.strip(), simple=simple) if len(line) <= QUERY_STRING_LINE else None
    if pieces is None or (pieces and options.get("flags", "ALL") != "ALL"):
        return Typed(" ".join(_NOISE.sub(" ", line[:QUERY_STRING_LINE]).split()), None)
    kept = {key: value for key, value in options.items() if key not in _WHOLE_LINE}
    required = [{name: kept | {"query": said}} for sign, said, plain in pieces if sign in {"", "+"} and not plain]
    forbidden = [{name: kept | {"query": said}} for sign, said, _ in pieces if sign == "-"]
    clauses = {"must": required, "must_not": forbidden}
    text = " ".join(said.strip('"') if simple else _words(said) for sign, said, _ in pieces if sign != "-")
    stays = {key: value for key, value in clauses.items() if value}
    return Typed(text.strip(), {"bool": stays} if stays else MATCH_ALL)


def _pieces(line: str, *, simple: bool) -> list[tuple[str, str, bool]] | None:
    """Cut a line into (sign, what was said, whether it is a plain word); None where more than that is in it."""
    found: list[tuple[str, str, bool]] = []
    next_piece = (_SIMPLE_PIECE if simple else _PIECE).match
    position = 0
    while position < len(line):
        piece = next_piece(line, position)
        if piece is None:
            return None
        position = piece.end()
        signed, field, said = piece.groups("")
        if not simple and said in _OPERATOR_WORDS:
            return None
        if not simple and said == "AND":
            continue
        sign = "-" if signed and signed != "+" else signed
        found.append((sign, field + said, not (sign or field or said.startswith('"'))))
    return found


def _words(said: str) -> str:
    return said.rpartition(":")[2].strip('"') if '"' not in said else said.partition('"')[2].rstrip('"')
