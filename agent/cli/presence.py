"""Whether a daemon serves the share: every command that shows jobs or hands some in says so when none does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.display.times import format_since
from agent.service.process import read_daemon_pid
from agent.text import escape_markup

if TYPE_CHECKING:
    from agent.settings import Settings

NO_DAEMON = 3
"""Exit code of a command that shows or waits for jobs while no daemon is running."""
SYSTEM_UNIT = Path("/etc/systemd/system/musedrop.service")
SYSTEM_SETTINGS = Path("/etc/musedrop/musedrop.toml")


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether a daemon is alive, and when the last one was, in seconds since 1970; 0 where none ever was."""

    is_alive: bool
    last_alive_at_s: float = 0.0


def find_presence(settings: Settings) -> Presence:
    """Ask the lock of the state folder. A lock that this user may not open is believed to be held."""
    lock = settings.folders.lock
    try:
        seen_at_s = lock.stat().st_mtime
        with lock.open("rb"):
            pass
    except PermissionError:
        return Presence(is_alive=True)
    except OSError:
        return Presence(is_alive=False)
    return Presence(read_daemon_pid(lock) is not None, seen_at_s)


def describe_absence(presence: Presence, source: Path, now: datetime) -> str:
    """Return the sentence for people: since when no daemon is running, and the command that starts one."""
    since = ", and none ever was"
    if presence.last_alive_at_s:
        seen = datetime.fromtimestamp(presence.last_alive_at_s, now.tzinfo).isoformat()
        since = f" since {format_since(seen, now)}"
    start = f"musedrop run -c {source}"
    if source == SYSTEM_SETTINGS and SYSTEM_UNIT.exists():
        start = "sudo systemctl start musedrop"
    return f"no daemon is running{since}: nothing happens until you start one with `{start}`"


def describe_absence_now(settings: Settings, source: Path) -> str:
    """Return why nothing happens now, "" while a daemon is running."""
    presence = find_presence(settings)
    return "" if presence.is_alive else describe_absence(presence, source, datetime.now().astimezone())


def warn_of_absence(settings: Settings, source: Path) -> bool:
    """Say on stderr that no daemon is running. Return whether one is."""
    from agent.cli.console import error_console, speak  # not in the process of the page

    presence = find_presence(settings)
    if not presence.is_alive:
        text = describe_absence(presence, source, datetime.now().astimezone())
        error_console.print(f"[yellow]![/] {escape_markup(speak(text))}", soft_wrap=True, highlight=False)
    return presence.is_alive
