"""The preview engine: moves the mouth of a portrait or a video avatar on the CPU, without downloaded weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models import media
from models.atomic import atomic_folder
from models.avatars import AvatarCache, make_key
from models.preview.face import Face, Image, find_faces, largest
from models.preview.interior import Tone, tone_of
from models.preview.label import Label
from models.preview.motion import blinks, sway
from models.preview.mouth import Mouth, find_mouth, mouth_in_box
from models.preview.options import Options, read_options
from models.preview.renderer import MouthPainter, Portrait, draw_lids, draw_mouth
from models.preview.speech import RATE, mouth_curve
from models.preview.track import Track, follow
from models.types import EngineError, Inspection, ProgressCallback, Request

Floats = npt.NDArray[Any]

VERSION = 2
"""Of the geometry in the avatar cache: a change of face, mouth or track makes older entries useless."""
LOOKS = 12
"""Frames of a video that are searched for a face before there is none."""
NO_FACE = "choose a portrait that shows one face from the front, well lit and at least 60 pixels wide"


class PreviewEngine:
    """See models.types.Engine."""

    def __init__(self, device: str) -> None:
        self.device = device

    def inspect(self, request: Request, outline: Inspection) -> Inspection:
        options, notes = read_options(request.options)
        name = Path(request.avatar).name
        picture, face = first_face(request, outline, options, name)
        mouth = the_mouth(picture, face, options, request, outline)
        if not mouth.found:
            notes += ("the mouth could not be seen clearly; it is drawn where mouths usually are",)
        return replace(
            outline,
            units={"inspect": 1, "prepare": 1, "render": outline.frames, "assemble": 1},
            notes=outline.notes + notes,
            details={"face": [round(float(value), 1) for value in face.box], "mouth_found": mouth.found},
        )

    def prepare(self, request: Request, outline: Inspection, start: int, stop: int, tick: ProgressCallback) -> None:
        options, _ = read_options(request.options)
        cache = AvatarCache(Path(request.cache), request.cache_bytes)
        key = make_key("preview", VERSION, outline.avatar_sha256, outline.width, outline.height, outline.fps)
        key = make_key(key, options.face, options.mouth)
        entry = cache.get_or_build(key, lambda folder: measure(folder, request, outline, options, lambda _: tick(0)))
        wave = media.read_waveform(request.files.audio, RATE)
        curve = mouth_curve(wave, outline.frames, outline.rate)
        curve[:, 0] = np.clip(curve[:, 0] * options.strength, 0, 1)
        blink = outline.avatar_kind == "image" if options.blink is None else options.blink
        seed = int(outline.audio_sha256[:12] or "0", 16)
        shut = blinks(outline.frames, outline.rate, seed) if blink else np.zeros(outline.frames, np.float32)
        pose = sway(curve[:, 0], outline.rate, seed)
        geometry = (entry / "geometry.npz").read_bytes()
        if not request.files.prepared.exists():
            with atomic_folder(request.files.prepared) as folder:
                np.savez(folder / "motion.npz", curve=curve, shut=shut, pose=pose)
                (folder / "geometry.npz").write_bytes(geometry)
        tick(stop - start)

    def complete(self, request: Request, outline: Inspection, tick: ProgressCallback) -> None:
        """Its preparation is one unit and leaves no parts."""

    def render(self, request: Request, outline: Inspection, start: int, stop: int) -> Iterator[Image]:
        options, _ = read_options(request.options)
        scene = Scene(request.files.prepared)
        label = Label(outline.width, outline.height, scene.face_boxes)
        for frame in self._drawn(request, outline, scene, range(start, stop)):
            if options.label:
                label.stamp(frame)
            yield frame

    def _drawn(self, request: Request, outline: Inspection, scene: Scene, frames: range) -> Iterator[Image]:
        options, _ = read_options(request.options)
        if outline.avatar_kind == "image":
            yield from scene.still(the_image(request, outline), frames, sway=options.sway)
            return
        with frames_of(request, outline) as video:
            yield from scene.moving(video, frames, options.cycle)

    def report(self, request: Request, outline: Inspection) -> dict[str, Any]:  # noqa: ARG002 - of the protocol
        options, _ = read_options(request.options)
        scene = Scene(request.files.prepared)
        lost = int((scene.track.weight == 0).sum())
        notes = [f"no face was seen in {lost} frames of the avatar; they are shown as they are"] if lost else []
        return {"thumbnail_frame": scene.thumbnail_frame, "label": options.label, "notes": notes}


# looking -------------------------------------------------------------------------------------------------------------


def frames_of(request: Request, outline: Inspection) -> media.VideoFrames:
    name = Path(request.avatar).name
    return media.VideoFrames(request.files.avatar, outline.rate, outline.width, outline.height, name=name)


def the_image(request: Request, outline: Inspection) -> Image:
    return fitted(media.read_image(request.files.avatar, Path(request.avatar).name), outline.width, outline.height)


def fitted(image: Image, width: int, height: int) -> Image:
    """Scaled to the size of the result; where only an odd row or column is too much, cut instead."""
    if 0 <= image.shape[0] - height <= 1 and 0 <= image.shape[1] - width <= 1:
        return np.ascontiguousarray(image[:height, :width])
    smaller = height < image.shape[0]
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return np.asarray(scaled, np.uint8)


def first_face(request: Request, outline: Inspection, options: Options, name: str) -> tuple[Image, Face]:
    """The picture in which the wanted face is seen first, and the face. Raises EngineError no_face, bad_option."""
    most = 0
    for picture in some_pictures(request, outline):
        faces = find_faces(picture)
        most = max(most, len(faces))
        if faces and options.face == "largest":
            return picture, largest(faces)
        if isinstance(options.face, int) and options.face < len(faces):
            return picture, faces[options.face]
    if not most:
        raise EngineError("no_face", f"no face was found in {name}", NO_FACE)
    message = (
        f'the option "face" asks for number {options.face}, but {name} shows {most} (counted from 0, left to right)'
    )
    raise EngineError("bad_option", message, 'give a smaller number, or "largest"')


def some_pictures(request: Request, outline: Inspection) -> Iterator[Image]:
    if outline.avatar_kind == "image":
        yield the_image(request, outline)
        return
    with frames_of(request, outline) as video:
        for n in sorted({len(video) * k // LOOKS for k in range(LOOKS)}):
            yield video.read(n)


def the_mouth(picture: Image, face: Face, options: Options, request: Request, outline: Inspection) -> Mouth:
    if options.mouth is None:
        return find_mouth(picture, face)
    known = media.read_picture(request.files.avatar, Path(request.avatar).name, request.limits)
    across, down = outline.width / known.width, outline.height / known.height
    x, y, w, h = options.mouth
    return mouth_in_box(picture, face, (x * across, y * down, w * across, h * down))


def measure(folder: Path, request: Request, outline: Inspection, options: Options, tick: ProgressCallback) -> None:
    """Write geometry.npz: the face, its mouth, its tone, and where its eyes are in each frame of the avatar."""
    picture, face = first_face(request, outline, options, Path(request.avatar).name)
    mouth = the_mouth(picture, face, options, request, outline)
    track = Track(np.array([face.eyes]), np.ones(1))
    if outline.avatar_kind == "video":
        with frames_of(request, outline) as video:
            frames = (video.read(n) for n in range(len(video)))
            track = follow(frames, lambda image: nearest(find_faces(image), options), tick)
    np.savez(
        folder / "geometry.npz",
        box=np.array(face.box),
        first_eyes=np.array(face.eyes),
        mouth=mouth.to_array(),
        tone=np.array(astuple(tone_of(picture, face))),
        eyes=track.eyes,
        weight=track.weight,
    )


def nearest(faces: tuple[Face, ...], options: Options) -> Face | None:
    if options.face == "largest":
        return largest(faces) if faces else None
    return faces[options.face] if options.face < len(faces) else None


def cycle(frame: int, length: int, how: str) -> int:
    """Which source frame is shown at `frame`.

    >>> [cycle(n, 3, "pingpong") for n in range(7)]
    [0, 1, 2, 2, 1, 0, 0]
    """
    if how == "hold":
        return min(frame, length - 1)
    around, within = divmod(frame, length)
    return length - 1 - within if how == "pingpong" and around % 2 else within


# drawing -------------------------------------------------------------------------------------------------------------


class Scene:
    """What `prepare` left, and how frames are drawn from it."""

    def __init__(self, prepared: Path) -> None:
        with np.load(prepared / "motion.npz", allow_pickle=False) as motion:
            self.curve, self.shut, self.pose = motion["curve"], motion["shut"], motion["pose"]
        with np.load(prepared / "geometry.npz", allow_pickle=False) as geometry:
            self.face = face_with(geometry["box"], geometry["first_eyes"])
            self.mouth = Mouth.from_array(geometry["mouth"])
            self.track = Track(geometry["eyes"], geometry["weight"])
            self.tone = Tone(*map(float, geometry["tone"]))

    @property
    def thumbnail_frame(self) -> int:
        """A frame with the mouth well open and the eyes too, near the middle where several are."""
        opening = self.curve[:, 0]
        far = np.abs(np.arange(len(opening)) / len(opening) - 0.5)
        return int(np.argmax(np.minimum(opening, 0.7) - 0.2 * far - self.shut))

    @property
    def face_boxes(self) -> Floats:
        """(n, 4): x, y, w, h of the face in pixels, wherever it is seen."""
        middles = self.track.eyes[self.track.weight > 0].mean(1)
        x, y, w, h = self.face.box
        eyes_x, eyes_y = np.mean(self.face.eyes, 0)
        return np.column_stack([middles - (eyes_x - x, eyes_y - y), np.tile([w, h], (len(middles), 1))])

    def shape(self, n: int) -> tuple[float, float]:
        return float(self.curve[n, 0]), float(self.curve[n, 1])

    def still(self, image: Image, frames: range, *, sway: bool) -> Iterator[Image]:
        portrait = Portrait(image, self.face, self.mouth, self.tone)
        for n in frames:
            yield portrait.frame(self.shape(n), float(self.shut[n]), self.pose[n] if sway else None)

    def moving(self, video: media.VideoFrames, frames: range, how: str) -> Iterator[Image]:
        """Frames of a video avatar; where its face was lost they stay as they are."""
        painter = MouthPainter(self.mouth, self.tone, self.face.eye_distance)
        for n in frames:
            source = cycle(n, len(video), how)
            frame, weight = video.read(source), float(self.track.weight[source])
            face = face_with(self.face.box, self.track.eyes[source])
            if weight > 0:
                draw_mouth(frame, face, painter, self.shape(n), weight)
            if self.shut[n] * weight > 0:
                draw_lids(frame, face, float(self.shut[n]) * weight)
            yield frame


def face_with(box: Any, eyes: Floats) -> Face:
    (ax, ay), (bx, by) = eyes.tolist()
    x, y, w, h = map(float, box)
    return Face((x, y, w, h), ((ax, ay), (bx, by)), True)
