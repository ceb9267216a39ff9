"""Files that appear whole or not at all, their hashes and locks, as the engines use them."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from models.atomic import BLOCK_BYTES, atomic_folder, atomic_write, hash_file, hold_folder, lock
from models.types import EngineError


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, durable: bool) -> None:
    """The name is free while the file is written; an error leaves nothing, and a full disk has a code."""
    path = tmp_path / "a"
    with atomic_write(path, durable=durable) as temp:
        temp.write_bytes(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"

    def fill_disk() -> None:
        with atomic_write(path, durable=durable) as temp:
            temp.write_bytes(b"two")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(EngineError, match="disk_full"):
        fill_disk()
    assert path.read_bytes() == b"one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """With all that is in it."""
    with atomic_folder(tmp_path / "entry") as temp:
        (temp / "inner").mkdir()
        (temp / "inner" / "a").write_bytes(b"one")
        assert not (tmp_path / "entry").exists()
    assert (tmp_path / "entry" / "inner" / "a").read_bytes() == b"one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["entry"]


def test_the_hash_of_a_file_and_its_progress(tmp_path: Path) -> None:
    """SHA-256 in hexadecimal digits; the caller is told the bytes read after each block."""
    data = b"x" * (2 * BLOCK_BYTES + 1)
    (tmp_path / "a").write_bytes(data)
    done: list[int] = []
    assert hash_file(tmp_path / "a", done.append) == hashlib.sha256(data).hexdigest()
    assert done == [BLOCK_BYTES, 2 * BLOCK_BYTES, len(data)]


def test_a_lock_has_one_holder_or_many_that_share_it(tmp_path: Path) -> None:
    """Each open file counts for itself; closing it releases the lock, which a waiting one then gets."""
    first, second = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    assert lock(first)
    assert not lock(second)
    assert not lock(second, shared=True)
    os.close(first)
    assert lock(second, wait=True)
    os.close(second)


@pytest.mark.parametrize("way", ["link", "pipe", "none"])
def test_what_is_written_goes_to_the_file_whatever_takes_its_name(tmp_path: Path, way: str) -> None:
    """The temporary name is taken away, or given to a link or a pipe: nothing is written through it."""
    (victim := tmp_path / "victim").write_bytes(b"precious")
    (folder := tmp_path / "folder").mkdir()

    def write() -> None:
        with atomic_write(folder / "a") as temp:
            [name] = folder.iterdir()
            name.unlink()
            if way == "link":
                name.symlink_to(victim)
            elif way == "pipe":
                os.mkfifo(name)
            temp.write_bytes(b"one")

    if way == "none":
        with pytest.raises(FileNotFoundError):
            write()
    else:
        write()
    assert victim.read_bytes() == b"precious"


def test_a_folder_that_is_held_stays_the_same(tmp_path: Path) -> None:
    """Its name is given to a link: what is written goes to the folder that was opened. A link is not opened."""
    (tmp_path / "staging").mkdir()
    (victim := tmp_path / "victim").mkdir()
    with hold_folder(tmp_path / "staging") as staging:
        (tmp_path / "staging").rename(tmp_path / "moved")
        (tmp_path / "staging").symlink_to(victim)
        with atomic_write(staging / "a") as temp:
            temp.write_bytes(b"one")
    assert (tmp_path / "moved" / "a").read_bytes() == b"one"
    assert not list(victim.iterdir())
    with pytest.raises(OSError, match="staging"), hold_folder(tmp_path / "staging"):
        pass
