"""Prepares an avatar: tracks its face, plans boxes, then encodes and parses each frame.

The frames are read twice, in small batches, so that a long video takes no more memory than a short
one: boxes are smoothed over all frames before the first face is cut out. A thread reads ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from models.arrays import F32, F64, U8
from models.media.prefetch import closing_all, prefetch
from models.musetalk.avatar.store import PAINTED, AvatarTrack, AvatarWriter, to_box
from models.musetalk.compositing.composite import trim_mask
from models.musetalk.compositing.mask_smoothing import SMOOTH_S, smooth_masks
from models.musetalk.compositing.masks import (
    complete_parsing_mask,
    crop_square,
    make_blend_mask,
    make_parsing_mask,
    square_around,
)
from models.musetalk.geometry import Box, Size
from models.musetalk.options import Options
from models.musetalk.tracking.boxes import BoxTrack, plan_boxes, plan_reference_boxes
from models.musetalk.tracking.crops import crop_clipped, crop_padded
from models.musetalk.tracking.intervals import split_at_cuts
from models.musetalk.tracking.landmarks import DEFAULT_LAYOUT
from models.musetalk.tracking.tracker import FaceModels, FaceTracker, ReferenceTracker
from models.quality.meter import measure_steps
from models.quality.trace import take_share
from models.types import EngineError

BATCHES_AHEAD = 1
MAX_BATCH_BYTES = 96 << 20
"""Most that the frames of a batch take, unless a single one takes more."""
NO_FACE_HINT = "choose a portrait or a video that shows one face from the front, well lit and at least 60 pixels wide"


class FrameSource(Protocol):
    """Frames of the avatar, (height, width, 3) uint8 BGR."""

    def __len__(self) -> int: ...

    def read(self, frame: int) -> U8: ...


class VisionModels(FaceModels, Protocol):
    """The networks that prepare an avatar."""

    @property
    def frames_per_batch(self) -> int:
        """Frames that are analysed together."""
        ...

    def parse_faces(self, squares: Sequence[U8]) -> U8:
        """Return the class of each pixel of faces (m, m, 3), any m: (n, 512, 512) uint8."""
        ...

    def encode_faces(self, faces: U8) -> F32:
        """Return the latents of faces (n, 256, 256, 3) uint8 BGR: (n, 8, 32, 32) float32.

        Four channels are those of the face with its lower half hidden, four of the whole face.
        """
        ...


def prepare_avatar(
    folder: Path,
    frames: FrameSource,
    rate: Fraction,
    models: VisionModels,
    options: Options,
    about: dict[str, Any],
    tick: Callable[[], None] = lambda: None,
    face_box: Sequence[float] | None = None,
    count: int = 0,
) -> None:
    """Fill `folder` with the prepared avatar.

    rate      frames a second
    about     JSON that is stored with the avatar; its `name` names the file in errors
    tick      called after each batch of frames; may raise to cancel the work
    face_box  x, y, width, height in pixels of the face in all frames; None: it is searched
    count     faces that are told apart, of which `options.face` is one; 0: only that one is searched

    Raises EngineError no_face, bad_option, disk_full, and what reading frames raises.
    """
    if face_box is not None:
        track = place_face(frames, face_box, options)
    else:
        track = track_face(frames, rate, models, options, str(about["name"]), tick, count)
    writer = AvatarWriter(folder, AvatarTrack(track.boxes.astype(np.int32), track.seen))
    try:
        with read_ahead(frames, models.frames_per_batch) as batches:
            write_frames(writer, encode_frames(track, batches, models, options, tick), track, rate, options)
        writer.close({**about, "frames": len(frames), **summarize_track(track)})
    finally:
        writer.abandon()


def read_batches(frames: FrameSource, frames_per_batch: int) -> Iterator[tuple[range, list[U8]]]:
    """Yield all frames in order, in batches: their numbers, and the frames."""
    start = 0
    while start < len(frames):
        first = frames.read(start)
        size = max(1, min(frames_per_batch, MAX_BATCH_BYTES // first.nbytes))
        numbers = range(start, min(start + size, len(frames)))
        yield numbers, [first, *(frames.read(number) for number in numbers[1:])]
        start = numbers.stop


@contextmanager
def read_ahead(frames: FrameSource, frames_per_batch: int) -> Iterator[Iterator[tuple[range, list[U8]]]]:
    """Give the batches of `read_batches`, of which the next is decoded while the networks see one."""
    with closing_all(batches := prefetch(read_batches(frames, frames_per_batch), BATCHES_AHEAD)):
        yield batches


# tracking ------------------------------------------------------------------------------------------------------------


def track_face(
    frames: FrameSource,
    rate: Fraction,
    models: VisionModels,
    options: Options,
    name: str,
    tick: Callable[[], None],
    count: int = 0,
) -> BoxTrack:
    """Return the boxes of the face in all frames. Raises EngineError no_face, bad_option."""
    tracker = ReferenceTracker(models) if options.is_reference else FaceTracker(models, options.face, count)
    size = (0, 0)
    with read_ahead(frames, models.frames_per_batch) as batches:
        for _, pictures in batches:
            tracker.add_frames(pictures)
            size = (pictures[0].shape[1], pictures[0].shape[0])
            tick()
    face = tracker.finish()
    if not face.has_face:
        raise no_face_error(name, face.max_faces, options)
    shift, margin = options.shift_px, options.margin_px
    if options.is_reference:
        track = plan_reference_boxes(face.landmarks, face.detected, size, shift=shift, margin=margin)
    else:
        track = plan_boxes(
            face.landmarks,
            face.detected,
            size,
            shift=shift,
            margin=margin,
            margin_share=options.margin_share,
            cuts=face.cuts,
            rate=float(rate),
            smooth=options.has_smooth_boxes,
        )
    if not track.seen.any():
        raise no_face_error(name, 0, options)
    return track


def place_face(frames: FrameSource, face_box: Sequence[float], options: Options) -> BoxTrack:
    """Return the boxes of a face that is in the same place in all frames."""
    height, width = frames.read(0).shape[:2]
    x, y, w, h = face_box
    detected = np.array([[x, y, x + w, y + h, 1.0]] * len(frames))
    landmarks = np.array([[x, y]]) + DEFAULT_LAYOUT * np.array([[w, h]])
    points = np.repeat(landmarks[None], len(frames), axis=0)
    return plan_boxes(
        points,
        detected,
        (width, height),
        shift=options.shift_px,
        margin=options.margin_px,
        margin_share=options.margin_share,
        smooth=False,
    )


def no_face_error(name: str, max_faces: int, options: Options) -> EngineError:
    """Return bad_option where other faces were found than the job asks for, else no_face."""
    if max_faces and options.face != "largest":
        message = f'the option "face" asks for number {options.face}, but {name} shows {max_faces}, counted from 0'
        return EngineError("bad_option", message, 'give a smaller number, or "largest"')
    return EngineError("no_face", f"no face was found in {name}", NO_FACE_HINT)


def summarize_track(track: BoxTrack) -> dict[str, Any]:
    """Return what the result says about the boxes, as JSON."""
    return {
        "jitter_px": round(track.jitter_px, 2),
        "raw_jitter_px": round(track.raw_jitter_px, 2),
        "cuts": list(track.cuts),
        "shift_range": list(track.shift_range),
    }


# encoding ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """What the networks made of a frame; None where no face was seen.

    latents   (8, 32, 32) float32
    parsing   (512, 512) uint8, which pixels of the square about the face may be inpainted
    bare      what `measure_steps` returns of the upper edge of what is inpainted
    """

    size: Size
    latents: F32 | None = None
    parsing: U8 | None = None
    bare: F64 | None = None


def encode_frames(
    track: BoxTrack,
    batches: Iterator[tuple[range, list[U8]]],
    models: VisionModels,
    options: Options,
    tick: Callable[[], None],
) -> Iterator[EncodedFrame]:
    """Yield all frames in order; the faces of a batch go through the networks together."""
    crop = crop_clipped if options.is_reference else partial(crop_padded, antialias=options.has_antialiasing)
    for numbers, pictures in batches:
        boxes = {number: to_box(track.boxes[number]) for number in numbers if track.seen[number]}
        encoded: dict[int, tuple[F32, U8, F64]] = {}
        if boxes:
            seen = [pictures[number - numbers.start] for number in boxes]
            faces = [crop(picture, box) for picture, box in zip(seen, boxes.values(), strict=True)]
            squares = [crop_square(one, square_around(box)) for one, box in zip(seen, boxes.values(), strict=True)]
            latents, classes = models.encode_faces(np.stack(faces)), models.parse_faces(squares)
            for row, (number, box) in enumerate(boxes.items()):
                bare = measure_bare_steps(seen[row], box)
                encoded[number] = latents[row], choose_parsing_mask(classes[row], box, options), bare
        for number, picture in zip(numbers, pictures, strict=True):
            yield EncodedFrame((picture.shape[1], picture.shape[0]), *encoded.get(number, (None, None, None)))
        tick()


def measure_bare_steps(picture: U8, box: Box) -> F64:
    """Return the steps of tone that a picture has where the inpainted part of the face in a box will end, (6, 3)."""
    x1, y1, x2, y2 = box
    [painted] = take_share(np.array([[x1, y1, x2 - x1, y2 - y1]], np.float64), *PAINTED)
    return measure_steps(picture, painted, len(picture), "above")


def choose_parsing_mask(classes: U8, box: Box, options: Options) -> U8:
    """Return which pixels of a parsed face, (512, 512), may be inpainted."""
    parsing = make_parsing_mask(classes, options.parsing, options.cheek_widths)
    return parsing if options.face_box is None else complete_parsing_mask(parsing, box)


def write_frames(
    writer: AvatarWriter, frames: Iterator[EncodedFrame], track: BoxTrack, rate: Fraction, options: Options
) -> None:
    """Add the frames to the avatar, with masks that are smoothed over time where the options say so."""
    frames, ahead = tee(frames)
    masks: Iterator[U8 | None] = (frame.parsing for frame in ahead)
    if options.has_smooth_masks:
        masks = smooth_masks(masks, list(split_at_cuts(len(track.seen), track.cuts)), SMOOTH_S * float(rate))
    for number, (frame, parsing) in enumerate(zip(frames, masks, strict=True)):
        if parsing is None:
            writer.add(None, None)
        else:
            mask, region = make_mask(parsing, to_box(track.boxes[number]), frame.size, options)
            writer.add(frame.latents, mask, region, frame.bare)


def make_mask(parsing: U8, box: Box, size: Size, options: Options) -> tuple[U8, Box]:
    """Return the mask of a frame of that size, trimmed to what shows, and the box that it covers."""
    crop = square_around(box)
    mask = make_blend_mask(parsing, box, crop, prepared=options.way == "realtime")
    return trim_mask(mask, box, crop, size)
