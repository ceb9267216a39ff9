"""Signing: a whole signed video or the old one, whose every changed byte is found."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import c2pa
import pytest

from agent.cli.credentials.verify import examine
from agent.credentials.boxes import has_index_first, hash_boxes, list_boxes
from agent.credentials.keys import SigningKey, load_or_make
from agent.credentials.manifest import make_manifest
from agent.credentials.reading import read_credentials
from agent.credentials.sign import sign_video
from gpu_pool.failpoints import VARIABLE
from tests.share import EXAMPLES, ROOT

RECORD: dict[str, Any] = {"name": "hello", "video": "result.mp4", "uid": "u1", "engine": "preview", "frames": 25}
RECORD |= {role: {"given": f"my {role}", "sha256": "ab"} for role in ("avatar", "audio")}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return load_or_make(tmp_path_factory.mktemp("keys") / "credentials")


def stage(folder: Path) -> Path:
    """A folder with a video to sign."""
    folder.mkdir(exist_ok=True)
    with (
        av.open(str(EXAMPLES / "collins.mp4")) as source,
        av.open(str(folder / "result.mp4"), "w", options={"movflags": "+faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return folder / "result.mp4"


def test_a_signed_video_has_the_same_picture_and_sound(tmp_path: Path, key: SigningKey) -> None:
    """The library's reader takes it, mdat is unchanged, no name is told unasked, and signing twice changes nothing."""
    video = stage(tmp_path / "out")
    before = video.read_bytes()
    said = sign_video(video.parent, "result.mp4", make_manifest(RECORD, "1", names=False), key, tmp_path / "mark")
    signed = video.read_bytes()
    assert said["video_sha256"] == hashlib.sha256(signed).hexdigest()
    assert said["video_bytes"] == len(signed)
    old, new = io.BytesIO(before), io.BytesIO(signed)
    assert hash_boxes(old, list_boxes(old), "mdat") == hash_boxes(new, list_boxes(new), "mdat")
    assert has_index_first(list_boxes(new))
    assert c2pa.Reader("video/mp4", io.BytesIO(signed)).get_validation_state() == "Valid"
    found = read_credentials(new, "video/mp4")
    assert (found.problem, found.said["uid"], found.said["inputs"]["avatar"]) == ("", "u1", {"sha256": "ab"})
    assert b"my avatar" not in signed
    assert (
        sign_video(video.parent, "result.mp4", make_manifest(RECORD, "1", names=False), key, tmp_path / "mark") == said
    )
    assert video.read_bytes() == signed
    assert [path.name for path in video.parent.iterdir()] == ["result.mp4"]


def test_a_signature_of_a_stranger_is_none_of_ours(tmp_path: Path, key: SigningKey) -> None:
    """A video that comes signed for this very job, by whoever it may be, is signed by us all the same."""
    video = stage(tmp_path / "out")
    stranger = load_or_make(tmp_path / "other")
    manifest = make_manifest(RECORD, "1", names=False)
    foreign = sign_video(video.parent, "result.mp4", manifest, stranger, tmp_path / "foreign")
    said = sign_video(video.parent, "result.mp4", manifest, key, tmp_path / "mark")
    assert said["video_sha256"] != foreign["video_sha256"]
    assert said["credentials"]["certificate_sha256"] == key.certificate_sha256
    with video.open("rb") as file:
        assert not read_credentials(file, "video/mp4").problem


