"""Opens the caches of the settings."""

import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.settings.config import Cache
from proxy.settings.credentials import CacheSecrets
from proxy.settings.tls import check_redis_ca
from proxy.settings.yaml_file import ConfigError
from proxy.store.contract import CacheRegion, Counts, Keys, Kind, SharedStore
from proxy.store.layered import MemoryFirst, SharedFirst
from proxy.store.memory import MemoryStore

if TYPE_CHECKING:
    from proxy.store.redis_store import RedisStore

_REDIS_PORT = 6379


@dataclass(frozen=True, slots=True)
class Caches:
    """A region for each kind of value, and what they are made of."""

    rankings: CacheRegion
    scores: CacheRegion
    vectors: CacheRegion
    counts: Mapping[Kind, Counts]
    """The look-ups of each kind, whichever store found the value."""
    memory: Mapping[Kind, MemoryStore]
    redis: "RedisStore | None" = None

    @property
    def redis_state(self) -> str | None:
        """`ok` or `unreachable`; None if there is no Redis."""
        return None if self.redis is None else str(self.redis.reach)


def open_caches(settings: Cache, given: CacheSecrets, stack: AsyncExitStack) -> Caches:
    """Open the caches; `stack` closes the connections to Redis."""
    keys = Keys(given.key or secrets.token_bytes())
    redis = _open_redis(settings, given, stack) if settings.redis_url else None
    sizes = {
        Kind.RANKINGS: settings.rankings_mb,
        Kind.SCORES: settings.scores_mb,
        Kind.VECTORS: settings.vectors_mb,
    }
    memory = {kind: MemoryStore(megabytes * 2**20) for kind, megabytes in sizes.items()}
    stores = {kind: _layered(kind, each, redis) if each.bytes_max else each for kind, each in memory.items()}
    return Caches(
        CacheRegion(Kind.RANKINGS, stores[Kind.RANKINGS], keys, settings.rankings_seconds),
        CacheRegion(Kind.SCORES, stores[Kind.SCORES], keys, settings.scores_seconds),
        CacheRegion(Kind.VECTORS, stores[Kind.VECTORS], keys, settings.vectors_seconds),
        {kind: store.counts for kind, store in stores.items()},
        memory,
        redis,
    )


def _layered(kind: Kind, memory: MemoryStore, redis: SharedStore | None) -> MemoryStore | MemoryFirst | SharedFirst:
    if redis is None:
        return memory
    return MemoryFirst(memory, redis) if kind is Kind.VECTORS else SharedFirst(memory, redis)


def _open_redis(settings: Cache, given: CacheSecrets, stack: AsyncExitStack) -> "RedisStore":
    try:
        from proxy.store.redis_store import RedisAddress, RedisStore  # noqa: PLC0415  28 MB that few need
        from proxy.store.sealing import Seal  # noqa: PLC0415  likewise
    except ImportError as error:
        raise ConfigError(
            f"cache.redis_url needs the package {error.name}, which is not installed: "
            "pip install -c constraints.txt '.[redis]' in a checkout of this project"
        ) from None
    check_redis_ca(settings)
    parts = settings.redis_parts
    address = RedisAddress(
        parts.hostname or "",
        parts.port or _REDIS_PORT,
        int(parts.path.strip("/") or 0),
        user=settings.redis_user,
        password=given.redis_password,
        tls=parts.scheme == "rediss",
        ca_file=settings.redis_ca_file,
    )
    redis = RedisStore(address.client(), Seal(given.key or b""), settings.redis_timeout_ms / 1000)
    stack.push_async_callback(redis.close)
    redis.try_soon()
    return redis
