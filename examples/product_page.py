"""A product search page with facets, sorting and pages; every search goes through the proxy.

python examples/product_page.py
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from elasticsearch import Elasticsearch

SIZE = 10
PAGE_DIGITS = 4
ORDERS: Mapping[str, Sequence[Any]] = {"relevance": ["_score"], "price": [{"price": "asc"}]}
"""By relevance, the proxy reranks; by price, it bypasses the search and the engine's order stays."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a user wants to see."""

    text: str = ""
    category: str = ""
    order: str = "relevance"
    page: int = 0

    def link(self, label: str, **changed: Any) -> str:
        """Link to the same with something changed."""
        asked = replace(self, **changed)
        return f'<a href="?{escape(urlencode(asdict(asked)))}">{escape(label)}</a>'


class Shop:
    """The searches behind the page."""

    def __init__(self, client: Elasticsearch, index: str = "products") -> None:
        self._client = client
        self._index = index

    def page(self, asked: Asked) -> str:
        """Search, and render the response as HTML."""
        match = {"multi_match": {"query": asked.text, "fields": ["title^2", "description"]}}
        chosen = [{"term": {"category": asked.category}}] if asked.category else []
        response = self._client.search(
            index=self._index,
            query=match if asked.text else {"match_all": {}},
            post_filter={"bool": {"filter": chosen}},
            aggs={"category": {"terms": {"field": "category"}}},
            sort=ORDERS[asked.order],
            from_=asked.page * SIZE,
            size=SIZE,
        )
        return render(asked, response.body, response.meta.headers.get("x-rerank") or "not a search of a route")


def render(asked: Asked, found: Mapping[str, Any], outcome: str) -> str:
    products = "".join(
        f"<li>{escape(hit['_source']['title'])} <small>{hit['_source']['price']:,.2f}</small></li>"
        for hit in found["hits"]["hits"]
    )
    facets = "".join(
        f"<li>{asked.link(f'{name} ({count})', category=name, page=0)}</li>" for name, count in categories(found)
    )
    orders = " ".join(asked.link(order, order=order, page=0) for order in ORDERS)
    more = (asked.page + 1) * SIZE < found["hits"]["total"]["value"]
    following = asked.link("next page", page=asked.page + 1) if more else ""
    return f"""<!doctype html>
<title>Products</title>
<form><input name="text" value="{escape(asked.text)}"> <button>Search</button></form>
<p>Order: {orders}</p>
<ul>{facets}</ul>
<ol start="{asked.page * SIZE + 1}">{products}</ol>
<p>{following}</p>
<footer>X-Rerank: {escape(outcome)}</footer>
"""


def categories(found: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [(bucket["key"], bucket["doc_count"]) for bucket in found["aggregations"]["category"]["buckets"]]


def read(query: str) -> Asked | None:
    """Read what is asked for from the URL; None if it makes no sense."""
    given = {name: values[-1] for name, values in parse_qs(query).items()}
    order, page = given.get("order", "relevance"), given.get("page", "0")
    if order not in ORDERS or not (page.isascii() and page.isdecimal() and len(page) < PAGE_DIGITS):
        return None
    return Asked(given.get("text", ""), given.get("category", ""), order, int(page))


def server(shop: Shop, port: int) -> ThreadingHTTPServer:
    """Serve the page on this machine; port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = read(urlsplit(self.path).query)
            if asked is None:
                self.send_error(400)
                return
            page = shop.page(asked).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    client = Elasticsearch(os.environ.get("SEARCH_URL", "http://127.0.0.1:9201"))
    with server(Shop(client), 8000) as running:
        print("http://127.0.0.1:8000/?text=laptop+for+kids")
        running.serve_forever()


if __name__ == "__main__":
    main()
