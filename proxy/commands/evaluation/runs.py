"""Rankings as TREC run files, for other tools."""

import re
from collections.abc import Iterable, Iterator

from proxy.commands.evaluation.outcomes import FailedSearch, Found

_BLANK = re.compile(r"\s")


def run_lines(replies: Iterable[tuple[str, Found | FailedSearch]], tag: str) -> Iterator[str]:
    """Write each hit as a line of six columns.

    The score only falls with the rank: trec_eval sorts by it, and an engine's own may be equal for several hits.
    """
    for query, reply in replies:
        documents = reply.documents if isinstance(reply, Found) else ()
        for rank, document in enumerate(documents, 1):
            yield f"{_column(query)} Q0 {_column(document)} {rank} {len(documents) - rank + 1} {tag}\n"


def _column(name: str) -> str:
    """Escape blanks as in a URL, since they end a column."""
    return _BLANK.sub(lambda found: f"%{ord(found[0]):02X}", name)
