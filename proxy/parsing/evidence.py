"""Distinguishes the text that the user typed from the values of filters, by the fields in which they are searched.

A clause with another text may be a filter (a brand in a `match`), and a filter must never be relaxed.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from proxy.bounds import FIELD_DEPTH
from proxy.parsing.readings import Clause, Reading
from proxy.parsing.words import fold

AMBIGUOUS = "ambiguous_text"


class LinkedFields(NamedTuple):
    """What the mapping says of fields that are searched: which other fields have the same text."""

    copies: AbstractSet[str] = frozenset()
    """Fields that passage fields are copied to (`copy_to`): a search in them counts as one in all fields."""
    aliases: Mapping[str, str] = {}
    """Fields of type `alias`, and the field that each stands for."""
    also_keywords: AbstractSet[str] = frozenset()
    """Text fields with a keyword multi-field, as dynamic mappings make them: many hold values to filter by."""


NO_LINKS = LinkedFields()


class Evidence:
    """Distinguishes the user's text from other texts, by its fields and by the text that the request itself names."""

    def __init__(self, passage: Sequence[str], given: str | None = None, links: LinkedFields = NO_LINKS) -> None:
        self._aliases = links.aliases
        self._first = frozenset(passage[:1])
        self._passage = frozenset(passage)
        self._copies = links.copies
        self._also_keywords = links.also_keywords
        self._central = self._first | links.copies
        self._given = fold(given) if given else None

    def is_central(self, field: str) -> bool:
        """Whether it is the first passage field, a field that one is copied to, or a multi-field of these."""
        field = self._aliases.get(field, field)
        return _base(field, self._central) in self._central

    def doubt_of(self, reading: Reading) -> str:
        """Return the reason why it is uncertain that a text is the user's, although the query has no other one.

        Outside the passage, a value may be the filter of a search without words (a tenant).
        """
        is_filter = self.is_value(reading) and not reading.touches and not reading.given
        return reading.doubt or (AMBIGUOUS if is_filter else "")

    def is_value(self, reading: Reading) -> bool:
        """Whether a text is searched in one field that is also a keyword, and not the first one of the passage."""
        fields = reading.bases if reading.in_one_field and not reading.central else ()
        return any(_base(field, self._also_keywords) in self._also_keywords for field in fields)

    def are_values(self, reading: Reading) -> bool:
        """Whether its clauses compare several fields outside the passage with different values, as filters do."""
        if (
            reading.touches
            or reading.given
            or reading.in_one_field
            or len({each.words for each in reading.clauses}) < 2
        ):
            return False
        return all(self.is_value(self.of_clause(clause)) for clause in reading.clauses)

    def of_clause(self, clause: Clause) -> Reading:
        """Return the reading of a single clause."""
        fields = clause.fields
        if self._aliases:
            fields = frozenset([self._aliases.get(field, field) for field in fields])
        everywhere = not fields or "*" in " ".join(fields)
        where = self._where(fields, everywhere=everywhere)
        given = clause.words == self._given
        return Reading(clause.typed.text, clause.words, (clause,), fields, everywhere, *where, given)

    def of_several(
        self, text: str, words: tuple[str, ...], readings: Sequence[Reading], doubt: str, *, optional: bool
    ) -> Reading:
        """Combine the clauses of several readings to one text."""
        clauses = tuple([clause for reading in readings for clause in reading.clauses])
        fields = frozenset[str]().union(*[reading.fields for reading in readings])
        everywhere = any(reading.everywhere for reading in readings)
        where = self._where(fields, everywhere=everywhere)
        given = words == self._given
        doubt = "" if given else doubt
        return Reading(text, words, clauses, fields, everywhere, *where, given, doubt, optional)

    def _where(self, fields: frozenset[str], *, everywhere: bool) -> tuple[frozenset[str], bool, bool]:
        """Return `bases`, `central` and `touches` of a text that is searched in these fields."""
        bases = frozenset[str]() if everywhere else self._bases(fields)
        within = bases & self._passage
        return bases, not bases or len(within) > 1 or not within.isdisjoint(self._first), not bases or bool(within)

    def _bases(self, fields: frozenset[str]) -> frozenset[str]:
        dotted = "." in " ".join(fields)
        known = fields.union(self._passage, self._copies) if dotted else fields
        bases = frozenset([_base(field, known) for field in fields]) if dotted else fields
        return bases if bases.isdisjoint(self._copies) else frozenset()


def _base(field: str, known: AbstractSet[str]) -> str:
    """Return the parent of a multi-field, if it is a passage field or among the fields searched with it."""
    end = -1
    for _ in range(FIELD_DEPTH):
        end = field.find(".", end + 1)
        if end < 0:
            break
        if field[:end] in known:
            return field[:end]
    return field
