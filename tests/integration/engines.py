"""The real engines that were started for these tests, as `python -m demo.engine exec` tells of them."""

import base64
import http.client
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from demo.engine_layout import USER
from demo.engines import DEFAULT


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def ids(self) -> list[str]:
        return [hit["_id"] for hit in self.json["hits"]["hits"]]


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine is, as one user of it sees it."""

    url: str
    ca: str | None = None
    user: str | None = None
    password: str = ""

    def ask(self, method: str, path: str, body: Any = None, accept: str = "application/json") -> Answer:
        """Send JSON, or a list as NDJSON, and read the answer."""
        lines = body if isinstance(body, list) else [body]
        content = "" if body is None else "".join(f"{json.dumps(line)}\n" for line in lines)
        kind = "application/x-ndjson" if isinstance(body, list) else "application/json"
        connection = self._connection()
        try:
            connection.request(method, path, content, {"Content-Type": kind, "Accept": accept, **self._credentials()})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def do(self, method: str, path: str, body: Any = None) -> Any:
        """Ask for what must succeed, and return its JSON."""
        answer = self.ask(method, path, body)
        assert answer.status in {200, 201}, answer.body
        return answer.json

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            trusted = ssl.create_default_context(cafile=self.ca)
            return http.client.HTTPSConnection(parts.netloc, timeout=60, context=trusted)
        return http.client.HTTPConnection(parts.netloc, timeout=60)

    def _credentials(self) -> dict[str, str]:
        if self.user is None:
            return {}
        return {"Authorization": "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()}


def running_engines() -> Mapping[str, str]:
    """Names and addresses of the open engines; the default one by REAL_ENGINE_URL alone, empty when that is missing."""
    told: dict[str, str] = json.loads(os.environ.get("REAL_ENGINES", "{}"))
    return told or {DEFAULT.name: os.environ.get("REAL_ENGINE_URL", "").rstrip("/")}


def secure_engines() -> list[Address]:
    """The engine with security, if one was started, as its superuser sees it."""
    url = os.environ.get("REAL_ENGINE_SECURE_URL")
    if not url:
        return []
    return [Address(url, os.environ.get("REAL_ENGINE_CA"), USER, os.environ["REAL_ENGINE_PASSWORD"])]
