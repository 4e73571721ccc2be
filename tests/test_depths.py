"""However deeply a request or a response is nested, a search is reranked or ends with a reason, and never fails.

From Python 3.13 on, decoders accept about 9,000 levels, where 3.11 refuses 1,000: functions in Python meet them later.
"""

import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

import pytest

from proxy.settings.config import Config
from tests.conftest import CATALOGUE, QUERY, Log, StartProxy
from tests.fakes import Client, FakeEngine, FakeModels, Message, Stream, answer

Change = Callable[..., str]
"""Puts something `deep` into the text of the usual response."""
DEPTHS = (60, 190, 900, 9_000)
MATCH = '{"match":{"title":"laptop"}}'
WHOLE = json.dumps(QUERY, separators=(",", ":"))
MADE: Mapping[str, tuple[str, str, str]] = {
    "OBJECTS": ('{"a":', "1", "}"),
    "ARRAYS": ("[", "1", "]"),
    "MUST": ('{"bool":{"must":[', MATCH, "]}}"),
    "FUNCTIONS": ('{"function_score":{"query":', MATCH, "}}"),
    "ALTERNATIVES": ('{"dis_max":{"queries":[', MATCH, "]}}"),
    "BOOSTING": ('{"boosting":{"positive":', MATCH, ',"negative":{"term":{"a":1}},"negative_boost":0.5}}'),
    "SCRIPTS": ('{"script_score":{"query":', MATCH, ',"script":{"source":"1"}}}'),
    "PINNED": ('{"pinned":{"ids":["a"],"organic":', MATCH, "}}"),
    "SAMPLERS": ('{"a":{"sampler":{},"aggs":', '{"a":{"max":{"field":"price"}}}', "}}"),
    "BRACKETS": ("(", "laptop", ")"),
}
"""What is nested: the text before, inside and after."""
MEMBERS = ("aggs", "sort", "_source", "highlight", "post_filter", "ext", "rescore", "collapse", "search_after", "pit")
BODIES = (
    *(f'{{"query":{name}}}' for name in ("MUST", "FUNCTIONS", "ALTERNATIVES", "BOOSTING", "SCRIPTS", "PINNED")),
    *(f'{{"query":{MATCH},"{name}":ARRAYS}}' for name in (*MEMBERS, "unknown")),
    *(f'{{"query":{MATCH},"{name}":OBJECTS}}' for name in MEMBERS),
    f'{{"query":{{"bool":{{"must":[{MATCH},OBJECTS]}}}}}}',
    f'{{"query":{{"bool":{{"must":{MATCH},"filter":{{"terms":{{"brand":ARRAYS}}}}}}}}}}',
    '{"query":{"match":{"title":OBJECTS}}}',
    f'{{"query":{MATCH},"ext":{{"rerank_proxy":{{"query":ARRAYS}}}}}}',
    f'{{"query":{MATCH},"ext":{{"rerank_proxy":{{"query":"laptop"}},"other":OBJECTS}}}}',
    f'{{"query":{MATCH},"aggs":SAMPLERS}}',
    f'{{"query":{MATCH},"post_filter":MUST}}',
    '{"query":{"wrapper":{"query":"ENCODED"}}}',
    '{"query":{"query_string":{"query":"BRACKETS"}}}',
    f'{{"query":{MATCH},"ext":{{}},"ext":OBJECTS}}',
    '{"query":{"match":{"title":"\\ud83d"}},"ext":OBJECTS}',
    "ARRAYS",
)


def made(text: str, depth: int) -> str:
    """Put what is nested, in so many levels, in place of its name."""
    for name, (before, inside, after) in MADE.items():
        if name in text:
            return text.replace(name, before * depth + inside + after * depth)
    return text.replace("ENCODED", base64.b64encode(made("MUST", depth).encode()).decode())


class DeepEngine(FakeEngine):
    """An engine that takes a search that it cannot read for one of everything."""

    def kind(self, request: Message) -> str:
        try:
            return super().kind(request)
        except (RecursionError, AttributeError, TypeError, KeyError):
            return "lexical"

    def usual(self, request: Message) -> bytes:
        try:
            return super().usual(request)
        except (RecursionError, AttributeError, TypeError, KeyError):
            return super().usual(Message(b"POST /products/_search HTTP/1.1\r\n\r\n", b"{}"))


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with DeepEngine([document for document in CATALOGUE if document.index == "products"]) as server:
        yield server


async def failures(client: Client, log: Log, target: str, body: str) -> list[Any]:
    """Send a search; return what shows that the proxy did not foresee it."""
    log.clear()
    is_lines = "_msearch" in target
    kind = "application/x-ndjson" if is_lines else "application/json"
    answered = await client.ask("POST", target, body.encode(), content_type=kind)
    unforeseen = [event["event"] for event in log if event["event"] == "internal_error"]
    return [(target, body[:80], answered.status)] if unforeseen or answered.status >= 500 else []


