"""What of an engine's answer must be the same straight and through the proxy."""

import re
from dataclasses import replace
from typing import Any

from tests.integration.sending import Reply

_TOOK = re.compile(rb'("?took"?\s*:\s*)\d+')
_OF_THE_HOP = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive"})
# What OpenSearch says of the work that an answer took, different each time.
_OF_THE_WORK = frozenset({"task_resource_usage"})
_OUTCOME = frozenset({"x-rerank", "server-timing", "x-rerank-cost"})


def comparable(reply: Reply) -> tuple[object, ...]:
    """Everything of an answer but the hop's own headers and the time it took."""
    fields = sorted((name, value) for name, value in reply.fields if name.lower() not in _OF_THE_HOP | _OF_THE_WORK)
    return reply.status, reply.reason, fields, _TOOK.sub(rb"\g<1>0", reply.content)


def without_outcome(reply: Reply) -> Reply:
    """An answer through the proxy without the headers that say what was done with a search, and its cost."""
    return replace(reply, fields=[(name, value) for name, value in reply.fields if name.lower() not in _OUTCOME])


def assert_handed_on(straight: Reply, through: Reply) -> None:
    """The engine's own answer came through, to the byte, and was said to be the engine's."""
    assert through.outcome.startswith("bypassed")
    assert comparable(straight) == comparable(without_outcome(through))


def beside_hits(reply: Reply) -> Any:
    """Everything of an answer but its hits and the time it took."""
    return {key: value for key, value in reply.json.items() if key not in {"took", "hits"}}


def but_score(hit: Any) -> Any:
    """A hit without the score, which is the ranking's."""
    return {key: value for key, value in hit.items() if key != "_score"}
