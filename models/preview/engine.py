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
from models.atomic import whole_folder
from models.avatars import AvatarCache, content_key
from models.preview.face import Crop, Face, Image, find_faces, largest, upright
from models.preview.label import stamp
from models.preview.life import EYES, Eyelids, blinks, swayed, sways
from models.preview.mouth import Mouth, find_mouth, mouth_in_box
from models.preview.options import Options, read_options
from models.preview.patch import Patch, scale_for
from models.preview.renderer import LOWER_FACE, MouthRenderer, Tone, tone_of
from models.preview.speech import RATE, mouth_curve
from models.preview.track import Track, follow
from models.types import EngineError, Outline, Request, Tick

Floats = npt.NDArray[Any]

VERSION = 1
"""Of the geometry in the avatar cache: a change of face, mouth or track makes older entries useless."""
LOOKS = 12
"""Frames of a video that are searched for a face before there is none."""
NO_FACE = "choose a portrait that shows one face from the front, well lit and at least 60 pixels wide"


class PreviewEngine:
    """See models.types.Engine."""

    def __init__(self, device: str) -> None:
        self.device = device

    def inspect(self, request: Request, outline: Outline) -> Outline:
        options, notes = read_options(request.options)
        name = Path(request.avatar).name
        picture, face = first_face(request, outline, options, name)
        mouth = the_mouth(picture, face, options, request, outline)
        if not mouth.found:
            notes += ("the mouth could not be seen clearly; it is drawn where mouths usually are",)
        units = 1
        if outline.avatar_kind == "video":
            with frames_of(request, outline) as video:
                units = len(video)
        return replace(
            outline,
            units={"inspect": 1, "prepare": units, "render": outline.frames, "assemble": 1},
            notes=outline.notes + notes,
            details={"face": [round(value, 1) for value in face.box], "mouth_found": mouth.found},
        )

    def prepare(self, request: Request, outline: Outline, start: int, stop: int, tick: Tick) -> None:
        options, _ = read_options(request.options)
        cache = AvatarCache(Path(request.cache), request.cache_bytes)
        key = content_key("preview", VERSION, outline.avatar_sha256, outline.width, outline.height, outline.fps)
        key = content_key(key, options.face, options.mouth)
        entry = cache.entry(key, lambda folder: measure(folder, request, outline, options, tick))
        wave = media.read_waveform(request.files.audio, RATE)
        curve = mouth_curve(wave, outline.frames, outline.rate)
        curve[:, 0] = np.clip(curve[:, 0] * options.strength, 0, 1)
        blink = outline.avatar_kind == "image" if options.blink is None else options.blink
        seed = int(outline.audio_sha256[:12] or "0", 16)
        closed = blinks(outline.frames, outline.rate, seed) if blink else np.zeros(outline.frames, np.float32)
        sway = sways(curve[:, 0], outline.rate)
        geometry = (entry / "geometry.npz").read_bytes()
        if not request.files.prepared.exists():
            with whole_folder(request.files.prepared) as folder:
                np.savez(folder / "motion.npz", curve=curve, closed=closed, sway=sway)
                (folder / "geometry.npz").write_bytes(geometry)
        tick(stop - start)

    def render(self, request: Request, outline: Outline, start: int, stop: int) -> Iterator[Image]:
        options, _ = read_options(request.options)
        scene = Scene(request.files.prepared)
        if outline.avatar_kind == "image":
            still = the_image(request, outline)
            for frame in scene.still(still, range(start, stop), sway=options.sway):
                yield finished(frame, options)
            return
        with frames_of(request, outline) as video:
            for n in range(start, stop):
                source = cycle(n, len(video), options.cycle)
                yield finished(scene.moving(video.read(source), n, source), options)

    def report(self, request: Request, outline: Outline) -> dict[str, Any]:  # noqa: ARG002 - of the protocol
        options, _ = read_options(request.options)
        scene = Scene(request.files.prepared)
        lost = int((scene.track.weight == 0).sum())
        notes = [f"no face was seen in {lost} frames of the avatar; they are shown as they are"] if lost else []
        return {"poster": scene.poster, "label": options.label, "notes": notes}


# looking -------------------------------------------------------------------------------------------------------------


def frames_of(request: Request, outline: Outline) -> media.VideoFrames:
    name = Path(request.avatar).name
    return media.VideoFrames(request.files.avatar, outline.rate, outline.width, outline.height, name=name)


