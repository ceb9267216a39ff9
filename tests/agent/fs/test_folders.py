"""Deleting and moving by descriptor: nothing outside is reached, however the names change."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from agent.fs import atomic_write_bytes, map_parallel
from agent.fs import folders as by_descriptor
from agent.fs.folders import list_names, make_folder, make_folders, move, remove, remove_empty
from models import nofollow
from tests.member import SWAP, make_shared_folder, needs_root, running_as_member

DEEP = 1500
"""Levels: more than Python's recursion allows, and than a process may have open."""


@pytest.fixture(params=["openat2", "walk"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "walk":
        monkeypatch.setattr(nofollow, "has_openat2", lambda: False)


def test_all_kinds_of_entries_are_deleted_and_none_is_followed(tmp_path: Path) -> None:
    """Links, hard links, pipes and sockets go; what they lead to stays."""
    (victim := tmp_path / "weights").mkdir()
    (victim / "unet.pth").write_bytes(b"precious")
    (old := tmp_path / "trash" / "old").mkdir(parents=True)
    (old / "sub" / "inner").mkdir(parents=True)
    (old / "sub" / "inner" / "link").symlink_to(victim)
    (old / "sub" / "file").symlink_to(victim / "unet.pth")
    (old / "hard").hardlink_to(victim / "unet.pth")
    os.mkfifo(old / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{os.open(old, os.O_RDONLY)}/socket")
    remove(old)
    assert list_names(tmp_path / "trash") == []
    assert (victim / "unet.pth").read_bytes() == b"precious"
    (tmp_path / "trash" / "link").symlink_to(victim)
    remove(tmp_path / "trash" / "link")
    assert list_names(victim) == ["unet.pth"]


def test_a_deep_tree_is_deleted(tmp_path: Path) -> None:
    """However deep users make one."""
    (tmp_path / "trash" / "old").mkdir(parents=True)
    at = os.open(tmp_path / "trash" / "old", os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir("d", dir_fd=at)
        deeper = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = deeper
    os.close(at)
    remove(tmp_path / "trash" / "old")
    assert list_names(tmp_path / "trash") == []


@needs_root
def test_a_mount_point_is_left_and_named(tmp_path: Path) -> None:
    """Neither a mounted folder nor one inside is emptied; the rest goes, and an unmounted one the next time."""
    (weights := tmp_path / "weights").mkdir()
    (weights / "unet.pth").write_bytes(b"precious")
    (mounted := tmp_path / "trash" / "old" / "sub" / "mount").mkdir(parents=True)
    (tmp_path / "trash" / "old" / "other").touch()
    if os.system(f"mount --bind '{weights}' '{mounted}' 2>/dev/null"):  # noqa: S605
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(OSError, match=r"busy|cross-device"):
            remove(tmp_path / "trash" / "old")
        [mounted] = (tmp_path / "trash").rglob("mount")
        with pytest.raises(OSError, match=r"busy|cross-device"):
            remove(mounted)
        assert (weights / "unet.pth").read_bytes() == b"precious"
        assert not (tmp_path / "trash" / "old" / "other").exists()
    finally:
        os.system(f"umount '{mounted}'")  # noqa: S605
    for name in list_names(tmp_path / "trash"):
        remove(tmp_path / "trash" / name)
    assert list_names(tmp_path / "trash") == []


@needs_root
def test_a_racing_member_gets_nothing_deleted_or_moved_elsewhere() -> None:
    """`failed` is a folder and a link to the weights in turns, while old folders of it are deleted."""
    with make_shared_folder() as share:
        (failed := share / "failed").mkdir()
        (weights := share.parent / "weights").mkdir()
        for n in range(300):
            for place in (failed, weights):
                (place / f"old{n}").mkdir()
                (place / f"old{n}" / "file").touch()
        with running_as_member(SWAP, failed, weights):
            for n in range(300):
                with suppress(OSError):
                    remove(failed / f"old{n}")
                with suppress(OSError):
                    make_folders([failed / f"new{n}" / "inner"])
                with suppress(OSError):
                    move(failed / f"new{n}", failed / f"moved{n}")
        assert sorted(path.name for path in weights.iterdir()) == sorted(f"old{n}" for n in range(300))
        assert all((weights / f"old{n}" / "file").exists() for n in range(300))


def test_the_folder_of_a_deletion_may_change_its_name_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it was opened, a link in its place leads nowhere."""
    (tmp_path / "trash" / "old" / "sub").mkdir(parents=True)
    (weights := tmp_path / "weights").mkdir()
    (weights / "old").mkdir()
    empty = by_descriptor._empty

    def swap_and_empty(parent: int, name: str, errors: list[OSError]) -> list[str]:
        if not (tmp_path / "kept").exists():
            (tmp_path / "trash").rename(tmp_path / "kept")
            (tmp_path / "trash").symlink_to(weights)
        return empty(parent, name, errors)

    monkeypatch.setattr(by_descriptor, "_empty", swap_and_empty)
    remove(tmp_path / "trash" / "old")
    assert list_names(tmp_path / "kept") == []
    assert list_names(weights) == ["old"]


def test_folders_are_made_with_their_mode_and_through_no_link(tmp_path: Path) -> None:
    """Parents have the same mode; a link or a file in the place of one is an error."""
    make_folders([tmp_path / "a" / "b"], 0o700)
    make_folders([tmp_path / "a" / "b"], 0o777)
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "a", tmp_path / "a" / "b")} == {"0o700"}
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(NotADirectoryError, match=name):
            make_folder(tmp_path / name)
    with pytest.raises(OSError, match="link"):
        make_folders([tmp_path / "link" / "c"])
    assert not (tmp_path / "a" / "c").exists()


def test_a_folder_is_removed_if_it_is_empty(tmp_path: Path) -> None:
    """Else it stays."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert not remove_empty(tmp_path / "a")
    assert remove_empty(tmp_path / "a" / "b")
    assert remove_empty(tmp_path / "a")


# kept open -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def known(tmp_path: Path) -> Iterator[Path]:
    """A folder that must stay what it is."""
    (folder := tmp_path / "outbox").mkdir()
    by_descriptor.remember_folders([folder])
    yield folder
    by_descriptor.forget_folders([folder])


def test_a_known_folder_is_opened_once_in_a_turn(known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By all threads that work for the turn; afterwards nothing is left open."""
    opened = list[object]()

    def count(path: Path | str, **keys: Any) -> int:
        opened.append(path)
        return nofollow.open_folder(path, **keys)

    monkeypatch.setattr(by_descriptor, "open_folder", count)
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with by_descriptor.keep_folders_open():
        map_parallel(lambda n: atomic_write_bytes(known / f"{n}", b"x"), range(20))
        move(known / "1", known / "2")
        assert opened == [known]
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    move(known / "3", known / "4")
    assert len(opened) > 1


def test_what_takes_the_place_of_a_folder_in_a_turn_gets_nothing(known: Path) -> None:
    """The descriptor is that of the folder that was checked; the next turn sees the other one."""
    with by_descriptor.keep_folders_open():
        atomic_write_bytes(known / "first", b"x")
        known.rename(known.with_name("moved"))
        known.mkdir()
        atomic_write_bytes(known / "second", b"x")
        assert list_names(known) == ["first", "second"]
    assert os.listdir(known) == []  # noqa: PTH208
    assert sorted(os.listdir(known.with_name("moved"))) == ["first", "second"]  # noqa: PTH208
    with by_descriptor.keep_folders_open(), pytest.raises(by_descriptor.ReplacedFolder):
        atomic_write_bytes(known / "third", b"x")


def test_a_folder_that_is_made_anew_in_a_turn_is_used(known: Path) -> None:
    """Its old descriptor is of no use any more."""
    with by_descriptor.keep_folders_open():
        assert list_names(known) == []
        known.rmdir()
        make_folder(known)
        atomic_write_bytes(known / "a", b"x")
    assert os.listdir(known) == ["a"]  # noqa: PTH208


def test_what_was_opened_in_a_turn_stays_open_for_those_who_use_it(known: Path) -> None:
    """Else its number may be that of another folder when a thread of the turn goes on."""
    with by_descriptor.keep_folders_open(), by_descriptor.hold_folder(known) as fd:
        inode = os.fstat(fd).st_ino
        known.rename(known.with_name("moved"))
        make_folder(known)
        os.close(os.open(known.parent, os.O_RDONLY))
        assert os.fstat(fd).st_ino == inode
        atomic_write_bytes(known / "new", b"x")
    assert os.listdir(known) == ["new"]  # noqa: PTH208


def test_another_thread_has_no_part_in_a_turn(known: Path) -> None:
    """A thread that may outlive the turn opens folders for itself: a closed number may be that of another folder."""
    seen = list[object]()
    with by_descriptor.keep_folders_open():
        list_names(known)
        thread = Thread(target=lambda: seen.append(by_descriptor.get_kept()))
        thread.start()
        thread.join()
    assert seen == [None]
