"""From the frames of an avatar to a prepared one: look at every frame, lay the boxes, then encode and parse each.

Two walks through the frames, a few at a time, so that a long video takes no more memory than a short one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.media import Bgr
from models.musetalk.avatar.store import Track, Writer, as_box
from models.musetalk.compositing.composite import trimmed
from models.musetalk.compositing.masks import Box, Mask, blend_mask, crop_square, cut, parsing_mask
from models.musetalk.options import Options
from models.musetalk.tracking.boxes import BoxTrack, plan_boxes, reference_boxes
from models.musetalk.tracking.detection import clipped_crop, padded_crop
from models.musetalk.tracking.tracker import Follower, Nets, ReferenceFollower
from models.types import EngineError

Floats = npt.NDArray[Any]

CHUNK_BYTES = 96 << 20
"""Frames that are held at once take no more, unless a single one does."""
NO_FACE = "choose a portrait or a video that shows one face from the front, well lit and at least 60 pixels wide"


class Frames(Protocol):
    """Frames of the avatar, (height, width, 3) uint8 BGR."""

    def __len__(self) -> int: ...

    def read(self, frame: int) -> Bgr: ...


class Sight(Nets, Protocol):
    """What the networks make of pictures: `detect` and `landmarks` as FaceNets has them, and these."""

    @property
    def at_once(self) -> int:
        """Frames that are best looked at together."""
        ...

    def parse(self, squares: Sequence[Bgr]) -> npt.NDArray[np.uint8]:
        """Of each square the class of each pixel, (n, 512, 512)."""
        ...

    def latents(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, 256, 256, 3) BGR -> (n, 8, 32, 32)."""
        ...


def prepare(
    folder: Path,
    frames: Frames,
    rate: Fraction,
    sight: Sight,
    options: Options,
    about: dict[str, Any],
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Fill `folder` with the prepared avatar. `tick` is called after every few frames; what it raises ends the work.

    `rate` in frames a second; `about` is kept with it and holds the `name` of the avatar for errors.
    Raises EngineError no_face, bad_option, disk_full, and what reading frames raises.
    """
    track = look(frames, rate, sight, options, str(about["name"]), tick)
    writer = Writer(folder, Track(track.boxes.astype(np.int32), track.seen))
    try:
        for numbers, pictures in chunks(frames, sight.at_once):
            encode(writer, numbers, pictures, sight, options)
            tick()
        writer.close({**about, "frames": len(frames), **facts_of(track)})
    finally:
        writer.abandon()


def chunks(frames: Frames, at_once: int) -> Iterator[tuple[range, list[Bgr]]]:
    """All frames in order, a few at a time."""
    start = 0
    while start < len(frames):
        first = frames.read(start)
        size = max(1, min(at_once, CHUNK_BYTES // first.nbytes))
        numbers = range(start, min(start + size, len(frames)))
        yield numbers, [first, *(frames.read(number) for number in numbers[1:])]
        start = numbers.stop


# looking -------------------------------------------------------------------------------------------------------------


def look(
    frames: Frames, rate: Fraction, sight: Sight, options: Options, name: str, tick: Callable[[], None]
) -> BoxTrack:
    """Where the face is in all frames. Raises EngineError no_face, bad_option."""
    follower = ReferenceFollower(sight) if options.exact else Follower(sight, options.face)
    size = (0, 0)
    for _, pictures in chunks(frames, sight.at_once):
        follower.feed(pictures)
        size = (pictures[0].shape[1], pictures[0].shape[0])
        tick()
    found = follower.finish()
    if not found.seen:
        raise nobody(name, found.most, options)
    shift, margin = options.shift, options.margin
    if options.exact:
        track = reference_boxes(found.landmarks, found.detected, size, shift=shift, margin=margin)
    else:
        track = plan_boxes(
            found.landmarks,
            found.detected,
            size,
            shift=shift,
            margin=margin,
            cuts=found.cuts,
            rate=float(rate),
            smooth=options.smooth,
        )
    if not track.seen.any():
        raise nobody(name, 0, options)
    return track


def nobody(name: str, most: int, options: Options) -> EngineError:
    if most and options.face != "largest":
        message = f'the option "face" asks for number {options.face}, but {name} shows {most}, counted from 0'
        return EngineError("bad_option", message, 'give a smaller number, or "largest"')
    return EngineError("no_face", f"no face was found in {name}", NO_FACE)


def facts_of(track: BoxTrack) -> dict[str, Any]:
    """What the result says of the boxes."""
    return {
        "jitter_px": round(track.jitter_px, 2),
        "raw_jitter_px": round(track.raw_jitter_px, 2),
        "cuts": list(track.cuts),
        "shift_range": list(track.shift_range),
    }


# encoding ------------------------------------------------------------------------------------------------------------


def encode(writer: Writer, numbers: range, pictures: list[Bgr], sight: Sight, options: Options) -> None:
    """Add some frames: the faces and squares of those that show one go through the networks together."""
    track = writer.track
    seen = {number: picture for number, picture in zip(numbers, pictures, strict=True) if track.seen[number]}
    boxes = [as_box(track.boxes[number]) for number in seen]
    done: dict[int, tuple[npt.NDArray[np.float32], Mask, Box]] = {}
    if seen:
        crop = clipped_crop if options.exact else padded_crop
        faces = [crop(picture, box) for picture, box in zip(seen.values(), boxes, strict=True)]
        squares = [cut(picture, crop_square(box)) for picture, box in zip(seen.values(), boxes, strict=True)]
        latents, classes = sight.latents(np.stack(faces)), sight.parse(squares)
        for row, (number, picture) in enumerate(seen.items()):
            size = (picture.shape[1], picture.shape[0])
            done[number] = (latents[row], *mask_of(classes[row], boxes[row], size, options))
    for number in numbers:
        writer.add(*done.get(number, (None, None)))


def mask_of(classes: npt.NDArray[np.uint8], box: Box, size: tuple[int, int], options: Options) -> tuple[Mask, Box]:
    """The mask of a frame of that size (width, height), as small as it can be, and its place."""
    crop = crop_square(box)
    parsing = parsing_mask(classes, options.parsing, options.cheeks)
    mask = blend_mask(parsing, box, crop, prepared=options.way == "realtime")
    return trimmed(mask, box, crop, size)
