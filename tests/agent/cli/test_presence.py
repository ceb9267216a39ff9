"""Whether a daemon is alive, and what is said where none is."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.cli.presence import describe_absence, find_presence
from agent.service.process import ALIVE_S, InstanceLock
from agent.settings import Settings

NOW = datetime(2026, 1, 2, 4, 0, tzinfo=UTC)


def test_the_lock_tells_whether_a_daemon_is_alive_and_since_when_not(settings: Settings) -> None:
    """Nothing, a held lock, and one whose process is gone: the file keeps the time of the last sign of life."""
    assert find_presence(settings).last_alive_at_s == 0
    assert "none ever was" in describe_absence(find_presence(settings), Path("m.toml"), NOW)
    lock = InstanceLock(settings.folders.lock)
    assert find_presence(settings).is_alive
    lock.release()
    os.utime(settings.folders.lock, (0, datetime(2026, 1, 2, 3, 5, tzinfo=UTC).timestamp()))
    absence = describe_absence(find_presence(settings), Path("/srv/m.toml"), NOW)
    assert absence.startswith("no daemon is running since 03:05:00: ")
    assert absence.endswith("`musedrop run -c /srv/m.toml`")


def test_a_daemon_gives_signs_of_life(settings: Settings) -> None:
    """The lock's time follows the daemon's clock, but not more often than needed."""
    lock = InstanceLock(settings.folders.lock)
    os.utime(settings.folders.lock, (0, 0))
    lock.note_alive(100.0)
    first = settings.folders.lock.stat().st_mtime
    assert first > 0
    os.utime(settings.folders.lock, (0, 0))
    lock.note_alive(100.0 + ALIVE_S / 2)
    assert settings.folders.lock.stat().st_mtime == 0
    lock.note_alive(100.0 + ALIVE_S)
    assert settings.folders.lock.stat().st_mtime >= first
    lock.release()


def test_a_lock_that_may_not_be_read_says_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of another user's daemon is believed to be held: a warning could be wrong."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    InstanceLock(settings.folders.lock).release()
    monkeypatch.setattr(Path, "open", refuse)
    assert find_presence(settings).is_alive
