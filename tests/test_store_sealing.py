"""What is written outside the process tells nothing, and nothing but what a proxy wrote under a key is read from it."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.store.sealing import Seal

SEAL = Seal(b"secret")
values = st.binary(max_size=40)


@given(values, values)
def test_a_value_is_read_under_its_key_and_by_the_same_secret_alone(key: bytes, value: bytes) -> None:
    sealed = SEAL.close(key, value)
    assert value == Seal(b"secret").open(key, sealed)
    assert (None, None) == (SEAL.open(key + b"x", sealed), Seal(b"other").open(key, sealed))
    assert len(value) < 4 or value not in sealed


@given(st.binary(max_size=60))
def test_anything_else_is_no_value(found: bytes) -> None:
    assert SEAL.open(b"key", found) is None
    assert SEAL.open(b"key", b"\x01" + found) is None


@given(values, st.data())
def test_a_changed_value_is_no_value(value: bytes, data: st.DataObject) -> None:
    sealed = bytearray(SEAL.close(b"key", value))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    assert SEAL.open(b"key", bytes(sealed)) is None


def test_it_does_not_show_its_secret() -> None:
    assert "Seal(***)" == repr(SEAL)
