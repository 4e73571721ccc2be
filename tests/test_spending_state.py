"""The state file."""

from pathlib import Path

import pytest
from filelock import FileLock

from proxy.bounds import SPEND_FILE_BYTES
from proxy.upstream.spending.ledger import Account, Spent
from proxy.upstream.spending.state import Corrupt, StateFile, decode, encode
from tests.purses import NOON

BOOK = {
    Account("2026-11-29", "products*", "m"): Spent(calls=1, tokens=10, usd=1.0),
    Account("2026-11-29T12:00", "products*", "m"): Spent(calls=1, tokens=10, usd=1.0),
}
TODAY = Account("2026-11-29", "products*", "m")


def test_amounts_are_read_as_written() -> None:
    assert BOOK == decode(encode(BOOK))


def test_two_processes_add_up_in_one_file(tmp_path: Path) -> None:
    one, other = StateFile(tmp_path / "spend.json"), StateFile(tmp_path / "spend.json")
    assert {} == one.read()
    one.add(BOOK, NOON)
    assert Spent(calls=2, tokens=20, usd=2.0) == other.add(BOOK, NOON)[TODAY] == one.read()[TODAY]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"version":2,"rows":[]}',
        b'{"version":1,"rows":[{}]}',
        b"[" * 9999,
        b'{"x":' + b"[" * 9999,
    ],
)
def test_a_corrupt_file_is_reported_and_renamed(tmp_path: Path, content: bytes) -> None:
    file = StateFile(tmp_path / "spend.json")
    file.path.write_bytes(content)
    with pytest.raises(Corrupt):
        file.read()
    aside = file.set_aside(NOON)
    assert aside is not None
    assert (content, {}) == (aside.read_bytes(), file.read())
    assert "spend.json.corrupt-20261129T120000Z" == aside.name


def test_a_file_that_another_process_has_replaced_stays(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "spend.json")
    file.add(BOOK, NOON)
    assert file.set_aside(NOON) is None
    assert BOOK == file.read()


def test_a_too_large_file_is_not_read(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "spend.json")
    with file.path.open("wb") as large:
        large.truncate(SPEND_FILE_BYTES + 1)
    with pytest.raises(Corrupt, match="more than"):
        file.read()


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "spend.json")
    file.add(BOOK, NOON)
    (tmp_path / "spend.json.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        file.add(BOOK, NOON)
    assert BOOK == file.read()


def test_a_locked_file_is_an_error_after_a_limited_wait(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "spend.json", lock_seconds=0.01)
    with FileLock(tmp_path / "spend.json.lock"), pytest.raises(OSError, match="another process has locked"):
        file.add(BOOK, NOON)
