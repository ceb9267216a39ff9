"""The preview engine: moves the mouth of an avatar on the CPU, without downloaded weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models import media
from models.arrays import U8, Floats
from models.atomic import atomic_folder
from models.avatars import AvatarCache, make_key
from models.options import scale_box
from models.preview.face import Face, choose_largest, find_faces, make_face_in_box
from models.preview.interior import Tone, measure_tone
from models.preview.label import Label
from models.preview.motion import make_blinks, make_strength, make_sway
from models.preview.mouth import Mouth, find_mouth, fit_mouth
from models.preview.options import Options, read_options
from models.preview.renderer import MouthPainter, Portrait, draw_lids, draw_mouth
from models.preview.speech import RATE, make_mouth_curve
from models.preview.track import Track, follow_face
from models.types import EngineError, Inspection, ProgressCallback, Request

VERSION = 2
"""Version of the geometry in the avatar cache: a change of face, mouth or track raises it."""
SEARCHED_FRAMES = 12
"""Frames of a video that are searched for a face."""
NO_FACE = "choose a portrait that shows one face from the front, well lit and at least 60 pixels wide"


class PreviewEngine:
    """See models.types.Engine."""

    def __init__(self, device: str) -> None:
        self.device = device

    def inspect(self, request: Request, inspection: Inspection) -> Inspection:
        options, notes = read_options(request.options)
        name = Path(request.avatar).name
        picture, face = find_first_face(request, inspection, options, name)
        mouth = locate_mouth(picture, face, options, request, inspection)
        if not mouth.is_visible:
            notes += ("the mouth could not be seen clearly; it is drawn where mouths usually are",)
        if request.is_scene:
            with open_video(request, inspection, as_yuv=True) as video:
                inspection = replace(inspection, colour=video.colour)
        return replace(
            inspection,
            units={"inspect": 1, "prepare": 1, "render": inspection.frames, "assemble": 1},
            notes=inspection.notes + notes,
            details={"face": [round(float(value), 1) for value in face.box], "mouth_found": mouth.is_visible},
        )

    def prepare(
        self, request: Request, inspection: Inspection, start: int, stop: int, progress: ProgressCallback
    ) -> None:
        options, _ = read_options(request.options)
        cache = AvatarCache(Path(request.cache), request.cache_bytes)
        key = make_key(
            "preview", VERSION, inspection.avatar_sha256, inspection.width, inspection.height, inspection.fps
        )
        key = make_key(key, options.face, options.mouth)
        if options.face_box is not None:
            key = make_key(key, options.face_box)
        if request.is_scene and inspection.avatar_kind == "video":
            key = make_key(key, inspection.scene.start, inspection.scene.stop)
        entry = cache.get_or_build(
            key, lambda folder: write_geometry(folder, request, inspection, options, lambda _: progress(0))
        )
        motion = make_motion(request, inspection, options)
        geometry = (entry / "geometry.npz").read_bytes()
        if not request.files.prepared.exists():
            with atomic_folder(request.files.prepared) as folder:
                np.savez(folder / "motion.npz", **motion)
                (folder / "geometry.npz").write_bytes(geometry)
        progress(stop - start)

    def complete(self, request: Request, inspection: Inspection, progress: ProgressCallback) -> None:
        """Do nothing: the preparation is one unit without parts."""

    def render(self, request: Request, inspection: Inspection, start: int, stop: int) -> Iterator[U8]:
        voiced = inspection.scene.frames
        first, last = (min(max(edge, start), stop) for edge in (voiced.start, voiced.stop))
        yield from read_own_frames(request, inspection, range(start, first))
        yield from self._paint_frames(request, inspection, range(first, last))
        yield from read_own_frames(request, inspection, range(last, stop))

    def _paint_frames(self, request: Request, inspection: Inspection, frames: range) -> Iterator[U8]:
        options, _ = read_options(request.options)
        scene = PreparedPreview(request.files.prepared)
        label = Label(inspection.width, inspection.height, scene.face_boxes)
        for frame in self._draw_frames(request, inspection, scene, frames):
            if options.label:
                label.stamp(frame)
            yield frame

    def _draw_frames(
        self, request: Request, inspection: Inspection, scene: PreparedPreview, frames: range
    ) -> Iterator[U8]:
        options, _ = read_options(request.options)
        if inspection.avatar_kind == "image":
            yield from scene.draw_still(load_image(request, inspection), frames, sway=options.sway)
            return
        with open_video(request, inspection) as video:
            yield from scene.draw_video(video, frames, options.cycle)

    def report(self, request: Request, inspection: Inspection) -> dict[str, Any]:  # noqa: ARG002 - of the protocol
        options, _ = read_options(request.options)
        scene = PreparedPreview(request.files.prepared)
        lost = int((scene.track.weight == 0).sum())
        notes = [f"no face was seen in {lost} frames of the avatar; they are shown as they are"] if lost else []
        return {"thumbnail_frame": scene.thumbnail_frame, "label": options.label, "notes": notes}


# inspecting ----------------------------------------------------------------------------------------------------------


def open_video(request: Request, inspection: Inspection, *, as_yuv: bool = False) -> media.VideoFrames:
    """Open the avatar at the rate and in the size of the result, in BGR or as the planes of its own colour."""
    size = (inspection.width, inspection.height)
    return media.VideoFrames(
        request.files.avatar, inspection.rate, *size, name=Path(request.avatar).name, as_yuv=as_yuv
    )


def read_own_frames(request: Request, inspection: Inspection, frames: range) -> Iterator[U8]:
    """Yield the planes of frames that no voice changes, as they are decoded."""
    if not frames:
        return
    options, _ = read_options(request.options)
    with open_video(request, inspection, as_yuv=True) as video:
        for n in frames:
            yield video.read(cycle_frame(n, len(video), options.cycle))


def find_window(inspection: Inspection, length: int) -> range:
    """Return the frames of a video avatar of that length in which a face is looked for."""
    voiced = inspection.scene.frames
    return voiced if voiced.stop <= length else range(length)


def load_image(request: Request, inspection: Inspection) -> U8:
    """Read the image avatar in the size of the result, (height, width, 3) uint8 BGR."""
    return fit_to_size(
        media.read_image(request.files.avatar, Path(request.avatar).name), inspection.width, inspection.height
    )


def fit_to_size(image: U8, width: int, height: int) -> U8:
    """Scale to the size of the result, or cut where only an odd row or column is too much."""
    if 0 <= image.shape[0] - height <= 1 and 0 <= image.shape[1] - width <= 1:
        return np.ascontiguousarray(image[:height, :width])
    smaller = height < image.shape[0]
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return np.asarray(scaled, np.uint8)


def find_first_face(request: Request, inspection: Inspection, options: Options, name: str) -> tuple[U8, Face]:
    """Return the first picture with the chosen face. Raises EngineError no_face, bad_option."""
    most, given = 0, make_given_face(request, inspection, options)
    for picture in sample_pictures(request, inspection):
        if given is not None:
            return picture, given
        faces = find_faces(picture)
        most = max(most, len(faces))
        if faces and options.face == "largest":
            return picture, choose_largest(faces)
        if isinstance(options.face, int) and options.face < len(faces):
            return picture, faces[options.face]
    if not most:
        raise EngineError("no_face", f"no face was found in {name}", NO_FACE)
    message = (
        f'the option "face" asks for number {options.face}, but {name} shows {most} (counted from 0, left to right)'
    )
    raise EngineError("bad_option", message, 'give a smaller number, or "largest"')


def sample_pictures(request: Request, inspection: Inspection) -> Iterator[U8]:
    """Yield the image, or frames spread over the video."""
    if inspection.avatar_kind == "image":
        yield load_image(request, inspection)
        return
    with open_video(request, inspection) as video:
        window = find_window(inspection, len(video)) if request.is_scene else range(len(video))
        for n in sorted({len(window) * k // SEARCHED_FRAMES for k in range(SEARCHED_FRAMES)}):
            yield video.read(window[n])


def locate_mouth(picture: U8, face: Face, options: Options, request: Request, inspection: Inspection) -> Mouth:
    if options.mouth is None:
        return find_mouth(picture, face)
    shown, size = read_shown_size(request), (inspection.width, inspection.height)
    across, down = size[0] / shown[0], size[1] / shown[1]
    x, y, w, h = options.mouth
    return fit_mouth(picture, face, (x * across, y * down, w * across, h * down))


def read_shown_size(request: Request) -> tuple[int, int]:
    """Return width and height of the avatar as it is shown, before it is scaled to the result."""
    known = media.read_picture(request.files.avatar, Path(request.avatar).name, request.limits)
    return known.width, known.height


def make_given_face(request: Request, inspection: Inspection, options: Options) -> Face | None:
    """Return the face that the job gives by its box, None without one. Raises EngineError bad_option."""
    if options.face_box is None:
        return None
    size = (inspection.width, inspection.height)
    return make_face_in_box(scale_box(options.face_box, "face_box", read_shown_size(request), size))


def write_geometry(
    folder: Path, request: Request, inspection: Inspection, options: Options, progress: ProgressCallback
) -> None:
    """Write geometry.npz: face, mouth, tone, and the eyes in each frame of the avatar."""
    picture, face = find_first_face(request, inspection, options, Path(request.avatar).name)
    mouth = locate_mouth(picture, face, options, request, inspection)
    track, window = Track(np.array([face.eyes]), np.ones(1)), range(1)
    if inspection.avatar_kind == "video" and options.face_box is not None:
        with open_video(request, inspection) as video:
            track = Track(np.array([face.eyes] * len(video)), np.ones(len(video)))
    elif inspection.avatar_kind == "video":
        with open_video(request, inspection) as video:
            window = find_window(inspection, len(video)) if request.is_scene else range(len(video))
            frames = (video.read(n) for n in window)
            track = follow_face(frames, lambda image: choose_face(find_faces(image), options), progress)
    np.savez(
        folder / "geometry.npz",
        box=np.array(face.box),
        first_eyes=np.array(face.eyes),
        mouth=mouth.to_array(),
        tone=np.array(astuple(measure_tone(picture, face))),
        eyes=track.eyes,
        weight=track.weight,
        first=np.array(window.start),
    )


def make_motion(request: Request, inspection: Inspection, options: Options) -> dict[str, Any]:
    """Return how the face moves in each frame: curve (n, 2), shut (n,), pose (n, 5), and strength (n,).

    All are 0 in frames that no voice changes, and fade towards them.
    """
    voiced, rate = inspection.scene.frames, inspection.rate
    curve = make_mouth_curve(media.read_waveform(request.files.voice_path(0), RATE), len(voiced), rate)
    curve[:, 0] = np.clip(curve[:, 0] * options.strength, 0, 1)
    blink = inspection.avatar_kind == "image" if options.blink is None else options.blink
    seed = int(inspection.audio_sha256[:12] or "0", 16)
    shut = make_blinks(len(voiced), rate, seed) if blink else np.zeros(len(voiced), np.float32)
    parts = {"curve": curve, "shut": shut, "pose": make_sway(curve[:, 0], rate, seed)}
    parts["strength"] = make_strength(voiced, inspection.frames, rate)
    edges = (voiced.start, inspection.frames - voiced.stop)
    return {name: np.pad(part, (edges, *[(0, 0)] * (part.ndim - 1))) for name, part in parts.items()}


def choose_face(faces: tuple[Face, ...], options: Options) -> Face | None:
    if options.face == "largest":
        return choose_largest(faces) if faces else None
    return faces[options.face] if options.face < len(faces) else None


def cycle_frame(frame: int, length: int, how: str) -> int:
    """Return the source frame that is shown at `frame`.

    >>> [cycle_frame(n, 3, "pingpong") for n in range(7)]
    [0, 1, 2, 2, 1, 0, 0]
    """
    if how == "hold":
        return min(frame, length - 1)
    around, within = divmod(frame, length)
    return length - 1 - within if how == "pingpong" and around % 2 else within


# drawing -------------------------------------------------------------------------------------------------------------


class PreparedPreview:
    """The files that `prepare` wrote, and the drawing of frames from them."""

    def __init__(self, prepared: Path) -> None:
        with np.load(prepared / "motion.npz", allow_pickle=False) as motion:
            self.curve, self.shut, self.pose = motion["curve"], motion["shut"], motion["pose"]
            self.strength = motion["strength"] if "strength" in motion else np.ones(len(self.shut), np.float32)
        with np.load(prepared / "geometry.npz", allow_pickle=False) as geometry:
            self.face = make_face(geometry["box"], geometry["first_eyes"])
            self.mouth = Mouth.from_array(geometry["mouth"])
            self.track = Track(geometry["eyes"], geometry["weight"])
            self.tone = Tone(*map(float, geometry["tone"]))
            self.first = int(geometry["first"]) if "first" in geometry else 0

    @property
    def thumbnail_frame(self) -> int:
        """A frame with mouth and eyes open, near the middle."""
        opening = self.curve[:, 0]
        far = np.abs(np.arange(len(opening)) / len(opening) - 0.5)
        return int(np.argmax(np.minimum(opening, 0.7) - 0.2 * far - self.shut))

    @property
    def face_boxes(self) -> Floats:
        """(n, 4): x, y, w, h in pixels of the face in every frame that shows it."""
        middles = self.track.eyes[self.track.weight > 0].mean(1)
        x, y, w, h = self.face.box
        eyes_x, eyes_y = np.mean(self.face.eyes, 0)
        return np.column_stack([middles - (eyes_x - x, eyes_y - y), np.tile([w, h], (len(middles), 1))])

    def read_shape(self, n: int) -> tuple[float, float]:
        opening, spread = self.curve[n] * self.strength[n]
        return float(opening), float(spread)

    def draw_still(self, image: U8, frames: range, *, sway: bool) -> Iterator[U8]:
        portrait = Portrait(image, self.face, self.mouth, self.tone)
        for n in frames:
            pose = self.pose[n] * self.strength[n] if sway else None
            yield portrait.render(self.read_shape(n), float(self.shut[n]), pose)

    def draw_video(self, video: media.VideoFrames, frames: range, how: str) -> Iterator[U8]:
        """Yield frames of a video avatar; those without the face are unchanged."""
        painter = MouthPainter(self.mouth, self.tone, self.face.eye_distance)
        for n in frames:
            source = cycle_frame(n, len(video), how)
            seen = source - self.first
            frame, weight = video.read(source), float(self.track.weight[seen] * self.strength[n])
            face = make_face(self.face.box, self.track.eyes[seen])
            if weight > 0:
                draw_mouth(frame, face, painter, self.read_shape(n), weight)
            if self.shut[n] * weight > 0:
                draw_lids(frame, face, float(self.shut[n]) * weight)
            yield frame


def make_face(box: Any, eyes: Floats) -> Face:
    (ax, ay), (bx, by) = eyes.tolist()
    x, y, w, h = map(float, box)
    return Face((x, y, w, h), ((ax, ay), (bx, by)), True)
