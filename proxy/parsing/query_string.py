"""Reads a `query_string` or `simple_query_string`: the query text, and what else the query requires or excludes."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from proxy.bounds import QUERY_STRING_LINE
from proxy.parsing.query_syntax import Part, parts_of, unbracketed
from proxy.parsing.words import (
    MATCH_ALL,
    Query,
    Typed,
    fold,
    is_typed_word,
    letters,
    unescaped,
    variants,
    without_marks,
)

IsText = Callable[[str], bool]


class FieldKinds(NamedTuple):
    """What is known of the fields that a query names."""

    is_text: IsText
    """Whether a field has analysed text."""
    is_central: IsText = lambda _: True
    """Whether a search in this field alone is one for the user's text, as in a title; others may be filters."""


# Options of the whole query that do not apply to a part of it.
_WHOLE_LINE = frozenset({"query", "minimum_should_match", "boost", "_name"})

_EVERY_FIELD = FieldKinds(lambda _: True)


def read_line(name: str, options: Query, line: str, kinds: FieldKinds = _EVERY_FIELD) -> Typed:
    """Read the query text of a line, and what else the line requires or excludes.

    `+word`, `"a phrase"` and `field:value` stay required, `-word` and `-(a group)` stay excluded. The other operators
    only change how the words are searched, and so does the sign of `+(a group)` if all parts have signs. Values of
    fields that are not text are not query text, and beside words without a field, neither are those of fields that are
    not central: applications write their filters so.
    """
    parts = parts_of(name, options, line)
    if parts is None:
        return Typed(" ".join(_NOISE.sub(" ", line[:QUERY_STRING_LINE]).split()), None)
    plain = unbracketed(parts)
    kept = {key: value for key, value in options.items() if key not in _WHOLE_LINE}
    has_words = _with_words(plain, kinds) if ":" in line else kinds.is_text
    demands = _requirements(plain, kinds.is_text, has_words)
    is_typed = name == "simple_query_string" and parts and all(map(_is_typed, parts))
    text = unescaped(without_marks(" ".join(line.split()))) if is_typed else " ".join(_words(plain, has_words))
    named = tuple(_named(plain, has_words) or ()) if ":" in line else ()
    if demands is None:
        return Typed(text, None, named)
    clauses = {
        "must": [{name: kept | {"query": line[part.start : part.end]}} for part in demands if part.sign != "-"],
        "must_not": [{name: kept | {"query": line[part.start : part.end]}} for part in demands if part.sign == "-"],
    }
    stays = {occur: found for occur, found in clauses.items() if found}
    return Typed(text, {"bool": stays} if stays else MATCH_ALL, named)


def _with_words(parts: list[Part], kinds: FieldKinds) -> IsText:
    """Return which fields hold words of the query text: the central ones, if there are words in them or in no field."""

    def is_central(field: str) -> bool:
        return kinds.is_text(field) and kinds.is_central(field)

    return is_central if any(_words(parts, is_central)) else kinds.is_text


def _named(parts: Sequence[Part], has_words: IsText) -> dict[str, None] | None:
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


def _words(parts: Sequence[Part], is_text: IsText) -> Iterator[str]:
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
    part: Part
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


def _texts(parts: Sequence[Part], is_text: IsText) -> _Texts:
    texts = [(text, part) for part in parts if (text := _text_of(part, is_text))]
    return [_Text(text, part, _is_whole(text, part)) for text, part in texts]


def _text_of(part: Part, is_text: IsText) -> str:
    if part.sign == "-" or part.opaque or (part.field and not _has_words(part.field, is_text)):
        return ""
    return part.text if part.parts is None else " ".join(_words(_without_expansions(part.parts), is_text))


def _without_expansions(parts: Sequence[Part]) -> Sequence[Part]:
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


def _is_whole(text: str, part: Part) -> bool:
    """Whether a part is a phrase or a group of several words."""
    return (part.quoted or part.parts is not None) and not is_typed_word(text)


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


def _requirements(parts: Sequence[Part], is_text: IsText, has_words: IsText) -> list[Part] | None:
    """Return the parts that require or exclude more than the query text; None if that is unclear."""
    if all(map(_is_plain, parts)) or _repeats_in_fields(parts, is_text, has_words):
        return []
    if any(part.or_ for part in parts):
        return [] if all(_is_free(part) for part in parts) else None
    positive = [part for part in parts if part.sign != "-" and not part.opaque]
    quotes_all = len(positive) > 1 and all(part.quoted and is_typed_word(part.text) for part in positive)
    repeats = _repeated(positive, has_words)
    signed = all(part.sign for part in parts)
    demands: list[Part] = []
    for part in parts:
        is_group = signed and part.sign == "+" and part.parts is not None
        if (part.sign and not is_group) or part.field or part.opaque:
            demands.append(part)
        elif id(part) in repeats:
            continue
        elif part.quoted:
            demands += [] if quotes_all else [part]
        elif part.parts is not None:
            inner = _requirements(_without_expansions(unbracketed(part.parts)), is_text, has_words)
            if inner is None and _text_of(part, has_words):
                return None
            demands += [part] if inner is None else inner
    return demands


def _is_plain(part: Part) -> bool:
    """Whether a part is a single word and nothing else."""
    return not (part.sign or part.field or part.opaque or part.quoted) and part.parts is None


def _is_typed(part: Part) -> bool:
    """Whether a part is a word, searched as it was typed."""
    return _is_plain(part) and not part.or_ and not part.inexact


def _is_free(part: Part) -> bool:
    """Whether a part is only words, however they are searched."""
    return not (part.sign or part.field or part.opaque) and all(map(_is_free, part.parts or ()))


def _has_phrase(part: Part) -> bool:
    return part.quoted or any(map(_has_phrase, part.parts or ()))


def _repeats_in_fields(parts: Sequence[Part], is_text: IsText, has_words: IsText) -> bool:
    """Whether all parts repeat the same words in different text fields: `title:(w) OR body:(w)`, also without OR.

    With AND, a value in another field is a filter, although it has the same words: `title:boots AND shelf:boots`.
    """
    several = len(parts) > 1 and (all(part.field for part in parts) or any(part.or_ for part in parts))
    free = several and all(not part.sign and not part.opaque and all(map(_is_free, part.parts or ())) for part in parts)
    if not free or not any(_text_of(part, has_words) for part in parts):
        return False
    fields = has_words if any(part.and_ for part in parts) else is_text
    return len({letters(_text_of(part, fields)) for part in parts}) == 1


def _repeated(positive: Sequence[Part], has_words: IsText) -> set[int]:
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
