"""Files and folders: facts, fingerprints, safe names, locks, and changes that no reader sees half-made."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import fs
from agent.fs import (
    Fingerprint,
    _deleting_thread,
    _thread_pool,
    atomic_copy,
    atomic_create,
    atomic_write,
    atomic_write_bytes,
    create_empty,
    discard,
    discard_later,
    find_filesystem_kind,
    has_change_events,
    hash_file,
    is_disk_full,
    is_file,
    is_folder,
    is_open_for_writing,
    make_safe_name,
    map_parallel,
    move_into,
    read_limited,
    take_fingerprint,
    try_lock,
)
from tests.member import SWAP, make_shared_folder, needs_root, run_as_member, running_as_member


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
    atomic_write_bytes(tmp_path / "a", b"old")
    atomic_write_bytes(tmp_path / "a", b"new")
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


def test_another_process_writing_is_noticed(tmp_path: Path) -> None:
    """The kernel tells of writers in other processes too."""
    path = tmp_path / "slow.wav"
    code = "import sys; f = open(sys.argv[1], 'wb'); f.write(b'x'); f.flush(); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        assert is_open_for_writing(path) is True
        writer.communicate("\n")
    assert is_open_for_writing(path) is False


def test_a_fingerprint_tells_one_content_from_another(tmp_path: Path) -> None:
    """It is that of a regular file, changes with it, and comes back from a row of the ledger."""
    path = tmp_path / "a"
    path.write_bytes(b"one")
    before = take_fingerprint(path)
    assert before is not None
    assert before == take_fingerprint(path)
    assert Fingerprint.from_dict({"inode": before.inode, "size": 3, "mtime_ns": before.mtime_ns}) == before
    path.write_bytes(b"longer")
    assert take_fingerprint(path) != before
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    assert [take_fingerprint(tmp_path / name) for name in ("link", "pipe", "none", ".")] == [None] * 4


def test_a_small_file_is_read_with_one_byte_more_than_allowed(tmp_path: Path) -> None:
    """So the caller sees what is too long; links and pipes are not read at all."""
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert [read_limited(path, limit) for limit in (3, 5)] == [b"1234", b"12345"]
    (tmp_path / "link").symlink_to(path)
    assert read_limited(tmp_path / "link", 5) is None
    assert read_limited(tmp_path / "none", 5) is None


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    """SHA-256, as hexadecimal digits."""
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    assert hash_file(tmp_path / "a") == hashlib.sha256(b"x" * 100_000).hexdigest()


@pytest.mark.parametrize("durable", [True, False])
def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, durable: bool) -> None:
    """A write that fails in the middle changes nothing that a reader sees."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with suppress(OSError), atomic_write(path, durable=durable) as temp:
        temp.write(b"half")
        raise OSError(errno.ENOSPC, "the disk is full")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_file_of_the_longest_name_is_copied(tmp_path: Path) -> None:
    """The temporary name is no longer than a file name may be, whatever the letters."""
    (tmp_path / "source").write_bytes(b"media")
    target = tmp_path / ("\U0001f600" * 62 + ".wav")
    atomic_copy(tmp_path / "source", target)
    assert target.read_bytes() == b"media"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_lock_is_held_by_one_or_shared_by_many(tmp_path: Path) -> None:
    """Each open file is a holder of its own; closing it releases the lock."""
    descriptors = [os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(3)]
    first, second, third = descriptors
    assert try_lock(first)
    assert not try_lock(second)
    assert not try_lock(second, shared=True)
    os.close(first)
    assert try_lock(second, shared=True)
    assert try_lock(third, shared=True)
    assert not try_lock(third)
    os.close(second)
    os.close(third)


def test_calls_in_parallel_all_end_before_an_error_is_raised() -> None:
    """Results come in the order of the items; the first error is that of the first item that failed."""
    assert map_parallel(str, range(20)) == [str(n) for n in range(20)]
    ended: list[int] = []

    def act(n: int) -> None:
        ended.append(n)
        if n in (1, 3):
            raise ValueError(str(n))

    with pytest.raises(ValueError, match="1"):
        map_parallel(act, range(5))
    assert sorted(ended) == [0, 1, 2, 3, 4]


def test_a_folder_is_discarded_with_all_below_it(tmp_path: Path) -> None:
    """One that is not there is no error."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    discard(tmp_path / "a")
    discard(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def make_tree(folder: Path) -> Path:
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "c").touch()
    return folder


def test_a_folder_is_taken_away_at_once_and_deleted_on_a_thread(tmp_path: Path) -> None:
    """A new one of its name is not touched; one that is not there is no error."""
    discard_later(tmp_path / "a")
    discard_later(make_tree(tmp_path / "a"))
    make_tree(tmp_path / "a")
    _deleting_thread().submit(int).result(60)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "b" / "c").exists()


def test_folders_are_deleted_here_where_too_many_wait_or_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what waits fills no disk."""
    monkeypatch.setattr(fs, "_deletions", threading.Semaphore(1))
    begun, may_go_on = threading.Event(), threading.Event()

    def discard_slowly(folder: Path) -> None:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            assert may_go_on.wait(60)
        discard(folder)

    monkeypatch.setattr(fs, "discard", discard_slowly)
    discard_later(make_tree(tmp_path / "first"))
    assert begun.wait(60)
    discard_later(make_tree(tmp_path / "second"))
    [left] = tmp_path.iterdir()
    assert re.fullmatch(r"\.[0-9a-f]{32}\.gone", left.name)
    may_go_on.set()
    _deleting_thread().submit(int).result(60)
    assert not list(tmp_path.iterdir())
    with ThreadPoolExecutor(1) as closed:
        closed.shutdown()
    monkeypatch.setattr(fs, "_deleting_thread", lambda: closed)
    for name in ("third", "fourth"):
        discard_later(make_tree(tmp_path / name))
    assert not list(tmp_path.iterdir())


