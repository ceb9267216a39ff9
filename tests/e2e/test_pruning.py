"""Old things of a real daemon go, and what people ask of them afterwards is answered."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.share import Share, until

DAY_S = 86_400


def set_age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * DAY_S,) * 2)


def drop(share: Share, name: str, avatar: str = "", **job: object) -> None:
    """A job that fails, with media of its own unless it names others."""
    share.put(f"{name}-voice.wav", b"voice")
    if not avatar:
        share.put(f"{name}-face.jpg", b"face")
    audio = str(job.pop("audio", f"{name}-voice.wav"))
    share.drop(name, avatar=avatar or f"{name}-face.jpg", audio=audio, options={"fail": True}, **job)
    share.wait_for(name, "failed")
    share.error(name)


def has_code(share: Share, name: str, code: str) -> bool:
    return bool(share.job(name)["error_code"] == code)


def test_a_retry_of_what_was_deleted_is_answered(make_share: Callable[..., Share]) -> None:
    """Its failed folder was deleted with its media: the row and a new error.json say so."""
    share = make_share(module="tests.e2e.noop")
    share.start()
    drop(share, "old")
    share.put("refused.json", b"no job")
    share.error("refused")
    assert share.stop() == 0
    for name in ("old", "refused"):
        set_age(share.failed / name, 31)
    share.start()
    until(lambda: not list(share.failed.iterdir()), 60, share.log)
    for name in ("old", "refused"):
        told = share.musedrop("retry", name)
        assert told.returncode == 0, told.stderr
        until(partial(has_code, share, name, "inputs_gone"), 60, share.log)
        error = share.error(name)
        assert (error["code"], error["state"]) == ("inputs_gone", "failed")
        assert "drop the job file and its media again" in error["hint"]


def test_a_retry_without_files_of_its_own_still_works(make_share: Callable[..., Share]) -> None:
    """Where all media lie in the library or in a media root, the row is enough to start over."""
    share = make_share(module="tests.e2e.noop")
    voices = share.root / "voices"
    voices.mkdir()
    (voices / "voice.wav").write_bytes(b"voice")
    set_age(voices / "voice.wav", 1)
    share.config.write_text(share.config.read_text().replace("[inbox]\n", f'[inbox]\nmedia_roots = ["{voices}"]\n'))
    share.start()
    (share.folder / "avatars" / "anna.jpg").write_bytes(b"face")
    set_age(share.folder / "avatars" / "anna.jpg", 1)
    drop(share, "old", avatar="anna", audio=str(voices / "voice.wav"))
    assert share.stop() == 0
    set_age(share.failed / "old", 31)
    share.start()
    until(lambda: not list(share.failed.iterdir()), 60, share.log)
    (share.inbox / "old.retry").touch()
    until(lambda: share.job("old")["attempt"] == 2, 60, share.log)
    share.wait_for("old", "failed")
    assert share.error("old")["code"] == "bad_option"
