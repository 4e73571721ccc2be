"""A store in Redis, shared by all proxies with the same secret.

After any error, or no response in time, Redis is not used for some seconds; then a write in the background decides
whether it is used again. So searches wait for an absent Redis at most once in these seconds.
"""

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog
from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ResponseError

from proxy.bounds import SHARED_CONNECTIONS, SHARED_READ_BYTES, SHARED_VALUE_BYTES
from proxy.store.contract import Timed
from proxy.store.sealing import Seal

PREFIX = b"rerank-proxy:"
AWAY_S = 2.0
"""Seconds for which Redis is not used after an error."""
CONNECT_S = 5.0
"""Seconds for connections to be made, which no search waits for."""
_UNTIL = struct.Struct("<d")
"""The end of a value's time, before the value: seconds since 1970."""
_PROBE = PREFIX + b"probe"
_CLOSE_S = 1.0
_DETAIL = 200
_log = structlog.get_logger("proxy")


class Reach(StrEnum):
    """Whether Redis is used at present."""

    OK = "ok"
    AWAY = "unreachable"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is, and how to log in."""

    host: str
    port: int
    database: int = 0
    user: str | None = None
    password: str | None = None
    tls: bool = False
    ca_file: str | None = None

    def __repr__(self) -> str:
        return f"RedisAddress({self.host}:{self.port})"

    def client(self) -> Redis:
        """Create a client, which connects when it is used."""
        tls: dict[str, Any] = {"ssl_ca_certs": self.ca_file} if self.tls else {}
        pool = BlockingConnectionPool(
            connection_class=SSLConnection if self.tls else Connection,
            max_connections=SHARED_CONNECTIONS,
            timeout=None,
            host=self.host,
            port=self.port,
            db=self.database,
            username=self.user,
            password=self.password,
            protocol=2,
            driver_info=None,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=None,
            socket_timeout=None,
            **tls,
        )
        return Redis.from_pool(pool)


class RedisStore:
    """Encrypted values in Redis, each at most `SHARED_VALUE_BYTES` long."""

    def __init__(  # noqa: PLR0913  its limits
        self,
        redis: Redis,
        seal: Seal,
        timeout_seconds: float,
        *,
        connect_seconds: float = CONNECT_S,
        away_seconds: float = AWAY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.reach = Reach.AWAY
        self.fault = ""
        """Why Redis is not used, if it was tried."""
        self._redis = redis
        self._seal = seal
        self._timeout = timeout_seconds
        self._connect_seconds = connect_seconds
        self._away_seconds = away_seconds
        self._clock = clock
        self._try_again_at = 0.0
        self._trying: asyncio.Task[None] | None = None

    async def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        return [None if found is None else found.value for found in await self.get_timed(keys)]

    async def get_timed(self, keys: Sequence[bytes]) -> Sequence[Timed | None]:
        """Like `get`, with the seconds that each value has left."""
        nothing: Sequence[Timed | None] = [None] * len(keys)
        if not keys or not self._is_used():
            return nothing
        most = min(SHARED_VALUE_BYTES, SHARED_READ_BYTES // len(keys))
        commands = [("GETRANGE", PREFIX + key, 0, most - 1) for key in keys]  # the seal rejects a value that is cut
        found = await self._run(commands)
        if found is None:
            return nothing
        now = self._clock()
        return [self._read(key, value, now) for key, value in zip(keys, found, strict=True)]

    async def put(self, entries: Mapping[bytes, bytes], seconds: float) -> None:
        if not entries or not self._is_used():
            return
        until = _UNTIL.pack(self._clock() + seconds)
        sealed = ((key, self._seal.close(key, until + value)) for key, value in entries.items())
        lives = max(1, int(seconds * 1000))
        commands = [
            ("SET", PREFIX + key, value, "PX", lives) for key, value in sealed if len(value) <= SHARED_VALUE_BYTES
        ]
        if commands:
            await self._run(commands)

    def _read(self, key: bytes, sealed: Any, now: float) -> Timed | None:
        """Read a value as `put` wrote it; after its time it counts as absent, wherever it was kept meanwhile."""
        value = self._seal.open(key, sealed) if isinstance(sealed, bytes) else None
        if value is None or len(value) < _UNTIL.size:
            return None
        (until,) = _UNTIL.unpack_from(value)
        return Timed(value[_UNTIL.size :], until - now) if until > now else None

    async def _run(self, commands: Sequence[tuple[Any, ...]]) -> Sequence[Any] | None:
        """Run commands in one round trip; None after an error."""
        try:
            async with _patience(self._timeout):
                pipeline = self._redis.pipeline(transaction=False)
                for command in commands:
                    pipeline.execute_command(*command)
                found: Sequence[Any] = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001  whatever is wrong with Redis, searches continue without it
            self._leave_alone(error)
            return None
        faults = [each for each in found if isinstance(each, Exception)]
        if len(faults) == len(found):
            self._leave_alone(faults[0])
        return found

    # -- when Redis is absent

    def _is_used(self) -> bool:
        if self.reach is Reach.AWAY and asyncio.get_running_loop().time() >= self._try_again_at:
            self.try_soon()
        return self.reach is Reach.OK

    def _leave_alone(self, error: Exception) -> None:
        self._try_again_at = asyncio.get_running_loop().time() + self._away_seconds
        self.reach, fault = Reach.AWAY, _detail(error)
        if fault != self.fault:
            _log.warning("redis_unreachable", detail=f"{fault}. Only the caches of this process are used")
        self.fault = fault

    def try_soon(self) -> None:
        """Test in the background whether Redis can be used."""
        if self._trying is None or self._trying.done():
            self._trying = asyncio.get_running_loop().create_task(self._try())

    async def tried(self) -> Reach:
        """Wait until the attempt in progress has ended."""
        if self._trying is not None:
            await asyncio.wait((self._trying,))
        return self.reach

    async def _try(self) -> None:
        try:
            async with asyncio.timeout(self._connect_seconds):
                await self._connect()
        except Exception as error:  # noqa: BLE001  as above
            self._leave_alone(error)
            return
        self.reach, self.fault = Reach.OK, ""
        _log.info("redis_reachable")

    async def _connect(self) -> None:
        """Open all connections, so that no search waits for one; raises the error of any of them."""
        await self._redis.connection_pool.disconnect(inuse_connections=False)
        probes = [self._redis.set(_PROBE, b"", px=1000) for _ in range(SHARED_CONNECTIONS)]
        for found in await asyncio.gather(*probes, return_exceptions=True):
            if isinstance(found, BaseException):
                raise found

    async def close(self) -> None:
        """Close all connections."""
        if self._trying is not None:
            self._trying.cancel()
            await asyncio.gather(self._trying, return_exceptions=True)
        with suppress(Exception):  # TLS waits for a server that hangs
            async with asyncio.timeout(_CLOSE_S):
                await self._redis.aclose()


@asynccontextmanager
async def _patience(seconds: float) -> AsyncIterator[None]:
    """Cancel the block after this time, of which delays of the event loop are no part; raises TimeoutError.

    After such a delay timers run before sockets are read, so that a plain timeout would end although the response is
    there. So the time is measured in parts, each of which counts no more than its length however late it ends.
    """
    loop = asyncio.get_running_loop()
    part = seconds / _PARTS
    async with asyncio.timeout(None) as limit:

        def count(left: int) -> None:
            timers.pop().cancel()
            if left:
                timers.append(loop.call_later(part, count, left - 1))
            else:
                limit.reschedule(loop.time())

        timers = [loop.call_later(part, count, _PARTS - 1)]
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()


_PARTS = 5


def _detail(error: Exception) -> str:
    """Describe an error; messages of the server are not repeated, because some quote the command, AUTH for example."""
    if isinstance(error, ResponseError | AuthenticationError):
        code = str(error).partition(" ")[0]
        return f"{type(error).__name__} {code}" if code.isalpha() and code.isupper() else type(error).__name__
    said = f"{type(error).__name__}: {error}"[:_DETAIL]
    return said.rstrip(".: ")
