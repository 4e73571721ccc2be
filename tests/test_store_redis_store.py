"""Redis as a store: shared by proxies with one secret, readable by nobody else, and never missed when it is away."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis.asyncio import Redis

from proxy.bounds import SHARED_READ_BYTES, SHARED_VALUE_BYTES
from proxy.store.contract import Timed
from proxy.store.redis_store import PREFIX, Reach, RedisAddress, RedisStore
from proxy.store.sealing import Seal
from tests.conftest import Log
from tests.redis_server import RedisServer, free_port, needs_redis, redis_server
from tests.test_store_memory import Clock

pytestmark = needs_redis

PATIENT_S = 30.0
Open = Callable[..., Awaitable[RedisStore]]


def events(log: Log, name: str) -> list[Any]:
    return [line for line in log if line["event"] == name]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as found:
        yield found


@pytest.fixture
async def raw(server: RedisServer) -> AsyncIterator[Any]:
    """A client of one's own, as an operator or an attacker has."""
    async with Redis(port=server.port) as client:
        yield client


@pytest.fixture
async def open_store(log: Log) -> AsyncIterator[Open]:
    """Open a store, and wait until it has tried to connect."""
    async with AsyncExitStack() as stack:

        async def opened(
            where: RedisAddress | RedisServer,
            *,
            secret: bytes = b"secret",
            timeout_seconds: float = PATIENT_S,
            away_seconds: float = 0.0,
            clock: Callable[[], float] = time.time,
        ) -> RedisStore:
            address = RedisAddress("127.0.0.1", where.port) if isinstance(where, RedisServer) else where
            store = RedisStore(
                address.client(),
                Seal(secret),
                timeout_seconds,
                connect_seconds=PATIENT_S,
                away_seconds=away_seconds,
                clock=clock,
            )
            stack.push_async_callback(store.close)
            store.try_soon()
            await store.tried()
            return store

        yield opened


async def test_proxies_with_one_secret_share_their_values(server: RedisServer, open_store: Open) -> None:
    one, other, stranger = [await open_store(server, secret=secret) for secret in (b"s", b"s", b"other")]
    await one.put({b"a": b"1", b"b": b""}, 60)
    assert [b"1", None, b""] == await other.get([b"a", b"c", b"b"])
    assert [None, None] == await stranger.get([b"a", b"b"])
    assert [] == await one.get([])


async def test_values_in_redis_are_encrypted_and_expire(server: RedisServer, open_store: Open, raw: Any) -> None:
    store = await open_store(server)
    await store.put({b"key": b"document-42"}, 60)
    key, value = PREFIX + b"key", await raw.get(PREFIX + b"key")
    assert b"document" not in value
    assert 0 < await raw.pttl(key) <= 60_000


async def test_a_value_that_outlives_its_time_is_a_miss(server: RedisServer, open_store: Open, raw: Any) -> None:
    """For example one that somebody restored from a backup."""
    clock = Clock()
    store = await open_store(server, clock=clock)
    await store.put({b"a": b"1"}, 60)
    await raw.persist(PREFIX + b"a")
    clock.now += 59
    assert [Timed(b"1", 1)] == await store.get_timed([b"a"])
    clock.now += 1
    assert [None] == await store.get([b"a"])


async def test_a_foreign_value_is_a_miss(server: RedisServer, open_store: Open, raw: Any) -> None:
    store = await open_store(server)
    await store.put({b"a": b"1", b"b": b"2"}, 60)
    await raw.set(PREFIX + b"a", await raw.get(PREFIX + b"b"))
    await raw.set(PREFIX + b"text", "x")
    await raw.rpush(PREFIX + b"list", "x")
    await raw.set(PREFIX + b"large", b"\x01" * (SHARED_VALUE_BYTES + 1))
    assert [None, None, None, None, b"2"] == await store.get([b"a", b"text", b"list", b"large", b"b"])
    assert Reach.OK is store.reach


async def test_large_values_are_neither_written_nor_read(server: RedisServer, open_store: Open, raw: Any) -> None:
    """Nor together: the more keys are read at once, the smaller each value may be."""
    store = await open_store(server)
    fits, large = b"x" * (SHARED_VALUE_BYTES - 100), b"x" * SHARED_VALUE_BYTES
    await store.put({b"fits": fits, b"large": large}, 60)
    assert ([fits], [None]) == (await store.get([b"fits"]), await store.get([b"large"]))
    assert not await raw.exists(PREFIX + b"large")
    many = SHARED_READ_BYTES // SHARED_VALUE_BYTES + 1
    assert [None] * many == await store.get([b"fits"] * many)


async def test_redis_may_start_after_the_proxy(tmp_path: Path, open_store: Open, log: Log) -> None:
    server = RedisServer(tmp_path)
    store = await open_store(server)
    await store.put({b"a": b"1"}, 60)
    assert ([None], Reach.AWAY) == (await store.get([b"a"]), await store.tried())
    assert 1 == len(events(log, "redis_unreachable"))
    await server.start()
    try:
        store.try_soon()
        assert Reach.OK is await store.tried()
        await store.put({b"a": b"1"}, 60)
        assert [b"1"] == await store.get([b"a"])
        assert 1 == len(events(log, "redis_reachable"))
    finally:
        await server.kill()


async def test_a_full_redis_is_not_used_for_a_while(server: RedisServer, open_store: Open, raw: Any, log: Log) -> None:
    store = await open_store(server, away_seconds=3600)
    await raw.config_set("maxmemory", 1)
    await store.put({b"a": b"1"}, 60)
    assert (Reach.AWAY, ["OutOfMemoryError. Only the caches of this process are used"]) == (
        store.reach,
        [line["detail"] for line in events(log, "redis_unreachable")],
    )


