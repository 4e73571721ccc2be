"""Callers with different rights, turn by turn and at once, through two proxies that share a Redis.

They send the same searches on shared connections, so that whatever is cached for one would fit the others. The engine
has document- and field-level security here, by its trial licence.
"""

import asyncio
import http.client
import json
import random
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
import pytest

from proxy.app import listen
from proxy.settings.config import Config
from tests.integration.conftest import CACHE_KEY, PATIENT, PATIENT_ENGINE
from tests.integration.engines import Address, secure_engines
from tests.integration.models import ShopModels
from tests.integration.shop import MODEL, embed
from tests.integration.test_security import PASSWORD, basic
from tests.redis_server import needs_redis, redis_server

pytestmark = [pytest.mark.engine, needs_redis]

_WORDS = ("laptop", "notebook", "phone", "camera", "rugged", "kids", "video")
_WINDOW, _TURNS, _AT_ONCE, _CHANGES = 20, 150, 12, 12
_MARK = re.compile(r"\b([ts])([abc])(\d\d)q")
"""What only one document's title, or its secret field, has: `tb07q`."""


@dataclass(frozen=True, slots=True)
class Rights:
    """A role, and what it shows: which documents, and whether the secret field."""

    role: Mapping[str, Any]
    indices: str
    public_only: bool = False
    secrets: bool = True

    def show(self, mark: tuple[str, str, str]) -> bool:
        kind, index, number = mark
        may = index in self.indices and not (self.public_only and int(number) % 3)
        return may and (kind == "t" or self.secrets)


def _rights(name: str) -> dict[str, Rights]:
    everything = [f"{name}-*"]

    def role(names: Sequence[str], **more: Any) -> dict[str, Any]:
        privileges = ["read", "view_index_metadata"]
        return {"cluster": ["monitor"], "indices": [{"names": names, "privileges": privileges, **more}]}

    return {
        "all": Rights(role(everything) | {"run_as": ["*"]}, "abc"),
        "one": Rights(role([f"{name}-a"]), "a"),
        "other": Rights(role([f"{name}-b"]), "b"),
        "public": Rights(role(everything, query={"term": {"public": True}}), "abc", public_only=True),
        "plain": Rights(role(everything, field_security={"grant": ["*"], "except": ["secret"]}), "abc", secrets=False),
        "blind": Rights(role(everything, field_security={"grant": ["title", "public"]}), "abc", secrets=False),
        "none": Rights({"cluster": ["monitor"]}, ""),
    }


