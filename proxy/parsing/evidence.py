"""How the texts of several clauses make up what the user typed, and which of them are certain to hold it.

Applications write one typed text many times: over several fields, as a phrase, word by word, with synonyms. A clause
with another text may as well be a filter (a brand in a `match`), and what is a filter must never be relaxed. So texts
are only put together where the form of their clauses says that they are one, and where that is not certain nothing is
relaxed.
"""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from proxy.bounds import FIELD_DEPTH
from proxy.parsing.words import Typed, fold, variants

AMBIGUOUS = "ambiguous_text"


def dots_of(fields: Collection[str]) -> int:
    """Return how many dots are looked at in the names of fields."""
    return sum([min(field.count("."), FIELD_DEPTH) for field in fields])


def size_of(clauses: int, fields: int, text: str) -> int:
    """Return how much there is to look at, in the time for one clause or field."""
    return clauses + fields + len(text) // 16


class Clause(NamedTuple):
    """A clause of the client's query that holds words."""

    query: Any
    """Told from others by identity: the same words may stand in several places."""
    typed: Typed
    words: tuple[str, ...]
    """Its text as it is compared."""
    fields: frozenset[str]
    """Without boosts; empty: the index's default, or none that is named."""
    boost: float = 1.0
    quotes: bool = False
    autocomplete: bool = False


class Reading(NamedTuple):
    """One text, and the clauses that hold it."""

    text: str
    words: tuple[str, ...]
    """The text as it is compared."""
    clauses: tuple[Clause, ...]
    fields: frozenset[str]
    """Of all clauses."""
    everywhere: bool
    """Some clause names no field, or fields by a wildcard."""
    bases: frozenset[str]
    """The fields of which its fields are multi-fields; empty: all."""
    central: bool
    """It is searched where people search: in all fields, in the first one of the passage, or in several of them."""
    touches: bool
    """It is searched in a field of the passage."""
    given: bool
    """It is the text that the request gives itself."""
    doubt: str = ""
    """Why it is not certain that these clauses hold the user's words, and nothing else does."""
    optional: bool = False
    """It only raises scores: what does not hold it matches all the same."""

    @property
    def boosts(self) -> tuple[float, ...]:
        return tuple(clause.boost for clause in self.clauses)

    @property
    def quotes(self) -> bool:
        return all(clause.quotes for clause in self.clauses)

    @property
    def letters(self) -> str:
        return "".join(self.words)

    @property
    def is_one_word(self) -> bool:
        return len(self.words) == 1

    @property
    def size(self) -> int:
        """How much there is to look at."""
        return size_of(len(self.clauses), len(self.fields), self.text)


class Evidence:
    """What tells the user's text from others: where it is searched, and the text that a request gives itself.

    A field that the passage's text is copied to is one in which people search everything.
    """

    def __init__(
        self, passage: Sequence[str], given: str | None = None, copies: AbstractSet[str] = frozenset()
    ) -> None:
        self._first = frozenset(passage[:1])
        self._passage = frozenset(passage)
        self._copies = copies
        self._given = fold(given) if given else None

    def of_clause(self, clause: Clause) -> Reading:
        """Read a clause by itself."""
        everywhere = not clause.fields or "*" in " ".join(clause.fields)
        where = self._where(clause.fields, everywhere=everywhere)
        given = clause.words == self._given
        return Reading(clause.typed.text, clause.words, (clause,), clause.fields, everywhere, *where, given)

    def of_several(
        self, text: str, words: tuple[str, ...], readings: Sequence[Reading], doubt: str, *, optional: bool
    ) -> Reading:
        """Read the clauses of several readings as one text."""
        clauses = tuple([clause for reading in readings for clause in reading.clauses])
        fields = frozenset[str]().union(*[reading.fields for reading in readings])
        everywhere = any(reading.everywhere for reading in readings)
        where = self._where(fields, everywhere=everywhere)
        given = words == self._given
        doubt = "" if given else doubt
        return Reading(text, words, clauses, fields, everywhere, *where, given, doubt, optional)

    def _where(self, fields: frozenset[str], *, everywhere: bool) -> tuple[frozenset[str], bool, bool]:
        """Say of what is searched in these fields its `bases`, whether it is `central`, and whether it `touches`."""
        bases = frozenset[str]() if everywhere else self._bases(fields)
        within = bases & self._passage
        return bases, not bases or len(within) > 1 or not within.isdisjoint(self._first), not bases or bool(within)

    def _bases(self, fields: frozenset[str]) -> frozenset[str]:
        dotted = "." in " ".join(fields)
        known = fields.union(self._passage, self._copies) if dotted else fields
        bases = frozenset([_base(field, known) for field in fields]) if dotted else fields
        return bases if bases.isdisjoint(self._copies) else frozenset()


def _base(field: str, known: AbstractSet[str]) -> str:
    """Return the field that this one is a multi-field of: of the passage, or of those beside it."""
    end = -1
    for _ in range(FIELD_DEPTH):
        end = field.find(".", end + 1)
        if end < 0:
            break
        if field[:end] in known:
            return field[:end]
    return field


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
    """Read a disjunction: of other texts than the typed one, no matter which, it demands nothing."""
    if len(readings) == 1:
        return readings[0]
    apart = _joined(readings, evidence, alternatives=True)
    return max(apart, key=lambda reading: (reading.given, reading.central, max(reading.boosts)), default=None)