async def under_load(store: RedisStore) -> set[bytes | None]:
    """Ask for one value many times at once."""
    found = await asyncio.gather(*(store.get([b"a"]) for _ in range(100)))
    return {value for values in found for value in values}


async def test_a_hanging_redis_is_not_used_until_it_recovers(server: RedisServer, open_store: Open, log: Log) -> None:
    """A late reply is not taken for the response to a later command."""
    store = await open_store(server, timeout_seconds=3, away_seconds=3600)
    for number in range(100):
        await store.put({b"a": b"1", b"%d" % number: b"%d" % number}, 60)
    assert {b"1"} == await under_load(store)
    server.pause()
    assert {None} == await under_load(store)
    assert (Reach.AWAY, {None}) == (store.reach, await under_load(store))
    server.resume()
    store.try_soon()
    assert Reach.OK is await store.tried()
    keys = [b"%d" % number for number in range(100)]
    assert keys == [(await store.get([key]))[0] for key in keys]
    assert ["TimeoutError. Only the caches of this process are used"] == [
        line["detail"] for line in events(log, "redis_unreachable")
    ]


async def test_delays_of_the_event_loop_are_not_those_of_redis(server: RedisServer, open_store: Open, log: Log) -> None:
    store = await open_store(server, timeout_seconds=0.05, away_seconds=3600)
    await store.put({b"a": b"1"}, 60)
    for _ in range(10):
        reading = asyncio.ensure_future(store.get([b"a"]))
        for _ in range(3):
            await asyncio.sleep(0)
            delayed = time.monotonic() + 0.06
            while time.monotonic() < delayed:
                pass
        assert [b"1"] == await reading
    assert (Reach.OK, []) == (store.reach, events(log, "redis_unreachable"))


async def test_a_redis_killed_under_load_is_used_again_after_recovery(server: RedisServer, open_store: Open) -> None:
    store = await open_store(server)
    await store.put({b"a": b"1"}, 60)
    loading = [asyncio.ensure_future(under_load(store)) for _ in range(10)]
    await server.kill()
    assert {b"1", None} >= set().union(*await asyncio.gather(*loading))
    assert {None} == await under_load(store)
    assert Reach.AWAY is await store.tried()
    await server.start()
    store.try_soon()
    await store.tried()
    await store.put({b"a": b"2"}, 60)
    assert {b"2"} == await under_load(store)


async def test_a_cancelled_search_does_not_cancel_others(server: RedisServer, open_store: Open) -> None:
    store = await open_store(server)
    keys = [b"%d" % number for number in range(50)]
    await store.put({key: key for key in keys}, 60)
    for _ in range(5):
        asking = [asyncio.ensure_future(store.get([key])) for key in keys]
        for number, task in enumerate(asking):
            await asyncio.sleep(0)
            if number % 3 == 0:
                task.cancel()
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert all(
            isinstance(value, asyncio.CancelledError) or value == [key] for key, value in zip(keys, found, strict=True)
        )


# -- TLS and passwords

PASSWORD = "s3cret-of-redis"


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[tuple[RedisServer, RedisAddress]]:
    """A server with TLS, a password, and a user who may do what the proxy does and no more."""
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "own.crt"))
    own.private_key_pem.write_to_path(str(tmp_path / "own.key"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    lines = (
        f"tls-cert-file {tmp_path}/own.crt",
        f"tls-key-file {tmp_path}/own.key",
        f"tls-ca-cert-file {tmp_path}/ca.crt",
        "tls-auth-clients no",
        f"requirepass {PASSWORD}",
        f"user proxy on >{PASSWORD} ~rerank-proxy:* +set +getrange",
        f"user reader on >{PASSWORD} ~rerank-proxy:* +getrange",
    )
    async with redis_server(tmp_path, *lines, tls=True) as server:
        yield (
            server,
            RedisAddress("127.0.0.1", server.port, password=PASSWORD, tls=True, ca_file=str(tmp_path / "ca.crt")),
        )


@pytest.mark.parametrize("user", [None, "proxy"])
async def test_a_redis_with_tls_and_password_is_supported(
    secured: tuple[RedisServer, RedisAddress], open_store: Open, user: str | None
) -> None:
    store = await open_store(replace(secured[1], user=user))
    await store.put({b"a": b"1"}, 60)
    assert [b"1"] == await store.get([b"a"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"password": "wrong-" + PASSWORD}, "AuthenticationError"),
        ({"password": None}, "AuthenticationError"),
        ({"user": "nobody"}, "AuthenticationError"),
        ({"user": "reader"}, "NoPermissionError"),
        ({"ca_file": None}, "certificate verify failed"),
        ({"host": "localhost"}, "certificate"),
        ({"tls": False}, "Error"),
    ],
)
async def test_a_redis_that_rejects_the_password_is_not_used_and_no_secret_logged(
    secured: tuple[RedisServer, RedisAddress], open_store: Open, log: Log, changes: dict[str, Any], said: str
) -> None:
    store = await open_store(replace(secured[1], **changes))
    await store.put({b"a": b"1"}, 60)
    assert ([None], Reach.AWAY) == (await store.get([b"a"]), await store.tried())
    (line,) = events(log, "redis_unreachable")
    assert said in line["detail"]
    assert PASSWORD not in str(line)


async def test_a_server_that_is_not_redis_is_not_used(open_store: Open) -> None:
    async def nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)
        writer.close()

    async with await asyncio.start_server(nonsense, "127.0.0.1", port := free_port()):
        store = await open_store(RedisAddress("127.0.0.1", port))
        assert ([None], Reach.AWAY) == (await store.get([b"a"]), await store.tried())