@pytest.mark.parametrize("depth", DEPTHS)
async def test_a_deep_body(depth: int, start_proxy: StartProxy, settings: Config, log: Log) -> None:
    """In a search, as an item of `_msearch` or its header line, as a template or its parameters, asynchronously."""
    client = await start_proxy(settings)
    wrong = []
    for body in (made(text, depth) for text in BODIES):
        wrong += await failures(client, log, "/products/_search?pretty&filter_path=hits", body)
        wrong += await failures(client, log, "/products/_async_search", body)
        lines = f"{{}}\n{body}\n{{}}\n{WHOLE}\n", f"{body}\n{WHOLE}\n{{}}\n{WHOLE}\n"
        templates = f'{{"source":{json.dumps(body)}}}', f'{{"id":"t","params":{body}}}'
        for written in lines:
            wrong += await failures(client, log, "/products/_msearch", written)
        for written in templates:
            wrong += await failures(client, log, "/products/_search/template", written)
    assert [] == wrong


def deep_in(server: FakeEngine | FakeModels, change: Callable[[str], str], status: int = 200) -> Any:
    """Change the text of the usual response."""

    async def fault(stream: Stream, request: Message) -> bytes:
        usual = server.usual(request).partition(b"\r\n\r\n")[2].decode()
        return answer(status, change(usual).encode())

    return fault


def _whole(_: str, deep: str) -> str:
    return deep


def _member(usual: str, deep: str, name: str) -> str:
    return f'{usual[:-1]},"{name}":{deep}}}'


def _of_hits(usual: str, deep: str, name: str) -> str:
    return usual.replace('{"_index"', f'{{"{name}":{deep},"_index"')


def _of_documents(usual: str, deep: str, name: str) -> str:
    return usual.replace('"title":', f'"{name}":{deep},"title":')


def _in_vector(usual: str, deep: str) -> str:
    return usual.replace('"embedding": [', f'"embedding": [{deep},')


MEMBERS_OF_RESPONSES = ("suggest", "aggregations", "hits", "took", "timed_out", "_shards", "id", "template_output")
MEMBERS_OF_HITS = ("sort", "fields", "_explanation", "_routing", "_score")
OF_ENGINE: Mapping[str, Change] = {
    "whole": _whole,
    **{name: partial(_member, name=name) for name in MEMBERS_OF_RESPONSES},
    **{f"hit's {name}": partial(_of_hits, name=name) for name in MEMBERS_OF_HITS},
    **{f"document's {name}": partial(_of_documents, name=name) for name in ("title", "other")},
}
FORMS = ("", "?filter_path=**._id,hits.hits._source", "?pretty&filter_path=-**.x")


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", ["lexical", "render", "facts", "multi", "template", "other"])
async def test_a_deep_response_of_the_engine(
    kind: str, depth: int, start_proxy: StartProxy, settings: Config, engine: FakeEngine, log: Log
) -> None:
    wrong = []
    for place, change in OF_ENGINE.items():
        client = await start_proxy(settings)
        value = made("ARRAYS" if place in {"hit's sort", "document's title", "hits"} else "OBJECTS", depth)
        engine.faults[kind] = deep_in(engine, partial(change, deep=value))
        for form in FORMS if kind in {"lexical", "render"} else ():
            wrong += await failures(client, log, f"/products/_search{form}", WHOLE)
        wrong += await failures(client, log, "/products/_msearch?pretty", f"{{}}\n{WHOLE}\n{{}}\n{{}}\n")
        wrong += await failures(client, log, "/products/_search/template", f'{{"source":{WHOLE}}}')
        client.close()
    assert [] == wrong


@pytest.mark.parametrize("depth", DEPTHS)
async def test_a_deep_response_to_an_async_search(
    depth: int, start_proxy: StartProxy, settings: Config, engine: FakeEngine, log: Log
) -> None:
    client = await start_proxy(settings)
    wrong = []
    hits = engine.usual(Message(b"POST /products/_search HTTP/1.1\r\n\r\n", b"{}")).partition(b"\r\n\r\n")[2].decode()
    for change in OF_ENGINE.values():
        text = change(f'{{"id":"i","is_running":false,"response":{hits}}}', made("OBJECTS", depth))
        engine.faults["other"] = deep_in(engine, partial(_whole, deep=text))
        for form in FORMS:
            wrong += await failures(client, log, f"/products/_async_search{form}", WHOLE)
    assert [] == wrong


MEMBERS_OF_MODELS = ("scores", "data", "usage", "input_tokens", "inference_status", "error", "detail", "unknown")
OF_MODELS: Mapping[str, Change] = {
    "whole": _whole,
    **{name: partial(_member, name=name) for name in MEMBERS_OF_MODELS},
    "vector": _in_vector,
}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("kind", ["embed", "rerank"])
async def test_a_deep_response_of_a_model(
    kind: str, status: int, depth: int, start_proxy: StartProxy, settings: Config, models: FakeModels, log: Log
) -> None:
    wrong = []
    for place, change in OF_MODELS.items():
        client = await start_proxy(settings)
        value = made("ARRAYS" if place in {"scores", "data"} else "OBJECTS", depth)
        models.faults[kind] = deep_in(models, partial(change, deep=value), status)
        wrong += await failures(client, log, "/products/_search", WHOLE)
        client.close()
    assert [] == wrong
