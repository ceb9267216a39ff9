"""A real SMB share: each file becomes one job, and never before it is complete."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import count
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.e2e.smb.server import UTF8, SmbServer
from tests.share import Share, face, until, voice

pytestmark = pytest.mark.share
FACE, VOICE = face(128), voice(0.3)


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Share]:
    """One daemon for all tests of this file; each finds its own jobs."""
    made = Share(tmp_path_factory.mktemp("smb") / "s")
    made.start()
    yield made
    made.end()


@pytest.fixture(scope="module")
def smb(share: Share) -> Iterator[SmbServer]:
    """The share's folder, served over SMB; the inbox is for everybody, as on a real share."""
    share.inbox.chmod(0o777)
    server = SmbServer(share.root, share.folder)
    try:
        server.wait_until_up()
        yield server
    finally:
        server.end()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A client's own folder with a face and a voice."""
    (tmp_path / "face.jpg").write_bytes(FACE)
    (tmp_path / "voice.wav").write_bytes(VOICE)
    return tmp_path


def job(avatar: str, audio: str) -> bytes:
    return json.dumps({"avatar": avatar, "audio": audio}, ensure_ascii=False, indent=2).encode()


def check_done(share: Share, name: str, audio: bytes = VOICE) -> None:
    """The job is done, and what was used is what the client sent, to the byte."""
    row = share.wait_for(name, "done", "failed")
    assert row["state"] == "done", row
    assert share.result(row["result"])["audio"]["sha256"] == sha256(audio).hexdigest()


WITNESSES = count()


def wait_past_settling(share: Share) -> None:
    """Wait for a whole settle time: until the daemon has refused a new invalid job file."""
    name = f"witness-{next(WITNESSES)}"
    (share.inbox / f"{name}.json").write_bytes(b"no job")
    until(lambda: bool(share.rows("SELECT 1 FROM job_status WHERE name = ?", name)), 60, share.log)


def is_unclaimed(share: Share, name: str) -> bool:
    """Whether the daemon has left a job file alone so far."""
    taken = share.rows("SELECT * FROM job_status WHERE name = ?", name)
    return not taken and (share.inbox / f"{name}.json").exists()


def test_plain_put_and_the_result_read_back(share: Share, smb: SmbServer, here: Path) -> None:
    """Three puts make a video; a client reads the same bytes from the outbox."""
    (here / "plain.json").write_bytes(job("face-p.jpg", "voice-p.wav"))
    puts = [f"put {here}/face.jpg face-p.jpg", f"put {here}/voice.wav voice-p.wav", f"put {here}/plain.json plain.json"]
    smb.run("cd inbox", *puts)
    check_done(share, "plain")
    for name in ("result.mp4", "result.json", "preview.jpg"):
        local = smb.get(f"outbox\\plain\\{name}", here / name)
        assert local == (share.outbox / "plain" / name).read_bytes()
    assert json.loads((here / "result.json").read_bytes())["state"] == "done"


def test_put_and_rename(share: Share, smb: SmbServer, here: Path) -> None:
    """Files are put as .tmp, which is ignored, and renamed, the job file first."""
    (here / "careful.json").write_bytes(job("face-r.jpg", "voice-r.wav"))
    files = {"careful.json": "careful.json", "face.jpg": "face-r.jpg", "voice.wav": "voice-r.wav"}
    moves = [[f"put {here}/{own} {name}.tmp", f"rename {name}.tmp {name}"] for own, name in files.items()]
    smb.run("cd inbox", *(command for pair in moves for command in pair))
    check_done(share, "careful")


def test_a_pair_by_two_puts(share: Share, smb: SmbServer, here: Path) -> None:
    """A face and a voice of one name, dragged into the folder, are a job."""
    smb.run("cd inbox", f"put {here}/voice.wav couple.wav", f"put {here}/face.jpg couple.jpg")
    check_done(share, "couple")


def test_a_slow_put_by_smbclient(share: Share, smb: SmbServer, here: Path) -> None:
    """An empty job file that smbclient holds open is not read; after the close the job runs."""
    smb.run("cd inbox", f"put {here}/face.jpg face-s.jpg", f"put {here}/voice.wav voice-s.wav")
    command = smb.command("cd inbox", "put - slow.json")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=UTF8) as put:
        assert put.stdin
        until((share.inbox / "slow.json").exists, 60, smb.said)
        wait_past_settling(share)
        assert is_unclaimed(share, "slow")
        put.stdin.write(job("face-s.jpg", "voice-s.wav"))
    check_done(share, "slow")


def test_a_job_file_in_pieces(share: Share, smb: SmbServer, here: Path) -> None:
    """Half a job file is neither refused nor taken, however long the other half takes."""
    smb.run("cd inbox", f"put {here}/face.jpg face-h.jpg", f"put {here}/voice.wav voice-h.wav")
    text = job("face-h.jpg", "voice-h.wav")
    with smb.open("inbox/halves.json") as file:
        for piece in (text[:20], text[20:]):
            file.write(piece)
            wait_past_settling(share)
            assert is_unclaimed(share, "halves")
        assert (share.inbox / "halves.json").read_bytes() == text
        file.close()
    check_done(share, "halves")


