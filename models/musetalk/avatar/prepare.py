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
from models.musetalk.avatar.store import AvatarTrack, AvatarWriter, to_box
from models.musetalk.compositing.composite import trim_mask
from models.musetalk.compositing.masks import Box, Mask, crop_square, make_blend_mask, make_parsing_mask, square_around
from models.musetalk.options import Options
from models.musetalk.tracking.boxes import BoxTrack, plan_boxes, plan_reference_boxes
from models.musetalk.tracking.detection import crop_clipped, crop_padded
from models.musetalk.tracking.tracker import FaceModels, FaceTracker, ReferenceTracker
from models.types import EngineError

Floats = npt.NDArray[Any]

MAX_BATCH_BYTES = 96 << 20
"""Frames that are held at once take no more, unless a single one does."""
NO_FACE_HINT = "choose a portrait or a video that shows one face from the front, well lit and at least 60 pixels wide"


class FrameSource(Protocol):
    """Frames of the avatar, (height, width, 3) uint8 BGR."""

    def __len__(self) -> int: ...

    def read(self, frame: int) -> Bgr: ...


class VisionModels(FaceModels, Protocol):
    """What the networks make of pictures: `detect` and `landmarks` as FaceNets has them, and these."""

    @property
    def frames_per_batch(self) -> int:
        """Frames that are best looked at together."""
        ...

    def parse(self, squares: Sequence[Bgr]) -> npt.NDArray[np.uint8]:
        """Of each square the class of each pixel, (n, 512, 512)."""
        ...

    def latents(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, 256, 256, 3) BGR -> (n, 8, 32, 32)."""
        ...


def prepare_avatar(
    folder: Path,
    frames: FrameSource,
    rate: Fraction,
    sight: VisionModels,
    options: Options,
    about: dict[str, Any],
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Fill `folder` with the prepared avatar. `tick` is called after every few frames; what it raises ends the work.

    `rate` in frames a second; `about` is kept with it and holds the `name` of the avatar for errors.
    Raises EngineError no_face, bad_option, disk_full, and what reading frames raises.
    """
    track = track_face(frames, rate, sight, options, str(about["name"]), tick)
    writer = AvatarWriter(folder, AvatarTrack(track.boxes.astype(np.int32), track.seen))
    try:
        for numbers, pictures in read_batches(frames, sight.frames_per_batch):
            encode_frames(writer, numbers, pictures, sight, options)
            tick()
        writer.close({**about, "frames": len(frames), **summarize_track(track)})
    finally:
        writer.abandon()


def read_batches(frames: FrameSource, frames_per_batch: int) -> Iterator[tuple[range, list[Bgr]]]:
    """All frames in order, a few at a time."""
    start = 0
    while start < len(frames):
        first = frames.read(start)
        size = max(1, min(frames_per_batch, MAX_BATCH_BYTES // first.nbytes))
        numbers = range(start, min(start + size, len(frames)))
        yield numbers, [first, *(frames.read(number) for number in numbers[1:])]
        start = numbers.stop


# looking -------------------------------------------------------------------------------------------------------------


def track_face(
    frames: FrameSource, rate: Fraction, sight: VisionModels, options: Options, name: str, tick: Callable[[], None]
) -> BoxTrack:
    """Where the face is in all frames. Raises EngineError no_face, bad_option."""
    follower = ReferenceTracker(sight) if options.is_reference else FaceTracker(sight, options.face)
    size = (0, 0)
    for _, pictures in read_batches(frames, sight.frames_per_batch):
        follower.add_frames(pictures)
        size = (pictures[0].shape[1], pictures[0].shape[0])
        tick()
    found = follower.finish()
    if not found.seen:
        raise no_face_error(name, found.most, options)
    shift, margin = options.shift_px, options.margin_px
    if options.is_reference:
        track = plan_reference_boxes(found.landmarks, found.detected, size, shift=shift, margin=margin)
    else:
        track = plan_boxes(
            found.landmarks,
            found.detected,
            size,
            shift=shift,
            margin=margin,
            cuts=found.cuts,
            rate=float(rate),
            smooth=options.has_smooth_boxes,
        )
    if not track.seen.any():
        raise no_face_error(name, 0, options)
    return track


def no_face_error(name: str, most: int, options: Options) -> EngineError:
    if most and options.face != "largest":
        message = f'the option "face" asks for number {options.face}, but {name} shows {most}, counted from 0'
        return EngineError("bad_option", message, 'give a smaller number, or "largest"')
    return EngineError("no_face", f"no face was found in {name}", NO_FACE_HINT)


def summarize_track(track: BoxTrack) -> dict[str, Any]:
    """What the result says of the boxes."""
    return {
        "jitter_px": round(track.jitter_px, 2),
        "raw_jitter_px": round(track.raw_jitter_px, 2),
        "cuts": list(track.cuts),
        "shift_range": list(track.shift_range),
    }


# encoding ------------------------------------------------------------------------------------------------------------


def encode_frames(
    writer: AvatarWriter, numbers: range, pictures: list[Bgr], sight: VisionModels, options: Options
) -> None:
    """Add some frames: the faces and squares of those that show one go through the networks together."""
    track = writer.track
    seen = {number: picture for number, picture in zip(numbers, pictures, strict=True) if track.seen[number]}
    boxes = [to_box(track.boxes[number]) for number in seen]
    done: dict[int, tuple[npt.NDArray[np.float32], Mask, Box]] = {}
    if seen:
        crop = crop_clipped if options.is_reference else crop_padded
        faces = [crop(picture, box) for picture, box in zip(seen.values(), boxes, strict=True)]
        squares = [crop_square(picture, square_around(box)) for picture, box in zip(seen.values(), boxes, strict=True)]
        latents, classes = sight.latents(np.stack(faces)), sight.parse(squares)
        for row, (number, picture) in enumerate(seen.items()):
            size = (picture.shape[1], picture.shape[0])
            done[number] = (latents[row], *make_mask(classes[row], boxes[row], size, options))
    for number in numbers:
        writer.add(*done.get(number, (None, None)))


def make_mask(classes: npt.NDArray[np.uint8], box: Box, size: tuple[int, int], options: Options) -> tuple[Mask, Box]:
    """The mask of a frame of that size (width, height), as small as it can be, and its place."""
    crop = square_around(box)
    parsing = make_parsing_mask(classes, options.parsing, options.cheeks)
    mask = make_blend_mask(parsing, box, crop, prepared=options.way == "realtime")
    return trim_mask(mask, box, crop, size)
