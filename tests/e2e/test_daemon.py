"""The daemon from outside: files in, videos out, with status at any time."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from tests.share import EXAMPLES, ROOT, Share, alive, face, until, voice

CHINESE = re.compile(r"[\u4e00-\u9fff]")


def frames_and_comment(path: Path) -> tuple[int, Fraction | None, dict[str, str]]:
    with av.open(str(path)) as container:
        frames = sum(1 for _ in container.decode(video=0))
        return frames, container.streams.video[0].average_rate, dict(container.metadata)


def drop_media(share: Share, seconds: float = 1.0) -> None:
    share.put("face.jpg", face())
    share.put("voice.wav", voice(seconds))


def test_a_job_file_becomes_a_video(share: Share) -> None:
    """Three files in the inbox become a folder in the outbox; all records agree."""
    drop_media(share)
    share.drop("hello", avatar="face.jpg", audio="voice.wav", id="order-1")
    row = share.wait_for("hello", "done", "failed")
    assert row["state"] == "done", row
    frames, rate, metadata = frames_and_comment(share.outbox / "hello" / "result.mp4")
    assert (frames, rate) == (25, Fraction(25))
    assert "preview" in metadata["comment"]
    result = share.result("hello")
    assert (result["engine"], result["frames"], result["uid"]) == ("preview", 25, row["uid"])
    assert "no" in result["engine_reason"]
    assert set(result["stage_seconds"]) == {"inspect", "prepare", "render", "assemble"}
    assert (row["engine"], row["id"], row["percent"], row["result"]) == ("preview", "order-1", 100.0, "hello")
    page = (ROOT / "docs" / "result.md").read_text().partition("\n## ")[0]
    documented = {key for line in re.findall(r"^\| (`.*?) \|", page, re.M) for key in re.findall(r"`(\w+)`", line)}
    of_others = {"credentials", "video_sha256", "race", "weights_sha256", "motion"}
    assert documented - of_others == set(result)
    assert (share.outbox / "hello" / "preview.jpg").read_bytes().startswith(b"\xff\xd8")
    until(lambda: not list(share.inbox.iterdir()), 60, share.log)
    [archived] = (share.folder / "archive").glob("*/hello")
    assert sorted(path.name for path in archived.iterdir()) == ["face.jpg", "hello.json", "voice.wav"]
    assert not list((share.state / "work").iterdir())


def test_a_pair_becomes_a_video(share: Share) -> None:
    """Two media of one name are a job with nothing more said."""
    (share.inbox / "hello.jpg").write_bytes(face())
    (share.inbox / "hello.wav").write_bytes(voice())
    until(lambda: bool(share.rows()), 60, share.log)
    assert share.wait_for("hello", "done", "failed")["state"] == "done"
    assert share.result("hello")["frames"] == 25
    assert not list(share.inbox.iterdir())


def test_a_video_avatar_of_the_library(share: Share) -> None:
    """A library video is used by its name, at its own frame rate, and is kept."""
    (share.folder / "avatars" / "collins.mp4").write_bytes((EXAMPLES / "collins.mp4").read_bytes())
    share.put("voice.wav", voice())
    share.drop("lib", TemplateId="collins", AudioPath="voice.wav", Quality="low", EnableEmotion=True)
    assert share.wait_for("lib", "done", "failed")["state"] == "done"
    with av.open(str(EXAMPLES / "collins.mp4")) as source:
        rate = source.streams.video[0].average_rate
    frames, got, _ = frames_and_comment(share.outbox / "lib" / "result.mp4")
    assert rate is not None
    assert got == rate
    assert frames == round(1.0 * rate)
    assert any("EnableEmotion" in note for note in share.result("lib")["notes"])
    assert (share.folder / "avatars" / "collins.mp4").exists()


def bad_inputs() -> dict[str, tuple[str, dict[str, bytes]]]:
    """name -> (code, files)"""

    def job(**keys: Any) -> bytes:
        return json.dumps({"avatar": "face.jpg", "audio": "voice.wav", **keys}).encode()

    sound = voice()
    return {
        "not-json": ("not_json", {"not-json.json": b"avatar: face.jpg"}),
        "no-object": ("not_an_object", {"no-object.json": b'["face.jpg", "voice.wav"]'}),
        "unknown-key": ("unknown_key", {"unknown-key.json": job(avatr="x")}),
        "unknown-engine": ("bad_value", {"unknown-engine.json": job(engine="magic")}),
        "no-engine": ("engine_unavailable", {"no-engine.json": job(engine="musetalk")}),
        "bad-option": ("bad_option", {"bad-option.json": job(options={"lable": True})}),
        "up": ("outside_roots", {"up.json": job(audio="../../etc/passwd")}),
        "absolute": ("outside_roots", {"absolute.json": job(audio="/etc/passwd")}),
        "missing": ("missing_media", {"missing.json": job(audio="never.wav")}),
        "empty-audio": ("audio_empty", {"empty.wav": b"", "empty-audio.json": job(audio="empty.wav")}),
        "text-audio": ("audio_unreadable", {"text.wav": b"hello" * 99, "text-audio.json": job(audio="text.wav")}),
        "short-audio": ("audio_too_short", {"short.wav": voice(0.01), "short-audio.json": job(audio="short.wav")}),
        "cut-audio": ("audio_unreadable", {"cut.wav": sound[:30], "cut-audio.json": job(audio="cut.wav")}),
        "cut-video": (
            "avatar_unreadable",
            {"cut.mp4": (EXAMPLES / "collins.mp4").read_bytes()[:3000], "cut-video.json": job(avatar="cut.mp4")},
        ),
        "empty-video": ("avatar_unreadable", {"empty.mp4": b"", "empty-video.json": job(avatar="empty.mp4")}),
        "bomb": ("avatar_too_large", {"bomb.png": png_header(60_000, 60_000), "bomb.json": job(avatar="bomb.png")}),
        "no-face": ("no_face", {"grey.png": grey_picture(), "no-face.json": job(avatar="grey.png")}),
    }


def grey_picture() -> bytes:
    import cv2
    import numpy as np

    return bytes(cv2.imencode(".png", np.full((256, 256, 3), 128, np.uint8))[1])


def png_header(width: int, height: int) -> bytes:
    """A small PNG that claims to be enormous."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 10_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_every_bad_input_is_answered_and_none_stops_the_others(make_share: Callable[..., Share]) -> None:
    """Each bad job has a code, a message and a hint in failed/ and in the ledger."""
    share = make_share(wait_media_s=3.0, keep_media_s=30.0)
    share.start()
    drop_media(share)
    (share.inbox / "secret.wav").symlink_to("/etc/passwd")
    bad = bad_inputs() | {"link": ("outside_roots", {"link.json": b'{"avatar": "face.jpg", "audio": "secret.wav"}'})}
    for _, files in bad.values():
        for name, data in files.items():
            share.put(name, data)
    share.drop("good", avatar="face.jpg", audio="voice.wav")
    share.wait_until_finished(len(bad) + 1)
    assert share.job("good")["state"] == "done"
    found = {name: share.job(name) for name in bad}
    assert {name: row["error_code"] for name, row in found.items()} == {name: code for name, (code, _) in bad.items()}
    for name, (code, _) in bad.items():
        error = share.error(name)
        assert error["code"] == code
        assert error["message"]
        assert error["message"] == found[name]["error_message"]
        assert error["hint"], f"{name} has no hint"
        assert CHINESE.search(error["message_zh"]), f"{name}: {error['message_zh']}"
        assert CHINESE.search(error["hint_zh"]), f"{name}: {error['hint_zh']}"
        assert str(share.state) not in error["message"], "a message names no path of ours"
        assert (share.failed / name / "job.json").exists()
    assert [path.name for path in share.outbox.iterdir()] == ["good"]


