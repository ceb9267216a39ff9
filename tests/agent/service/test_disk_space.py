"""Whether the disks have room for another job."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.service import disk_space
from agent.service.disk_space import find_low_disk, format_bytes
from agent.service.systemd import Notifier
from agent.settings import Settings


def make_settings(root: Path, min_free_bytes: int) -> Settings:
    limits = {"min_free_bytes": min_free_bytes}
    return Settings.model_validate({"share": str(root / "share"), "state": str(root / "state"), "limits": limits})


def test_a_disk_with_little_room_is_named(tmp_path: Path) -> None:
    """The first folder whose disk has less than the limit; a folder that is not there has no disk."""
    settings = make_settings(tmp_path, 1 << 50)
    assert find_low_disk(settings) == ""
    for name in ("state", "share"):
        (tmp_path / name).mkdir()
        assert find_low_disk(settings).startswith(f"the disk of {tmp_path / name} is nearly full")
    assert find_low_disk(make_settings(tmp_path, 0)) == ""


@pytest.mark.parametrize(("count", "text"), [(0, "0 MiB"), (5 << 20, "5 MiB"), (3 << 29, "1.5 GiB")])
def test_sizes_are_written_for_people(count: int, text: str) -> None:
    """In MiB, from one GiB on in GiB."""
    assert format_bytes(count) == text


class Recorder(Notifier):
    """What systemd would have been told."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def _send(self, message: str) -> None:
        self.messages.append(message)


def test_a_daemon_without_room_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd is told that the service lives, and what it waits for."""
    answers = iter(["the disk is nearly full", ""])
    pauses: list[float] = []
    monkeypatch.setattr(disk_space, "find_low_disk", lambda _settings: next(answers))
    monkeypatch.setattr("agent.service.disk_space.time.sleep", pauses.append)
    notifier = Recorder()
    disk_space.await_room(make_settings(tmp_path, 0), notifier, 30.0)
    assert pauses == [disk_space.CHECK_S] * 2
    assert notifier.messages.count("WATCHDOG=1") == notifier.messages.count("EXTEND_TIMEOUT_USEC=30000000") == 2
    assert "STATUS=the disk is nearly full" in notifier.messages
