"""Combines the texts of several clauses into the one that the user typed.

Applications repeat the user's text in many clauses: in several fields, as a phrase, word by word, with synonyms. Texts
are combined only if the form of their clauses shows that they are one text; in case of doubt nothing is relaxed.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from proxy.bounds import COMPARED_CHARACTERS, COMPARED_TEXTS
from proxy.parsing.evidence import AMBIGUOUS, Evidence
from proxy.parsing.readings import Reading
from proxy.parsing.words import fold, variants


def all_of(readings: Sequence[Reading], evidence: Evidence) -> Reading | None:
    """Read a conjunction: clauses that must all match, and optional ones."""
    if len(readings) == 1:
        return readings[0]
    required = _joined([each for each in readings if not each.optional], evidence, alternatives=False)
    optional = any_of([each for each in readings if each.optional], evidence)
    if not required:
        return optional
    chosen = _chosen(required, evidence)
    return chosen if optional is None else _beside(chosen, optional, evidence)


def any_of(readings: Sequence[Reading], evidence: Evidence) -> Reading | None:
    """Read a disjunction: its best text. Once that one is relaxed, none of the other alternatives is required."""
    if len(readings) == 1:
        return readings[0]
    apart = _joined(_without_doubtful(readings), evidence, alternatives=True)
    return max(apart, key=lambda reading: (reading.given, reading.central, max(reading.boosts)), default=None)


def _without_doubtful(readings: Sequence[Reading]) -> Sequence[Reading]:
    """Drop texts elsewhere that may include a filter's, if there is a central one that does not."""
    if not any(reading.central and not reading.doubt for reading in readings):
        return readings
    return [reading for reading in readings if reading.central or not reading.doubt]


def with_filters(reading: Reading, filters: Sequence[Reading]) -> Reading:
    """Add filters with the same text in several of the same fields: they only preselect documents by that text.

    In a single other field, the same text may be the value of a facet.
    """
    alike = [each for each in filters if each.words == reading.words]
    same = [each for each in alike if not each.bases or (len(each.bases) > 1 and each.bases & reading.bases)]
    if not same:
        return reading
    clauses = (*reading.clauses, *(clause for each in same for clause in each.clauses))
    fields = reading.fields.union(*[each.fields for each in same])
    everywhere = reading.everywhere or any(each.everywhere for each in same)
    return reading._replace(clauses=clauses, fields=fields, everywhere=everywhere)


def _merged(readings: Sequence[Reading], evidence: Evidence, *, alternatives: bool) -> list[Reading]:
    """Combine clauses with the same text, and drop texts that are part of another one.

    The clauses of a dropped text stay required. A single word of the text may also be a filter, and so may the whole
    text in a field outside the passage (a category called `boots`).
    """
    same: dict[tuple[str, ...], list[Reading]] = {}
    for reading in readings:
        same.setdefault(reading.words, []).append(reading)
    if alternatives:
        merged = _without_expansions([_one(group, evidence) for group in same.values()])
    else:
        merged = [_required(group, evidence) for group in same.values()]
    parts = _parts(merged, evidence, alternatives=alternatives)
    return [
        reading
        for place, reading in enumerate(merged)
        if reading.given or place not in parts or _is_inside_a_word(reading, merged, alternatives=alternatives)
    ]


def _parts(readings: Sequence[Reading], evidence: Evidence, *, alternatives: bool) -> AbstractSet[int]:
    """Return the positions of texts that are part of another one, or repeat an earlier one.

    A required text outside the passage contains no other one, except in its own fields: it may be a filter (`winter
    boots`). Of alternatives, a value does not contain a text of the search box: it may be one that the search prefers.
    """

    def may_contain(whole: Reading, part: Reading) -> bool:
        if alternatives:
            return not (part.central and evidence.is_value(whole))
        return whole.central or _is_searched_within(part, whole)

    spelled = [reading.letters for reading in readings]
    return frozenset(
        place
        for place in variants(spelled)
        if any(
            _contains(spelled, other, place) and may_contain(whole, readings[place])
            for other, whole in enumerate(readings)
        )
    )


