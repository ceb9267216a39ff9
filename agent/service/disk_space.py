"""Whether the disks have room."""

from __future__ import annotations

import shutil
import time
from math import inf
from pathlib import Path

from agent.service.systemd import Notifier
from agent.settings import Settings

CHECK_S = 1.0


def find_low_disk(settings: Settings) -> str:
    """Return which folder's disk is too full to start another job, "" if none is."""
    min_bytes = settings.limits.min_free_bytes
    for folder in (settings.share, settings.state):
        if count_free_bytes(folder) < min_bytes:
            return f"the disk of {folder} is nearly full: jobs wait until {format_bytes(min_bytes)} are free"
    return ""


def count_free_bytes(folder: Path) -> float:
    """Return the bytes that are free on the disk of a folder; without limit where that can't be found out."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return inf


def format_bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def await_room(settings: Settings, notifier: Notifier, margin_s: float) -> None:
    """Wait at least a moment, until the disks have room; systemd is told so, and allows `margin_s` more each time."""
    low_disk = "not known yet"
    while low_disk:
        notifier.send_alive()
        notifier.extend_timeout(margin_s)
        time.sleep(CHECK_S)
        if low_disk := find_low_disk(settings):
            notifier.send_status(low_disk)
