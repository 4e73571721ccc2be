"""A line of `query_string` or `simple_query_string` syntax: its words, and what it demands or forbids besides.

Sources: Elasticsearch, "Query string query" and "Simple query string query"; Lucene, `QueryParser.jj` and
`SimpleQueryParser`. The simple one has no fields, and its operators are signs alone: AND, OR and NOT are words there.
A line is cut into tokens in one pass, and only up to a length that nobody types.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from proxy.bounds import BRACKET_DEPTH, QUERY_STRING_LINE
from proxy.parsing.words import MATCH_ALL, Query, Typed, is_one_word, letters, unescaped, variants

IsText = Callable[[str], bool]


# Options of the whole line that have no meaning for a piece of it.
_WHOLE_LINE = frozenset({"query", "minimum_should_match", "boost", "_name"})

_TOKEN = re.compile(
    r"""(?P<space>\s++)
      | (?P<and>(?:AND|&&)(?=[\s(]|$))
      | (?P<or>(?:OR|\|\|)(?=[\s(]|$))
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
"""The operators of the simple line, each with its bit, in this order (Elasticsearch, `SimpleQueryStringFlag`)."""

_SIMPLE: Mapping[str, tuple[str, str]] = {
    "AND": (r"(?P<and>\+(?=\s))|(?P<sign>\+)", "+"),
    "OR": (r"(?P<or>\|)", "|"),
    "NOT": (r"(?P<not>-(?=\S))", ""),
    "PHRASE": (r'(?P<phrase>"(?:[^"\\]|\\.)*+")', '"'),
    "PRECEDENCE": (r"(?P<open>\()|(?P<close>\))", "()"),
    "FUZZY": (r"(?P<suffix>~\d*+)", "~"),
}
"""Of each operator of the simple line its token, and the characters that then end a word."""


@lru_cache(maxsize=64)
def _simple_token(operators: frozenset[str]) -> re.Pattern[str]:
    """Return the tokens of a simple line whose `flags` name these operators: the other signs are plain text."""
    known = [_SIMPLE[name] for name in _SIMPLE if name in operators]
    ends = "".join(map(re.escape, "".join(characters for _, characters in known)))
    begins = "-" if "NOT" in operators else ""
    escapes = r"|\\." if "ESCAPE" in operators else ""
    backslash = r"\\" if "ESCAPE" in operators else ""
    word = rf"(?P<word>(?:[^\s{ends}{backslash}{begins}]{escapes})(?:[^\s{ends}{backslash}]{escapes})*+)"
    return re.compile("|".join([r"(?P<space>\s++)", *(token for token, _ in known), word]), re.DOTALL)


def _operators(flags: object) -> frozenset[str] | None:
    """Read `flags`, by name or by bit; None where they are not what the engine knows."""
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
class _Part:
    """A piece of a line: a word, a phrase, a group in brackets, or what has no words (a range, an expression)."""

    start: int
    """Behind its sign."""
    end: int
    sign: str
    or_: bool
    """Joined to the part before it by OR."""
    field: str
    text: str = ""
    quoted: bool = False
    opaque: bool = False
    parts: "list[_Part] | None" = None
    boost: float = 1.0


def read_line(name: str, options: Query, line: str, is_text: IsText = lambda _: True) -> Typed:
    """Read the words meant by a line, and what it demands or forbids besides them.

    `+word`, `"a phrase"` and `field:value` stay required, `-word` and `-(a group)` stay forbidden. Other operators
    say how the words are searched, and exclude nothing but by them. Values of fields without text are no words.
    """
    simple = name == "simple_query_string"
    token = _tokens_of(options) if simple else _TOKEN
    parts = _parts(line, token, simple=simple) if token and len(line) <= QUERY_STRING_LINE else None
    if parts is None:
        return Typed(" ".join(_NOISE.sub(" ", line[:QUERY_STRING_LINE]).split()), None)
    plain = _unbracketed(parts)
    kept = {key: value for key, value in options.items() if key not in _WHOLE_LINE}
    demands = _demands(plain, is_text)
    text = " ".join(_words(plain, is_text))
    if demands is None:
        return Typed(text, None)
    clauses = {
        "must": [{name: kept | {"query": line[part.start : part.end]}} for part in demands if part.sign != "-"],
        "must_not": [{name: kept | {"query": line[part.start : part.end]}} for part in demands if part.sign == "-"],
    }
    stays = {occur: found for occur, found in clauses.items() if found}
    return Typed(text, {"bool": stays} if stays else MATCH_ALL)


def _tokens_of(options: Query) -> re.Pattern[str] | None:
    operators = _operators(options.get("flags", "ALL"))
    return None if operators is None else _simple_token(operators)


@dataclass(slots=True)
class _Pending:
    """What has been read and belongs to the next part."""

    sign: str = ""
    operator: str = ""
    field: str = ""
    start: int = -1
    """Where the field begins."""

    def __bool__(self) -> bool:
        return bool(self.sign or self.field or self.operator)


def _parts(line: str, token: re.Pattern[str], *, simple: bool) -> list[_Part] | None:
    """Cut a line into parts; None where it is not what the syntax says."""
    tree, position = _Tree("*" if simple else "*?"), 0
    for found in token.finditer(line):
        if found.start() != position or not _TAKES[found.lastgroup or ""](tree, found):
            return None
        position = found.end()
    return None if position < len(line) or tree.above or tree.pending else tree.level


class _Tree:
    """The parts of a line as they come: those of the innermost open brackets, and of what is around them."""

    def __init__(self, wildcards: str) -> None:
        self.level: list[_Part] = []
        self.above: list[tuple[list[_Part], _Part]] = []
        self.pending = _Pending()
        self._wildcards = wildcards

    def space(self, _: re.Match[str]) -> bool:
        return not self.pending.field

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
        self.level.append(_part(token, self.pending, self._wildcards))
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
        """A boost, or how far a word or phrase may differ."""
        if self.pending or not self.level or self.level[-1].end != token.start():
            return False
        last = self.level[-1]
        last.end, last.boost = token.end(), _boost(token[0], last.boost)
        return True


_TAKES: Mapping[str, Callable[[_Tree, re.Match[str]], bool]] = {
    "space": _Tree.space,
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
"""What takes a token; False where it cannot stand there."""


def _part(token: re.Match[str], pending: _Pending, wildcards: str) -> _Part:
    start = token.start() if pending.start < 0 else pending.start
    kind, said, text = token.lastgroup, token[0], ""
    if kind == "word":
        text = unescaped(_without_wildcards(said, wildcards))
    elif kind == "phrase":
        text = unescaped(said[1:-1].strip())
    or_ = pending.operator == "or"
    return _Part(start, token.end(), pending.sign, or_, pending.field, text, kind == "phrase", kind == "opaque")


def _without_wildcards(word: str, wildcards: str) -> str:
    """Cut the wildcards off a word's ends, but for an escaped one."""
    left = word.lstrip(wildcards)
    kept = left.rstrip(wildcards)
    return left[: len(kept) + 1] if kept.endswith("\\") else kept


def _boost(said: str, before: float) -> float:
    try:
        return float(said[1:]) if said.startswith("^") else before
    except ValueError:
        return before


def _unbracketed(parts: list[_Part]) -> list[_Part]:
    """Take away brackets around all of a line."""
    while len(parts) == 1 and parts[0].parts is not None and not parts[0].sign and not parts[0].field:
        parts = parts[0].parts
    return parts


def _words(parts: Sequence[_Part], is_text: IsText) -> Iterator[str]:
    """The words that are wanted, each once."""
    if len(parts) == 1:
        return filter(None, [_said(parts[0], is_text)])
    said = _without_repeated_phrases(_sayings(parts, is_text))
    if any(part.or_ for part in parts):
        said = _alternatives(said)
    return (each.text for each in said)


class _Saying(NamedTuple):
    """What a part says."""

    text: str
    part: _Part
    whole: bool
    """It is a phrase or a group of several words."""

    @property
    def is_word(self) -> bool:
        return not self.part.quoted and not self.whole


_Said = list[_Saying]


def _sayings(parts: Sequence[_Part], is_text: IsText) -> _Said:
    said = [(text, part) for part in parts if (text := _said(part, is_text))]
    return [_Saying(text, part, _is_whole(text, part)) for text, part in said]


def _said(part: _Part, is_text: IsText) -> str:
    if part.sign == "-" or part.opaque or (part.field and not _has_words(part.field, is_text)):
        return ""
    return " ".join(_words(part.parts, is_text)) if part.parts is not None else part.text


def _has_words(field: str, is_text: IsText) -> bool:
    return field not in {"_exists_", "*", "_id"} and is_text(field)


def _without_repeated_phrases(said: _Said) -> _Said:
    """Leave out a phrase that says the plain words beside it once more, for its boost."""
    plain = [each.text for each in said if not each.whole]
    spelled = letters(" ".join(plain)) if len(plain) > 1 else ""
    return [each for each in said if not (spelled and each.whole and letters(each.text) == spelled)]


def _is_whole(text: str, part: _Part) -> bool:
    """Whether a part is a phrase or a group of several words."""
    return (part.quoted or part.parts is not None) and not is_one_word(text)


def _alternatives(said: _Said) -> _Said:
    """Of what OR joins take every plain word, and one phrase or group: its variants and expansions say no more.

    That is the one boosted most, and the first of several.
    """
    spelled = {each.text: letters(each.text) for each in said if not each.part.quoted}
    plain = frozenset(spelled.values())
    whole = [each for each in said if each.whole or (each.part.quoted and letters(each.text) not in plain)]
    repeated = variants([letters(each.text) for each in whole])
    typed = max((each for place, each in enumerate(whole) if place not in repeated), key=_boost_of, default=None)
    if typed is None:
        return said
    within = letters(typed.text)
    return [each for each in said if each is typed or (each.is_word and spelled[each.text] not in within)]


def _boost_of(said: _Saying) -> float:
    return said.part.boost


def _demands(parts: Sequence[_Part], is_text: IsText) -> list[_Part] | None:
    """The parts that demand or forbid more than the words; None where it cannot be said."""
    if all(map(_is_plain, parts)):
        return []
    if any(part.or_ for part in parts):
        same = _is_said_in_fields(parts, is_text)
        return [] if same or all(_is_free(part) for part in parts) else None
    positive = [part for part in parts if part.sign != "-" and not part.opaque]
    quotes_all = len(positive) > 1 and all(part.quoted and is_one_word(part.text) for part in positive)
    repeats = _repeated_phrases(positive)
    demands: list[_Part] = []
    for part in parts:
        if part.sign or part.field or part.opaque:
            demands.append(part)
        elif part.quoted:
            demands += [] if quotes_all or id(part) in repeats else [part]
        elif part.parts is not None:
            inner = _demands(_unbracketed(part.parts), is_text)
            if inner is None:
                return None
            demands += inner
    return demands


def _is_plain(part: _Part) -> bool:
    """Whether a part is nothing but one word."""
    return not (part.sign or part.field or part.opaque or part.quoted) and part.parts is None


def _is_free(part: _Part) -> bool:
    """Whether a part is nothing but words, however they are searched."""
    return not (part.sign or part.field or part.opaque) and all(map(_is_free, part.parts or ()))


def _is_said_in_fields(parts: Sequence[_Part], is_text: IsText) -> bool:
    """Whether all parts say the same words, each in a field of text: `title:(w) OR body:(w)`."""
    free = all(not part.sign and not part.opaque and all(map(_is_free, part.parts or ())) for part in parts)
    spelled = letters(_said(parts[0], is_text)) if free else ""
    return spelled != "" and all(letters(_said(part, is_text)) == spelled for part in parts[1:])


def _repeated_phrases(positive: Sequence[_Part]) -> set[int]:
    """Phrases that say the plain words beside them once more."""
    plain = letters(" ".join(part.text for part in positive if not part.quoted and part.parts is None))
    return {id(part) for part in positive if part.quoted and plain and letters(part.text) == plain}


# What is no word in a line that could not be read. In one pass, which looks for nothing beyond where it must end, and
# tries a name from its first letter alone.
_NOISE = re.compile(
    r"""\[[^\[\]]*+\] | \{[^{}]*+\} | /[^/]*+/ | [~^][\d.]*+
        | (?:^|(?<=[\s(]))(?:-|!|NOT\s++)(?:[\w.]++:)?(?:"[^"]*+"|[^\s()]++)
        | (?<![\w.])[\w.]++: | \b(?:AND|OR|NOT)\b | [+\-=&|<>!(){}\[\]"*?:\\/]""",
    re.VERBOSE,
)
