"""What is known of the files in a folder of weights: sizes, SHA-256, where they came from. Standard library only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from models.atomic import atomic_write, hash_file

NAME = "manifest.json"
SAMPLES = 64
SAMPLE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file as it was when its hash was taken: one with another size or time of change is another file."""

    path: str
    bytes: int
    mtime_ns: int
    sha256: str = ""

    def matches(self, other: Stamp) -> bool:
        return (self.bytes, self.mtime_ns) == (other.bytes, other.mtime_ns)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a manifest. `origin` is the address it was downloaded from, `source` the file it was made from."""

    stamp: Stamp
    origin: str = ""
    source: Stamp | None = None


def read_manifest(folder: Path) -> dict[str, Entry]:
    """Return name -> entry; empty where there is no manifest or it is not valid: then hashes are taken again."""
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return {name: _parse_entry(value) for name, value in found["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _parse_entry(value: dict[str, Any]) -> Entry:
    source = value.get("source")
    return Entry(Stamp(**value["stamp"]), str(value.get("origin", "")), Stamp(**source) if source else None)


def write_entry(folder: Path, name: str, entry: Entry) -> None:
    """Add or replace one line; the file is whole at every moment."""
    entries = {**read_manifest(folder), name: entry}
    text = json.dumps({"version": 1, "files": {n: asdict(e) for n, e in sorted(entries.items())}}, indent=1)
    with atomic_write(folder / NAME) as path:
        path.write_text(text + "\n", encoding="utf-8")


def stamp_of(path: Path) -> Stamp:
    """Return the stamp of a file as it is now, without its hash."""
    facts = path.stat()
    return Stamp(str(path), facts.st_size, facts.st_mtime_ns)


def stamp_files(files: Iterable[Path]) -> str:
    """Return a hash of names, sizes and times of files, "" for none: another as soon as one is replaced. Reads none.

    Raises OSError for a file that isn't there.
    """
    lines = [f"{stamp.path} {stamp.bytes} {stamp.mtime_ns}" for stamp in map(stamp_of, files)]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest() if lines else ""


def hashed_stamp(path: Path, tick: Callable[[int], None] = lambda _: None) -> Stamp:
    """Return the stamp of a file with its SHA-256; `tick` is told the bytes read."""
    return replace(stamp_of(path), sha256=hash_file(path, tick))


def recorded_sha256(folder: Path, name: str) -> str:
    """Return the hash that the manifest of `folder` holds for `name`; "" if the file has changed since."""
    entry = read_manifest(folder).get(name)
    if entry is None or not entry.stamp.matches(stamp_of(folder / name)):
        return ""
    return entry.stamp.sha256


def sample_hash(path: Path) -> str:
    """Return a hash of the size and of 64 samples of the content: fast, and no proof of equality."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for sample in range(SAMPLES):
            file.seek(max(0, size - SAMPLE_BYTES) * sample // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
