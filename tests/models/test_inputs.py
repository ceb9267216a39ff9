"""The copy of a job's media: of the file that was accepted, or a named error."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from models import inputs
from models.inputs import compare_folder, copy_input, take_sample
from models.types import EngineError
from tests.member import SWAP, make_shared_folder, needs_root, running_as_member

LIMIT_BYTES = 1 << 20


def mark_of(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns]


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    (path := tmp_path / "inbox" / "voice.wav").write_bytes(b"mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "voice.wav").write_bytes(b"other")
    return path


def refused(source: Path, mark: list[int]) -> str:
    """The code of the error; no copy is there, nor half of one."""
    target = source.parents[1] / "work" / "input" / "audio"
    with pytest.raises(EngineError) as caught:
        copy_input(source, target, LIMIT_BYTES, mark)
    assert "voice.wav" in caught.value.message
    assert not target.parent.exists() or not list(target.parent.iterdir())
    return caught.value.code


def test_the_hash_is_that_of_the_copy(voice: Path, tmp_path: Path) -> None:
    """The bytes are copied, and the caller is told how many."""
    data = os.urandom(LIMIT_BYTES)
    voice.write_bytes(data)
    told: list[int] = []
    digest = copy_input(voice, tmp_path / "work" / "audio", LIMIT_BYTES, mark_of(voice), told.append)
    assert (tmp_path / "work" / "audio").read_bytes() == data
    assert digest == hashlib.sha256(data).hexdigest()
    assert told[-1] == len(data)


@pytest.mark.parametrize("size", [100, 1 << 18])
def test_a_file_that_is_written_in_place_with_its_time_set_back(tmp_path: Path, voice: Path, size: int) -> None:
    """Another voice of the same size and time is noticed; other rights, names and links are no change."""
    voice.write_bytes(os.urandom(size))
    mark = [*mark_of(voice), *sample(voice)]
    voice.chmod(0o640)
    (tmp_path / "link.wav").hardlink_to(voice)
    copy_input(voice, tmp_path / "work" / "audio", LIMIT_BYTES, mark)
    (tmp_path / "work" / "audio").unlink()
    (tmp_path / "work").rmdir()
    with voice.open("r+b") as file:
        file.write(os.urandom(size))
    os.utime(voice, ns=(mark[2], mark[2]))
    assert mark_of(voice) == mark[:3]
    assert refused(voice, mark) == "media_changed"


def test_a_picture_of_a_folder_that_is_written_in_place(tmp_path: Path) -> None:
    """The folder itself has the size and time that it had."""
    (folder := tmp_path / "face").mkdir()
    (folder / "1.png").write_bytes(b"one")
    mark = [*mark_of(folder), *sample(folder)]
    compare_folder(folder, mark)
    (folder / "1.png").write_bytes(b"three")
    with pytest.raises(EngineError, match="media_changed"):
        compare_folder(folder, mark)


def sample(path: Path) -> tuple[int, int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return take_sample(fd, 12345)
    finally:
        os.close(fd)


def replace_by_link(voice: Path) -> None:
    voice.unlink()
    voice.symlink_to(voice.parents[1] / "elsewhere" / "voice.wav")


def replace_by_own_link(voice: Path) -> None:
    voice.rename(voice.with_name("kept.wav"))
    voice.symlink_to("kept.wav")


def replace_folder_by_link(voice: Path) -> None:
    voice.parent.rename(voice.parents[1] / "kept")
    voice.parent.symlink_to("elsewhere")


def replace_folder(voice: Path) -> None:
    voice.parent.rename(voice.parents[1] / "kept")
    (voice.parents[1] / "elsewhere").rename(voice.parent)


def replace_by_hard_link(voice: Path) -> None:
    voice.unlink()
    voice.hardlink_to(voice.parents[1] / "elsewhere" / "voice.wav")


def replace_by_pipe(voice: Path) -> None:
    voice.unlink()
    os.mkfifo(voice)


def replace_by_folder(voice: Path) -> None:
    voice.unlink()
    voice.mkdir()


def write_again(voice: Path) -> None:
    before = voice.stat()
    voice.write_bytes(b"MINE")
    os.utime(voice, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def append(voice: Path) -> None:
    with voice.open("ab") as file:
        file.write(b" and more")


def replace_by_same_text(voice: Path) -> None:
    before, kept = voice.stat(), voice.with_name("kept.wav")
    voice.rename(kept)
    voice.write_bytes(b"mine")
    os.utime(voice, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = (
    replace_by_link,
    replace_by_own_link,
    replace_folder_by_link,
    replace_folder,
    replace_by_hard_link,
    replace_by_pipe,
    replace_by_folder,
    write_again,
    append,
    replace_by_same_text,
)


@pytest.mark.parametrize("change", CHANGES)
def test_another_file_than_the_accepted_one_is_not_copied(voice: Path, change: Callable[[Path], None]) -> None:
    """Whatever has taken the place of the file, or of its folder, the job has a named error."""
    mark = mark_of(voice)
    change(voice)
    assert refused(voice, mark) == "media_changed"


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_is_changed_while_it_is_copied_is_refused_or_copied_as_it_was(
    voice: Path, change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens to the name no longer counts when the file is open; what happens to the file does."""
    copy = inputs._copy

    def change_and_copy(*args: Any) -> str:
        change(voice)
        return copy(*args)

    monkeypatch.setattr(inputs, "_copy", change_and_copy)
    if change in (write_again, append):
        assert refused(voice, mark_of(voice)) == "media_changed"
    else:
        copy_input(voice, tmp_path / "work" / "audio", LIMIT_BYTES, mark_of(voice))
        assert (tmp_path / "work" / "audio").read_bytes() == b"mine"


def test_an_error_of_the_disk_names_the_file(voice: Path, tmp_path: Path) -> None:
    """The daemon tells by the name whether a medium or its own folders can't be read."""

    class BadSector(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match=f"Input/output error: '{voice}'"), (tmp_path / "copy").open("wb") as copy:
        inputs._copy(voice, BadSector(), copy, 4, lambda _: None)


def test_a_file_that_is_gone_or_too_large_is_named(voice: Path) -> None:
    """As before: missing_media, media_too_large."""
    voice.write_bytes(b"x" * (LIMIT_BYTES + 1))
    assert refused(voice, mark_of(voice)) == "media_too_large"
    mark = mark_of(voice)
    voice.unlink()
    assert refused(voice, mark) == "missing_media"


@needs_root
def test_a_racing_member_gets_no_other_file_into_the_video() -> None:
    """The folder of the medium is a folder and a link in turns: the accepted file is copied, or none."""
    with make_shared_folder() as share:
        (box := share / "box").mkdir()
        (box / "voice.wav").write_bytes(b"mine")
        (secret := share.parent / "secret").mkdir(mode=0o700)
        (secret / "voice.wav").write_bytes(b"secret")
        mark, copied = mark_of(box / "voice.wav"), set()
        with running_as_member(SWAP, box, secret):
            for _ in range(1000):
                with suppress(EngineError):
                    copy_input(box / "voice.wav", share.parent / "copy", LIMIT_BYTES, mark)
                    copied.add((share.parent / "copy").read_bytes())
        assert copied <= {b"mine"}
