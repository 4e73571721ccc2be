"""Names log fields as in the Elastic Common Schema, for JSON lines.

Fields that the schema does not have keep their short names, as in earlier versions, and `id` is kept beside the
schema's field, so that existing readers continue to work.
"""

from collections.abc import Mapping, MutableMapping
from typing import Any

VERSION = "8.17.0"
"""The version of the schema."""
SERVICE = "rerank-proxy"

FIELDS: Mapping[str, str] = {
    "timestamp": "@timestamp",
    "level": "log.level",
    "event": "event.action",
    "library": "log.logger",
    "id": "http.request.id",
    "trace": "trace.id",
    "method": "http.request.method",
    "path": "url.path",
    "query_string": "url.query",
    "status": "http.response.status_code",
    "exception": "error.stack_trace",
}
"""Field names in the schema; `detail` becomes `message`, and `ms` is also the source of `event.duration`."""
EVENT_OUTCOMES: Mapping[str, str] = {
    "reranked": "success",
    "degraded": "success",
    "bypassed": "success",
    "cancelled": "unknown",
    "failed": "failure",
}
"""`event.outcome` for each outcome of a search: whether its client got hits."""
_FIRST = ("timestamp", "level")


def to_ecs(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Rename the fields of an event; time, level and message come first."""
    detail = event.pop("detail", None) or str(event.get("event", "")).replace("_", " ")
    named: dict[str, Any] = {FIELDS[key]: event.pop(key) for key in _FIRST if key in event}
    named |= {"message": detail, "ecs.version": VERSION, "service.name": SERVICE}
    for key, value in event.items():
        named[FIELDS.get(key, key)] = value
    if "id" in event:
        named["id"] = event["id"]
    if event.get("outcome") in EVENT_OUTCOMES:
        named["event.outcome"] = EVENT_OUTCOMES[event["outcome"]]
    if "total" in (milliseconds := event.get("ms", {})):
        named["event.duration"] = round(milliseconds["total"] * 1_000_000)
    return named
