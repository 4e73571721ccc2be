"""The state file: what was spent each day, in JSON, shared by the processes of one machine.

Each process adds what it spent since its last save, under a lock, and reads what the others spent. The file is replaced
as a whole, so that a crash leaves the old one or the new one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

from proxy.bounds import SPEND_FILE_BYTES
from proxy.upstream.spending.ledger import Account, Book, Spent, added, at_least, recent
from proxy.upstream.state_files import LOCK_S, locked, read_state, replace_state


class _Row(msgspec.Struct, frozen=True):
    period: str
    route: str
    model: str
    spent: Spent


class _File(msgspec.Struct, frozen=True):
    rows: list[_Row]
    version: Literal[1] = 1


_decoder = msgspec.json.Decoder(_File)


class Corrupt(Exception):
    """The file is not what this program wrote."""


def decode(content: bytes) -> Mapping[Account, Spent]:
    """Read a state file's content; raises Corrupt."""
    try:
        rows = _decoder.decode(content).rows
    except (ValueError, RecursionError) as error:
        raise Corrupt(str(error)) from None
    return added(*({Account(row.period, row.route, row.model): row.spent} for row in rows))


def encode(book: Book) -> bytes:
    """Write a book, in the order of its accounts."""
    rows = [_Row(*account, spent) for account, spent in sorted(book.items(), key=lambda item: item[0])]
    return msgspec.json.format(msgspec.json.encode(_File(rows)), indent=1) + b"\n"


@dataclass(frozen=True, slots=True)
class StateFile:
    """A state file; its methods block, and raise OSError."""

    path: Path
    lock_seconds: float = LOCK_S
    """How long a save waits for another process."""

    def read(self) -> Mapping[Account, Spent]:
        """Return what the file has, nothing if there is none; raises Corrupt."""
        try:
            content = read_state(self.path, SPEND_FILE_BYTES)
        except ValueError as error:
            raise Corrupt(str(error)) from None
        return {} if content is None else decode(content)

    def add(self, book: Book, now: float, known: Book = MappingProxyType({})) -> Book:
        """Add a book to the file, and return what the file has then; raises Corrupt, or OSError if it is locked.

        What was `known` of the file is restored if it has less: it was removed, or set aside as corrupt.
        """
        known = recent(known, now)
        if not book and at_least(found := self.read(), known) == found:
            return found
        with locked(self.path, self.lock_seconds):
            together = recent(added(at_least(self.read(), known), book), now)
            replace_state(self.path, encode(together))
        return together

    def set_aside(self, now: float) -> Path | None:
        """Rename a corrupt file, and return its new name; None if another process has done so meanwhile."""
        aside = self.path.with_name(f"{self.path.name}.corrupt-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}")
        with locked(self.path, self.lock_seconds):
            try:
                self.read()
            except Corrupt:
                self.path.replace(aside)
                return aside
        return None
