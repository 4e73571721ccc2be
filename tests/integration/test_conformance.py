"""The conformance corpus: requests as raw bytes, straight and through, without a fault.

The corpus is no part of this repository: where its folder is not beside it, this and nothing else is skipped.
"""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Start, route

FOLDER = Path(__file__).parents[3] / "shared" / "conformance"
ROUTES: dict[str, list[dict[str, Any]]] = {"no route": [], "a route elsewhere": [route("shop")]}

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no corpus in {FOLDER}"),
]


@pytest.mark.parametrize("routes", ROUTES.values(), ids=ROUTES)
async def test_corpus(routes: list[dict[str, Any]], engine_url: str, start: Start) -> None:
    """Every answer through the proxy is the engine's own."""
    url = await start(*routes)
    script = [str(FOLDER / "diff_http.py"), "--direct", engine_url, "--proxy", url]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    written = (await process.communicate())[0].decode()
    counted = re.search(r"^TOTAL (.*)$", written, re.MULTILINE)
    assert counted is not None, written
    assert (0, set()) == (process.returncode, json.loads(counted[1]).keys() - {"same", "note", "skip"}), written
