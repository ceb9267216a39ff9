"""A pause for an hour ends after an hour, whatever happens to the tray."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.desktop.pauses import HOUR_S, TimedPause, find_state_file
from agent.settings import Settings


class Time:
    now_s = 1e9


@pytest.fixture
def state(tmp_path: Path) -> Path:
    Time.now_s = 1e9
    return tmp_path / "deep" / "tray.json"


def make_pause(settings: Settings, state: Path) -> TimedPause:
    return TimedPause(settings, state, lambda: Time.now_s)


def list_controls(settings: Settings) -> set[str]:
    return {path.name for path in settings.folders.inbox.iterdir()}


def test_the_queue_goes_on_after_the_time(settings: Settings, state: Path) -> None:
    """Also a tray that was started anew lets it go on, once."""
    make_pause(settings, state).pause(HOUR_S)
    assert list_controls(settings) == {"pause"}
    Time.now_s += HOUR_S - 1
    again = make_pause(settings, state)
    again.check()
    assert list_controls(settings) == {"pause"}
    Time.now_s += 1
    again.check()
    assert list_controls(settings) == {"pause", "resume"}
    assert not state.exists()
    assert make_pause(settings, state).until_s is None


def test_a_pause_without_an_end_is_not_ended(settings: Settings, state: Path) -> None:
    """A later pause without an end replaces one for an hour; so does a resume."""
    pause = make_pause(settings, state)
    pause.pause(HOUR_S)
    pause.pause(None)
    Time.now_s += 2 * HOUR_S
    pause.check()
    assert list_controls(settings) == {"pause"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"resume_at": "x"}', '{"resume_at": null}', '{"resume_at": NaN}'])
def test_a_damaged_file_is_no_pause(settings: Settings, state: Path, text: str) -> None:
    """What can't be read pauses nothing and resumes nothing."""
    state.parent.mkdir()
    state.write_text(text)
    make_pause(settings, state).check()
    assert list_controls(settings) == set()


def test_a_clock_that_was_set_back_makes_no_longer_pause(settings: Settings, state: Path) -> None:
    """An end that lies days ahead is at most an hour away."""
    make_pause(settings, state).pause(HOUR_S)
    Time.now_s -= 5 * 86400
    pause = make_pause(settings, state)
    Time.now_s += HOUR_S
    pause.check()
    assert "resume" in list_controls(settings)


def test_the_file_is_where_the_desktop_keeps_states() -> None:
    """XDG_STATE_HOME, or its default."""
    assert find_state_file({"HOME": "/home/anna"}) == Path("/home/anna/.local/state/musedrop/tray.json")
    assert find_state_file({"HOME": "/home/anna", "XDG_STATE_HOME": "/x"}) == Path("/x/musedrop/tray.json")