def test_two_jobs_of_one_name_have_two_results(share: Share) -> None:
    """The same name dropped again is a new job with its own folder."""
    drop_media(share)
    share.drop("hello", avatar="face.jpg", audio="voice.wav")
    until(lambda: len(share.rows()) == 1, 60, share.log)
    share.drop("hello", avatar="face.jpg", audio="voice.wav", output={"crf": 40})
    share.wait_until_finished(2)
    assert sorted(path.name for path in share.outbox.iterdir()) == ["hello", "hello-2"]
    assert {share.result(name)["uid"] for name in ("hello", "hello-2")} == {row["uid"] for row in share.rows()}


def test_a_job_waits_for_its_media(share: Share) -> None:
    """A job file that comes first says what it waits for, and goes on when the file is there."""
    share.put("face.jpg", face())
    share.drop("early", avatar="face.jpg", audio="voice.wav")
    until(lambda: "voice.wav" in (share.wait_for("early", "waiting")["waiting_for"] or ""), 60, share.log)
    share.put("voice.wav", voice())
    assert share.wait_for("early", "done", "failed")["state"] == "done"


def test_strategies_give_the_same_bytes(share: Share) -> None:
    """One worker or several, the pictures and the sound are the same to the last bit."""
    digests = []
    for strategy in ("queue", "split"):
        drop_media(share, 3.0)
        share.drop(strategy, avatar="face.jpg", audio="voice.wav", strategy=strategy)
        assert share.wait_for(strategy, "done", "failed")["state"] == "done"
        with av.open(str(share.outbox / strategy / "result.mp4")) as container:
            packets = [(p.stream_index, p.pts, bytes(p)) for p in container.demux() if p.size]
        digests.append(packets)
    assert digests[0] == digests[1]
    assert len(share.result("queue")["devices"]) == 1
    assert len(share.result("split")["devices"]) == 2


def test_cancel_and_retry(share: Share) -> None:
    """A running job stops when asked, its inputs are kept, and a retry finishes it."""
    drop_media(share, 8.0)
    share.drop("long", avatar="face.jpg", audio="voice.wav", output={"height": 720}, strategy="queue")
    until(lambda: any(row["stage"] == "render" for row in share.rows()), 60, share.log)
    assert share.musedrop("cancel", "long").returncode == 0
    share.wait_for("long", "cancelled")
    assert share.error("long")["code"] == "cancelled"
    assert not list(share.outbox.iterdir())
    assert share.musedrop("retry", "long").returncode == 0
    assert share.wait_for("long", "done", "failed")["state"] == "done"
    assert not (share.failed / "long").exists()
    outcomes = share.rows("SELECT outcome FROM job_attempts ORDER BY attempt")
    assert [row["outcome"] for row in outcomes] == ["cancelled", "done"]


