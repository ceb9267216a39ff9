"""Folders of the inbox, with a whole daemon: jobs, pairs and an avatar's voices come out under one folder."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.agent.intake.test_unpack import pack
from tests.needs import need
from tests.share import Share, face, until

JOB = b'{"avatar": "in/face.jpg", "audio": "v.wav"}'


@pytest.fixture
def noop(make_share: Callable[..., Share]) -> Share:
    share = make_share(module="tests.e2e.noop", settle_s=0.1)
    text = share.config.read_text().replace("[inbox]", "[inbox]\npatience_s = 0.2")
    share.config.write_text(text)
    share.start()
    return share


def test_the_results_of_a_folder_are_under_one_folder(noop: Share) -> None:
    """A job file, a pair, and a voice in the folder of an avatar, which is not made of its own results."""
    (noop.folder / "avatars" / "anna.jpg").write_bytes(b"face")
    for folder, names in (("monday", ("pair.jpg", "pair.wav", "face.jpg", "v.wav")), ("anna", ("voice.wav",))):
        (noop.inbox / folder).mkdir()
        for name in names:
            (noop.inbox / folder / name).write_bytes(name.encode())
    (noop.inbox / "monday" / "hello.json").write_text('{"avatar": "face.jpg", "audio": "v.wav", "id": "k"}')
    for name in ("hello", "pair", "voice"):
        assert noop.wait_for(name, "done", "failed")["state"] == "done", noop.log()
    assert {row["result"] for row in noop.rows()} == {"monday/hello", "monday/pair", "anna/voice"}
    for result in ("monday/hello", "monday/pair", "anna/voice"):
        assert {path.name for path in (noop.outbox / result).iterdir()} == {"result.mp4", "result.json", "preview.jpg"}


def test_the_results_of_an_archive_are_under_one_folder(noop: Share) -> None:
    """A program unpacks it; a bomb fails as a job, with a sentence."""
    noop.put("monday.zip", pack(("top/hello.json", JOB), ("top/in/face.jpg", b"f"), ("top/v.wav", b"v")))
    noop.put("bomb.zip", pack(("hello.json", JOB), ("/etc/passwd", b"x")))
    assert noop.wait_for("hello", "done", "failed")["result"] == "monday/hello", noop.log()
    assert "leads out" in noop.wait_for("bomb", "failed")["error_message"]
    until(lambda: not list(noop.inbox.iterdir()), 60, noop.log)
    assert {path.name for path in noop.failed.iterdir()} == {"bomb"}


def test_a_text_becomes_a_video(make_share: Callable[..., Share]) -> None:
    """With espeak-ng as the speech program: a face and a text in, a video with a voice out."""
    need("espeak-ng", "espeak-ng")
    share = make_share()
    text = share.config.read_text() + '\n[speech]\ncommand = ["espeak-ng", "-w", "{wav}", "--stdin"]\n'
    share.config.write_text(text)
    share.start()
    share.put("hello.jpg", face())
    share.put("hello.txt", b"Good morning. The train to Cambridge leaves at ten.")
    assert share.wait_for("hello", "done", "failed")["state"] == "done", share.log()
    result = share.result("hello")
    assert 2.0 < result["duration_s"] < 10.0
    assert result["audio"]["given"] == "hello.txt"
    assert "The voice was made of a text by espeak-ng." in result["notes"]


@pytest.mark.parametrize("words", [(), ("--no-wait",), ("--keep",)])
def test_preparing_an_avatar_leaves_no_video(noop: Share, words: tuple[str, ...]) -> None:
    """Whether the command waits or not; --keep keeps it."""
    (noop.folder / "avatars" / "anna.jpg").write_bytes(b"face")
    done = noop.musedrop("avatar", "prepare", "anna", *words)
    assert done.returncode == 0, done.stderr
    assert ("result.mp4" in done.stdout) == ("--keep" in words)
    assert noop.wait_for("prepare-anna", "done", "failed")["state"] == "done", noop.log()
    until(lambda: bool(noop.rows("SELECT 1 FROM jobs WHERE tidied = 1")), 60, noop.log)
    assert {path.name for path in noop.outbox.iterdir()} == ({"prepare-anna"} if "--keep" in words else set())
