"""The real engine these tests talk to, and an index name of one's own on it."""

import os
from collections.abc import AsyncIterator
from uuid import uuid4

import aiohttp
import pytest


@pytest.fixture(scope="session")
def engine_url() -> str:
    """Base URL of the running Elasticsearch, without a slash at the end; a missing one is a failure, never a skip."""
    url = os.environ.get("REAL_ENGINE_URL", "")
    if not url:
        pytest.fail(
            "REAL_ENGINE_URL is not set: run `make test`, or `python -m demo.engine exec -- pytest -m engine`",
            pytrace=False,
        )
    return url.rstrip("/")


@pytest.fixture
async def index_name(engine_url: str) -> AsyncIterator[str]:
    """A name no other test uses; the index, if the test makes one, is deleted after it."""
    name = f"test-{uuid4().hex[:12]}"
    yield name
    async with aiohttp.ClientSession() as session:
        await session.delete(f"{engine_url}/{name}", params={"ignore_unavailable": "true"})
