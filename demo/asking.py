"""Send one request to a server on this machine, ignoring HTTP proxies in the environment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

Json = Mapping[str, Any]


class NoAnswer(Exception):
    """The server does not respond, or not with status 200; the message names the URL."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A response with status 200."""

    headers: Message
    body: Any
    """The decoded JSON."""


def ask(url: str, body: Json | None = None, *, method: str = "", timeout: float = 60) -> Reply:
    """Send a request, with a JSON body if given; raises NoAnswer."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    sent = None if body is None else json.dumps(body)
    target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    try:
        connection.request(method or ("POST" if sent else "GET"), target, sent, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, HTTPException) as error:
        raise NoAnswer(f"{url}: {error!r}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise NoAnswer(f"{url}: status {answer.status}: {content[:500].decode(errors='replace')}")
    return Reply(answer.headers, json.loads(content))
