"""What was read of a query: clauses with query text, and one text with all the clauses that hold it."""

from collections.abc import Collection
from typing import Any, NamedTuple

from proxy.bounds import FIELD_DEPTH
from proxy.parsing.words import Typed, is_typed_word


def dots_of(fields: Collection[str]) -> int:
    """Return the number of dots in the field names, as far as they are read."""
    return sum([min(field.count("."), FIELD_DEPTH) for field in fields])


def size_of(clauses: int, fields: int, text: str) -> int:
    """Return the cost of processing, in units of one clause or one field."""
    return clauses + fields + len(text) // 16


class Clause(NamedTuple):
    """A clause of the client's query that has query text."""

    query: Any
    """Compared by identity, since equal clauses may occur in several places."""
    typed: Typed
    words: tuple[str, ...]
    """Its text, folded for comparison."""
    fields: frozenset[str]
    """Without boosts; empty for the default fields of the index, or if no field is named."""
    boost: float = 1.0
    quotes: bool = False
    autocomplete: bool = False


class Reading(NamedTuple):
    """One text, and the clauses that hold it."""

    text: str
    words: tuple[str, ...]
    """The text, folded for comparison."""
    clauses: tuple[Clause, ...]
    fields: frozenset[str]
    """The fields of all clauses."""
    everywhere: bool
    """Whether a clause names no field, or uses a wildcard for fields."""
    bases: frozenset[str]
    """The parents of its multi-fields, and its other fields; empty means all fields."""
    central: bool
    """Whether it searches all fields, the first passage field, or several passage fields, as a search box does."""
    touches: bool
    """Whether it searches a passage field."""
    given: bool
    """Whether it is the query text that the request itself names (`query_from`)."""
    doubt: str = ""
    """The reason why it is uncertain that these clauses hold the user's text and nothing else."""
    optional: bool = False
    """Whether it only affects the score: documents match without it."""

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
    def in_one_field(self) -> bool:
        """Whether it is searched in one field and its multi-fields only."""
        return len(self.bases) == 1

    @property
    def is_one_word(self) -> bool:
        return is_typed_word(self.text)

    @property
    def size(self) -> int:
        """The cost of processing it."""
        return size_of(len(self.clauses), len(self.fields), self.text)
