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
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agent.cli.credentials.finding import Finding
from agent.cli.credentials.verify import examine
from agent.credentials.boxes import has_index_first, hash_boxes, list_boxes
from agent.credentials.keys import SigningKey, load_or_make
from agent.credentials.manifest import make_manifest
from agent.credentials.probe import probe_video
from agent.credentials.reading import explain_failure, read_credentials
from agent.credentials.sign import UNUSABLE, sign_video
from agent.credentials.tracks import list_chunks
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
    assert [signed[at : at + 64] for at in list_chunks(new)] == [before[at : at + 64] for at in list_chunks(old)] != []
    assert c2pa.Reader("video/mp4", io.BytesIO(signed)).get_validation_state() == "Valid"
    found = read_credentials(new, "video/mp4")
    assert (found.problem, found.said["uid"], found.said["inputs"]["avatar"]) == ("", "u1", {"sha256": "ab"})
    assert b"my avatar" not in signed
    claim = json.loads(c2pa.Reader("video/mp4", io.BytesIO(signed)).detailed_json())["manifests"][found.label]["claim"]
    assert (len(claim["created_assertions"]), claim.get("gathered_assertions")) == (3, None)
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
    assert all(one.holds is not False for one in look(data, record))
    places = {
        at for box in list_boxes(io.BytesIO(data)) for at in (box.start, box.start + 9, box.start + box.length - 1)
    }
    for at in sorted({*places, *range(40, len(data), len(data) // 25)} - {len(data)}):
        assert any(one.holds is False for one in look(flip(data, at), record)), at
    assert [at for at in sorted({*places, *range(len(data) % 61, len(data), 601)}) if is_believed(data, at)] == []


def is_believed(data: bytes, at: int) -> bool:
    """Whether a video without its result.json passes with a changed byte."""
    return not read_credentials(io.BytesIO(flip(data, at)), "video/mp4").problem


def flip(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def look(data: bytes, record: dict[str, Any], chain: str = "") -> list[Finding]:
    return list(examine(probe_video(io.BytesIO(data), "video/mp4", chain), record))


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


def test_whose_key_it_is(tmp_path: Path, key: SigningKey) -> None:
    """That of this installation, another one, also with the same names and number, or nobody here knows."""
    video = stage(tmp_path / "out")
    sign_video(video.parent, "result.mp4", make_manifest(RECORD, "1", names=False), key, tmp_path / "mark")
    data, chain = video.read_bytes(), key.chain.decode()
    number = x509.load_pem_x509_certificates(key.chain)[0].serial_number
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(x509, "random_serial_number", lambda: number)
        forged = load_or_make(tmp_path / "forged").chain.decode()
    other = load_or_make(tmp_path / "other").chain.decode()
    for known, is_own in ((chain, True), (other, False), (forged, None), ("", None), ("nonsense", None)):
        found = read_credentials(io.BytesIO(data), "video/mp4", known)
        assert (found.problem, found.is_own) == ("", is_own)


def test_a_certificate_that_is_not_valid_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is signed with it, and of a video whose certificate has expired the bytes are not blamed."""
    video = stage(tmp_path / "out")
    monkeypatch.setattr("agent.credentials.keys._YEARS", 0)
    expired = load_or_make(tmp_path / "keys")
    before = video.read_bytes()
    with pytest.raises(c2pa.C2paError, match="not valid at time of signing"):
        sign_video(video.parent, "result.mp4", make_manifest(RECORD, "1", names=False), expired, tmp_path / "mark")
    assert [path.name for path in video.parent.iterdir()] == ["result.mp4"]
    assert video.read_bytes() == before
    assert "has expired" in explain_failure(["signingCredential.untrusted", "signingCredential.expired"])
    assert "its bytes" in explain_failure(["signingCredential.expired", "assertion.bmffHash.mismatch"])


def test_no_name_is_told_unasked(tmp_path: Path, key: SigningKey) -> None:
    """Neither of the job, its inputs and machines nor of what a clip shows; a name that is no text can be told."""
    video = stage(tmp_path / "out")
    record = {**RECORD, "name": "wedding \udcff", "devices": ["annas-pc/cuda:0", "cpu:0"]}
    record |= {"avatar": {"given": "C:\\anna\\bride.jpg", "sha256": "ab"}, "background": "#00b140"}
    record |= {"voices": [{"face": 0, "given": "groom.wav", "sha256": "cd"}]}
    record |= {"motion": {"engine": "diffusers", "weights": "ltx", "seed": 7, "prompt": "a woman cries"}}
    for names in (False, True):
        manifest = make_manifest(record, "1", names=names)
        sign_video(video.parent, "result.mp4", manifest, key, tmp_path / f"mark-{names}")
        text = c2pa.Reader("video/mp4", io.BytesIO(video.read_bytes())).detailed_json()
        assert [word in text for word in ("wedding", "bride", "groom", "annas-pc")] == [names] * 4
        assert ("woman" in text, '"seed": 7' in text, "cuda:0" in text) == (False, True, True)


@pytest.mark.parametrize("fault", ["empty", "no text", "rsa", "encrypted", "chain gone", "folder", "link"])
def test_a_key_that_can_not_be_used_is_told(tmp_path: Path, fault: str) -> None:
    """The program leaves the reason for each result; no other key is made in its place."""
    keys = tmp_path / "keys"
    load_or_make(keys)
    file = keys / "key.pem"
    if fault == "chain gone":
        (keys / "chain.pem").unlink()
    else:
        file.unlink()
    if fault == "folder":
        file.mkdir()
    if fault == "link":
        file.symlink_to(tmp_path / "unmounted")
    if fault in ("rsa", "encrypted"):
        made: Any = rsa.generate_private_key(65537, 2048) if fault == "rsa" else ec.generate_private_key(ec.SECP256R1())
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        plain, hidden = serialization.NoEncryption(), serialization.BestAvailableEncryption(b"pass")
        file.write_bytes(made.private_bytes(pem, form, plain if fault == "rsa" else hidden))
    if fault in ("empty", "no text"):
        file.write_bytes(b"" if fault == "empty" else bytes(range(256)))
    with pytest.raises(UNUSABLE):
        load_or_make(keys)


def run_program(tmp_path: Path, job: dict[str, Any], **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program that signs, behind its walls, for one job."""
    (tmp_path / "reports").mkdir(exist_ok=True)
    words = [sys.executable, "-m", "agent.credentials.sign", "--parent", str(os.getpid()), "--walls"]
    words += ["--keys", str(tmp_path / "keys"), "--reports", str(tmp_path / "reports")]
    lines = json.dumps([{"token": "t", "video": "result.mp4", **job}]).encode()
    return subprocess.run(
        words, input=lines, env={**os.environ, **env}, cwd=ROOT, check=False, capture_output=True, timeout=60
    )


def make_job(folder: Path) -> dict[str, Any]:
    return {"folder": str(folder), "manifest": make_manifest(RECORD, "1", names=True)}


def test_the_reason_stands_in_the_report(tmp_path: Path) -> None:
    """Of a key that can't be used, at the first time."""
    video = stage(tmp_path / "out")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "key.pem").touch()
    before = video.read_bytes()
    assert run_program(tmp_path, make_job(video.parent)).returncode == 0
    said = json.loads((tmp_path / "reports" / "t.json").read_bytes())
    assert "can't be used" in said["problem"]
    assert video.read_bytes() == before


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    """The video stays as it is, and the report says that it is to be tried again."""
    video = stage(tmp_path / "out")
    before = video.read_bytes()
    flag = tmp_path / "reports" / "flag"
    run_program(tmp_path, make_job(video.parent), **{VARIABLE: f"signing:enospc:{flag}"})
    assert json.loads((tmp_path / "reports" / "t.json").read_bytes())["wait"]
    assert video.read_bytes() == before
    assert [path.name for path in video.parent.iterdir()] == ["result.mp4"]


@pytest.mark.parametrize("place", ["certificate", "signing", "signed", "reported"])
def test_a_killed_program_leaves_a_whole_video(tmp_path: Path, place: str) -> None:
    """Before the rename the old one, after it the signed one; the next program signs it, or finds it signed."""
    video = stage(tmp_path / "out")
    before = video.read_bytes()
    reports, job = tmp_path / "reports", make_job(video.parent)
    env = {VARIABLE: f"{place}:kill:{tmp_path / 'keys' / 'flag' if place == 'certificate' else reports / 'flag'}"}
    assert run_program(tmp_path, job, **env).returncode == -signal.SIGKILL
    assert (reports / "t.json").exists() == (place == "reported")
    with video.open("rb") as file:
        is_signed = not read_credentials(file, "video/mp4").problem
    assert is_signed == (place in ("signed", "reported"))
    assert is_signed or video.read_bytes() == before
    left = video.read_bytes()
    assert run_program(tmp_path, job, **env).returncode == 0
    assert json.loads((reports / "t.json").read_bytes())["video_bytes"] == video.stat().st_size
    assert not is_signed or video.read_bytes() == left
    with video.open("rb") as file:
        assert read_credentials(file, "video/mp4").problem == ""


def test_a_large_video_is_signed_behind_the_walls(tmp_path: Path) -> None:
    """The library keeps a copy of one in a file, which may be beside the video alone."""
    video = stage(tmp_path / "out")
    with video.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write((40 << 20).to_bytes(4, "big") + b"zero")
        file.truncate(file.tell() - 8 + (40 << 20))
    assert run_program(tmp_path, make_job(video.parent)).returncode == 0
    assert "credentials" in json.loads((tmp_path / "reports" / "t.json").read_bytes())
    assert [path.name for path in video.parent.iterdir()] == ["result.mp4"]