def test_which_errors_mean_a_full_disk() -> None:
    """No space left, and a quota that is used up."""
    errors = [OSError(number, "") for number in (errno.ENOSPC, errno.EDQUOT, errno.EACCES)]
    assert [is_disk_full(error) for error in errors] == [True, True, False]


@needs_root
def test_a_file_is_never_written_through_a_folder_that_became_a_link() -> None:
    """A member of the group swaps the folder for a link while files are written into it: all stay on the share."""
    with make_shared_folder() as share:
        (box := share / "box").mkdir()
        (victim := share.parent / "victim").mkdir()
        (victim / "status.json").write_bytes(b"precious")
        with running_as_member(SWAP, box, victim):
            for n in range(2000):
                with suppress(OSError):
                    atomic_write_bytes(box / "status.json", b"%d" % n, durable=False)
        assert [(path.name, path.read_bytes()) for path in victim.iterdir()] == [("status.json", b"precious")]


@needs_root
def test_what_is_written_goes_to_the_file_whatever_takes_its_temporary_name() -> None:
    """The name of an unfinished file is made a link by a member: nothing is written through it."""
    with make_shared_folder() as share:
        (victim := share.parent / "victim").write_bytes(b"precious")
        with atomic_write(share / "status.json", durable=False) as file:
            [temp] = share.iterdir()
            run_as_member("os.unlink(args[0]); os.symlink(args[1], args[0])", temp, victim)
            file.write(b"status")
        assert victim.read_bytes() == b"precious"


def test_temporary_names_are_not_to_be_guessed(tmp_path: Path) -> None:
    """They differ each time, in at least 128 bits."""
    names = set()
    for _ in range(3):
        with atomic_write(tmp_path / "a", durable=False):
            names |= {path.name for path in tmp_path.iterdir() if path.name != "a"}
    assert len(names) == 3
    assert all(re.fullmatch(r"\.a\.[0-9a-f]{32}\.tmp", name) for name in names)


def test_a_link_as_the_target_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """A name that waits for the file as a link, a hard link or a pipe leads nowhere."""
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("victim")
    (tmp_path / "hard").hardlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "hard", "pipe"):
        atomic_write_bytes(tmp_path / name, b"new")
        assert take_fingerprint(tmp_path / name) is not None
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_a_control_file_is_made_through_no_link(tmp_path: Path) -> None:
    """One that exists is left as it is; a link or a pipe of its name is an error, and nothing waits."""
    create_empty(tmp_path / "pause")
    create_empty(tmp_path / "pause")
    assert (tmp_path / "pause").read_bytes() == b""
    (tmp_path / "link").symlink_to("victim")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError, match=name):
            create_empty(tmp_path / name)
    assert not (tmp_path / "victim").exists()


def test_work_is_done_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system allows no further thread, each item is handled once, by the caller."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    seen: list[int] = []

    def negate(item: int) -> int:
        seen.append(item)
        return -item

    _thread_pool.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert map_parallel(negate, [1, 2, 3]) == [-1, -2, -3]
    assert seen == [1, 2, 3]
    _thread_pool.cache_clear()


def test_work_that_a_failed_submission_began_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A submission that failed may be carried out all the same; its item, too, is done when the call ends."""
    has_begun, may_end = threading.Event(), threading.Event()

    class BrokenPool:
        def submit(self, act: Callable[[], None]) -> None:
            threading.Thread(target=act).start()
            assert has_begun.wait(60.0)
            raise RuntimeError("can't start new thread")

    def negate(item: int) -> int:
        if item == 1:
            has_begun.set()
            assert may_end.wait(60.0)
        else:
            may_end.set()
        return -item

    monkeypatch.setattr(fs, "_thread_pool", BrokenPool)
    assert map_parallel(negate, [1, 2]) == [-1, -2]


def test_a_pipe_is_deleted_and_not_opened(tmp_path: Path) -> None:
    """Opening it would wait for a writer for ever."""
    os.mkfifo(tmp_path / "pipe")
    discard(tmp_path / "pipe")
    assert not (tmp_path / "pipe").exists()


def test_of_two_writers_of_one_name_one_writes(tmp_path: Path) -> None:
    """The other learns that it has not, and what is there stays whole."""
    path = tmp_path / "a.json"
    with ThreadPoolExecutor(8) as pool:
        wrote = list(pool.map(lambda number: atomic_create(path, str(number).encode() * 1000), range(1, 9)))
    assert path.read_bytes() == str(1 + wrote.index(True)).encode() * 1000
    assert (wrote.count(True), [one.name for one in tmp_path.iterdir()]) == (1, ["a.json"])
