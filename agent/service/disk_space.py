"""Whether the disks have room."""

from __future__ import annotations

import shutil
from pathlib import Path

from agent.settings import Settings


def low_space(settings: Settings) -> str:
    """Which folder's disk is too full to start another job, "" if none is."""
    least = settings.limits.min_free_bytes
    for folder in filter(Path.is_dir, (settings.share, settings.state)):
        if shutil.disk_usage(folder).free < least:
            return f"the disk of {folder} is nearly full: jobs wait until {sized(least)} are free"
    return ""


def sized(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
