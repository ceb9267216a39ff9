"""What is to be said of a weight file: there, of the right shapes, with the right checksum, or how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.atomic import hash_file
from models.checkpoints.manifest import read_manifest
from models.checkpoints.sources import Source

Tick = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one file: "ok", "note" (fine, but worth knowing) or "bad"; what was found, and what to do about it."""

    verdict: Literal["ok", "note", "bad"]
    file: str
    found: str
    advice: str = ""


def judge_hash(root: Path, file: str, what: str, source: Source | None, repair: str, tick: Tick) -> Verdict:
    """Compare the checksum of one file with the published one, or with the one in the manifest.

    `what` is said of the file where it is right, `repair` how to get it again.
    """
    path = root / file
    published = source.sha256 if source else None
    recorded = find_recorded_hash(path, file, root)
    if published is None and not recorded:
        return Verdict("ok", file, f"{what}; no checksum is known")
    actual = hash_file(path, tick)
    if actual == published:
        return Verdict("ok", file, f"{what}; SHA-256 as published")
    if actual == recorded:
        return Verdict("ok", file, f"{what}; SHA-256 as recorded")
    if not recorded and source and path.stat().st_size != source.bytes:
        return Verdict("note", file, f"{what}, but not the published file", f"if it should be, {repair}")
    against = "recorded" if recorded else "published"
    mend = f"if you did not change it yourself, {repair}"
    return Verdict("bad", file, f"{what}, but its SHA-256 is not the one {against}", mend)


def find_recorded_hash(path: Path, file: str, root: Path) -> str:
    """Return the hash in a manifest: that of the folder (downloads) or the one beside it (conversions)."""
    entry = read_manifest(root).get(file) or read_manifest(path.parent).get(path.name)
    return entry.stamp.sha256 if entry else ""