def test_a_mended_job_file_is_read_again(share: Share) -> None:
    """After a refusal, the user corrects failed/NAME/job.json and retries."""
    drop_media(share)
    share.drop("typo", avatr="face.jpg", audio="voice.wav")
    share.wait_for("typo", "failed")
    until((share.failed / "typo" / "job.json").exists, 60, share.log)
    (share.failed / "typo" / "job.json").write_text('{"avatar": "face.jpg", "audio": "voice.wav"}')
    assert share.musedrop("retry", "typo").returncode == 0
    assert share.wait_for("typo", "done", "failed")["state"] in ("done", "failed")
    assert share.wait_for("typo", "done")["error_code"] is None


def test_a_killed_worker_costs_a_span_and_not_the_job(share: Share) -> None:
    """When a worker dies in the middle, its span is done again and the job says so."""
    drop_media(share, 6.0)
    share.drop("hurt", avatar="face.jpg", audio="voice.wav", output={"height": 720})
    until(lambda: any(row["stage"] == "render" for row in share.rows()), 60, share.log)
    pid = share.workers()[0]
    os.kill(pid, signal.SIGSTOP)  # so that it can't finish its span before it is killed
    busy = "SELECT device FROM device_status WHERE worker_pid = ? AND state = 'busy'"
    until(lambda: bool(share.rows(busy, pid)), 60, share.log)
    os.kill(pid, signal.SIGKILL)
    row = share.wait_for("hurt", "done", "failed")
    assert row["state"] == "done"
    assert (row["attempt"], row["interruptions"]) == (1, 1)
    events = share.rows("SELECT kind, device FROM job_events WHERE name = 'hurt'")
    assert any(event["kind"] == "worker_died" and event["device"] for event in events)
    assert frames_and_comment(share.outbox / "hurt" / "result.mp4")[0] == 150


def test_a_stop_keeps_what_is_done(share: Share) -> None:
    """SIGTERM stops daemon and workers; the next start uses the finished parts."""
    drop_media(share, 8.0)
    share.drop("long", avatar="face.jpg", audio="voice.wav", output={"height": 720})
    until(lambda: any(row["stage"] == "render" and row["units_done"] > 20 for row in share.rows()), 60, share.log)
    workers = share.workers()
    assert share.stop() == 0
    until(lambda: not any(map(alive, workers)), 60, share.log)
    status = share.status_file()
    assert status is not None
    assert status["daemon"]["running"] is False
    [row] = share.rows()
    assert row["state"] == "queued"
    kept = {path.name: path.stat().st_mtime_ns for path in (share.state / "work").glob("*/parts/*.mp4")}
    assert kept
    share.start()
    assert share.wait_for("long", "done", "failed")["state"] == "done"
    kinds = [row["kind"] for row in share.rows("SELECT kind FROM job_events WHERE name = 'long'")]
    assert kinds.count("running") == 2


def test_the_share_has_one_daemon(share: Share) -> None:
    """A second daemon on the same state is refused and named the first."""
    second = share.musedrop("run")
    assert second.returncode == 2
    assert share.daemon is not None
    assert str(share.daemon.pid) in second.stderr


def test_status_json_tells_the_same(share: Share) -> None:
    """status.json has counts, running jobs, devices and results, as the ledger has."""
    drop_media(share)
    share.drop("hello", avatar="face.jpg", audio="voice.wav")
    share.wait_for("hello", "done")

    def told() -> bool:
        status = share.status_file()
        return status is not None and status["counts"]["done"] == 1 and len(status["devices"]) == 2

    until(told, 60, share.log)
    status = share.status_file()
    assert status is not None
    assert status["recent"][0]["name"] == "hello"
    assert "preview" in status["engine"]
    assert status["problems"] == []


def test_an_inbox_that_goes_away_is_said_and_survived(share: Share) -> None:
    """While the inbox is gone the daemon lives and says why; when it is back, jobs run."""
    away = share.folder / "away"
    share.inbox.rename(away)
    until(lambda: bool((share.status_file() or {}).get("problems")), 60, share.log)
    away.rename(share.inbox)
    drop_media(share)
    share.drop("after", avatar="face.jpg", audio="voice.wav")
    assert share.wait_for("after", "done", "failed")["state"] == "done"
    until(lambda: (share.status_file() or {}).get("problems") == [], 60, share.log)


def test_the_daemon_itself_stays_light(share: Share) -> None:
    """The running daemon has mapped none of the media or tensor libraries."""
    assert share.daemon is not None
    maps = Path(f"/proc/{share.daemon.pid}/maps").read_text()
    assert "libpython" in maps or sys.executable.rpartition("/")[2] in maps or "python" in maps
    assert not any(name in maps for name in ("libtorch", "cv2", "libavcodec", "numpy"))