def with_filters(reading: Reading, filters: Sequence[Reading]) -> Reading:
    """Add filters that hold the very same text in several of the same fields: a cheap first sieve of the same words.

    Elsewhere it may be a facet's value that happens to be the text.
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
    """Bring together clauses of one text, and leave out texts that are a part of another one.

    What is left out stays required where it is: a single word of the text may be a filter as well, and so may the
    whole of it in a field outside the passage (a shelf called `boots`).
    """
    same: dict[tuple[str, ...], list[Reading]] = {}
    for reading in readings:
        same.setdefault(reading.words, []).append(reading)
    groups = same.values() if alternatives else map(_but_shelves, same.values())
    merged = [_one(group, evidence) for group in groups]
    parts = variants([reading.letters for reading in merged]) if len(merged) > 1 else ()
    return [reading for place, reading in enumerate(merged) if reading.given or place not in parts]


def _but_shelves(readings: Sequence[Reading]) -> Sequence[Reading]:
    """Leave out those in a single field outside the passage, where others are not."""
    return [reading for reading in readings if reading.central or reading.touches] or readings


def _one(readings: Sequence[Reading], evidence: Evidence) -> Reading:
    """Make one reading of several with the same words; where some are in doubt, the others are enough."""
    if len(readings) == 1:
        return readings[0]
    certain = [reading for reading in readings if not reading.doubt] or readings
    optional = all(reading.optional for reading in readings)
    return evidence.of_several(readings[0].text, readings[0].words, certain, certain[0].doubt, optional=optional)


def _joined(readings: Sequence[Reading], evidence: Evidence, *, alternatives: bool) -> list[Reading]:
    """Put together the texts that are searched in the very same fields: an application wrote a clause for each word."""
    alike: dict[frozenset[str], list[Reading]] = {}
    for reading in _merged(readings, evidence, alternatives=alternatives):
        alike.setdefault(reading.fields, []).append(reading)
    joined = (_or(group, evidence) if alternatives else _and(group, evidence) for group in alike.values())
    return [reading for group in joined for reading in group]


def _and(readings: Sequence[Reading], evidence: Evidence) -> list[Reading]:
    """Single words, or a quoted part and the rest; other texts of one field may be a filter and the words."""
    if len(readings) == 1:
        return list(readings)
    words = all(reading.is_one_word for reading in readings)
    quoted = len({reading.quotes for reading in readings}) > 1
    return [_in_order(readings, "" if words or quoted else AMBIGUOUS, evidence)]


def _or(readings: Sequence[Reading], evidence: Evidence) -> list[Reading]:
    """Single words of the same weight; other texts are expansions of the one that weighs most."""
    one_weight = len({reading.boosts for reading in readings}) == 1
    if len(readings) > 1 and one_weight and all(reading.is_one_word for reading in readings):
        return [_in_order(readings, "", evidence)]
    return [max(readings, key=lambda reading: (reading.given, max(reading.boosts)))]


def _in_order(readings: Sequence[Reading], doubt: str, evidence: Evidence) -> Reading:
    doubt = next((reading.doubt for reading in readings if reading.doubt), doubt)
    optional = all(reading.optional for reading in readings)
    text = " ".join([reading.text for reading in readings])
    return evidence.of_several(text, fold(text), readings, doubt, optional=optional)


def _chosen(readings: Sequence[Reading], evidence: Evidence) -> Reading:
    """Of several required texts take the one that is searched where people search; of several such ones, all.

    The others stay required. It is certain that they are filters where they are searched outside the passage.
    """
    given = [reading for reading in readings if reading.given]
    central = [reading for reading in readings if reading.central]
    chosen, *more = given or central or readings
    others = [reading for reading in readings if reading is not chosen]
    if given or not others:
        return chosen
    if more:
        return _in_order([chosen, *more], AMBIGUOUS, evidence)
    filters = bool(central) and not any(other.touches for other in others)
    return chosen if filters else _doubted(_with_quoted(chosen, others, readings))


def _with_quoted(chosen: Reading, others: Sequence[Reading], in_order: Sequence[Reading]) -> Reading:
    """Add a quoted part, or to a quoted part the rest, which applications search in some of the same fields."""
    rest = [other for other in others if other.quotes is not chosen.quotes and len(other.bases & chosen.bases) > 1]
    typed = {id(reading) for reading in (chosen, *rest)}
    text = " ".join([reading.text for reading in in_order if id(reading) in typed])
    return chosen._replace(text=text, words=fold(text)) if rest else chosen


def _doubted(reading: Reading) -> Reading:
    return reading._replace(doubt=reading.doubt or AMBIGUOUS)


def _beside(required: Reading, optional: Reading, evidence: Evidence) -> Reading:
    """Read a required text beside one that only raises the score."""
    if required.words == optional.words:
        return _one([required, optional], evidence)
    if required.given or optional.given:
        return required if required.given else optional
    if optional.fields <= required.fields or optional.letters in required.letters:
        return required
    if required.central:
        doubted = _doubted(_with_quoted(required, [optional], [required, optional]))
        return doubted if optional.central else required
    if optional.central:
        return _doubted(optional) if required.touches else optional
    return _in_order([required, optional], AMBIGUOUS, evidence)
