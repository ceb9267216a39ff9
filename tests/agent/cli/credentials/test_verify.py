"""`musedrop verify`: what it compares beside the signature."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.cli.credentials.finding import Finding
from agent.cli.credentials.verify import compare_inputs, compare_tracks, compare_weights, examine_said
from agent.cli.main import app
from agent.credentials.tracks import read_tracks
from models.catalog import find_changed_weights
from models.musetalk.weights import index
from tests.share import EXAMPLES


def test_frames_times_and_sound_are_those_that_were_signed() -> None:
    """Read from the index of the video alone; another count, another rate or no sound is told."""
    with (EXAMPLES / "collins.mp4").open("rb") as file:
        [picture, *others] = read_tracks(file)
    [duration] = picture.durations
    said = {"frames": picture.samples, "fps": str(1 / duration)}
    sound = [one for one in others if one.kind == "soun"]
    assert [one.holds for one in compare_tracks(said, [picture])] == [True, True, False]
    assert next(one.holds for one in compare_tracks({**said, "frames": 3}, [picture, *sound])) is False
    assert [one.holds for one in compare_tracks({**said, "fps": "24000/1001"}, [picture])][1] is False


def test_the_inputs_and_weights_that_are_there_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that was changed is a fault, one that is gone is not; other weights are told of."""
    face = tmp_path / "face.png"
    face.write_bytes(b"face")
    said = {"inputs": {"avatar": {"sha256": hashlib.sha256(b"face").hexdigest()}, "audio": {"sha256": "ab"}}}
    media = {"avatar": [tmp_path / "moved.png", face], "audio": [tmp_path / "gone.wav"]}
    assert [one.holds for one in compare_inputs(said, media)] == [True]
    face.write_bytes(b"another")
    assert [one.holds for one in compare_inputs(said, media)] == [False]
    (tmp_path / "unet.bin").touch()
    hashes = {"unet.bin": "aa", "vae.bin": "bb"}
    monkeypatch.setattr(index, "read_hash", lambda *_: "aa")
    assert find_changed_weights(tmp_path, hashes) == {"vae.bin": "gone"}
    monkeypatch.setattr(index, "read_hash", lambda *_: "cc")
    [other] = compare_weights({"weights_sha256": hashes}, tmp_path)
    assert (other.holds, "unet.bin is changed, vae.bin is gone" in other.text) == (None, True)


def test_an_index_of_any_bytes_is_an_index_or_refused(tmp_path: Path) -> None:
    """A damaged one raises ValueError and nothing else."""
    data = (EXAMPLES / "collins.mp4").read_bytes()
    at = data.index(b"moov")
    path = tmp_path / "damaged.mp4"
    for place in range(at - 4, min(at + 700, len(data)), 11):
        path.write_bytes(data[:place] + os.urandom(4) + data[place + 4 :])
        with path.open("rb") as file:
            try:
                read_tracks(file)
            except ValueError:
                continue


@pytest.mark.parametrize(
    "change",
    [
        {"fps": "1e999999999"},
        {"fps": 25},
        {"frames": "many"},
        {"inputs": ["face"]},
        {"inputs": {"voice-x": {}}},
        {"devices": 3},
        {"weights_sha256": ["unet"]},
    ],
    ids=str,
)
def test_a_manifest_of_anyone_is_read_or_refused(change: dict[str, Any], tmp_path: Path) -> None:
    """Whoever signed it, and whatever it says: one finding tells that it can't be read, at once."""
    with (EXAMPLES / "collins.mp4").open("rb") as file:
        tracks = read_tracks(file)
    said = {"frames": tracks[0].samples, "fps": "25", **change}
    *_, last = examine_said(said, {}, tracks, {}, tmp_path)
    assert (last.holds, last.text) == (False, "what its credentials say can't be read")
    assert [one.holds for one in examine_said({}, {}, tracks, {}, tmp_path)] == [None]


def test_what_a_video_says_does_not_steer_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words are those of who made it."""
    (tmp_path / "video.mp4").touch()
    monkeypatch.setattr("agent.cli.credentials.verify.examine", lambda *_: [Finding(True, "signed by \x1b[2Jme")])
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "video.mp4")])
    assert done.stdout == "ok  signed by \\x1b[2Jme\n"
