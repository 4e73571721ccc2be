"""Keys tell nothing, differ where anything differs, and are the same in every process with the same secret."""

from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.store.contract import KEY_LENGTH, Keys, Kind

KEYS = Keys(b"secret")
parts = st.lists(st.binary(max_size=8) | st.text(max_size=4), max_size=4)


def as_bytes(given_parts: list[bytes | str]) -> list[bytes]:
    return [part.encode() if isinstance(part, str) else part for part in given_parts]


@given(parts, parts)
def test_keys_differ_if_any_part_differs(one: list[bytes | str], other: list[bytes | str]) -> None:
    """Even if the concatenated parts are the same bytes."""
    assume(as_bytes(one) != as_bytes(other))
    assert KEYS.key(Kind.SCORES, *one) != KEYS.key(Kind.SCORES, *other)


@given(parts)
def test_keys_differ_by_kind_and_secret_and_have_a_fixed_length(one: list[bytes | str]) -> None:
    found = {keys.key(kind, *one) for kind in Kind for keys in (KEYS, Keys(b"other"), Keys(b""))}
    assert (9, {KEY_LENGTH}) == (len(found), {len(key) for key in found})
    assert KEYS.key(Kind.VECTORS, *one) == Keys(b"secret").key(Kind.VECTORS, *one)


def test_lone_surrogates_are_hashed() -> None:
    assert KEYS.key(Kind.SCORES, "\ud800") != KEYS.key(Kind.SCORES, "\ud801")


def test_a_long_secret_is_used_completely_and_not_shown() -> None:
    assert Keys(b"s" * 100).key(Kind.SCORES) != Keys(b"s" * 101).key(Kind.SCORES)
    assert "Keys(***)" == repr(Keys(b"secret"))
