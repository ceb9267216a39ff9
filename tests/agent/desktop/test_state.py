"""What the tray says of a share."""

from __future__ import annotations

import json

from agent.desktop.state import read_state
from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from agent.settings import Settings
from tests.agent.samples import add_job


def write_status(settings: Settings, **status: object) -> None:
    settings.folders.status_file.write_text(json.dumps(status))


def test_what_a_person_should_see_first_decides(settings: Settings) -> None:
    """No daemon comes before trouble, trouble before work, work before a pause."""
    assert read_state(settings, "no daemon is running").kind == "away"
    ledger = Ledger(settings.folders.ledger)
    assert read_state(settings, "").kind == "idle"
    write_status(settings, paused=True)
    assert read_state(settings, "").kind == "paused"
    add_job(ledger, "u1", state=JobState.RUNNING, name="hello\x1b")
    state = read_state(settings, "")
    assert (state.kind, state.is_paused) == ("working", True)
    assert "hello\\x1b: 0 %" in state.lines
    write_status(settings, problems=["the share is away"])
    state = read_state(settings, "")
    assert (state.kind, state.lines[0]) == ("trouble", "the share is away")
    state = read_state(settings, "no daemon is running")
    assert (state.kind, state.lines[0]) == ("away", "no daemon is running")
    ledger.close()


def test_the_newest_three_videos_are_named(settings: Settings) -> None:
    """The menu has the three newest results with their paths."""
    ledger = Ledger(settings.folders.ledger)
    for number in range(5):
        add_job(ledger, f"u{number}", state=JobState.DONE, at_ms=number * 1000, name=f"clip {number}")
    results = read_state(settings, "").results
    assert [name for name, _ in results] == ["clip 4", "clip 3", "clip 2"]
    assert results[0][1] == settings.folders.outbox / "clip 4" / "result.mp4"
    ledger.close()


def test_rubbish_ends_nothing(settings: Settings) -> None:
    """A damaged ledger and a status file that is none are said."""
    settings.folders.ledger.write_bytes(b"rubbish" * 1000)
    settings.folders.status_file.write_bytes(b"[" * 100_000)
    state = read_state(settings, "")
    assert state.kind == "away"
    assert "damaged" in state.lines[0]
