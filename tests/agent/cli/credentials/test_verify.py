"""`musedrop verify`: what it compares beside the signature."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from agent.cli.credentials.verify import compare_inputs, compare_tracks, compare_weights
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