@dataclass(slots=True)
class World:
    """The indices, whose rights each caller has, and the headers that it sends."""

    engine: Address
    name: str
    rights: Mapping[str, Rights]
    callers: dict[str, Mapping[str, str]] = field(default_factory=dict)
    role_of: dict[str, str] = field(default_factory=dict)

    def add(self, caller: str, role: str, headers: Mapping[str, str]) -> None:
        self.callers[caller], self.role_of[caller] = headers, role

    def change(self, role: str) -> None:
        """Give the caller `changing` other rights."""
        self.engine.do("PUT", f"/_security/role/{self.name}-changing", self.rights[role].role)
        self.role_of["changing"] = role

    def allowed(self, caller: str) -> Rights:
        return self.rights[self.role_of[caller]]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Three indices, of which one has no vectors."""
    found = secure_engines()
    if not found:
        pytest.fail("REAL_ENGINE_SECURE_URL is not set: run `make test`", pytrace=False)
    engine, name = found[0], f"turns-{uuid4().hex[:10]}"
    engine.ask("POST", "/_license/start_trial?acknowledge=true")  # 403 if it was started before
    for index in "abc":
        _load(engine, f"{name}-{index}", index)
    made = World(engine, name, _rights(name))
    for role, rights in (*made.rights.items(), ("changing", made.rights["all"])):
        engine.do("PUT", f"/_security/role/{name}-{role}", rights.role)
        engine.do("PUT", f"/_security/user/{name}-{role}", {"password": PASSWORD, "roles": [f"{name}-{role}"]})
        made.add(role, role, {"Authorization": basic(f"{name}-{role}")})
    made.role_of["changing"] = "all"
    for role in ("one", "public", "plain", "none"):
        made.add(f"as {role}", role, {**made.callers["all"], "es-security-runas-user": f"{name}-{role}"})
    for role in ("all", "other", "public"):
        made.add(f"key of {role}", role, {"Authorization": f"ApiKey {_api_key(made, role)}"})
    made.add("wrong password", "none", {"Authorization": basic(f"{name}-all", "wrong")})
    made.add("nobody", "none", {})
    yield made
    engine.do("DELETE", f"/{name}-a,{name}-b,{name}-c")
    engine.do("DELETE", "/_security/api_key", {"username": f"{name}-all"})
    for role in (*made.rights, "changing"):
        engine.do("DELETE", f"/_security/user/{name}-{role}")
        engine.do("DELETE", f"/_security/role/{name}-{role}")


def _load(engine: Address, index: str, letter: str) -> None:
    vector = {"type": "dense_vector", "dims": 8, "index": True, "similarity": "cosine"}
    properties: dict[str, Any] = {name: {"type": "text"} for name in ("title", "secret")}
    properties |= {"public": {"type": "boolean"}} | ({} if letter == "c" else {"embedding": vector})
    meta = {"rerank_proxy": {"embedding": {"model": MODEL}}}
    one_shard = {"number_of_shards": 1, "number_of_replicas": 0}
    engine.do("PUT", f"/{index}", {"settings": one_shard, "mappings": {"_meta": meta, "properties": properties}})
    lines: list[Any] = []
    for number in range(24):
        title = f"{_WORDS[number % 7]} {_WORDS[(3 * number + 1) % 7]} t{letter}{number:02d}q"
        document = {"title": title, "secret": f"laptop s{letter}{number:02d}q", "public": number % 3 == 0}
        lines += [{"index": {}}, document | ({} if letter == "c" else {"embedding": embed(title)})]
    assert not engine.do("POST", f"/{index}/_bulk?refresh=true", lines)["errors"]


def _api_key(world: World, role: str) -> str:
    key = {"name": role, "role_descriptors": {role: world.rights[role].role}}
    grant = {"grant_type": "password", "username": f"{world.name}-all", "password": PASSWORD, "api_key": key}
    return str(world.engine.do("POST", "/_security/api_key/grant", grant)["encoded"])


Ask = Callable[[str, bytes, Mapping[str, str]], Awaitable[tuple[int, bytes]]]
Connect = Callable[[str], Ask]


@pytest.fixture
def connect(world: World) -> Iterator[Connect]:
    """Open a kept connection, as of a balancer's pool."""
    with ExitStack() as stack:

        def connect(url: str) -> Ask:
            parts = urlsplit(url)
            if parts.scheme == "https":
                trusted = ssl.create_default_context(cafile=world.engine.ca)
                opened: http.client.HTTPConnection = http.client.HTTPSConnection(parts.netloc, context=trusted)
            else:
                opened = http.client.HTTPConnection(parts.netloc)
            stack.callback(opened.close)

            def ask(target: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
                opened.request("POST", target, body, {"Content-Type": "application/json", **headers})
                response = opened.getresponse()
                return response.status, response.read()

            async def ask_apart(target: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
                return await asyncio.to_thread(ask, target, body, headers)

            return ask_apart

        yield connect


@pytest.fixture
async def proxies(world: World, models: ShopModels, tmp_path: Path) -> AsyncIterator[list[str]]:
    """Two of them; the second reads mappings with credentials of its own, which see everything."""
    semantic = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20}
    route = {
        "index": f"{world.name}-*",
        "passage": ["title", "secret"],
        "semantic": semantic,
        "rank_window_size": _WINDOW,
    }
    superuser = {"DISCOVERY": basic(world.engine.user or "", world.engine.password)}
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server(tmp_path))
        urls = []
        for section in ({}, {"authorization_env": "DISCOVERY"}):
            engine = {"url": world.engine.url, "ca_file": world.engine.ca} | PATIENT_ENGINE | section
            settings = {
                "listen": {"port": 0},
                "engine": engine,
                "models": {"url": models.url} | PATIENT,
                "cache": {"redis_url": f"redis://127.0.0.1:{redis.port}", "redis_timeout_ms": 20_000},
                "routes": [route | {"budget_ms": 60_000}],
            }
            listener = await listen(msgspec.convert(settings, Config), "token", CACHE_KEY | superuser, stack)
            urls.append(f"http://127.0.0.1:{listener.port}")
        yield urls


