"""SIGHUP: what is taken over, what waits for a restart."""

from __future__ import annotations

from pathlib import Path

from agent.service.reload import LIVE, flatten_settings, merge_settings
from agent.settings import Settings


def settings(**keys: object) -> Settings:
    return Settings.model_validate({"share": "/a/share", "state": "/a/state", **keys})


def test_live_keys_are_taken_and_others_named() -> None:
    """The rest of the tree stays what it was."""
    old = settings(pool={"stall_s": 7.0})
    wanted = settings(share="/b", pool={"stall_s": 9.0, "drain_s": 1.0}, output={"crf": 30}, log={"level": "debug"})
    now, taken, kept = merge_settings(old, wanted)
    assert taken == ["pool.drain_s", "output.crf", "log.level"]
    assert kept == ["share", "pool.stall_s"]
    assert now == settings(pool={"stall_s": 7.0, "drain_s": 1.0}, output={"crf": 30}, log={"level": "debug"})
    assert now.share == Path("/a/share")


def test_nothing_changed() -> None:
    """The same file again is no news."""
    assert merge_settings(settings(), settings()) == (settings(), [], [])


def test_every_live_key_exists() -> None:
    """No entry is a typing mistake."""
    names = [name for name, _ in flatten_settings(settings())]
    assert all(any(name.startswith(live) for name in names) for live in LIVE)