def _contains(spelled: Sequence[str], place: int, part: int) -> bool:
    """Whether a text contains another one, or is an earlier one of the same letters."""
    return spelled[part] in spelled[place] and (place < part or len(spelled[place]) > len(spelled[part]))


def _is_searched_within(reading: Reading, other: Reading) -> bool:
    """Whether a text is searched in some of another one's fields, and not in all fields of the index."""
    return bool(reading.fields) and reading.fields <= other.fields


def _without_expansions(readings: list[Reading]) -> list[Reading]:
    """Drop texts that the application weighs less than a part of them: `storm coat` or `coats`, as forms of `coat`.

    A part that it only prefers elsewhere, such as a brand in the text, is not the whole text.
    """
    boosts = [max(reading.boosts) for reading in readings]
    if len(readings) > COMPARED_TEXTS or len(set(boosts)) < 2:
        return readings
    lines = [" ".join(["", *reading.words]) for reading in readings]
    if sum(map(len, lines)) > COMPARED_CHARACTERS:
        return readings
    words = [frozenset(reading.words) for reading in readings]
    texts = list(zip(readings, words, lines, boosts, strict=True))
    return [
        whole
        for whole, own, line, boost in texts
        if not (
            heavier := [
                part
                for reading, part, begin, more in texts
                if more > boost and (part < own or begin in line) and (reading.central or not whole.central)
            ]
        )
        or frozenset().union(*heavier) == own
    ]


def _is_inside_a_word(reading: Reading, readings: Sequence[Reading], *, alternatives: bool) -> bool:
    """Whether a word is only within words of other texts (`in` within `rain`), and not the beginning of one.

    Of two required words, neither is a form of the other: no application requires both.
    """
    around = [each for each in readings if each is not reading and reading.letters in each.letters]
    others = around if alternatives else [each for each in around if not each.is_one_word]
    return reading.is_one_word and not any(_has_word(each, reading.letters) for each in others)


def _has_word(reading: Reading, word: str) -> bool:
    """Whether a word of a text begins so, or several of them are written as one (`rainboot`)."""
    return f" {word}" in " ".join(["", *reading.words]) or len(word) > max(map(len, reading.words))


def _required(readings: Sequence[Reading], evidence: Evidence) -> Reading:
    """Combine required readings with the same words, except those in a single other field (a category, a brand).

    If all are in such fields, any of them may be a filter.
    """
    searched = [reading for reading in readings if not evidence.is_value(reading)]
    certain = [reading for reading in searched if reading.central or reading.touches]
    combined = _one(certain or searched or readings, evidence)
    if certain or combined.given:
        return combined
    is_one_search = len(_one(readings, evidence).bases) <= max(len(reading.bases) for reading in readings)
    return combined if is_one_search else _doubted(combined)


def _one(readings: Sequence[Reading], evidence: Evidence) -> Reading:
    """Combine readings with the same words; if some are in doubt, the others are enough."""
    if len(readings) == 1:
        return readings[0]
    certain = [reading for reading in readings if not reading.doubt] or readings
    optional = all(reading.optional for reading in readings)
    return evidence.of_several(readings[0].text, readings[0].words, certain, certain[0].doubt, optional=optional)


def _joined(readings: Sequence[Reading], evidence: Evidence, *, alternatives: bool) -> list[Reading]:
    """Combine texts in exactly the same fields, because the application wrote one clause per word.

    Required ones need only be in the same field and its multi-fields; an alternative in another one may be a synonym.
    """
    alike: dict[frozenset[str], list[Reading]] = {}
    for reading in _merged(readings, evidence, alternatives=alternatives):
        in_one_field = reading.in_one_field and not alternatives
        alike.setdefault(reading.bases if in_one_field else reading.fields, []).append(reading)
    joined = (_or(group, evidence) if alternatives else _and(group, evidence) for group in alike.values())
    return [reading for group in joined for reading in group]


