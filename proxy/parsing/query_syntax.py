"""The syntax of `query_string` and `simple_query_string`: splits a line into its parts.

Sources: Elasticsearch, "Query string query" and "Simple query string query"; Lucene, `QueryParser.jj` and
`SimpleQueryParser`. `simple_query_string` has no fields, and only signs as operators: AND, OR and NOT are words there.
The line is split into tokens in one pass, up to a length that no user types.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from proxy.bounds import BRACKET_DEPTH, QUERY_STRING_LINE
from proxy.parsing.words import Query, unescaped

_TOKEN = re.compile(
    r"""(?P<space>\s++)
      | (?P<and>(?:AND|&&)(?=[\s(]|$))
      | (?P<or>(?:OR|\|\|)(?=[\s(]|$))
      | (?P<lone>[+\-!](?=\s))
      | (?P<not>NOT(?=[\s(]|$)\s*+|!)
      | (?P<sign>[+\-](?=\S))
      | (?P<open>\()
      | (?P<close>\))
      | (?P<phrase>"(?:[^"\\]|\\.)*+")
      | (?P<opaque>[\[{][^\[\]{}]*+[\]}]|/(?:[^/\\]|\\.)++/|(?<=:)[<>]=?(?:[^\s()\\]|\\.)++)
      | (?P<suffix>[~^][\d.]*+)
      | (?P<field>(?:[\w.\-*@]|\\.)++:)
      | (?P<word>(?:[^\s+\-!<>(){}\[\]^"~:\\/]|\\.)(?:[^\s!(){}\[\]^"~:\\/]|\\.)*+)""",
    re.VERBOSE | re.DOTALL,
)

_FLAGS = ("AND", "NOT", "OR", "PREFIX", "PHRASE", "PRECEDENCE", "ESCAPE", "WHITESPACE", "FUZZY", "NEAR")
"""Operators of `simple_query_string` in the order of their bits (Elasticsearch, `SimpleQueryStringFlag`)."""

_SIMPLE: Mapping[str, tuple[str, str]] = {
    "AND": (r"(?P<attached>(?<=\w)\++(?=\s|$))|(?P<and>\+(?=\s))|(?P<sign>\+)", "+"),
    "OR": (r"(?P<or>\|)", "|"),
    "NOT": (r"(?P<lone>-(?=\s|$))|(?P<not>-(?=\S))", ""),
    "PHRASE": (r'(?P<phrase>"(?:[^"\\]|\\.)*+")', '"'),
    "PRECEDENCE": (r"(?P<open>\()|(?P<close>\))", "()"),
    "FUZZY": (r"(?P<suffix>~\d*+)", "~"),
}
"""The token of each operator of `simple_query_string`, and the characters that then end a word."""


@lru_cache(maxsize=64)
def _simple_token(operators: frozenset[str]) -> re.Pattern[str]:
    """Return the tokens of a simple query with these operators in `flags`; other signs are plain text."""
    known = [_SIMPLE[name] for name in _SIMPLE if name in operators]
    ends = "".join(map(re.escape, "".join(characters for _, characters in known)))
    begins = "-" if "NOT" in operators else ""
    escapes = r"|\\." if "ESCAPE" in operators else ""
    backslash = r"\\" if "ESCAPE" in operators else ""
    word = rf"(?P<word>(?:[^\s{ends}{backslash}{begins}]{escapes})(?:[^\s{ends}{backslash}]{escapes})*+)"
    return re.compile("|".join([r"(?P<space>\s++)", *(token for token, _ in known), word]), re.DOTALL)


def _operators(flags: object) -> frozenset[str] | None:
    """Read `flags`, names or bits; None if the engine would reject them."""
    if isinstance(flags, int):
        return frozenset(name for bit, name in enumerate(_FLAGS) if flags & 1 << bit)
    if not isinstance(flags, str):
        return None
    named = {"NEAR" if name == "SLOP" else name for name in flags.upper().replace(" ", "").split("|")}
    if "NEAR" in named:
        named.add("FUZZY")
    if "ALL" in named:
        return frozenset(_FLAGS)
    return frozenset(named) if named <= {*_FLAGS, "NONE"} else None


@dataclass(slots=True)
class Part:
    """A part of the line: a word, a phrase, a group in brackets, or something without words (a range, a regex)."""

    start: int
    """Position after its sign."""
    end: int
    sign: str
    or_: bool
    """Whether OR connects it with the part before it."""
    field: str
    text: str = ""
    quoted: bool = False
    opaque: bool = False
    parts: "list[Part] | None" = None
    boost: float = 1.0
    inexact: bool = False
    """Whether it is a word with wildcards, or with typing errors."""
    and_: bool = False
    """Whether AND connects it with the part before it, also as the default operator."""


def parts_of(name: str, options: Query, line: str) -> list[Part] | None:
    """Split the line of a query of this name into parts; None if its syntax is invalid, or it is too long."""
    simple = name == "simple_query_string"
    token = _tokens_of(options) if simple else _TOKEN
    tree = _Tree("*" if simple else "*?", requires_all=str(options.get("default_operator")).lower() == "and")
    if token is None or len(line) > QUERY_STRING_LINE:
        return None
    return _parts(_without_strays(line) if simple else line, token, tree)


def _without_strays(line: str) -> str:
    """Replace brackets and a quote without a counterpart by spaces: `simple_query_string` ignores them."""
    if "\\" in line:
        return line
    opened, strays = list[int](), list[int]()
    for found in _BRACKET.finditer(line):
        if found[0] == "(":
            opened.append(found.start())
        elif opened:
            opened.pop()
        else:
            strays.append(found.start())
    if line.count('"') % 2:
        strays.append(line.rindex('"'))
    characters = list(line)
    for place in (*opened, *strays):
        characters[place] = " "
    return "".join(characters)


_BRACKET = re.compile(r"[()]")


def _tokens_of(options: Query) -> re.Pattern[str] | None:
    operators = _operators(options.get("flags", "ALL"))
    return None if operators is None else _simple_token(operators)


@dataclass(slots=True)
class _Pending:
    """Tokens that apply to the next part."""

    sign: str = ""
    operator: str = ""
    field: str = ""
    start: int = -1
    """Position of the field name."""

    def __bool__(self) -> bool:
        return bool(self.sign or self.field or self.operator)


def _parts(line: str, token: re.Pattern[str], tree: "_Tree") -> list[Part] | None:
    """Split a line into parts; None if its syntax is invalid."""
    position = 0
    for found in token.finditer(line):
        if found.start() != position or not _TAKES[found.lastgroup or ""](tree, found):
            return None
        position = found.end()
    return None if position < len(line) or tree.above or tree.pending else tree.level


class _Tree:
    """The parts as they are parsed: those of the innermost open bracket, and of the brackets around it."""

    def __init__(self, wildcards: str, *, requires_all: bool) -> None:
        self.level: list[Part] = []
        self.above: list[tuple[list[Part], Part]] = []
        self.pending = _Pending()
        self._wildcards = wildcards
        self._requires_all = requires_all

    def space(self, _: re.Match[str]) -> bool:
        return not self.pending.field

    def lone(self, _: re.Match[str]) -> bool:
        """Ignore a sign that stands alone (`red - large`), or is part of a name (`C++`)."""
        return not self.pending

    def operator(self, token: re.Match[str]) -> bool:
        stands = bool(self.level) and not self.pending
        self.pending.operator = token.lastgroup or ""
        return stands

    def sign(self, token: re.Match[str]) -> bool:
        stands = not self.pending.field and not self.pending.sign
        self.pending.sign = "-" if token.lastgroup == "not" else token[0]
        return stands

    def field(self, token: re.Match[str]) -> bool:
        stands = not self.pending.field
        self.pending.field, self.pending.start = unescaped(token[0][:-1]), token.start()
        return stands

    def part(self, token: re.Match[str]) -> bool:
        part = _part(token, self.pending, self._wildcards)
        part.and_ = self.pending.operator == "and" or (self._requires_all and bool(self.level) and not part.or_)
        self.level.append(part)
        if self.pending:
            self.pending = _Pending()
        return True

    def open(self, token: re.Match[str]) -> bool:
        self.part(token)
        self.above.append((self.level, self.level[-1]))
        self.level = []
        return len(self.above) <= BRACKET_DEPTH

    def close(self, token: re.Match[str]) -> bool:
        if not self.above or self.pending:
            return False
        inner = self.level
        self.level, group = self.above.pop()
        group.parts, group.end = inner, token.end()
        return True

    def suffix(self, token: re.Match[str]) -> bool:
        """Parse a boost, or the fuzziness of a word or the slop of a phrase."""
        if self.pending or not self.level or self.level[-1].end != token.start():
            return False
        last = self.level[-1]
        last.end, last.boost = token.end(), _boost(token[0], last.boost)
        last.inexact |= token[0].startswith("~")
        return True


_TAKES: Mapping[str, Callable[[_Tree, re.Match[str]], bool]] = {
    "space": _Tree.space,
    "lone": _Tree.lone,
    "attached": _Tree.lone,
    "and": _Tree.operator,
    "or": _Tree.operator,
    "not": _Tree.sign,
    "sign": _Tree.sign,
    "field": _Tree.field,
    "open": _Tree.open,
    "close": _Tree.close,
    "suffix": _Tree.suffix,
    "phrase": _Tree.part,
    "opaque": _Tree.part,
    "word": _Tree.part,
}
"""The method for each token; it returns False if the token is not allowed there."""


def _part(token: re.Match[str], pending: _Pending, wildcards: str) -> Part:
    start = token.start() if pending.start < 0 else pending.start
    kind, raw, text = token.lastgroup, token[0], ""
    if kind == "word":
        text = unescaped(_without_wildcards(raw, wildcards))
    elif kind == "phrase":
        text = unescaped(raw[1:-1].strip())
    or_ = pending.operator == "or"
    part = Part(start, token.end(), pending.sign, or_, pending.field, text, kind == "phrase", kind == "opaque")
    part.inexact = kind == "word" and raw[-1] in wildcards
    return part


def _without_wildcards(word: str, wildcards: str) -> str:
    """Remove wildcards from both ends of a word, except escaped ones; `*` within it stands for a space."""
    left = word.lstrip(wildcards)
    kept = left.rstrip(wildcards)
    if kept.endswith("\\"):
        kept = left[: len(kept) + 1]
    return _WITHIN.sub(" ", kept) if "?" in wildcards else kept


_WITHIN = re.compile(r"(?<!\\)\*+")


def _boost(raw: str, before: float) -> float:
    try:
        return float(raw[1:]) if raw.startswith("^") else before
    except ValueError:
        return before


def unbracketed(parts: list[Part]) -> list[Part]:
    """Remove brackets around the whole line."""
    while len(parts) == 1 and parts[0].parts is not None and not parts[0].sign and not parts[0].field:
        parts = parts[0].parts
    return parts
