"""A prepared avatar on the disk: boxes, latents and masks of each of its frames. The frames stay in the avatar itself.

    about.json    of which file, by which options, how many frames; what `musedrop avatar list` shows
    track.npz     boxes, squares (n, 4), regions (n, 4), seen (n,), mask_ends (n,)
    latents.f32   (n, 8, 32, 32) float32, one frame after another
    masks.zz      the masks of all frames, each packed by itself

Written front to back without holding more than a few frames; read frame by frame. Nothing in it can run code.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from models.atomic import atomic_folder
from models.avatars import AvatarCache, hash_files, read_manifest
from models.musetalk.compositing.masks import Box, Mask

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

STATS, INPAINTER_STATS = "facts.json", "painted.json"
"""Of a job: what its preparation found, beside the prepared avatar; how it was painted, in its work folder."""
ABOUT, TRACK, LATENTS, MASKS = "about.json", "track.npz", "latents.f32", "masks.zz"
LATENT_SHAPE = (8, 32, 32)
LATENT_BYTES = 4 * 8 * 32 * 32
ZLIB_LEVEL = 1
"""zlib's fastest level: masks are mostly 0 and 255."""
MAX_REBUILDS = 2
"""How often an entry that turns out to be damaged is built again before its error is told."""


@dataclass(frozen=True, slots=True)
class AvatarTrack:
    """Of each frame of the avatar: `boxes` (n, 4) that the face fills, and whether one was `seen` (n,)."""

    boxes: Ints
    seen: npt.NDArray[np.bool_]


class AvatarWriter:
    """Takes the frames in order. `close` writes what is known only at the end."""

    def __init__(self, folder: Path, track: AvatarTrack) -> None:
        self.folder, self.track = folder, track
        self.regions = np.zeros_like(track.boxes)
        self.mask_ends = np.zeros(len(track.seen), np.int64)
        self._next = 0
        self._latents: IO[bytes] = (folder / LATENTS).open("wb")
        self._masks: IO[bytes] = (folder / MASKS).open("wb")

    def add(self, latents: Floats | None, mask: Mask | None, region: Box = (0, 0, 0, 0)) -> None:
        """The next frame; None where no face is seen, so that nothing is ever painted."""
        number = self._next
        self._latents.write(bytes(LATENT_BYTES) if latents is None else latents.astype("<f4").tobytes())
        if mask is not None:
            self._masks.write(zlib.compress(mask.tobytes(), ZLIB_LEVEL))
            self.regions[number] = region
        self.mask_ends[number] = self._masks.tell()
        self._next += 1

    def close(self, about: dict[str, Any]) -> None:
        """Raises ValueError if frames are missing."""
        self.abandon()
        if self._next != len(self.track.seen):
            raise ValueError(f"{self._next} frames were prepared instead of {len(self.track.seen)}")
        np.savez(
            self.folder / TRACK,
            boxes=self.track.boxes,
            seen=self.track.seen,
            regions=self.regions,
            mask_ends=self.mask_ends,
        )
        (self.folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    def abandon(self) -> None:
        self._latents.close()
        self._masks.close()


class PreparedAvatar:
    """A prepared avatar, open for reading."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about: dict[str, Any] = json.loads((folder / ABOUT).read_bytes())
        with np.load(folder / TRACK, allow_pickle=False) as track:
            self.boxes, self.seen = track["boxes"], track["seen"]
            self.regions, self._mask_ends = track["regions"], track["mask_ends"]

    def __len__(self) -> int:
        return len(self.seen)

    def latents(self, frames: npt.NDArray[np.int64]) -> Floats:
        """(k, 8, 32, 32) float32 of the frames with these numbers."""
        with (self.folder / LATENTS).open("rb") as file:
            rows = [read_exactly(file, LATENT_BYTES * int(frame), LATENT_BYTES) for frame in frames]
        return np.frombuffer(b"".join(rows), "<f4").reshape(-1, *LATENT_SHAPE).astype(np.float32)

    def mask(self, frame: int) -> Mask:
        """What of the region of this frame shows the painted face, (h, w) of 0 to 255."""
        start, stop = int(self._mask_ends[frame - 1]) if frame else 0, int(self._mask_ends[frame])
        with (self.folder / MASKS).open("rb") as file:
            packed = read_exactly(file, start, stop - start)
        x1, y1, x2, y2 = self.region(frame)
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(y2 - y1, x2 - x1)

    def box(self, frame: int) -> Box:
        return to_box(self.boxes[frame])

    def region(self, frame: int) -> Box:
        return to_box(self.regions[frame])


def to_box(row: Any) -> Box:
    x1, y1, x2, y2 = (int(edge) for edge in row)
    return x1, y1, x2, y2


def read_exactly(file: IO[bytes], offset: int, count: int) -> bytes:
    file.seek(offset)
    data = file.read(count)
    if len(data) != count:
        raise EOFError(f"{file.name} ends before byte {offset + count}")
    return data


# the cache -----------------------------------------------------------------------------------------------------------


def fetch_avatar(
    cache: AvatarCache, key: str, build: Callable[[Path], None], target: Path, waiting: Callable[[], None]
) -> bool:
    """Put the entry of `key` into the folder `target`, which must not exist; True if it had been there already.

    The files are linked, not copied, and stay for this job when the cache drops the entry. An entry whose files are
    not what was written is built anew. Raises what `build` raises, and EngineError disk_full.
    """
    built = False

    def build_noting(folder: Path) -> None:
        nonlocal built
        built = True
        build(folder)

    for attempt in range(MAX_REBUILDS + 1):
        entry = cache.get_or_build(key, build_noting, waiting)
        if read_manifest(entry) == hash_files(entry):
            break
        cache.invalidate(key)
        if attempt == MAX_REBUILDS:
            raise OSError(f"the prepared avatar {key[:12]} is damaged each time it is read: is the disk all right?")
    with atomic_folder(target) as beside:
        for path in sorted(entry.iterdir()):
            link_or_copy(path, beside / path.name)
    cache.release(key)
    return not built


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where that is not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
