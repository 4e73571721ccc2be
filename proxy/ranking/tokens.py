"""The length of a text in tokens, as an estimate, and texts cut to such a length.

The estimate is a fixed function of the text and not adjusted to what a provider bills: a cached score belongs to its
passage, and a cut that moves would make every cached score useless.
"""

TOKEN_WEIGHT = 4
"""Each byte weighs 1."""
_DIGITS = b"0123456789"
_MOST_WEIGHT = TOKEN_WEIGHT + 1
"""The weight of a digit."""
_WORD_CHARACTERS = 60
"""A longer word at the end of a cut text is cut itself; scripts without spaces have only such words."""


def estimated_tokens(text: str) -> int:
    """Estimate the tokens of a text: one for four bytes of UTF-8, and one for each digit besides.

    Compared with the vocabulary of Qwen, which has a token for each digit: titles and descriptions of shops 0.94 to
    1.16, of films 1.02, abstracts 1.34, German 0.88, Chinese 1.3, Japanese 1.0, Korean 0.8, Russian 1.15, Arabic 1.2,
    Hindi and Greek 0.6 of the true number.
    """
    return -(-_weight(text) // TOKEN_WEIGHT)


def _weight(text: str) -> int:
    """Return the weight of a text: 1 for each byte, and the weight of a token for each digit."""
    content = text.encode("utf-8", "surrogatepass")
    digits = len(content) - len(content.translate(None, _DIGITS))
    return len(content) + TOKEN_WEIGHT * digits


def characters_of(tokens: int) -> int:
    """Return an upper bound of the characters in a text of this many tokens."""
    return tokens * TOKEN_WEIGHT + 1


def cut(text: str, tokens: int) -> str:
    """Cut a text to this estimated length, at the end of a word."""
    if len(text) * _MOST_WEIGHT <= tokens * TOKEN_WEIGHT:
        return text
    length, limit = min(len(text), characters_of(tokens)), tokens * TOKEN_WEIGHT
    while (weight := _weight(text[:length])) > limit:
        length = length * limit // weight
    return text if length == len(text) else _to_word_end(text, length)


def _to_word_end(text: str, length: int) -> str:
    if text[length].isspace():
        return text[:length].rstrip()
    start = max(0, length - _WORD_CHARACTERS)
    last = text[start:length]
    words = last.rsplit(None, 1)
    ends_in_space = last[-1:].isspace()
    if ends_in_space or len(words) < 2:
        return text[:length].rstrip()
    return text[: length - len(words[1])].rstrip()