def test_slow_media(share: Share, smb: SmbServer, here: Path) -> None:
    """A job waits for a voice that arrives in pieces, and uses all of it."""
    smb.run("cd inbox", f"put {here}/face.jpg face-m.jpg")
    share.put("media.json", job("face-m.jpg", "voice-m.wav"))
    with smb.open("inbox/voice-m.wav") as file:
        half = len(VOICE) // 2
        for piece in (VOICE[:half], VOICE[half:]):
            file.write(piece)
            wait_past_settling(share)
            row = share.wait_for("media", "waiting", "queued", "running", "done", "failed")
            assert (row["state"], "voice-m.wav" in row["waiting_for"]) == ("waiting", True)
        file.close()
    check_done(share, "media")


def test_media_of_full_size_from_the_start(share: Share, smb: SmbServer, here: Path) -> None:
    """A file of full size but all zeros, as Explorer makes it, does not count as complete."""
    smb.run("cd inbox", f"put {here}/face.jpg face-z.jpg")
    share.put("presized.json", job("face-z.jpg", "voice-z.wav"))
    with smb.open("inbox/voice-z.wav") as file:
        file.resize(len(VOICE))
        assert (share.inbox / "voice-z.wav").read_bytes() == bytes(len(VOICE))
        wait_past_settling(share)
        assert share.wait_for("presized", "waiting", "queued", "running", "done", "failed")["state"] == "waiting"
        file.write(VOICE)
        file.close()
    check_done(share, "presized")


def test_a_job_file_of_full_size_from_the_start(share: Share, smb: SmbServer, here: Path) -> None:
    """The same for the job file: zeros are no reason to refuse it while it is open."""
    smb.run("cd inbox", f"put {here}/face.jpg face-j.jpg", f"put {here}/voice.wav voice-j.wav")
    text = job("face-j.jpg", "voice-j.wav")
    with smb.open("inbox/zeros.json") as file:
        file.resize(len(text))
        assert (share.inbox / "zeros.json").read_bytes() == bytes(len(text))
        wait_past_settling(share)
        assert is_unclaimed(share, "zeros")
        file.write(text)
        file.close()
    check_done(share, "zeros")


@pytest.mark.parametrize("name", ["你好 世界", "cafe\u0301 décomposé", "😀 Ünïcode & co"])
def test_names_in_unicode(share: Share, smb: SmbServer, here: Path, name: str) -> None:
    """Names of jobs and media in any script, composed or not, come back on the result."""
    (here / "job.json").write_bytes(job(f"{name} a.jpg", f"{name} b.wav"))
    files = {"face.jpg": f"{name} a.jpg", "voice.wav": f"{name} b.wav", "job.json": f"{name}.json"}
    smb.run("cd inbox", *(f'put "{here}/{own}" "{there}"' for own, there in files.items()))
    check_done(share, name)
    result = share.job(name)["result"]
    assert smb.get(f"outbox\\{result}\\result.mp4", here / "back.mp4").find(b"ftyp") == 4


def put_first(here: Path, name: str) -> list[str]:
    """The job file before its media."""
    media = [f"put {here}/face.jpg {name}-f.jpg", f"put {here}/voice.wav {name}-v.wav"]
    return [f"put {here}/{name}.json {name}.json", *media]


def put_renamed(here: Path, name: str) -> list[str]:
    """Media, then the job file under another name that is changed at the end."""
    _, *media = put_first(here, name)
    return [*media, f"put {here}/{name}.json {name}.tmp", f"rename {name}.tmp {name}.json"]


def put_pair(here: Path, name: str) -> list[str]:
    return [f"put {here}/face.jpg {name}.jpg", f"put {here}/voice.wav {name}.wav"]


@pytest.mark.slow
def test_twenty_jobs_by_four_clients(share: Share, smb: SmbServer, here: Path) -> None:
    """Four sessions put twenty jobs in three ways: each is done once, status.json stays valid."""
    names = [f"many-{n}" for n in range(20)]
    for name in names:
        (here / f"{name}.json").write_bytes(job(f"{name}-f.jpg", f"{name}-v.wav"))
    ways = [put_first, put_renamed, put_pair]
    sessions = [["cd inbox"] for _ in range(4)]
    for n, name in enumerate(names):
        sessions[n % 4] += ways[n % 3](here, name)
    over, readings = Event(), list[dict[str, object]]()

    def read_status() -> None:
        while not over.is_set():
            readings.append(json.loads(smb.get("status.json", here / "status.json")))

    reader = Thread(target=read_status)
    reader.start()
    try:
        with ThreadPoolExecutor(4) as clients:
            list(clients.map(lambda session: smb.run(*session), sessions))
        for name in names:
            check_done(share, name)
    finally:
        over.set()
        reader.join(60)
    assert len(readings) > 1
    assert all(reading["version"] == 1 for reading in readings)
    rows = share.rows("SELECT name, result FROM job_status WHERE name LIKE 'many-%'")
    assert sorted(row["name"] for row in rows) == sorted(names)
    assert sorted(path.name for path in share.outbox.glob("many-*")) == sorted(names)


def test_nothing_was_read_early_and_nothing_is_left(share: Share, smb: SmbServer) -> None:
    """After all of it no job but the witnesses failed, and the inbox is empty."""
    smb.run("ls")
    failed = share.rows("SELECT name, error_message FROM job_status WHERE state NOT IN ('done')")
    assert [row for row in failed if not row["name"].startswith("witness-")] == []
    until(lambda: not list(share.inbox.iterdir()), 60, lambda: str(list(share.inbox.iterdir())))
