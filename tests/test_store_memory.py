"""The store in memory: what is found is what was stored, within its bytes and its time, whatever is scanned past it."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proxy.store.memory import ENTRY_SIZE, MemoryStore


class Clock:
    """Time that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def one(store: MemoryStore, key: bytes) -> bytes | None:
    (value,) = store.peek([key])
    return value


async def test_values_are_returned_in_the_order_of_the_keys() -> None:
    store = MemoryStore(10_000)
    await store.put({b"a": b"1", b"b": b"2"}, 60)
    assert [b"2", None, b"1", b"2"] == await store.get([b"b", b"c", b"a", b"b"])
    assert (3, 1, 0) == (store.counts.hits, store.counts.misses, store.evictions)


async def test_an_entry_expires_and_can_be_stored_again() -> None:
    clock = Clock()
    store = MemoryStore(10_000, clock)
    await store.put({b"a": b"1"}, 60)
    clock.now += 59.9
    assert [b"1"] == await store.get([b"a"])
    clock.now += 0.1
    assert [None] == await store.get([b"a"])
    await store.put({b"a": b"2"}, 60)
    assert [b"2"] == await store.get([b"a"])


async def test_expired_entries_are_removed_and_not_counted_as_evictions() -> None:
    clock = Clock()
    store = MemoryStore(10**6, clock)
    await store.put({b"%d" % number: b"" for number in range(100)}, 60)
    clock.now += 60
    await store.put({b"later %d" % number: b"" for number in range(100)}, 60)
    assert (100, 0) == (len(store), store.evictions)


@pytest.mark.parametrize("size", [0, ENTRY_SIZE])
async def test_a_value_larger_than_the_store_removes_the_earlier_one(size: int) -> None:
    store = MemoryStore(size)
    await store.put({b"a": b""}, 60)
    await store.put({b"a": b"x"}, 60)
    assert [None] == await store.get([b"a"])


def test_a_scan_does_not_evict_used_entries() -> None:
    """Entries that were found twice stay while ten times the capacity passes, each used once."""
    store = MemoryStore(1000 * ENTRY_SIZE)
    head, numbers = [b"head %d" % number for number in range(100)], count()
    for scanned in (300, 300, 10_000):
        store.peek(head)
        store.set(dict.fromkeys(head, b""), 60)
        store.set({b"scanned %d" % next(numbers): b"" for _ in range(scanned)}, 60)
    assert None not in store.peek(head)


def test_an_eviction_spares_a_limited_number_of_used_entries() -> None:
    """So no call scans the whole store, even if every entry is in use."""
    store = MemoryStore(100 * ENTRY_SIZE)
    used = [b"used %d" % number for number in range(100)]
    store.set(dict.fromkeys(used, b""), 60)
    for new in (b"first", b"second"):
        for _ in range(3):
            store.peek(used)
        store.set({new: b""}, 60)
    assert [0, 17] == [number for number, value in enumerate(store.peek(used)) if value is None]


class Traffic(RuleBasedStateMachine):
    """Any traffic: what is found was stored last under its key, its time is not over, and the bytes are kept."""

    keys = st.integers(0, 30).map(lambda number: b"%d" % number)

    @initialize(entries=st.integers(0, 12))
    def begin(self, entries: int) -> None:
        self.clock = Clock()
        self.store = MemoryStore(entries * ENTRY_SIZE, self.clock)
        self.model: dict[bytes, tuple[bytes, float]] = {}

    @rule(key=keys, size=st.integers(0, 5 * ENTRY_SIZE), seconds=st.integers(1, 20))
    def put(self, key: bytes, size: int, seconds: int) -> None:
        value = bytes([len(self.model) % 256]) * size
        self.store.set({key: value}, seconds)
        self.model[key] = value, self.clock.now + seconds

    @rule(key=keys)
    def get(self, key: bytes) -> None:
        value, until = self.model.get(key, (None, 0.0))
        found = one(self.store, key)
        assert found is None or (found == value and self.clock.now < until)

    @rule(seconds=st.integers(0, 10))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def stays_within_its_bytes(self) -> None:
        assert 0 <= self.store.size <= self.store.bytes_max


TestTraffic = Traffic.TestCase


@given(st.lists(st.integers(0, 20), max_size=60))
def test_nothing_is_evicted_while_there_is_room(numbers: list[int]) -> None:
    store = MemoryStore(100 * ENTRY_SIZE)
    for number in numbers:
        store.set({b"%d" % number: b"%d" % number}, 60)
    assert all(one(store, b"%d" % number) == b"%d" % number for number in numbers)
