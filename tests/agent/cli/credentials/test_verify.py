"""`musedrop verify`: what it compares beside the signature."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.cli.credentials.finding import Finding
from agent.cli.credentials.programs import explain_end
from agent.cli.credentials.verify import (
    compare_bytes,
    compare_inputs,
    compare_tracks,
    compare_weights,
    examine,
    examine_said,
    probe,
)
from agent.cli.main import app
from agent.credentials.probe import probe_video
from agent.credentials.tracks import read_tracks
from agent.errors import UserError
from models.catalog import find_changed_weights
from models.musetalk.weights import index
from tests.share import EXAMPLES, ROOT


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


def make_box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def nest(kind: bytes, depth: int) -> bytes:
    return b"".join((8 * left).to_bytes(4, "big") + kind for left in range(depth, 0, -1))


TYPE = make_box(b"ftyp", b"isom\0\0\0\0isom")
STORE = bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + b"\0\0\0\0manifest\0" + bytes(8)
"""How the box of a manifest begins."""
HOSTILE = {
    "empty": b"",
    "random": bytes(range(256)) * 40,
    "endless": TYPE + b"\0\0\0\1moov" + b"\xff" * 8,
    "nested": TYPE + make_box(b"moov", nest(b"trak", 10_000)),
    "crowded": TYPE + make_box(b"free", b"") * 100_000,
    "crowded inside": TYPE + make_box(b"moov", make_box(b"trak", b"") * 100_000),
    "store of a GiB": TYPE + make_box(b"uuid", STORE + b"\x40\0\0\0jumb"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_the_video_of_a_stranger_is_refused_in_words(name: str) -> None:
    """Whatever it is made of: it has no credentials, and its index is judged without falling over."""
    report = probe_video(io.BytesIO(HOSTILE[name]), "video/mp4")
    assert report.credentials.problem.startswith("it has no credentials that can be read")
    assert any(one.holds is False for one in examine(report, {}))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe that nobody writes to, a device, loops of links, names that are none: words, and no wait."""
    os.mkfifo(tmp_path / "pipe.mp4")
    os.mkfifo(tmp_path / "result.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    for target in ("pipe.mp4", "", "loop.mp4", "gone.mp4", "x" * 300, "result.mp4/x", "/dev/zero"):
        done = CliRunner().invoke(app, ["verify", str(tmp_path / target)])
        assert isinstance(done.exception, UserError), target
        assert "can't be read" in str(done.exception)


def test_a_program_that_reads_a_video_is_bounded(tmp_path: Path) -> None:
    """It has no more memory and time than it needs, no network and no files; what it ends by is told."""
    path = tmp_path / "video.mp4"
    path.write_bytes(TYPE + make_box(b"moov", make_box(b"trak", make_box(b"free", b"") * 10)))
    assert probe(path, "").credentials.problem.startswith("it has no credentials")
    code = "import os, socket, sys; from agent.credentials import probe; probe.probe_video = lambda *_: {}; "
    code += "sys.exit(probe.main(['']))"
    for attempt, words in (
        ("open('/etc/passwd')", "Permission denied"),
        ("socket.socket()", "not permitted"),
        ("bytearray(8 << 30)", "too much memory"),
        ("os.kill(os.getpid(), 24)", "too much time"),
    ):
        with path.open("rb") as file:
            command = [sys.executable, "-c", code.format(attempt)]
            done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False, cwd=ROOT)
        assert words in explain_end(done.returncode, done.stderr)


def test_a_record_that_was_exchanged_with_its_video_is_told() -> None:
    """The ledger names the bytes that were published, for the name of a job."""
    [beside, published] = compare_bytes("ab", {"video_sha256": "ab"}, {"video_sha256": "cd"})
    assert (beside.holds, published.holds) == (True, False)
    [unknown] = compare_bytes("ab", {}, {})
    assert unknown.holds is None
