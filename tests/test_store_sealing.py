"""What is written outside the process tells nothing, and nothing but what a proxy wrote under a key is read from it."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.store.sealing import Seal

SEAL = Seal(b"secret")
values = st.binary(max_size=40)


@given(values, values)
def test_a_value_is_readable_only_with_its_key_and_secret(key: bytes, value: bytes) -> None:
    sealed = SEAL.close(key, value)
    assert value == Seal(b"secret").open(key, sealed)
    assert (None, None) == (SEAL.open(key + b"x", sealed), Seal(b"other").open(key, sealed))
    assert len(value) < 4 or value not in sealed


@given(st.binary(max_size=60))
def test_other_bytes_are_no_value(found: bytes) -> None:
    assert SEAL.open(b"key", found) is None
    assert SEAL.open(b"key", b"\x01" + found) is None


@given(values, st.data())
def test_a_modified_value_is_rejected(value: bytes, data: st.DataObject) -> None:
    sealed = bytearray(SEAL.close(b"key", value))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    assert SEAL.open(b"key", bytes(sealed)) is None


def test_its_repr_hides_the_secret() -> None:
    assert "Seal(***)" == repr(SEAL)
