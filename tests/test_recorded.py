"""What Kibana and OpenSearch Dashboards ask, by recorded shapes: Discover by relevance is reranked, the rest is not.

Neither runs here, so this is held against no real one.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.endpoint_engine import DOCUMENTS, EndpointEngine, recorded
from tests.fakes import Client

REQUESTS = recorded("dashboards.json")["requests"]


@pytest.fixture
async def engine() -> AsyncIterator[EndpointEngine]:
    async with EndpointEngine(DOCUMENTS) as server:
        yield server


@pytest.mark.parametrize("said", REQUESTS, ids=[said["name"] for said in REQUESTS])
async def test_a_recorded_request_has_its_expected_outcome(client: Client, engine: EndpointEngine, said: Any) -> None:
    """If it is bypassed, the response is the engine's, byte for byte."""
    straight = await Client.to(engine.port)
    expected = await straight.search(said["target"], said["body"], x_opaque_id="kibana")
    answered = await client.search(said["target"], said["body"], x_opaque_id="kibana")
    straight.close()
    assert said["outcome"] == answered.header("x-rerank")
    if said["outcome"] != "reranked":
        assert expected.content == answered.content
