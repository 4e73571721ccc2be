"""Models whose faults change by phases: they work, fail now and then, or all at once in one way; and a Redis."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tests.fakes import Fault, Message, Stream, answer, breaks_off, hangs, refuses, says
from tests.integration.models import ShopModels
from tests.redis_server import RedisServer

_BUSY = answer(429, b'{"error":"too many requests"}', ("Retry-After", "1"), reason="Too Many Requests")


async def _slow(stream: Stream, request: Message) -> None:
    await asyncio.sleep(0.4)


async def _too_many(stream: Stream, request: Message) -> bytes:
    return _BUSY


FAULTS: Mapping[str, Fault] = {
    "hangs": hangs,
    "breaks off": breaks_off(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"),
    "429": _too_many,
    "500": refuses(500, b'{"detail":"internal"}'),
    "malformed": says(b'{"scores":["NaN"],"data":[{}]}'),
    "slow": _slow,
}


@dataclass(frozen=True, slots=True)
class Phase:
    """A time in which a share of the calls has one of these faults."""

    seconds: float
    share: float
    faults: tuple[str, ...] = tuple(FAULTS)


PHASES = (
    Phase(30, 0.0),
    Phase(40, 0.1),
    Phase(15, 1.0, ("hangs",)),
    Phase(25, 0.05),
    Phase(15, 1.0, ("429",)),
    Phase(25, 0.05),
    Phase(15, 0.6, ("500", "breaks off")),
    Phase(15, 1.0, ("malformed", "slow")),
)


class FaultyModels(ShopModels):
    """The shop's models with faults; it counts its calls instead of remembering them."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = PHASES[0]
        self.calls: Counter[str] = Counter()
        self.faults = dict.fromkeys(("embed", "rerank"), self._fail)
        self._random = random.Random(7)

    async def remember(self, request: Message) -> None:
        self.calls[self.kind(request)] += 1

    async def _fail(self, stream: Stream, request: Message) -> bytes | None:
        if self._random.random() >= self.phase.share:
            return None
        name = self._random.choice(self.phase.faults)
        self.calls[name] += 1
        return await FAULTS[name](stream, request)

    async def run_phases(self) -> None:
        """Change from phase to phase, for ever."""
        while True:
            for phase in PHASES:
                self.phase = phase
                await asyncio.sleep(phase.seconds)


async def disturbed(redis: RedisServer) -> None:
    """Let Redis work, hang, work, and be away, for ever."""
    while True:
        await asyncio.sleep(25)
        redis.pause()
        await asyncio.sleep(10)
        redis.resume()
        await asyncio.sleep(25)
        await redis.kill()
        await asyncio.sleep(10)
        await redis.start()
