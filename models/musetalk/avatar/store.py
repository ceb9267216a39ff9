"""A prepared avatar on the disk: boxes, latents and masks of its frames, without the frames.

    about.json    source file, options, number of frames; `musedrop avatar list` shows it
    track.npz     boxes (n, 4), regions (n, 4), seen (n,), mask_ends (n,), bare (n, 6, 3)
    latents.f32   (n, 8, 32, 32) float32, one frame after another
    masks.zz      the masks of all frames, each compressed by itself

It is written from front to back and read frame by frame, so that memory does not grow with the
avatar. No file of it can run code.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from models.arrays import F32, I32, I64, U8, Bool, Floats
from models.musetalk.geometry import Box
from models.quality.meter import count_steps

ABOUT, TRACK, LATENTS, MASKS = "about.json", "track.npz", "latents.f32", "masks.zz"
LATENT_SHAPE = (8, 32, 32)
LATENT_BYTES = 4 * 8 * 32 * 32
PAINTED = (0.25, 0.5, 0.75, 1.0)
"""What is inpainted of a face, as left, top, right and bottom in shares of its box."""
ZLIB_LEVEL = 1
"""The fastest level: masks are mostly 0 and 255."""


@dataclass(frozen=True, slots=True)
class AvatarTrack:
    """The box that the face fills in each frame, (n, 4), and whether a face was seen, (n,)."""

    boxes: I32
    seen: Bool


class AvatarWriter:
    """Writes the frames of an avatar in order, then the rest at `close`.

    Raises OSError where the disk is full.
    """

    def __init__(self, folder: Path, track: AvatarTrack) -> None:
        self.folder, self.track = folder, track
        self.regions = np.zeros_like(track.boxes)
        self.mask_ends = np.zeros(len(track.seen), np.int64)
        self.bare = np.zeros((len(track.seen), count_steps("above"), 3), np.float32)
        self._next = 0
        self._latents: IO[bytes] = (folder / LATENTS).open("wb")
        self._masks: IO[bytes] = (folder / MASKS).open("wb")

    def add(self, latents: F32 | None, mask: U8 | None, region: Box = (0, 0, 0, 0), bare: Floats | None = None) -> None:
        """Write the next frame: latents (8, 32, 32), and the mask (h, w) of its region.

        `bare` are the steps of tone that it has where the mouth will end, (6, 3). None where no face was seen.
        """
        number = self._next
        self._latents.write(bytes(LATENT_BYTES) if latents is None else latents.astype("<f4").tobytes())
        if mask is not None:
            self._masks.write(zlib.compress(mask.tobytes(), ZLIB_LEVEL))
            self.regions[number] = region
        if bare is not None:
            self.bare[number] = bare
        self.mask_ends[number] = self._masks.tell()
        self._next += 1

    def close(self, about: dict[str, Any]) -> None:
        """Write what is known only at the end.

        `about` is JSON. Raises ValueError if frames are missing.
        """
        self.abandon()
        if self._next != len(self.track.seen):
            raise ValueError(f"{self._next} frames were prepared instead of {len(self.track.seen)}")
        np.savez(
            self.folder / TRACK,
            boxes=self.track.boxes,
            seen=self.track.seen,
            regions=self.regions,
            mask_ends=self.mask_ends,
            bare=self.bare,
        )
        (self.folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    def abandon(self) -> None:
        """Close the files; what was written is incomplete, unless `close` was called before."""
        self._latents.close()
        self._masks.close()


class PreparedAvatar:
    """A prepared avatar, open for reading.

    Raises OSError or ValueError where its files are missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about: dict[str, Any] = json.loads((folder / ABOUT).read_bytes())
        with np.load(folder / TRACK, allow_pickle=False) as track:
            self.boxes, self.seen = track["boxes"], track["seen"]
            self.regions, self._mask_ends = track["regions"], track["mask_ends"]
            self.bare: Floats | None = track.get("bare")  # older versions did not measure it

    def __len__(self) -> int:
        return len(self.seen)

    def read_latents(self, frames: I64) -> F32:
        """Return the latents of the frames with these numbers (k,): (k, 8, 32, 32) float32."""
        with (self.folder / LATENTS).open("rb") as file:
            rows = [read_exactly(file, LATENT_BYTES * int(frame), LATENT_BYTES) for frame in frames]
        return np.frombuffer(b"".join(rows), "<f4").reshape(-1, *LATENT_SHAPE).astype(np.float32)

    def read_mask(self, frame: int) -> U8:
        """Return how much of the face shows in the frame's region, (h, w) uint8 of 0 to 255."""
        start, stop = int(self._mask_ends[frame - 1]) if frame else 0, int(self._mask_ends[frame])
        with (self.folder / MASKS).open("rb") as file:
            packed = read_exactly(file, start, stop - start)
        x1, y1, x2, y2 = self.region(frame)
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(y2 - y1, x2 - x1)

    def box(self, frame: int) -> Box:
        """Return the box that the face fills."""
        return to_box(self.boxes[frame])

    def region(self, frame: int) -> Box:
        """Return the box that the mask covers."""
        return to_box(self.regions[frame])


def to_box(row: I32 | I64) -> Box:
    """Return a row (4,) of an array of boxes as a Box."""
    x1, y1, x2, y2 = (int(edge) for edge in row)
    return x1, y1, x2, y2


def read_exactly(file: IO[bytes], offset: int, count: int) -> bytes:
    """Return `count` bytes from `offset`. Raises EOFError where the file ends before."""
    file.seek(offset)
    data = file.read(count)
    if len(data) != count:
        raise EOFError(f"{file.name} ends before byte {offset + count}")
    return data
