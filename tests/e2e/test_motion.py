"""Photos that move first, in the whole daemon: with a fake motion engine, and with a tiny one of each kind."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.media.numbered import write_ffv1
from tests.share import Share, face, until, voice

STOPS = ("prepare", "0/3", "1/advance", "decode")
"""One call in each kind of task."""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Share]:
    """A daemon with four workers and the fake motion engine, for all tests here."""
    share = Share(tmp_path_factory.mktemp("studio"), workers=4, module="tests.e2e.moving")
    text = share.config.read_text()
    share.config.write_text(text.replace("[pool]\n", "[pool]\nmax_interruptions = 20\n"))  # all four are killed twice
    share.start()
    yield share
    share.end()


@pytest.fixture(autouse=True)
def _fresh_cache(studio: Share) -> None:
    """Nothing is known of clips of the test before."""
    hold(studio, "")
    forget_clips(studio)
    list_units(studio)


def drop(share: Share, name: str, **more: object) -> None:
    share.put("face.jpg", face())
    share.put("voice.wav", voice(1.0))
    motion = {"engine": "diffusers", "seconds": 2, "size": 256, "clip": True, **more}
    strategy = motion.pop("strategy", "split")
    share.drop(name, avatar="face.jpg", audio="voice.wav", engine="preview", strategy=strategy, motion=motion)


def finish(share: Share, name: str) -> tuple[bytes, bytes]:
    """Return the video, without the name of the job that is in it, and the clip."""
    assert share.wait_for(name, "done", "failed")["state"] == "done", (share.log(), share.rows())
    video = (share.outbox / name / "result.mp4").read_bytes()
    return video.replace(name.encode(), b""), (share.outbox / name / "clip.mkv").read_bytes()


def list_units(share: Share) -> list[str]:
    """Return what the motion engine was asked for since the last time."""
    log = share.state / "cache" / "units"
    found = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return found


def forget_clips(share: Share) -> None:
    for entry in (share.state / "cache").iterdir():
        if entry.is_dir() and entry.name != "tmp":
            shutil.rmtree(entry)


def list_finished(share: Share) -> set[str]:
    """Return the units of the present step that are on disk."""
    units = (share.state / "work").glob("*/animation/step-*/unit-*.safetensors")
    return {f"{int(path.parent.name[5:])}/{int(path.stem[5:])}" for path in units}


def wait_until_held(share: Share) -> None:
    until((share.state / "cache" / "held").exists, 60, share.log)


def hold(share: Share, what: str) -> None:
    (share.state / "cache" / "held").unlink(missing_ok=True)
    (share.state / "cache" / "hold").write_text(what)


@pytest.mark.timeout(400)
def test_a_clip_is_the_same_however_it_was_made(studio: Share) -> None:
    """Four workers, one at a time, and kills of daemon and workers in each step give one clip; the second job of a
    kind makes none."""
    drop(studio, "job-1")
    made = finish(studio, "job-1")
    units = list_units(studio)
    assert len(units) == len(set(units)) == 1 + 3 * (2 * 3 + 1) + 1
    told = studio.result("job-1")
    assert (told["motion"]["engine"], told["motion"]["from_cache"]) == ("fake", False)
    assert {"weights", "licence", "scheduler", "seed"} <= told["motion"].keys()
    assert "animate" in told["stage_seconds"]

    drop(studio, "job-2")
    assert finish(studio, "job-2") == made
    assert list_units(studio) == []
    assert studio.result("job-2")["motion"]["from_cache"] is True

    forget_clips(studio)
    drop(studio, "job-3", strategy="queue")
    assert finish(studio, "job-3") == made
    assert sorted(list_units(studio)) == sorted(units)

    forget_clips(studio)
    hold(studio, STOPS[0])
    drop(studio, "job-4")
    for number, following in enumerate((*STOPS[1:], "")):
        wait_until_held(studio)
        until(lambda: studio.job("job-4")["stage"] == "animate", 60, studio.log)
        finished = list_finished(studio)
        list_units(studio)
        (studio.state / "cache" / "held").unlink()
        if number % 2:
            kill_workers(studio)
        else:
            studio.kill()
            studio.start()
        wait_until_held(studio)
        assert not finished & set(list_units(studio)), following
        hold(studio, following)
    assert finish(studio, "job-4") == made


def kill_workers(share: Share) -> None:
    for pid in share.workers():
        os.kill(pid, signal.SIGKILL)


@pytest.mark.timeout(300)
def test_two_jobs_of_one_clip_make_it_once_and_a_cancelled_one_ends_at_once(studio: Share) -> None:
    """The second waits until the first has made the clip; where that is cancelled, it makes the clip itself."""
    hold(studio, "1/0")
    drop(studio, "first")
    wait_until_held(studio)
    drop(studio, "second")
    until(lambda: "second" in {row["name"] for row in studio.rows()}, 60, studio.log)
    until(lambda: studio.job("second").get("waiting_for") == "another job makes the same clip", 60, studio.log)
    (studio.inbox / "first.cancel").touch()
    assert studio.wait_for("first", "cancelled", "done")["state"] == "cancelled"
    hold(studio, "")
    finish(studio, "second")
    units = list_units(studio)
    assert units.count("2/0") == 1


@pytest.mark.timeout(300)
def test_clips_are_made_ahead_and_one_is_kept(studio: Share, tmp_path: Path) -> None:
    """Two seeds are shown side by side; the one that is kept is not made again, and is an avatar then."""
    (tmp_path / "anna.jpg").write_bytes(face())
    studio.musedrop("avatar", "add", "anna", str(tmp_path / "anna.jpg"))
    sheet = tmp_path / "seeds.jpg"
    words = ["avatar", "animate", "anna", "--seconds", "1", "--size", "256", "--engine", "diffusers", "--seed", "1..2"]
    shown = studio.musedrop(*words, "--sheet", str(sheet))
    assert (shown.returncode, "--keep SEED" in shown.stdout) == (0, True), shown.stdout + shown.stderr
    picture = cv2.imread(str(sheet))
    assert picture is not None
    assert picture.shape[0] == 2 * (256 + 26)
    assert list_units(studio).count("prepare") == 2

    kept = studio.musedrop(*words, "--keep", "2")
    assert "anna-moving.mkv is added" in kept.stdout, kept.stdout + kept.stderr
    assert list_units(studio) == []
    clip = (studio.outbox / "animate-anna-2" / "clip.mkv").read_bytes()
    assert (studio.folder / "avatars" / "anna-moving.mkv").read_bytes() == clip
    assert clip != (studio.outbox / "animate-anna-1" / "clip.mkv").read_bytes()


@pytest.mark.timeout(300)
def test_what_can_not_move_is_refused_with_a_hint(studio: Share) -> None:
    """A picture without a face, and a video that no suffix gives away."""
    studio.put("grey.png", make_grey())
    studio.put("voice.wav", voice(1.0))
    studio.drop("faceless", avatar="grey.png", audio="voice.wav", engine="preview", motion=True)
    assert studio.wait_for("faceless", "done", "failed")["state"] == "failed"
    assert studio.error("faceless")["code"] == "no_face"
    film = studio.folder / "avatars" / "film.mkv"
    write_ffv1((np.full((64, 64, 3), 9 * n, np.uint8) for n in range(9)), film, Fraction(25))
    studio.put("voice.wav", voice(1.0))
    studio.drop("moving", avatar="film", audio="voice.wav", engine="preview", motion=True)
    assert studio.wait_for("moving", "done", "failed")["state"] == "failed"
    refused = studio.error("moving")
    assert (refused["code"], "film.mkv is a video" in refused["message"]) == ("bad_value", True)
    assert "leave out motion" in refused["hint"]


def make_grey() -> bytes:
    return bytes(cv2.imencode(".png", np.full((300, 300, 3), 128, np.uint8))[1])
