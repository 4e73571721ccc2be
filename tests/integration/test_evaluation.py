"""`rerank-proxy eval` on a real engine: an application's own search, with and without the proxy."""

import json
from pathlib import Path

import pytest

from tests.integration import shop as catalogue
from tests.integration.commands import begun
from tests.integration.conftest import Shop, Start, route
from tests.integration.engines import RealEngine
from tests.integration.models import ShopModels, by_hash
from tests.integration.sending import Request, send

pytestmark = [pytest.mark.engine, pytest.mark.engines("elasticsearch-8.19.13", "opensearch-2.19.1")]

TEMPLATE = {
    "query": {
        "bool": {
            "must": [{"multi_match": {"query": "{{query}}", "fields": ["title^2", "description"]}}],
            "should": [{"match_phrase": {"title": {"query": "{{query}}", "boost": 1.5}}}],
            "filter": [{"term": {"in_stock": True}}],
        }
    },
    "size": 20,
}
QUERIES = 12


async def test_eval_measures_the_gain_of_the_reranker(
    real_engine: RealEngine, shop: Shop, start: Start, models: ShopModels, tmp_path: Path
) -> None:
    """The engine's last hit is the only relevant one, and the reranker ranks it first."""
    body = json.dumps(TEMPLATE).replace("{{query}}", "laptop").encode()
    straight = await send(real_engine.url, Request("POST", f"/{shop.index}/_search", body))
    perfect = straight.json["hits"]["hits"][-1]["_id"]
    place = len(straight.json["hits"]["hits"])
    title = catalogue.PRODUCTS[perfect]["title"]
    models.score = lambda document: 1.0 if title in document else by_hash(document) / 2
    url = await start(route(shop.index, **real_engine.of_route))
    (tmp_path / "queries.csv").write_text("id,text\n" + "".join(f"q{number},laptop\n" for number in range(QUERIES)))
    (tmp_path / "qrels").write_text("".join(f"q{number} 0 {perfect} 3\n" for number in range(QUERIES)))
    (tmp_path / "search.json").write_text(json.dumps(TEMPLATE))
    files = {"queries": "queries.csv", "judgments": "qrels", "template": "search.json"}
    named = [word for name, file in files.items() for word in (f"--{name}", str(tmp_path / file))]
    addresses = ("--baseline", real_engine.url, "--proxy", url, "--index", shop.index)
    command = await begun("eval", *named, *addresses, "--json", "--min-gain", "10")
    out, err = await command.process.communicate()
    assert (0, b"") == (command.process.returncode, err)
    said = json.loads(out)
    assert {"document": perfect, "grade": 3, "before": place, "after": 1} == said["changes"][0]["moved"]
    assert ("better", QUERIES, {"reranked": QUERIES}) == (
        said["verdict"]["meaning"],
        said["compared"],
        said["proxy"]["outcomes"],
    )
