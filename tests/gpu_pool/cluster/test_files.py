"""Descriptions of files, and files that are put together of pieces."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from gpu_pool.cluster.files import PIECE_BYTES, ContentHashes, FileChanged, Receipt, check_entries, read_described
from gpu_pool.wire import WireError

DATA = b"some bytes"
HASH = hashlib.sha256(DATA).hexdigest()


def describe(path: Path) -> dict[str, Any]:
    steps = ContentHashes().describe(path)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return dict(end.value)


def test_a_folder_arrives_as_it_was_and_appears_at_once(tmp_path: Path) -> None:
    """With empty folders and files, and one of several pieces; links are left out."""
    folder = tmp_path / "prepared"
    (folder / "inner" / "empty").mkdir(parents=True)
    (folder / "nothing").touch()
    (folder / "inner" / "long").write_bytes(DATA * PIECE_BYTES)
    (folder / "link").symlink_to("/etc/passwd")
    entries = describe(folder)
    receipt = Receipt(tmp_path / "far" / "prepared", entries)
    for piece in read_described(folder / "inner" / "long", entries["inner/long"]):
        assert not receipt.is_whole
        receipt.add(piece)
        assert not receipt.target.exists()
    assert receipt.is_whole
    receipt.install()
    assert describe(receipt.target) == entries
    assert entries.keys() == {"", "inner", "inner/empty", "inner/long", "nothing"}
    assert [path.name for path in receipt.target.parent.iterdir()] == ["prepared"]


def test_a_file_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    """Neither half of it nor another name."""
    receipt = Receipt(tmp_path / "part.mp4", {"": [HASH, len(DATA)]})
    receipt.add(DATA[:3])
    receipt.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"other byte", DATA + b"x"], ids=["hash", "longer"])
def test_other_bytes_than_were_told_are_refused(tmp_path: Path, data: bytes) -> None:
    """A wrong hash, or a wrong length."""
    receipt = Receipt(tmp_path / "part.mp4", {"": [HASH, len(DATA)]})
    with pytest.raises(WireError):
        receipt.add(data)
    receipt.discard()


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"a": [HASH, 1]},
        {"": [HASH, -1]},
        {"": [HASH, 1 << 60]},
        {"": ["x", 1]},
        {"": None},
        {"": [], "/etc/passwd": [HASH, 1]},
        {"": [], "../x": [HASH, 1]},
        {"": [], "a/../../x": [HASH, 1]},
        {"": [], "a/b": [HASH, 1]},
        {"": [HASH, 1], "a": [HASH, 1]},
        {"": [], "a\0": []},
        {"": []} | {f"{n}": [] for n in range(50_001)},
    ],
    ids=range(13),
)
def test_what_describes_no_files_is_refused(entries: dict[str, Any]) -> None:
    """No path leads out of the folder, and there is an end of them."""
    with pytest.raises(WireError):
        check_entries(entries)


@pytest.mark.parametrize("data", [b"other byte", DATA + b"x", DATA[:3]])
def test_a_file_that_is_changed_is_not_sent_whole(tmp_path: Path, data: bytes) -> None:
    """It is the sender who finds that."""
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(FileChanged):
        list(read_described(tmp_path / "a", [HASH, len(DATA)]))


def test_a_folder_that_is_there_already_stays(tmp_path: Path) -> None:
    """Another worker has made the same in the meantime."""
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "a").write_bytes(DATA)
    receipt = Receipt(tmp_path / "prepared", {"": []})
    receipt.install()
    assert [path.name for path in tmp_path.rglob("*")] == ["prepared", "a"]


def test_a_folder_that_is_removed_meanwhile_is_not_described_by_half(tmp_path: Path) -> None:
    """As an entry of the cache, by one rename: what was read so far would look like all of it."""
    folder = tmp_path / "entry"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_bytes(DATA)
    steps = ContentHashes().describe(folder)
    next(steps)
    folder.rename(tmp_path / "doomed")
    with pytest.raises(FileNotFoundError):
        list(steps)


def test_what_is_being_written_is_not_described(tmp_path: Path) -> None:
    """It has another name, or another content, when that is sent."""
    (tmp_path / ".part.mp4.0123456789ab.tmp").write_bytes(DATA)
    assert describe(tmp_path) == {"": []}


def test_hashes_are_not_remembered_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were found first are forgotten."""
    monkeypatch.setattr("gpu_pool.cluster.files.MAX_KNOWN", 2)
    hashes = ContentHashes()
    for number in range(5):
        (tmp_path / str(number)).write_bytes(DATA)
    assert len(list(hashes.describe(tmp_path))) == 5
    assert len(hashes._known) == 2


@pytest.mark.parametrize("name", ["e" * 300, "empty"])
def test_a_receipt_that_cannot_begin_leaves_nothing(tmp_path: Path, name: str) -> None:
    """A name that no disk takes, and an empty file with the hash of another."""
    with pytest.raises((OSError, WireError)):
        Receipt(tmp_path / "prepared", {"": [], name: [HASH, 0]})
    assert list(tmp_path.iterdir()) == []
