"""MuseTalk in the whole daemon, with tiny weights, on one worker and on four."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest

from models import media
from models.types import Limits
from tests.models.musetalk import tiny
from tests.models.musetalk.jobs import write_image, write_video
from tests.share import ROOT, Share, until, voice


@pytest.fixture
def studio(make_share: Callable[..., Share]) -> Share:
    """A share with four workers and the weights where they are looked for."""
    share = make_share(workers=4, stall_s=250.0)
    tiny.lay_out(share.state / "models")
    share.start()
    return share


def has_rows(share: Share, count: int) -> bool:
    return len(share.rows()) == count


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_worker_or_four_give_the_same_file(studio: Share, tmp_path: Path) -> None:
    """`queue` and `split` publish identical mp4s; the second job has the avatar from the cache."""
    avatar = write_video(tmp_path / "face.mp4", [True] * 4 + [False] + [True] * 2)
    for count, strategy in enumerate(("queue", "split"), 1):
        studio.put("face.mp4", avatar.read_bytes())
        studio.put("voice.wav", voice(3.0))
        studio.drop("hello", avatar="face.mp4", audio="voice.wav", engine="musetalk", strategy=strategy)
        until(partial(has_rows, studio, count), 60, studio.log)
        assert studio.wait_for("hello", "done", "failed", timeout_s=350)["state"] == "done", studio.log()
    one, four = (studio.outbox / name for name in ("hello", "hello-2"))
    assert (one / "result.mp4").read_bytes() == (four / "result.mp4").read_bytes()
    queue, split = (json.loads((folder / "result.json").read_bytes()) for folder in (one, four))
    section = (ROOT / "docs" / "result.md").read_text().partition("## Of the MuseTalk engine")[2]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == set(queue["musetalk"])
    assert (len(queue["devices"]), len(split["devices"])) == (1, 4)
    assert (queue["engine"], queue["frames"], queue["kind"]) == ("musetalk", 75, "cpu")
    assert (queue["musetalk"]["avatar_from_cache"], split["musetalk"]["avatar_from_cache"]) == (False, True)
    assert split["musetalk"]["avatar_seconds"] < queue["musetalk"]["avatar_seconds"]
    assert queue["musetalk"]["no_face"] == split["musetalk"]["no_face"] != []
    media.verify_video(one / "result.mp4", 75, media.read_picture(avatar, "face.mp4", Limits()).fps or Fraction(25))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_avatar_is_added_prepared_used_and_removed(studio: Share, tmp_path: Path) -> None:
    """The library commands work, and a job by name has the avatar from the cache."""
    picture = write_image(tmp_path / "anna.png")
    assert studio.musedrop("avatar", "add", "anna", str(picture)).returncode == 0
    assert "not prepared yet" in studio.musedrop("avatar", "list").stdout
    assert studio.musedrop("avatar", "prepare", "anna", "--keep").returncode == 0
    assert "musetalk jaw" in studio.musedrop("avatar", "list").stdout
    assert (studio.outbox / "prepare-anna" / "result.mp4").exists()
    studio.put("voice.wav", voice(0.4))
    studio.drop("hello", avatar="anna", audio="voice.wav", engine="musetalk")
    assert studio.wait_for("hello", "done", "failed", timeout_s=350)["state"] == "done", studio.log()
    assert studio.result("hello")["musetalk"]["avatar_from_cache"] is True
    assert studio.musedrop("avatar", "remove", "anna").returncode == 0
    assert "empty" in studio.musedrop("avatar", "list").stdout
    assert "no avatar anna" in studio.musedrop("avatar", "remove", "anna").stderr
