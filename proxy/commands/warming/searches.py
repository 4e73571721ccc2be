"""The searches of `warm`: query texts, search bodies or lines of the proxy's log, the most frequent ones first."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec

from proxy.bounds import WARMED_BYTES, WARMED_LINE_BYTES, WARMED_SEARCHES
from proxy.commands.evaluation.errors import CannotEvaluate
from proxy.commands.evaluation.template import Template
from proxy.settings.request_options import MEMBER

Found = str | bytes
"""A query text, or a search body."""


@dataclass(frozen=True, slots=True)
class FrequentSearches:
    """Different searches, the most frequent ones first."""

    found: Sequence[Found]
    template: Template | None
    options: Mapping[str, Any]
    """The per-request options of each search, instead of its own."""

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[bytes]:
        """Return the bodies of the searches, each written when it is needed."""
        return map(self._body, self.found)

    def sample(self, count: int) -> "FrequentSearches":
        """Return at most `count` of the searches, evenly spaced."""
        step = max(1.0, len(self.found) / count)
        chosen = [self.found[int(number * step)] for number in range(min(count, len(self.found)))]
        return FrequentSearches(chosen, self.template, self.options)

    def _body(self, found: Found) -> bytes:
        whole = self.template.fill(found) if isinstance(found, str) and self.template else found
        body = msgspec.json.decode(whole, type=dict[str, Any])
        ext = body.get("ext")
        own = {MEMBER: self.options} if self.options else {}
        others = {name: value for name, value in ext.items() if name != MEMBER} if isinstance(ext, dict) else {}
        body.pop("ext", None)
        return msgspec.json.encode(body | ({"ext": others | own} if others or own else {}))


def read_searches(
    file: BinaryIO, template: Template | None, options: Mapping[str, Any], top: int | None = None
) -> FrequentSearches:
    """Read a file with one search per line, in any mixture of the three forms; raises CannotEvaluate."""
    counted: Counter[Found] = Counter()
    for number, line in _lines(file):
        found = _found(line, number)
        if isinstance(found, str) and template is None:
            raise CannotEvaluate(f"line {number} is a query text: name the search body for it with --template")
        if found is None:
            continue
        counted[found] += 1
        if len(counted) > WARMED_SEARCHES:
            raise CannotEvaluate(
                f"the file has more than {WARMED_SEARCHES:,} different searches: split it, or take a part of the log"
            )
    if not counted:
        raise CannotEvaluate(
            "the file has no search: write query texts or search bodies, one per line, or use a log that was written "
            "with `log.query_text: true`"
        )
    return FrequentSearches([found for found, _ in counted.most_common(top)], template, options)


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Return the lines of a file that are not blank, with their numbers; raises CannotEvaluate beyond the limits."""
    total = number = 0
    while line := file.readline(WARMED_LINE_BYTES + 1):
        total, number = total + len(line), number + 1
        if len(line) > WARMED_LINE_BYTES:
            most = WARMED_LINE_BYTES >> 20
            raise CannotEvaluate(f"line {number} has more than {most} MB, which no search body has: remove it")
        if total > WARMED_BYTES:
            raise CannotEvaluate(f"the file has more than {WARMED_BYTES >> 20} MB: split it")
        if line.strip():
            yield number, line


def _found(line: bytes, number: int) -> Found | None:
    """Return the search of a line; None for a line of the log without one; raises CannotEvaluate."""
    try:
        text = line.decode().strip()
    except UnicodeDecodeError:
        raise CannotEvaluate(f"line {number} is not UTF-8: correct it, or remove it") from None
    if not text.startswith("{"):
        return text
    try:
        parsed = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise CannotEvaluate(
            f"line {number} begins like JSON, but is malformed: {error}. Correct it, or remove it"
        ) from None
    if not _is_log(parsed):
        return msgspec.json.encode(parsed)
    query = parsed.get("query")
    return query if isinstance(query, str) and query else None


def _is_log(line: Mapping[str, Any]) -> bool:
    return "event.action" in line or "log.level" in line