def _search(world: World, chosen: random.Random) -> tuple[str, bytes]:
    """Write one of the few searches that all callers send."""
    name = world.name
    queries: list[Any] = [{"match": {"title": word}} for word in _WORDS[:2]]
    queries.append({"multi_match": {"query": "laptop video", "fields": ["title", "secret"]}})
    counts = {"in": {"terms": {"field": "_index"}}, "public": {"terms": {"field": "public"}}}
    body: dict[str, Any] = {"query": chosen.choice(queries), "track_total_hits": True, "aggs": counts}
    body |= {"from": chosen.choice([0, 0, 5, 25]), "size": chosen.choice([5, 50])}
    if chosen.random() < 0.3:
        body["highlight"] = {"fields": {"title": {}, "secret": {}}}
    names = chosen.choice([f"{name}-*", f"{name}-a,{name}-b,{name}-c", f"{name}-a", f"{name}-b", "*"])
    content = json.dumps(body).encode()
    if chosen.random() < 0.2:
        return "/_msearch", b"".join(b'{"index":"%s"}\n%s\n' % (names.encode(), content) for _ in range(2))
    return f"/{names}/_search", content


def _assert_own(said: str, rights: Rights) -> None:
    assert [] == [mark for mark in set(_MARK.findall(said)) if not rights.show(mark)], said[:2000]


def _assert_counts(answered: Any, rights: Rights, kept: int = 0) -> None:
    """No more matches, and in no other index, than the caller may see; documents of a cached head keep their places."""
    may = kept + sum(rights.show(("t", index, f"{number:02d}")) for index in "abc" for number in range(24))
    for each in answered.get("responses", [answered]):
        if "hits" in each:
            assert each["hits"]["total"]["value"] <= may
            assert {bucket["key"][-1] for bucket in each["aggregations"]["in"]["buckets"]} <= set(rights.indices)


async def test_turn_by_turn_each_caller_is_shown_what_they_may_see(
    world: World, proxies: list[str], models: ShopModels, connect: Connect
) -> None:
    """The models, too, are sent no other text; where the engine refuses, so does the proxy; rights change meanwhile."""
    chosen = random.Random(1)  # noqa: S311  the same in each run
    straight, through = connect(world.engine.url), [connect(url) for url in proxies]
    for turn in range(_TURNS):
        if turn % _CHANGES == _CHANGES - 1:
            await asyncio.to_thread(world.change, chosen.choice(list(world.rights)))
        caller = chosen.choice([*world.callers, "changing", "changing", "changing"])
        rights, (target, body) = world.allowed(caller), _search(world, chosen)
        asked = len(models.reranked)
        status, answered = await chosen.choice(through)(target, body, world.callers[caller])
        _assert_own(answered.decode(), rights)
        _assert_own(json.dumps(models.reranked[asked:]), rights)
        expected = await straight(target, body, world.callers[caller])
        assert (expected[0], answered if expected[0] == 200 else expected[1]) == (status, answered)
        _assert_counts(json.loads(answered), rights, _WINDOW if caller == "changing" else 0)


async def test_at_once_each_caller_is_shown_what_they_may_see(
    world: World, proxies: list[str], connect: Connect
) -> None:
    async def caller(number: int) -> None:
        chosen, ask = random.Random(number), connect(proxies[number % 2])  # noqa: S311  as above
        for _ in range(_TURNS // _AT_ONCE):
            name = chosen.choice([name for name in world.callers if name != "changing"])
            target, body = _search(world, chosen)
            _, answered = await ask(target, body, world.callers[name])
            _assert_own(answered.decode(), world.allowed(name))
            _assert_counts(json.loads(answered), world.allowed(name))

    await asyncio.gather(*(caller(number) for number in range(_AT_ONCE)))
