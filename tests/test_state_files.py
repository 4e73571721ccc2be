"""Files of the proxy's own state are read up to a bound, and replaced as a whole."""

import os
from pathlib import Path

import pytest

from proxy.upstream.state_files import read_state, replace_state


def test_files_are_read_as_written(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    assert read_state(file, 3) is None
    for content in (b"one", b"", b"two"):
        replace_state(file, content)
        assert content == read_state(file, 3)
    assert [file] == list(tmp_path.iterdir())


def test_a_too_large_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(b"four")
    with pytest.raises(ValueError, match="more than 3 bytes"):
        read_state(file, 3)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_read_and_replaced(tmp_path: Path, kind: str) -> None:
    """Reading a pipe would block, and a device would be renamed as a corrupt file."""
    path = tmp_path / "state.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    before = path.lstat()
    with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
        read_state(path, 3)
    with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
        replace_state(path, b"one")
    assert (before.st_mode, before.st_ino) == (path.lstat().st_mode, path.lstat().st_ino)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    replace_state(file, b"one")
    (tmp_path / "state.json.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        replace_state(file, b"two")
    assert b"one" == read_state(file, 3)