def the_image(request: Request, outline: Outline) -> Image:
    return fitted(media.read_image(request.files.avatar, Path(request.avatar).name), outline.width, outline.height)


def fitted(image: Image, width: int, height: int) -> Image:
    """Scaled to the size of the result; where only an odd row or column is too much, cut instead."""
    if 0 <= image.shape[0] - height <= 1 and 0 <= image.shape[1] - width <= 1:
        return np.ascontiguousarray(image[:height, :width])
    smaller = height < image.shape[0]
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return np.asarray(scaled, np.uint8)


def first_face(request: Request, outline: Outline, options: Options, name: str) -> tuple[Image, Face]:
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


def some_pictures(request: Request, outline: Outline) -> Iterator[Image]:
    if outline.avatar_kind == "image":
        yield the_image(request, outline)
        return
    with frames_of(request, outline) as video:
        for n in sorted({len(video) * k // LOOKS for k in range(LOOKS)}):
            yield video.read(n)


def the_mouth(picture: Image, face: Face, options: Options, request: Request, outline: Outline) -> Mouth:
    if options.mouth is None:
        return find_mouth(picture, face)
    known = media.read_picture(request.files.avatar, Path(request.avatar).name, request.limits)
    across, down = outline.width / known.width, outline.height / known.height
    x, y, w, h = options.mouth
    return mouth_in_box(picture, face, (x * across, y * down, w * across, h * down))


def measure(folder: Path, request: Request, outline: Outline, options: Options, tick: Tick) -> None:
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
        tone=np.array(astuple(tone_of(upright(picture, face, LOWER_FACE, 1.0)))),
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


def finished(frame: Image, options: Options) -> Image:
    if options.label:
        stamp(frame)
    return frame


class Scene:
    """What `prepare` left, and how frames are drawn from it."""

    def __init__(self, prepared: Path) -> None:
        with np.load(prepared / "motion.npz", allow_pickle=False) as motion:
            self.curve, self.closed, self.sway = motion["curve"], motion["closed"], motion["sway"]
        with np.load(prepared / "geometry.npz", allow_pickle=False) as geometry:
            left, right = geometry["first_eyes"]
            self.face = Face(tuple(geometry["box"]), (tuple(left), tuple(right)), True)
            self.mouth = Mouth.from_array(geometry["mouth"])
            self.track = Track(geometry["eyes"], geometry["weight"])
            tone = Tone(*map(float, geometry["tone"]))
        self.scale = scale_for(self.face)
        self.eyelids = Eyelids(self.scale)
        self.renderer = MouthRenderer(self.mouth, self.scale, tone)

    @property
    def poster(self) -> int:
        """A frame with the mouth well open, near the middle where several are."""
        opening = self.curve[:, 0]
        far = np.abs(np.arange(len(opening)) / len(opening) - 0.5)
        return int(np.argmax(np.minimum(opening, 0.7) - 0.2 * far))

    def still(self, image: Image, frames: range, *, sway: bool) -> Iterator[Image]:
        mouth = self.place(image, self.face, LOWER_FACE)
        eyes = self.place(image, self.face, EYES)
        lower, upper = mouth.take(image), eyes.take(image)
        for n in frames:
            frame = image.copy()
            mouth.put(frame, self.renderer.draw(lower, *map(float, self.curve[n])))
            if self.closed[n] > 0:
                eyes.put(frame, self.eyelids.draw(upper, float(self.closed[n])))
            yield swayed(frame, self.face, self.sway[n]) if sway else frame

    def moving(self, frame: Image, n: int, source: int) -> Image:
        """The frame of a video avatar; where its face was lost it stays as it is."""
        weight = float(self.track.weight[source])
        if weight == 0:
            return frame
        left, right = self.track.eyes[source]
        face = Face(self.face.box, (tuple(left), tuple(right)), True)
        mouth = self.place(frame, face, LOWER_FACE)
        drawn = self.renderer.draw(mouth.take(frame), *map(float, self.curve[n]))
        mouth.put(frame, drawn, weight)
        if self.closed[n] > 0:
            eyes = self.place(frame, face, EYES)
            eyes.put(frame, self.eyelids.draw(eyes.take(frame), float(self.closed[n])), weight)
        return frame

    def place(self, image: Image, face: Face, crop: Crop) -> Patch:
        mask = self.eyelids.mask if crop is EYES else self.renderer.mask
        return Patch(image.shape, face, crop, self.scale, mask)
