"""A fake engine that also answers the endpoints besides `_search`, in the documented shapes under `recorded`."""

import json
from pathlib import Path
from typing import Any

from tests.conftest import CATALOGUE
from tests.fakes import PRODUCT, Document, FakeEngine, Message, answer

DOCUMENTS = (*CATALOGUE[:-1], Document("x", "Nothing that any search finds", index="logs"))
RECORDED = Path(__file__).parent / "recorded"
_KINDS = ("_msearch/template", "_msearch", "_render/template", "_async_search", "_nodes/_all/http", "_search/template")
NODES = {
    "nodes": {
        "n1": {
            "transport_address": "10.0.0.1:9300",
            "http": {"bound_address": ["[::]:9200"], "publish_address": "10.0.0.1:9200"},
        },
        "n2": {"http": {"publish_address": "es/10.0.0.2:9200"}},
        "n3": {},
    }
}


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_text("utf-8"))


class EndpointEngine(FakeEngine):
    """Kinds of its requests besides FakeEngine's: the endpoints' own paths, and `poll`."""

    product: tuple[tuple[str, str], ...] = (PRODUCT,)
    running = False
    """An asynchronous search is not complete yet."""

    def kind(self, request: Message) -> str:
        if request.path.startswith("/_async_search/"):
            return "poll"
        if found := [name for name in _KINDS if request.path.endswith(f"/{name}")]:
            return found[0]
        try:
            return super().kind(request)
        except RecursionError:
            return "too deep"

    def usual(self, request: Message) -> bytes:
        match self.kind(request):
            case "_msearch" | "_msearch/template":
                return self._says({"took": 3, "responses": [self._item(body) for body in _bodies(request)]})
            case "_render/template":
                return self._says({"template_output": json.loads(request.json()["source"])})
            case "_search/template":
                return self._says(self._searched("lexical", {}))
            case "_nodes/_all/http":
                return self._says(NODES)
            case "_async_search" | "poll":
                return self._async()
            case _:
                return super().usual(request)

    def _says(self, said: Any, *more: tuple[str, str]) -> bytes:
        return answer(200, json.dumps(said, separators=(",", ":")).encode(), *self.product, *more)

    def _item(self, body: bytes) -> Any:
        said = json.loads(body)
        if "nonsense" in said:
            error = {"type": "parsing_exception", "reason": "unknown key [nonsense]"}
            return {"error": {"root_cause": [error], **error}, "status": 400}
        return self._searched("lexical", said | {"size": int(said.get("size", 10))}) | {"status": 200}

    def _async(self) -> bytes:
        said = recorded("async_search.json")
        shape = said["running" if self.running else "complete"]
        state = "?1" if self.running else "?0"
        headers = ("X-Elasticsearch-Async-Id", said["id"]), ("X-Elasticsearch-Async-Is-Running", state)
        return self._says({"id": said["id"], **shape, "response": self._searched("lexical", {})}, *headers)


def _bodies(request: Message) -> list[bytes]:
    return [body for body in request.content.split(b"\n")[1::2] if body]


def lines(*items: Any) -> bytes:
    """Write a multi-search: heads and bodies in turn, bytes as they are."""
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in items)
