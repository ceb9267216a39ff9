"""Safe names, whole files, kinds of file systems."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.fs import (
    atomic_write,
    find_filesystem_kind,
    has_change_events,
    is_file,
    is_folder,
    make_safe_name,
    move_into,
)


@pytest.mark.parametrize(
    ("given_name", "safe"),
    [
        ("hello", "hello"),
        ("grüße 你好", "grüße 你好"),
        ("a/b\\c:d", "a_b_c_d"),
        ("..", "job"),
        (".hidden", "_hidden"),
        ("-rf", "_rf"),
        ("con", "_con"),
        ("COM1.report", "_COM1.report"),
        ("ends with dot. ", "ends with dot"),
        ("$(touch x)\n", "$(touch x)_"),
        ("", "job"),
    ],
)
def test_names_that_every_system_can_hold(given_name: str, safe: str) -> None:
    """A user's name becomes a folder name that Windows, macOS and Linux accept."""
    assert make_safe_name(given_name) == safe


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_what_the_kernel_refuses_to_look_at_is_not_there(tmp_path: Path, name: str) -> None:
    """An error of the file system, as of a dead mount, is an answer: there is no such file, and no such folder."""
    assert is_file(tmp_path / name) is False
    assert is_folder(tmp_path / name) is False
    assert is_folder(tmp_path) is True


@given(st.text())
def test_any_text_makes_a_safe_folder_name(text: str) -> None:
    """Whatever the name, the folder has one plain, short, visible component."""
    name = make_safe_name(text)
    assert name
    assert name not in (".", "..")
    assert "/" not in name
    assert "\0" not in name
    assert len(name.encode()) <= 101
    assert make_safe_name(name) == name


def test_a_whole_write_leaves_nothing_beside(tmp_path: Path) -> None:
    """A file is replaced whole and its temporary name is gone."""
    atomic_write(tmp_path / "a", b"old")
    atomic_write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_moving_in_never_replaces(tmp_path: Path) -> None:
    """A taken name gets a number."""
    folder = tmp_path / "archive"
    for text in ("one", "two", "three"):
        (tmp_path / "face.jpg").write_text(text)
        move_into(tmp_path / "face.jpg", folder, "face.jpg")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "face.jpg": "one",
        "face-2.jpg": "two",
        "face-3.jpg": "three",
    }


def test_the_kind_of_a_mounted_file_system() -> None:
    """/proc is seen as what it is, and an unknown local kind is trusted to tell of changes."""
    assert find_filesystem_kind(Path("/proc/self")) == "proc"
    assert has_change_events("ext4")
    for kind in ("cifs", "smb3", "nfs", "nfs4", "9p", "fuse.sshfs"):
        assert not has_change_events(kind)
