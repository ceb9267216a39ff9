"""The avatar library of the commands: atomic copies, safe names, prepared entries."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from agent.cli.avatars import library
from agent.client import ClientError
from agent.fs import atomic_copy
from agent.jobs.parse import parse_job
from agent.ledger.ledger import Ledger
from agent.settings import Settings
from models.atomic import hash_file
from models.avatars import AvatarCache
from tests.agent.samples import add_job


def a_file(tmp_path: Path, name: str = "face.JPG", data: bytes = b"picture") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def names(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.folders.avatars.iterdir())


def test_an_added_avatar_is_whole_and_alone(settings: Settings, tmp_path: Path) -> None:
    """The copy appears under its name with its suffix in lower case, and no other file does."""
    path = library.add_avatar(settings, "anna", a_file(tmp_path))
    assert path.read_bytes() == b"picture"
    assert names(settings) == ["anna.jpg"]


def test_a_taken_name_is_kept_unless_told(settings: Settings, tmp_path: Path) -> None:
    """A second avatar of that name is refused; --replace replaces it, also with another suffix."""
    library.add_avatar(settings, "anna", a_file(tmp_path))
    with pytest.raises(ClientError, match="--replace"):
        library.add_avatar(settings, "anna", a_file(tmp_path, "new.mp4", b"video"))
    assert names(settings) == ["anna.jpg"]
    library.add_avatar(settings, "anna", a_file(tmp_path, "new.mp4", b"video"), replace=True)
    assert names(settings) == ["anna.mp4"]


def test_numbered_pictures_become_one_video(
    settings: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """MuseTalk's third kind of avatar is added like a file; a folder of something else says what is wrong with it."""
    pictures = tmp_path / "frames"
    pictures.mkdir()
    with pytest.raises(ClientError, match="frames were not made into an avatar"):
        library.add_avatar(settings, "anna", pictures)
    assert "frames holds no pictures" in capfd.readouterr().err
    for number in range(3):
        cv2.imwrite(str(pictures / f"{number:08d}.png"), np.full((32, 48, 3), 50 * number, np.uint8))
    path = library.add_avatar(settings, "anna", pictures, fps="30")
    assert names(settings) == ["anna.mkv"]
    with av.open(str(path)) as video:
        assert len(list(video.decode(video=0))) == 3
        assert video.streams.video[0].average_rate == 30


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../anna", "anna.jpg", "a\nb"])
def test_a_name_that_jobs_could_not_say_is_refused(settings: Settings, tmp_path: Path, name: str) -> None:
    """A text that is not a library name never becomes a path."""
    with pytest.raises(ClientError, match="can't name an avatar"):
        library.add_avatar(settings, name, a_file(tmp_path))
    assert names(settings) == []


def test_what_is_no_avatar_is_refused(settings: Settings, tmp_path: Path) -> None:
    """A sound file and a missing file are refused."""
    with pytest.raises(ClientError, match="suffix"):
        library.add_avatar(settings, "anna", a_file(tmp_path, "voice.wav"))
    with pytest.raises(ClientError, match="no file"):
        library.add_avatar(settings, "anna", tmp_path / "gone.jpg")


def test_a_copy_that_fails_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    """A source that can't be read leaves the avatar that was there before."""
    library.add_avatar(settings, "anna", a_file(tmp_path))
    folder = tmp_path / "folder.jpg"
    folder.mkdir()
    with pytest.raises(IsADirectoryError):
        atomic_copy(folder, settings.folders.avatars / "anna.jpg")
    assert names(settings) == ["anna.jpg"]
    assert (settings.folders.avatars / "anna.jpg").read_bytes() == b"picture"


def test_the_list_says_what_is_prepared(settings: Settings, tmp_path: Path) -> None:
    """Cache entries are found by the content of the file; unreadable ones are skipped."""
    path = library.add_avatar(settings, "anna", a_file(tmp_path))
    library.add_avatar(settings, "bert", a_file(tmp_path, "b.mp4", b"other"))

    def build(folder: Path) -> None:
        about = {"avatar_sha256": hash_file(path), "summary": "musetalk v15, jaw, 1 frame"}
        (folder / "about.json").write_text(json.dumps(about))

    def build_unreadable(folder: Path) -> None:
        (folder / "about.json").write_text("no JSON")

    with AvatarCache(settings.folders.cache, 1 << 20) as cache:
        cache.get_or_build("good", build)
        cache.get_or_build("odd", build_unreadable)
    found = {avatar.name: (avatar.kind, avatar.prepared) for avatar in library.list_avatars(settings)}
    assert found == {"anna": ("image", ("musetalk v15, jaw, 1 frame",)), "bert": ("video", ())}


def test_a_folder_of_pictures_in_the_library(settings: Settings, tmp_path: Path) -> None:
    """It is listed, replaced and removed like a file; a folder that jobs can't name is left aside."""
    for name in ("eva.v2", ".hidden", "film.mp4"):
        (settings.folders.avatars / name).mkdir(parents=True)
        (settings.folders.avatars / name / "1.png").write_bytes(b"x")
    [folder] = library.list_avatars(settings)
    assert (folder.name, folder.kind, folder.prepared) == ("eva.v2", "pictures", ())
    library.add_avatar(settings, "eva.v2", a_file(tmp_path), replace=True)
    assert [(one.name, one.kind) for one in library.list_avatars(settings)] == [("eva.v2", "image")]
    (settings.folders.avatars / "bert").mkdir()
    library.remove_avatar(settings, "bert")
    assert names(settings) == [".hidden", "eva.v2.jpg", "film.mp4"]


def test_an_avatar_that_jobs_want_is_not_removed(settings: Settings, tmp_path: Path) -> None:
    """Unstarted jobs that need it are named in the error; --force removes it anyway."""
    library.add_avatar(settings, "anna", a_file(tmp_path))
    library.add_avatar(settings, "bert", a_file(tmp_path))
    ledger = Ledger(settings.folders.ledger)
    add_job(ledger, "u1", name="monday", avatar="anna")
    with pytest.raises(ClientError, match="monday"):
        library.remove_avatar(settings, "anna")
    assert [path.name for path in library.remove_avatar(settings, "bert")] == ["bert.jpg"]
    assert [path.name for path in library.remove_avatar(settings, "anna", force=True)] == ["anna.jpg"]
    ledger.close()
    with pytest.raises(ClientError, match="no avatar anna"):
        library.remove_avatar(settings, "anna")


def test_preparing_is_a_job_like_any_other(settings: Settings, tmp_path: Path) -> None:
    """The inbox gets a job file for the avatar with its options, and a short silent sound, in which the mouth shows."""
    library.add_avatar(settings, "anna", a_file(tmp_path))
    ticket = library.submit_preparation(settings, "anna", {"bbox_shift": 3}, "musetalk")
    spec = parse_job((settings.folders.inbox / f"{ticket.name}.json").read_bytes())
    options = {"silence": "model", "bbox_shift": 3}
    assert (spec.library_name, spec.engine, spec.options, spec.priority) == ("anna", "musetalk", options, -10)
    with wave.open(str(settings.folders.inbox / str(spec.audio))) as sound:
        assert sound.getnframes() == 6400
        assert not any(sound.readframes(6400))
    with pytest.raises(ClientError, match="avatar add bert"):
        library.submit_preparation(settings, "bert", {})
