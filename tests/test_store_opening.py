"""The caches that the settings name are opened, or a mistake is said with its key."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proxy.settings.config import Cache
from proxy.settings.credentials import CacheSecrets
from proxy.settings.yaml_file import ConfigError
from proxy.store.contract import Kind
from proxy.store.opening import open_caches
from tests.conftest import Log
from tests.redis_server import needs_redis, redis_server

SECRETS = CacheSecrets(key=b"0123456789abcdef")


async def test_without_redis_each_kind_has_its_own_memory_and_lifetime() -> None:
    settings = Cache(rankings_mb=1, scores_mb=2, vectors_mb=0, rankings_seconds=3, scores_seconds=4, vectors_seconds=5)
    async with AsyncExitStack() as stack:
        caches = open_caches(settings, CacheSecrets(), stack)
    regions = (caches.rankings, caches.scores, caches.vectors)
    assert [Kind.RANKINGS, Kind.SCORES, Kind.VECTORS] == [region.kind for region in regions]
    assert [3, 4, 5] == [region.seconds for region in regions]
    assert [2**20, 2**21, 0] == [caches.memory[region.kind].bytes_max for region in regions]
    assert caches.redis is None


async def test_keys_are_random_per_process_unless_configured() -> None:
    async with AsyncExitStack() as stack:
        drawn, other = [open_caches(Cache(), CacheSecrets(), stack) for _ in range(2)]
        given, same = [open_caches(Cache(), SECRETS, stack) for _ in range(2)]
    assert drawn.scores.key(b"a") != other.scores.key(b"a")
    assert given.scores.key(b"a") == same.scores.key(b"a")


@needs_redis
async def test_proxies_with_one_redis_share_their_values(tmp_path: Path, log: Log) -> None:
    async with redis_server(tmp_path) as server, AsyncExitStack() as stack:
        settings = Cache(redis_url=f"redis://127.0.0.1:{server.port}/3", redis_timeout_ms=30_000)
        one, other = [open_caches(settings, SECRETS, stack) for _ in range(2)]
        for caches in (one, other):
            assert caches.redis is not None
            assert "ok" == await caches.redis.tried()
        for mine, theirs in ((one.rankings, other.rankings), (one.scores, other.scores), (one.vectors, other.vectors)):
            await mine.put(mine.key("a"), b"1")
            assert b"1" == await theirs.get(theirs.key("a"))
        for mine, theirs in ((one.rankings, other.rankings), (one.scores, other.scores)):
            await theirs.put(theirs.key("a"), b"2")
            assert b"2" == await mine.get(mine.key("a")), "what is added to, or replaced, is that of the last proxy"


@needs_redis
async def test_a_disabled_kind_is_not_stored_in_redis(tmp_path: Path, log: Log) -> None:
    async with redis_server(tmp_path) as server, AsyncExitStack() as stack:
        settings = Cache(redis_url=f"redis://127.0.0.1:{server.port}", redis_timeout_ms=30_000, scores_mb=0)
        caches = open_caches(settings, SECRETS, stack)
        assert caches.redis is not None
        await caches.redis.tried()
        for region in (caches.rankings, caches.scores):
            await region.put(region.key("a"), b"1")
        assert (b"1", None) == (
            await caches.rankings.get(caches.rankings.key("a")),
            await caches.scores.get(caches.scores.key("a")),
        )


async def test_an_unreadable_authority_is_an_error_with_its_key(tmp_path: Path) -> None:
    settings = Cache(redis_url="rediss://a", redis_ca_file=str(tmp_path / "none.pem"))
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigError, match=r"cache\.redis_ca_file: .*cannot be read"):
            open_caches(settings, SECRETS, stack)
