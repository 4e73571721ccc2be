"""Parses `query_string` and `simple_query_string` syntax: the query text, and what else the query requires or excludes.

Sources: Elasticsearch, "Query string query" and "Simple query string query"; Lucene, `QueryParser.jj` and
`SimpleQueryParser`. `simple_query_string` has no fields, and only signs as operators: AND, OR and NOT are words there.
The line is split into tokens in one pass, up to a length that no user types.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from proxy.bounds import BRACKET_DEPTH, QUERY_STRING_LINE
from proxy.parsing.words import MATCH_ALL, Query, Typed, fold, is_one_word, is_typed_word, letters, unescaped, variants

IsText = Callable[[str], bool]


class FieldKinds(NamedTuple):
    """What is known of the fields that a query names."""

    is_text: IsText
    """Whether a field has analysed text."""
    is_central: IsText = lambda _: True
    """Whether a search in this field alone is one for the user's text, as in a title; others may be filters."""


# Options of the whole query that do not apply to a part of it.
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
"""Operators of `simple_query_string` in the order of their bits (Elasticsearch, `SimpleQueryStringFlag`)."""

_SIMPLE: Mapping[str, tuple[str, str]] = {
    "AND": (r"(?P<and>\+(?=\s))|(?P<sign>\+)", "+"),
    "OR": (r"(?P<or>\|)", "|"),
    "NOT": (r"(?P<not>-(?=\S))", ""),
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
class _Part:
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
    parts: "list[_Part] | None" = None
    boost: float = 1.0
    inexact: bool = False
    """Whether it is a word with wildcards, or with typing errors."""


_EVERY_FIELD = FieldKinds(lambda _: True)


def read_line(name: str, options: Query, line: str, kinds: FieldKinds = _EVERY_FIELD) -> Typed:
    """Read the query text of a line, and what else the line requires or excludes.

    `+word`, `"a phrase"` and `field:value` stay required, `-word` and `-(a group)` stay excluded. The other operators
    only change how the words are searched. Values of fields that are not text are not query text, and beside words
    without a field, neither are those of fields that are not central: applications write their filters so.
    """
    simple = name == "simple_query_string"
    token = _tokens_of(options) if simple else _TOKEN
    parts = _parts(line, token, simple=simple) if token and len(line) <= QUERY_STRING_LINE else None
    if parts is None:
        return Typed(" ".join(_NOISE.sub(" ", line[:QUERY_STRING_LINE]).split()), None)
    plain = _unbracketed(parts)
    kept = {key: value for key, value in options.items() if key not in _WHOLE_LINE}
    has_words = _with_words(plain, kinds) if ":" in line else kinds.is_text
    demands = _requirements(plain, kinds.is_text, has_words)
    text = " ".join(_words(plain, has_words))
    named = tuple(_named(plain, has_words) or ()) if ":" in line else ()
    if demands is None:
        return Typed(text, None, named)
    clauses = {
        "must": [{name: kept | {"query": line[part.start : part.end]}} for part in demands if part.sign != "-"],
        "must_not": [{name: kept | {"query": line[part.start : part.end]}} for part in demands if part.sign == "-"],
    }
    stays = {occur: found for occur, found in clauses.items() if found}
    return Typed(text, {"bool": stays} if stays else MATCH_ALL, named)


def _with_words(parts: "list[_Part]", kinds: FieldKinds) -> IsText:
    """Return which fields hold words of the query text: the central ones, if there are words in them or in no field."""

    def is_central(field: str) -> bool:
        return kinds.is_text(field) and kinds.is_central(field)

    return is_central if any(_words(parts, is_central)) else kinds.is_text


def _named(parts: "Sequence[_Part]", has_words: IsText) -> dict[str, None] | None:
    """Return the fields that are named for all words, in order; None if some words are in no named field."""
    named: dict[str, None] = {}
    for part in parts:
        if not _text_of(part, has_words):
            continue
        inner = {part.field: None} if part.field else _named(part.parts or (), has_words) if part.parts else None
        if inner is None:
            return None
        named |= inner
    return named


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


def _parts(line: str, token: re.Pattern[str], *, simple: bool) -> list[_Part] | None:
    """Split a line into parts; None if its syntax is invalid."""
    tree, position = _Tree("*" if simple else "*?"), 0
    for found in token.finditer(line):
        if found.start() != position or not _TAKES[found.lastgroup or ""](tree, found):
            return None
        position = found.end()
    return None if position < len(line) or tree.above or tree.pending else tree.level


class _Tree:
    """The parts as they are parsed: those of the innermost open bracket, and of the brackets around it."""

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
        """Parse a boost, or the fuzziness of a word or the slop of a phrase."""
        if self.pending or not self.level or self.level[-1].end != token.start():
            return False
        last = self.level[-1]
        last.end, last.boost = token.end(), _boost(token[0], last.boost)
        last.inexact |= token[0].startswith("~")
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
"""The method for each token; it returns False if the token is not allowed there."""


def _part(token: re.Match[str], pending: _Pending, wildcards: str) -> _Part:
    start = token.start() if pending.start < 0 else pending.start
    kind, raw, text = token.lastgroup, token[0], ""
    if kind == "word":
        text = unescaped(_without_wildcards(raw, wildcards))
    elif kind == "phrase":
        text = unescaped(raw[1:-1].strip())
    or_ = pending.operator == "or"
    part = _Part(start, token.end(), pending.sign, or_, pending.field, text, kind == "phrase", kind == "opaque")
    part.inexact = kind == "word" and raw[-1] in wildcards
    return part


def _without_wildcards(word: str, wildcards: str) -> str:
    """Remove wildcards from both ends of a word, except escaped ones."""
    left = word.lstrip(wildcards)
    kept = left.rstrip(wildcards)
    return left[: len(kept) + 1] if kept.endswith("\\") else kept


def _boost(raw: str, before: float) -> float:
    try:
        return float(raw[1:]) if raw.startswith("^") else before
    except ValueError:
        return before


def _unbracketed(parts: list[_Part]) -> list[_Part]:
    """Remove brackets around the whole line."""
    while len(parts) == 1 and parts[0].parts is not None and not parts[0].sign and not parts[0].field:
        parts = parts[0].parts
    return parts


def _words(parts: Sequence[_Part], is_text: IsText) -> Iterator[str]:
    """Yield the query text of the parts that are not excluded, each word once."""
    if len(parts) == 1:
        return filter(None, [_text_of(parts[0], is_text)])
    alternatives = any(part.or_ for part in parts)
    texts = _without_repeated_phrases(_texts(_without_expansions(parts) if alternatives else parts, is_text))
    if alternatives:
        texts = _once(_alternatives(texts))
    elif all(each.part.field for each in texts):
        texts = _once(texts)
    else:
        texts = _without_forms(texts)
    return (each.text for each in texts)


class _Text(NamedTuple):
    """The text of a part."""

    text: str
    part: _Part
    whole: bool
    """Whether it is a phrase or a group of several words."""

    @property
    def is_word(self) -> bool:
        return not self.part.quoted and not self.whole

    @property
    def is_form(self) -> bool:
        """Whether it is a word with wildcards, or with typing errors."""
        return self.is_word and self.part.inexact


_Texts = list[_Text]


def _texts(parts: Sequence[_Part], is_text: IsText) -> _Texts:
    texts = [(text, part) for part in parts if (text := _text_of(part, is_text))]
    return [_Text(text, part, _is_whole(text, part)) for text, part in texts]


def _text_of(part: _Part, is_text: IsText) -> str:
    if part.sign == "-" or part.opaque or (part.field and not _has_words(part.field, is_text)):
        return ""
    return part.text if part.parts is None else " ".join(_words(_without_expansions(part.parts), is_text))


def _without_expansions(parts: Sequence[_Part]) -> Sequence[_Part]:
    """Drop phrases and groups that weigh less than the plain words next to them: an application adds synonyms so."""
    if len({part.boost for part in parts}) < 2:
        return parts
    least = min((part.boost for part in parts if _is_plain(part)), default=0.0)
    return [part for part in parts if part.boost >= least or part.sign or part.field or part.opaque]


def _has_words(field: str, is_text: IsText) -> bool:
    return field not in {"_exists_", "*", "_id"} and is_text(field)


def _without_repeated_phrases(texts: _Texts) -> _Texts:
    """Drop a phrase that only repeats plain words next to it, all of them or some, in order to boost them."""
    plain = [each.text for each in texts if each.is_word]
    if not plain or len(plain) == len(texts):
        return texts
    repeats = _repeats(" ".join(plain))
    return [each for each in texts if each.is_word or not repeats(each.text)]


def _repeats(words: str) -> Callable[[str], bool]:
    """Return whether a text is some of these words in this order, or all of them spelled as a compound."""
    folded = fold(words)
    line, compound = f" {' '.join(folded)} ", "".join(folded) if len(folded) > 1 else None

    def repeats(text: str) -> bool:
        own = fold(text)
        return "".join(own) == compound or f" {' '.join(own)} " in line

    return repeats


def _is_whole(text: str, part: _Part) -> bool:
    """Whether a part is a phrase or a group of several words."""
    return (part.quoted or part.parts is not None) and not is_one_word(text)


def _alternatives(texts: _Texts) -> _Texts:
    """Select from parts joined by OR every plain word, and one phrase or group: the others are variants of it.

    That is the one with the highest boost, or the first of several.
    """
    spelled = {each.text: letters(each.text) for each in texts if not each.part.quoted}
    plain = frozenset(spelled.values())
    whole = [each for each in texts if each.whole or (each.part.quoted and letters(each.text) not in plain)]
    repeated = variants([letters(each.text) for each in whole])
    typed = max((each for place, each in enumerate(whole) if place not in repeated), key=_boost_of, default=None)
    if typed is None:
        return texts
    within = letters(typed.text)
    return [each for each in texts if each is typed or (each.is_word and spelled[each.text] not in within)]


def _once(texts: _Texts) -> _Texts:
    """Drop parts that repeat an earlier one: in another field, as a prefix or with typing errors."""
    first: dict[str, _Text] = {}
    for each in texts:
        first.setdefault(letters(each.text), each)
    return list(first.values())


def _without_forms(texts: _Texts) -> _Texts:
    """Drop words that repeat the one before, or all others, as prefixes or with typing errors (`rain* rain~`)."""
    forms = [each for each in texts if each.is_form]
    if not forms:
        return texts
    others = [each for each in texts if not each.is_form]
    if letters(" ".join([each.text for each in others])) == letters(" ".join([each.text for each in forms])):
        return others
    kept = texts[:1]
    for each in texts[1:]:
        last = kept[-1]
        repeats = each.is_word and last.is_word and (each.is_form or last.is_form)
        if not repeats or letters(each.text) != letters(last.text):
            kept.append(each)
    return kept


def _boost_of(text: _Text) -> float:
    return text.part.boost


def _requirements(parts: Sequence[_Part], is_text: IsText, has_words: IsText) -> list[_Part] | None:
    """Return the parts that require or exclude more than the query text; None if that is unclear."""
    if all(map(_is_plain, parts)) or _repeats_in_fields(parts, is_text, has_words):
        return []
    if any(part.or_ for part in parts):
        return [] if all(_is_free(part) for part in parts) else None
    positive = [part for part in parts if part.sign != "-" and not part.opaque]
    quotes_all = len(positive) > 1 and all(part.quoted and is_typed_word(part.text) for part in positive)
    repeats = _repeated(positive, has_words)
    demands: list[_Part] = []
    for part in parts:
        if part.sign or part.field or part.opaque:
            demands.append(part)
        elif id(part) in repeats:
            continue
        elif part.quoted:
            demands += [] if quotes_all else [part]
        elif part.parts is not None:
            inner = _requirements(_without_expansions(_unbracketed(part.parts)), is_text, has_words)
            if inner is None and _text_of(part, has_words):
                return None
            demands += [part] if inner is None else inner
    return demands


def _is_plain(part: _Part) -> bool:
    """Whether a part is a single word and nothing else."""
    return not (part.sign or part.field or part.opaque or part.quoted) and part.parts is None


def _is_free(part: _Part) -> bool:
    """Whether a part is only words, however they are searched."""
    return not (part.sign or part.field or part.opaque) and all(map(_is_free, part.parts or ()))


def _has_phrase(part: _Part) -> bool:
    return part.quoted or any(map(_has_phrase, part.parts or ()))


def _repeats_in_fields(parts: Sequence[_Part], is_text: IsText, has_words: IsText) -> bool:
    """Whether all parts repeat the same words in different text fields: `title:(w) OR body:(w)`, also without OR."""
    several = len(parts) > 1 and (all(part.field for part in parts) or any(part.or_ for part in parts))
    free = several and all(not part.sign and not part.opaque and all(map(_is_free, part.parts or ())) for part in parts)
    if not free or not any(_text_of(part, has_words) for part in parts):
        return False
    return len({letters(_text_of(part, is_text)) for part in parts}) == 1


def _repeated(positive: Sequence[_Part], has_words: IsText) -> set[int]:
    """Return the ids of phrases and groups that only repeat plain words next to them."""
    if not any(_has_phrase(part) for part in positive):
        return set()
    texts = _texts([part for part in positive if _is_free(part)], has_words)
    plain = [each.text for each in texts if each.is_word]
    if not plain or len(plain) == len(texts):
        return set()
    repeats = _repeats(" ".join(plain))
    return {id(each.part) for each in texts if not each.is_word and repeats(each.text)}


# Everything that is not a word, in a line that could not be parsed. It runs in one pass: no lookahead beyond where a
# match must end, and a field name is only tried from its first letter.
_NOISE = re.compile(
    r"""\[[^\[\]]*+\] | \{[^{}]*+\} | /[^/]*+/ | [~^][\d.]*+
        | (?:^|(?<=[\s(]))(?:-|!|NOT\s++)(?:[\w.]++:)?(?:"[^"]*+"|[^\s()]++)
        | (?<![\w.])[\w.]++: | \b(?:AND|OR|NOT)\b | [+\-=&|<>!(){}\[\]"*?:\\/]""",
    re.VERBOSE,
)
