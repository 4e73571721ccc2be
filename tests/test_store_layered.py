"""Memory and a shared store answer together as one."""

from collections.abc import Mapping, Sequence

import pytest

from proxy.store.contract import Counts, Timed
from proxy.store.layered import MemoryFirst, SharedFirst
from proxy.store.memory import MemoryStore
from tests.test_store_memory import Clock

Layered = type[MemoryFirst] | type[SharedFirst]
both = pytest.mark.parametrize("layered", [MemoryFirst, SharedFirst])


class Shared(MemoryStore):
    """A store that counts what it is asked, and can be away."""

    def __init__(self) -> None:
        super().__init__(10**6)
        self.asked: list[Sequence[bytes]] = []
        self.is_away = False

    async def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        self.asked.append(keys)
        return [None] * len(keys) if self.is_away else await super().get(keys)

    async def get_timed(self, keys: Sequence[bytes]) -> Sequence[Timed | None]:
        return [None if value is None else Timed(value, 10) for value in await self.get(keys)]

    async def put(self, entries: Mapping[bytes, bytes], seconds: float) -> None:
        if not self.is_away:
            await super().put(entries, seconds)


@both
async def test_two_layered_stores_share_their_values(layered: Layered) -> None:
    shared = Shared()
    one, other = layered(MemoryStore(10_000), shared), layered(MemoryStore(10_000), shared)
    await one.put({b"a": b"1", b"b": b"2"}, 60)
    await other.put({b"c": b"3"}, 60)
    assert [b"3", b"1", None, b"2"] == await other.get([b"c", b"a", b"x", b"b"])
    assert Counts(hits=3, misses=1) == other.counts


@both
async def test_memory_is_used_while_the_shared_store_is_unreachable(layered: Layered) -> None:
    shared = Shared()
    store = layered(MemoryStore(10_000), shared)
    shared.is_away = True
    await store.put({b"a": b"1"}, 60)
    assert [b"1", None] == await store.get([b"a", b"b"])


async def test_immutable_values_are_read_from_the_shared_store_once() -> None:
    shared = Shared()
    await shared.put({b"a": b"1"}, 60)
    store = MemoryFirst(MemoryStore(10_000), shared)
    await store.put({b"b": b"2"}, 60)
    for _ in range(2):
        assert [b"1", b"2"] == await store.get([b"a", b"b"])
    assert [[b"a"]] == shared.asked


async def test_shared_values_stay_in_memory_for_their_remaining_time() -> None:
    shared, clock = Shared(), Clock()
    await shared.put({b"a": b"1"}, 60)
    store = MemoryFirst(MemoryStore(10_000, clock), shared)
    assert [b"1"] == await store.get([b"a"])
    shared.is_away = True
    clock.now += 9.9
    assert [b"1"] == await store.get([b"a"])
    clock.now += 0.1
    assert [None] == await store.get([b"a"])


async def test_values_replaced_by_another_proxy_are_not_served_from_memory() -> None:
    shared = Shared()
    one, other = SharedFirst(MemoryStore(10_000), shared), SharedFirst(MemoryStore(10_000), shared)
    await one.put({b"a": b"1"}, 60)
    await other.get([b"a"])
    await one.put({b"a": b"2"}, 60)
    await other.put({b"a": b"3"}, 60)
    assert [b"3"] == await one.get([b"a"]) == await other.get([b"a"])
