"""A pause of the queue that ends by itself, also when the tray was started anew meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from agent import client
from agent.settings import Settings

HOUR_S = 3600.0


def find_state_file(env: Mapping[str, str]) -> Path:
    """Return where the tray keeps what it must not forget."""
    base = env.get("XDG_STATE_HOME") or str(Path(env.get("HOME", "/"), ".local", "state"))
    return Path(base, "musedrop", "tray.json")


class TimedPause:
    """Pauses the queue, and lets it go on when the time is over. `now_s`: seconds since 1970."""

    def __init__(self, settings: Settings, state: Path, now_s: Callable[[], float] = time.time) -> None:
        self._settings, self._state, self._now_s = settings, state, now_s
        self.until_s = self._read()

    def pause(self, seconds: float | None) -> None:
        """Pause the queue, for so long or until somebody resumes it."""
        client.control_queue(self._settings, "pause")
        self._set(None if seconds is None else self._now_s() + min(seconds, HOUR_S))

    def resume(self) -> None:
        client.control_queue(self._settings, "resume")
        self._set(None)

    def check(self) -> None:
        """Let the queue go on if the time is over."""
        if self.until_s is not None and self._now_s() >= self.until_s:
            self.resume()

    def _set(self, until_s: float | None) -> None:
        self.until_s = until_s
        if until_s is None:
            self._state.unlink(missing_ok=True)
            return
        with suppress(OSError):
            self._state.parent.mkdir(parents=True, exist_ok=True)
            self._state.write_text(json.dumps({"resume_at": until_s}))

    def _read(self) -> float | None:
        """Return when the queue goes on; a time further away than an hour is that of another clock."""
        try:
            until_s = float(json.loads(self._state.read_text())["resume_at"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return min(until_s, self._now_s() + HOUR_S)
