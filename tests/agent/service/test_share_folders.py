"""The folders of the share: their modes, and whether they are those of the start."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.fs import discard, move_into
from agent.fs.folders import ReplacedFolder, make_folders, move, remove
from agent.service.process import let_group_read
from agent.service.share_folders import ShareFolders, lay_out
from agent.settings import Folders
from tests.member import make_shared_folder, needs_root, run_as_member


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    (tmp_path / "share").mkdir()
    return Folders(tmp_path / "share", tmp_path / "state", tmp_path / "state" / "cache", tmp_path / "state" / "logs")


@pytest.fixture(params=[0o077, 0o022, 0o007])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield int(request.param)
    os.umask(before)


def mode_of(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def test_what_is_the_daemons_own_is_closed_whatever_the_umask(folders: Folders, umask: int) -> None:
    """`.musedrop`, all in it and the state are for its user alone; the folders of users are as the umask says."""
    lay_out(folders)
    private = folders.share_id_file.parent
    assert {mode_of(path) for path in (private, folders.claimed, folders.staging, folders.trash)} == {"0o700"}
    assert {mode_of(path) for path in (folders.state, *folders.of_state)} == {"0o700"}
    assert mode_of(folders.inbox) == oct(0o777 & ~umask)


def test_folders_of_a_setgid_share_belong_to_its_group(folders: Folders, umask: int) -> None:
    """The group is handed down, and may read even with the umask 077."""
    os.chown(folders.share, -1, 60_900)
    folders.share.chmod(0o2770)
    let_group_read()
    lay_out(folders)
    for path in (folders.inbox, folders.outbox, folders.failed, folders.claimed):
        assert path.stat().st_gid == 60_900
        assert path.stat().st_mode & stat.S_ISGID
    assert folders.outbox.stat().st_mode & 0o050 == 0o050
    assert mode_of(folders.share_id_file.parent) == "0o2700"
    assert os.umask(umask) & 0o050 == 0


def test_an_older_open_folder_is_closed(folders: Folders) -> None:
    """A share that an older version laid out."""
    folders.staging.mkdir(parents=True)
    folders.share_id_file.parent.chmod(0o2775)
    ShareFolders(folders).open()
    assert mode_of(folders.share_id_file.parent) == "0o2700"


@pytest.mark.parametrize("way", ["link", "folder", "file"])
@pytest.mark.parametrize("name", ["outbox", "failed", "archive", ".musedrop", ".musedrop/trash", ".musedrop/claimed"])
def test_a_folder_that_was_replaced_is_named_and_not_touched(folders: Folders, name: str, way: str) -> None:
    """By a link to the weights, by another folder, by a file: nothing is moved there, nothing is deleted there."""
    ours = ShareFolders(folders)
    ours.open()
    assert ours.check() == ""
    (weights := folders.share.parent / "weights" / "deep").mkdir(parents=True)
    (weights / "unet.pth").write_bytes(b"precious")
    (place := folders.share / name).rename(folders.share / "kept")
    if way == "link":
        place.symlink_to(weights.parent)
    elif way == "folder":
        weights.parent.rename(place)
    else:
        place.write_bytes(b"file")
    assert f"nothing is moved or deleted there: {name}" in ours.check()
    (folders.inbox / "face.jpg").write_bytes(b"face")
    for act in (
        lambda: remove(place / "deep"),
        lambda: move(folders.inbox / "face.jpg", place / "face.jpg"),
        lambda: make_folders([place / "new"]),
        lambda: move_into(folders.inbox / "face.jpg", place, "face.jpg"),
    ):
        with pytest.raises(OSError, match=r"replaced|symbolic|directory|link or a file"):
            act()
    discard(place / "deep")
    if way == "folder":
        assert (place / "deep" / "unet.pth").read_bytes() == b"precious"
        place.rename(folders.share / "theirs")
    else:
        assert way == "file" or (weights / "unet.pth").read_bytes() == b"precious"
        place.unlink()
    (folders.share / "kept").rename(place)
    assert ours.check() == ""
    move(folders.inbox / "face.jpg", folders.outbox / "face.jpg")


def test_a_folder_that_was_deleted_is_made_and_known_again(folders: Folders) -> None:
    """By the part that needs it; one that a user makes instead is not known."""
    ours = ShareFolders(folders)
    ours.open()
    folders.failed.rmdir()
    assert ours.check() == ""
    make_folders([folders.failed])
    assert ours.check() == ""
    (folders.inbox / "a").touch()
    move(folders.inbox / "a", folders.failed / "a")
    shutil.rmtree(folders.failed)
    (folders.share / "placeholder").mkdir()  # so that the number of the old one is not given again
    folders.failed.mkdir()
    if ours.check():
        with pytest.raises(ReplacedFolder):
            move(folders.failed / "a", folders.failed / "b")


def test_a_share_that_is_mounted_anew_is_opened_anew(folders: Folders) -> None:
    """Another folder in its place is noticed."""
    ours = ShareFolders(folders)
    ours.open()
    assert ours.is_same_share
    folders.share.rename(folders.share.parent / "old")
    folders.share.mkdir()
    assert not ours.is_same_share
    ours.open()
    assert ours.is_same_share


def test_the_inbox_and_the_library_may_be_made_anew(folders: Folders) -> None:
    """What is in them is the users' anyway."""
    ours = ShareFolders(folders)
    ours.open()
    for folder in (folders.inbox, folders.avatars):
        folder.rename(folders.share / f"{folder.name}.old")
        folder.mkdir()
    assert ours.check() == ""


@needs_root
def test_a_member_can_neither_look_into_what_is_ours_nor_keep_us_from_closing_it() -> None:
    """The group gets into the folders of users alone."""
    with make_shared_folder() as share:
        folders = Folders(share, share.parent / "state", share.parent / "cache", share.parent / "logs")
        before = os.umask(0o007)
        lay_out(folders)
        os.umask(before)
        code = "print(*(os.access(path, os.R_OK | os.X_OK) for path in args))"
        private = (folders.share_id_file.parent, folders.claimed, folders.staging, folders.state)
        assert run_as_member(code, *private) == "False False False False"
        assert run_as_member(code, folders.inbox, folders.outbox, folders.failed) == "True True True"
