"""Configs that have no hash which could be confirmed: a download is held to the values of the published one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class KnownConfig:
    """The values of a config that decide what a network computes.

    values       all of them
    is_complete  whether a file may say nothing else; names with "_" in front say who wrote it
    """

    values: Mapping[str, Any]
    is_complete: bool = True


def find_other_value(path: Path, known: KnownConfig) -> str:
    """Return in what a config differs from the published one; "" if in nothing that a network would notice."""
    if path.stat().st_size > LARGEST_BYTES:
        return "too large for a config"
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return "no JSON"
    if not isinstance(found, dict):
        return "JSON, but no object"
    for name, value in found.items():
        wanted = known.values.get(name, value if name.startswith("_") or not known.is_complete else None)
        if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
            return f"{name} {str(value)[:40]} instead of {wanted}"
    return ""
