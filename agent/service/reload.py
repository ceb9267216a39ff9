"""SIGHUP: which changed settings come into force while the daemon runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from agent.settings import Settings

LIVE = (
    "inbox.",
    "limits.",
    "output.",
    "status.",
    "speech.",
    "quality.",
    "credentials.",
    "cache.max_gib",
    "log.level",
    "log.format",
    "pool.max_interruptions",
    "pool.drain_s",
)
"""Keys, or how they begin. All others are read once: folders are open and workers have been started with them."""


def merge_settings(old: Settings, new: Settings) -> tuple[Settings, list[str], list[str]]:
    """Return the settings from now on, the keys that were taken over, and those that need a restart."""
    before, after = dict(flatten_settings(old)), dict(flatten_settings(new))
    changed = [key for key in after if after[key] != before[key]]
    taken = [key for key in changed if key.startswith(LIVE)]
    updates: dict[str, dict[str, Any]] = defaultdict(dict)
    for key in taken:
        section, _, name = key.partition(".")
        updates[section][name] = after[key]
    sections = {section: getattr(old, section).model_copy(update=values) for section, values in updates.items()}
    return old.model_copy(update=sections), taken, [key for key in changed if key not in taken]


def flatten_settings(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Yield every key by its dotted name, with its value."""
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from ((f"{name}.{key}", getattr(value, key)) for key in type(value).model_fields)
        else:
            yield name, value