def test_a_changed_byte_anywhere_is_found(tmp_path: Path, key: SigningKey) -> None:
    """In every box, its header included, and in what C2PA itself leaves out: padding and the type of the file."""
    video = stage(tmp_path / "out")
    said = sign_video(video.parent, "result.mp4", make_manifest(RECORD, "1", names=False), key, tmp_path / "mark")
    record, data = {**RECORD, **said}, video.read_bytes()
    assert all(one.holds is not False for one in examine(video, record))
    places = {
        at for box in list_boxes(io.BytesIO(data)) for at in (box.start, box.start + 9, box.start + box.length - 1)
    }
    for at in sorted({*places, *range(40, len(data), len(data) // 25)} - {len(data)}):
        changed = bytearray(data)
        changed[at] ^= 1
        video.write_bytes(changed)
        assert any(one.holds is False for one in examine(video, record)), at
    assert [at for at in sorted({*places, *range(len(data) % 61, len(data), 601)}) if is_believed(data, at)] == []


def is_believed(data: bytes, at: int) -> bool:
    """Whether a video without its result.json passes with a changed byte."""
    changed = bytearray(data)
    changed[at] ^= 1
    return not read_credentials(io.BytesIO(bytes(changed)), "video/mp4").problem


def test_bytes_that_a_manifest_leaves_out_are_sealed(tmp_path: Path, key: SigningKey) -> None:
    """C2PA covers neither its own padding and names of boxes nor the type of the file; nor can the seal be left out."""
    video = stage(tmp_path / "out")
    sign_video(video.parent, "result.mp4", make_manifest(RECORD, "1", names=False), key, tmp_path / "mark")
    data = video.read_bytes()
    kinds = {box.kind: box for box in list_boxes(io.BytesIO(data))}
    padding = data.index(bytes(64), kinds["uuid"].start)
    assert not any(is_believed(data, at) for at in (9, kinds["uuid"].start + 40, padding + 32))
    unsealed = data[: kinds["free"].start]
    assert c2pa.Reader("video/mp4", io.BytesIO(unsealed)).get_validation_state() == "Valid"
    assert "sealed" in read_credentials(io.BytesIO(unsealed), "video/mp4").problem


def test_the_key_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    """0600 in a folder of 0700; another key with its certificate takes its place, a wrong pair is refused."""
    one = load_or_make(tmp_path / "one")
    assert load_or_make(tmp_path / "one") == one
    assert stat.S_IMODE((tmp_path / "one" / "key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o700
    other = load_or_make(tmp_path / "other")
    shutil.copyfile(tmp_path / "other" / "key.pem", tmp_path / "one" / "key.pem")
    with pytest.raises(ValueError, match="not that of the key"):
        load_or_make(tmp_path / "one")
    shutil.copyfile(tmp_path / "other" / "chain.pem", tmp_path / "one" / "chain.pem")
    assert load_or_make(tmp_path / "one") == other


@pytest.mark.parametrize("place", ["signing", "signed"])
def test_a_killed_program_leaves_a_whole_video(tmp_path: Path, place: str) -> None:
    """Before the rename the old one, after it the signed one; the next program signs it, or finds it signed."""
    video = stage(tmp_path / "out")
    before = video.read_bytes()
    reports = tmp_path / "reports"
    reports.mkdir()
    job: dict[str, Any] = {"token": "t", "folder": str(video.parent), "video": "result.mp4"}
    job["manifest"] = make_manifest(RECORD, "1", names=True)
    words = [sys.executable, "-m", "agent.credentials.sign", "--parent", str(os.getpid())]
    words += ["--keys", str(tmp_path / "keys"), "--reports", str(reports), "--walls"]
    env = {**os.environ, VARIABLE: f"{place}:kill:{reports / 'flag'}"}
    run = subprocess.run(words, input=json.dumps([job]).encode(), env=env, cwd=ROOT, check=False)
    assert run.returncode == -signal.SIGKILL
    assert not (reports / "t.json").exists()
    with video.open("rb") as file:
        is_signed = not read_credentials(file, "video/mp4").problem
    assert is_signed == (place == "signed")
    assert is_signed or video.read_bytes() == before
    left = video.read_bytes()
    run = subprocess.run(words, input=json.dumps([job]).encode(), env=env, cwd=ROOT, check=False)
    assert run.returncode == 0
    assert json.loads((reports / "t.json").read_bytes())["video_bytes"] == video.stat().st_size
    assert not is_signed or video.read_bytes() == left
    with video.open("rb") as file:
        assert read_credentials(file, "video/mp4").problem == ""