def _and(readings: Sequence[Reading], evidence: Evidence) -> list[Reading]:
    """Combine required single words, or a phrase and the rest; other texts in one field may include a filter."""
    if len(readings) == 1:
        return list(readings)
    words = all(reading.is_one_word for reading in readings)
    quoted = len({reading.quotes for reading in readings}) > 1
    return [_in_order(readings, "" if words or quoted else AMBIGUOUS, evidence)]


def _or(readings: Sequence[Reading], evidence: Evidence) -> list[Reading]:
    """Combine alternative single words of the same boost; of other texts, use the one with the highest boost."""
    one_weight = len({frozenset(reading.boosts) for reading in readings}) == 1
    if len(readings) > 1 and one_weight and all(reading.is_one_word for reading in readings):
        return [_in_order(readings, "", evidence)]
    return [max(readings, key=lambda reading: (reading.given, max(reading.boosts)))]


def _in_order(readings: Sequence[Reading], doubt: str, evidence: Evidence) -> Reading:
    doubt = next((reading.doubt for reading in readings if reading.doubt), doubt)
    optional = all(reading.optional for reading in readings)
    text = " ".join([reading.text for reading in readings])
    return evidence.of_several(text, fold(text), readings, doubt, optional=optional)


def _chosen(readings: Sequence[Reading], evidence: Evidence) -> Reading:
    """Select from several required texts the central one; combine several central ones.

    The others stay required. They are certainly filters if they are searched outside the passage.
    """
    given = [reading for reading in readings if reading.given]
    central = [reading for reading in readings if reading.central]
    chosen, *more = given or central or _likely(readings, evidence)
    others = [reading for reading in readings if reading is not chosen]
    if given or not others:
        return chosen
    if more:
        return _in_order([chosen, *more], AMBIGUOUS, evidence)
    filters = bool(central) and not any(other.touches for other in others)
    return chosen if filters else _doubted(_with_quoted(chosen, others, readings))


def _likely(readings: Sequence[Reading], evidence: Evidence) -> Sequence[Reading]:
    """Select, outside the passage, the texts searched in several fields; else those that are no values.

    If all may be values, those in the passage; else all.
    """
    several = [reading for reading in readings if not reading.in_one_field]
    if several and not any(reading.touches for reading in readings):
        return several
    words = [reading for reading in readings if not evidence.is_value(reading)]
    return words or [reading for reading in readings if reading.touches] or readings


def _with_quoted(chosen: Reading, others: Sequence[Reading], in_order: Sequence[Reading]) -> Reading:
    """Add a phrase to the rest of the text, or the rest to a phrase, if they share some of their fields."""
    rest = [other for other in others if other.quotes is not chosen.quotes and len(other.bases & chosen.bases) > 1]
    typed = {id(reading) for reading in (chosen, *rest)}
    text = " ".join([reading.text for reading in in_order if id(reading) in typed])
    return chosen._replace(text=text, words=fold(text)) if rest else chosen


def _doubted(reading: Reading) -> Reading:
    return reading._replace(doubt=reading.doubt or AMBIGUOUS)


def _beside(required: Reading, optional: Reading, evidence: Evidence) -> Reading:
    """Read a required text next to one that only affects the score."""
    if required.words == optional.words:
        is_text = required.touches or not required.in_one_field
        combine = _one if is_text and not evidence.is_value(required) else _required
        return combine([required, optional], evidence)
    if required.given or optional.given:
        return required if required.given else optional
    is_part = optional.letters in required.letters
    if _is_searched_within(optional, required) or (is_part and (required.central or not required.in_one_field)):
        return required
    if required.central:
        doubted = _doubted(_with_quoted(required, [optional], [required, optional]))
        return doubted if optional.central else required
    if optional.central and not is_part:
        return _doubted(optional) if required.touches else optional
    return _doubted(required) if is_part else _in_order(_likely([required, optional], evidence), AMBIGUOUS, evidence)
