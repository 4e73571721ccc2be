"""Text without HTML: tags, comments, the contents of scripts and styles, and entities.

Only what bears the name of an HTML element is a tag, so that `a < b`, `<M8` and `List<T>` stay: a browser's parser
would take the rest of a text after `<M8` for attributes. The scan takes time in proportion to the text, whatever it is.
"""

import html
import re
from functools import lru_cache

_LETTERS = "abipqsu"
_INLINE = (
    "abbr|acronym|bdi|bdo|big|cite|code|data|del|dfn|em|font|ins|kbd|mark|samp|small|span|strike|strong|sub|sup|time|tt|"
    "var|wbr"
)
_BLOCKS = (
    "address|area|article|aside|audio|base|blockquote|body|br|button|canvas|caption|center|col|colgroup|datalist|dd|"
    "details|dialog|dir|div|dl|dt|embed|fieldset|figcaption|figure|footer|form|frame|frameset|h[1-6]|head|header|hgroup|"
    "hr|html|iframe|img|input|label|legend|li|link|main|map|menu|meta|meter|nav|noscript|object|ol|optgroup|option|"
    "output|param|picture|pre|progress|ruby|rp|rt|script|section|select|slot|source|style|summary|svg|table|tbody|td|"
    "template|textarea|tfoot|th|thead|title|tr|track|ul|video"
)


def _by_first_letter(names: str) -> str:
    """Return a pattern of these names, grouped by first letter, which is faster than trying each name."""
    found: dict[str, list[str]] = {}
    for name in names.split("|"):
        found.setdefault(name[0], []).append(name[1:])
    return "|".join(f"{letter}(?:{'|'.join(rests)})" for letter, rests in found.items())


# A single letter may be a variable: it is a tag if it stands alone or has an attribute with a value.
_NAMES = rf"(?:{_by_first_letter(f'{_INLINE}|{_BLOCKS}')})(?=[\s/>])|[{_LETTERS}](?=\s*+/?>|\s[^<>=]*+=)"
_VALUES = r"""[^<>"']*+(?:"[^"]*+"[^<>"']*+|'[^']*+'[^<>"']*+)*+"""
_TAG = re.compile(rf"<(?:(?P<comment>!--)|!doctype\b[^<>]*+>|(?P<end>/?)(?P<name>{_NAMES}){_VALUES}>)", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_HIDDEN = frozenset(("script", "style", "template", "noscript", "svg"))
_INLINE_NAMES = frozenset((*_INLINE.split("|"), *_LETTERS)) - {"p"}


def without_markup(text: str) -> str:
    """Return the text as a reader sees it; a text without markup is returned unchanged."""
    seen = _without_tags(text) if "<" in text else text
    if "&" in seen:
        seen = _ENTITY.sub(_character, seen)
    return text if seen is text or seen == text else " ".join(seen.split())


def _character(entity: re.Match[str]) -> str:
    return _unescaped(entity[0])


_unescaped = lru_cache(1024)(html.unescape)


def _without_tags(text: str) -> str:
    kept: list[str] = []
    at, unclosed = 0, set[str]()
    while (tag := _TAG.search(text, at)) is not None:
        kept.append(text[at : tag.start()])
        name = "--" if tag["comment"] else (tag["name"] or "").lower()
        kept.append("" if name in _INLINE_NAMES else " ")
        at = _end_of(text, tag, name, unclosed)
    kept.append(text[at:])
    return "".join(kept)


def _end_of(text: str, tag: re.Match[str], name: str, unclosed: set[str]) -> int:
    """Return where the text continues after a tag: after the end of its element, if that is not shown."""
    hides = name == "--" or (name in _HIDDEN and not tag["end"] and not tag[0].endswith("/>"))
    if not hides or name in unclosed:
        return tag.end()
    closing = _CLOSING[name].search(text, tag.end())
    if closing is None:
        unclosed.add(name)  # searched for once only
        return tag.end()
    return closing.end()


_CLOSING = {name: re.compile(rf"</{name}[^<>]*+>?", re.IGNORECASE) for name in _HIDDEN} | {"--": re.compile("-->")}
