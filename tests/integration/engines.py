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

import pytest

from demo.engine_layout import USER
from demo.engines import DEFAULT, ELASTICSEARCH_8, ELASTICSEARCH_9, OPENSEARCH_2, OPENSEARCH_3, Family, named

engines = pytest.mark.engines
ELASTICSEARCH = engines(ELASTICSEARCH_8.name, ELASTICSEARCH_9.name)
OPENSEARCH = engines(OPENSEARCH_2.name, OPENSEARCH_3.name)
WITH_KNN = engines(ELASTICSEARCH_8.name, ELASTICSEARCH_9.name, OPENSEARCH_2.name)
EVERYWHERE = engines(ELASTICSEARCH_8.name, ELASTICSEARCH_9.name, OPENSEARCH_2.name, OPENSEARCH_3.name)
OPENSEARCH_KNN = engines(OPENSEARCH_2.name)
WITH_PIPELINES = engines(OPENSEARCH_3.name)
"""On which engines a module or a test runs; the default one alone where nothing is said."""

Body = dict[str, Any]


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


@dataclass(frozen=True, slots=True)
class RealEngine:
    """A running engine, and how it spells what engines spell in their own ways."""

    name: str
    url: str

    @property
    def is_elasticsearch(self) -> bool:
        return named(self.name).family == Family.ELASTICSEARCH

    def without_knn(self, reason: str) -> str:
        """Return what the header says where kNN does not fit a search; without kNN a route has no such stage."""
        return f'reranked;stages="semantic";reason={reason}' if self.has_knn else "reranked"

    @property
    def has_knn(self) -> bool:
        return self.name != OPENSEARCH_3.name

    @property
    def settings(self) -> Body:
        """What an index with vectors needs."""
        return {} if self.is_elasticsearch or not self.has_knn else {"knn": True}

    @property
    def of_route(self) -> Body:
        """What a route on the shop says here: without kNN it has no semantic retriever."""
        return {} if self.has_knn else {"semantic": None}

    @property
    def points_in_time(self) -> str:
        """The path by which points in time are opened and closed."""
        return "_pit" if self.is_elasticsearch else "_search/point_in_time"

    def vector(self, dimensions: int, similarity: str | None = None) -> Body:
        """Spell the mapping of a vector field."""
        if self.is_elasticsearch:
            compared = {"similarity": similarity or "cosine"}
            return {"type": "dense_vector", "dims": dimensions, "index": True, **compared, "index_options": _HNSW}
        method = {"name": "hnsw", "engine": "lucene", "space_type": similarity or "cosinesimil"}
        return {"type": "knn_vector", "dimension": dimensions, "method": method}

    def nearest(self, field: str, vector: list[float], k: int, **more: Any) -> Body:
        """Spell a search for the nearest to a vector."""
        if self.is_elasticsearch:
            return {"knn": {"field": field, "query_vector": vector, "k": k, "num_candidates": 100, **more}, "size": k}
        return {"query": {"knn": {field: {"vector": vector, "k": k, **more}}}, "size": k}


_HNSW = {"type": "hnsw"}


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
