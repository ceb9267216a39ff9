"""The renames that users see: whole or not at all, and never over something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.results.outbox import (
    FolderNames,
    choose_folder,
    copy_result,
    flush_record,
    is_intact,
    is_published,
    link_video,
    move_failed_inputs,
    move_result,
    remove_result,
    restore_inputs,
    write_record,
)


def publish(staging: Path, target: Path, uid: str) -> None:
    """Do all that is done for a result, in order."""
    write_record(staging, {"uid": uid})
    flush_record(staging)
    move_result(staging, target)


def stage(folder: Path) -> Path:
    folder.mkdir()
    (folder / "result.mp4").write_bytes(b"video")
    (folder / "preview.jpg").write_bytes(b"picture")
    return folder


def test_a_result_appears_whole(tmp_path: Path) -> None:
    """Publishing is one rename of a folder that has everything in it."""
    staging, outbox = stage(tmp_path / "staging"), tmp_path / "outbox"
    outbox.mkdir()
    publish(staging, outbox / "hello", "u1")
    assert sorted(path.name for path in (outbox / "hello").iterdir()) == ["preview.jpg", "result.json", "result.mp4"]
    assert not staging.exists()
    assert is_published(outbox, "hello", "u1")
    assert not is_published(outbox, "hello", "u2")
    assert not is_published(outbox, "other", "u1")


def test_a_video_with_transparency_is_published(tmp_path: Path) -> None:
    """Its name is result.mov, and the hard link beside its folder ends so, too."""
    staging, outbox = stage(tmp_path / "staging"), tmp_path / "outbox"
    outbox.mkdir()
    (staging / "result.mp4").rename(staging / "result.mov")
    publish(staging, outbox / "hello", "u1")
    assert sorted(path.name for path in (outbox / "hello").iterdir()) == ["preview.jpg", "result.json", "result.mov"]
    assert is_intact(outbox / "hello", "u1", len(b"video"))
    link_video(outbox, "hello")
    assert (outbox / "hello.mov").samefile(outbox / "hello" / "result.mov")
    copy_result(outbox / "hello", tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["preview.jpg", "result.mov"]


def test_leftovers_of_a_killed_worker_are_not_published(tmp_path: Path) -> None:
    """A worker that was killed while it assembled leaves files beside the result of the next one."""
    staging, outbox = stage(tmp_path / "staging"), tmp_path / "outbox"
    outbox.mkdir()
    (staging / ".result.mp4.1.tmp").write_bytes(b"half a video")
    (staging / "parts").mkdir()
    (staging / "parts" / "0").write_bytes(b"part")
    publish(staging, outbox / "hello", "u1")
    assert sorted(path.name for path in (outbox / "hello").iterdir()) == ["preview.jpg", "result.json", "result.mp4"]


@pytest.mark.parametrize("lost", ["result.mp4", "preview.jpg"])
def test_an_incomplete_result_is_not_published(tmp_path: Path, lost: str) -> None:
    """Nothing becomes visible while a file is missing."""
    staging, outbox = stage(tmp_path / "staging"), tmp_path / "outbox"
    outbox.mkdir()
    (staging / lost).unlink()
    with pytest.raises(FileNotFoundError, match=lost):
        publish(staging, outbox / "hello", "u1")
    assert not list(outbox.iterdir())


def test_a_result_never_replaces_another(tmp_path: Path) -> None:
    """A folder that is there stays as it is, even when the name was not checked before."""
    outbox = tmp_path / "outbox"
    (outbox / "hello").mkdir(parents=True)
    (outbox / "hello" / "result.mp4").write_bytes(b"first")
    with pytest.raises(OSError, match="exists"):
        publish(stage(tmp_path / "staging"), outbox / "hello", "u2")
    assert (outbox / "hello" / "result.mp4").read_bytes() == b"first"


def test_names_are_free_without_regard_to_case(tmp_path: Path) -> None:
    """What Windows would take for the same folder gets a number."""
    (tmp_path / "Hello").mkdir()
    (tmp_path / "hello-2").mkdir()
    now = [0.0]
    names = FolderNames(lambda: now[0])
    assert [names.reserve(tmp_path, "hello") for _ in range(2)] == ["hello-3", "hello-4"]
    assert names.reserve(tmp_path, "other") == "other"
    assert names.reserve(tmp_path, "NUL") == "_NUL"
    (tmp_path / "late").mkdir()
    assert names.reserve(tmp_path, "late") == "late-2"
    now[0] = 10.0
    assert names.reserve(tmp_path, "LATE") == "LATE-2"


def test_a_failed_job_keeps_its_inputs(tmp_path: Path) -> None:
    """failed/NAME holds the job file as job.json, what else was claimed, and the error; a retry undoes it."""
    inputs = tmp_path / "claimed" / "u1"
    inputs.mkdir(parents=True)
    (inputs / "Hello.JSON").write_text('{"avatar": "x"}')
    (inputs / "hello.wav").write_bytes(b"voice")
    move_failed_inputs(inputs, tmp_path / "failed" / "hello", {"code": "no_face"}, "{}")
    target = tmp_path / "failed" / "hello"
    assert json.loads((target / "job.json").read_text()) == {"avatar": "x"}
    assert json.loads((target / "error.json").read_text()) == {"code": "no_face"}
    assert (target / "hello.wav").read_bytes() == b"voice"
    restore_inputs(target, inputs)
    assert sorted(path.name for path in inputs.iterdir()) == ["hello.wav", "job.json"]
    assert not target.exists()


def test_a_failed_pair_gets_a_job_file(tmp_path: Path) -> None:
    """A job that had no file is written down, so that it can be mended and dropped again."""
    inputs = tmp_path / "u1"
    inputs.mkdir()
    move_failed_inputs(inputs, tmp_path / "failed" / "hello", {}, '{"avatar": "hello.jpg"}')
    assert json.loads((tmp_path / "failed" / "hello" / "job.json").read_text()) == {"avatar": "hello.jpg"}


def test_a_batch_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """It is made, found again, and never a result or a link; another name is taken then."""
    assert choose_folder(tmp_path, "monday") == tmp_path / "monday"
    assert choose_folder(tmp_path, "monday") == tmp_path / "monday"
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "result.json").write_text("{}")
    (tmp_path / "anna-2").symlink_to("/proc")
    assert choose_folder(tmp_path, "anna") == tmp_path / "anna-3"


def test_a_video_is_linked_beside_its_folder(tmp_path: Path) -> None:
    """The link is made once; a file or a link of another kind that is there stays, and is an error."""
    for name in ("hello", "batch/inner", "taken"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "result.mp4").write_bytes(b"video")
        if name != "taken":
            link_video(tmp_path, name)
            link_video(tmp_path, name)
            assert (tmp_path / f"{name}.mp4").samefile(tmp_path / name / "result.mp4")
    (tmp_path / "taken.mp4").symlink_to("/proc/version")
    with pytest.raises(FileExistsError):
        link_video(tmp_path, "taken")
    assert (tmp_path / "taken.mp4").is_symlink()


def test_a_result_is_removed_only_for_its_own_job(tmp_path: Path) -> None:
    """With the link beside it; the folder of another job of that name stays, and one that is gone is no error."""
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "result.json").write_text('{"uid": "one"}')
    (folder / "result.mp4").touch()
    (tmp_path / "hello.mp4").hardlink_to(folder / "result.mp4")
    remove_result(tmp_path, "hello", "two")
    assert {path.name for path in tmp_path.iterdir()} == {"hello", "hello.mp4"}
    remove_result(tmp_path, "hello", "one")
    remove_result(tmp_path, "hello", "one")
    assert list(tmp_path.iterdir()) == []
