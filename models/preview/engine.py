"""The preview engine: moves the mouth of an avatar on the CPU, without downloaded weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from models import media
from models.arrays import F64, I64, U8, Floats
from models.atomic import atomic_folder
from models.avatars import AvatarCache, make_key
from models.media.prefetch import closing_all
from models.options import scale_box
from models.preview.face import (
    Face,
    choose_largest,
    find_face_near,
    find_faces,
    make_face,
    make_face_in_box,
    measure_smallest,
    move_face,
    shift_face,
)
from models.preview.geometry import UNIT, Rect, join_rects, transform_points, widen_rect
from models.preview.interior import Tone, measure_tone
from models.preview.landmarks import Landmarks, fit_landmarks
from models.preview.lower_face import LowerFace, cut_lower_face
from models.preview.motion import make_blinks, make_strength, make_sway
from models.preview.mouth import GIVEN, Mouth, find_mouth, fit_mouth
from models.preview.options import Options, read_options
from models.preview.renderer import Label, MouthPainter, Portrait, draw_lids, draw_mouth, find_eyes, outline_boxes
from models.preview.speech import RATE, make_mouth_curve
from models.preview.track import Track, follow_face, measure_lips
from models.quality.meter import EVERY, measure_steps
from models.quality.trace import FaceTrace, place_by_eyes
from models.types import EngineError, Inspection, ProgressCallback, Request

VERSION = 12
"""Version of the geometry in the avatar cache: a change of face, mouth or track raises it."""
GUESSED_MOUTH = (
    "the mouth could not be seen clearly; it is drawn where mouths usually are in the face that the job gives"
)
UNSEEN_MOUTH = 'the mouth could not be seen clearly, so it does not move; the option "mouth" says where it is'
_WHOLE_FACE, _UPPER_FACE = (-100, -70, 100, 150), (-75, -45, 75, 25)
"""Left, top, right and bottom in face units."""
AROUND = 0.1
"""What may move into the rectangle of a mouth from beyond it, as a share of the eye distance."""
SEARCHED_FRAMES = 12
"""Frames of a video that are searched for a face."""
OWN_MOUTH = 0.5
"""How far the box of a given mouth is from where the mouth of a shot is taken to be, in eye distances, if it counts."""
NO_FACE = "choose a portrait that shows one face from the front, well lit and at least {} pixels wide"
TURNED = "a face is seen when the picture is turned by {} degrees clockwise: turn it"


class PreviewEngine:
    """See models.types.Engine."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._traced: tuple[Request, Inspection, list[FaceTrace]] | None = None

    def inspect(self, request: Request, inspection: Inspection) -> Inspection:
        options, notes = read_options(request.options)
        name, details = Path(request.avatar).name, dict[str, Any]()
        for number, choice in enumerate(list_choices(options, inspection)):
            picture, face = find_first_face(request, inspection, choice, name)
            mouth = locate_mouth(picture, face, choice.options, request, inspection)
            if not mouth.is_visible:
                notes += (UNSEEN_MOUTH if choice.options.face_box is None else GUESSED_MOUTH,)
            box = [round(float(value), 1) for value in face.box]
            details[f"face-{number}" if number else "face"] = box
            details.setdefault("mouth_found", mouth.is_visible)
        if not request.output.alpha and (request.is_scene or inspection.avatar_kind == "video"):
            with open_video(request, inspection, as_yuv=True) as video:
                inspection = replace(inspection, colour=video.colour)
        return replace(
            inspection,
            units={"inspect": 1, "prepare": 1, "render": inspection.frames, "assemble": 1},
            notes=inspection.notes + notes,
            details=details,
        )

    def prepare(
        self, request: Request, inspection: Inspection, start: int, stop: int, progress: ProgressCallback
    ) -> None:
        options, _ = read_options(request.options)
        if options.draft:
            with atomic_folder(request.files.prepared):
                pass
            progress(stop - start)
            return
        choices = list_choices(options, inspection)
        geometries = [fetch_geometry(request, inspection, choice, lambda _: progress(0)) for choice in choices]
        motions = [make_motion(request, inspection, options, number) for number in range(len(choices))]
        if not request.files.prepared.exists():
            with atomic_folder(request.files.prepared) as folder:
                for number, (geometry, motion) in enumerate(zip(geometries, motions, strict=True)):
                    np.savez(folder / name_part("motion", number), **motion)
                    (folder / name_part("geometry", number)).write_bytes(geometry)
        progress(stop - start)

    def complete(self, request: Request, inspection: Inspection, progress: ProgressCallback) -> None:
        """Do nothing: the preparation is one unit without parts."""

    def render(self, request: Request, inspection: Inspection, start: int, stop: int) -> Iterator[U8]:
        if request.is_draft:
            yield draw_draft(request, inspection)
            return
        if not request.output.alpha:
            yield from self._render_over(media.read_background(request), request, inspection, range(start, stop))
            return
        white, black = (
            self._render_over(over, request, inspection, range(start, stop)) for over in (media.WHITE, media.BLACK)
        )
        with closing_all(white, black):
            for over_white, over_black in zip(white, black, strict=True):
                yield media.keep_opacity(over_white, media.measure_opacity(over_white, over_black))

    def _render_over(
        self, over: media.Background, request: Request, inspection: Inspection, frames: range
    ) -> Iterator[U8]:
        """Yield frames whose transparent pixels show a background; for a result with transparency, all in BGR."""
        start, stop, as_yuv = frames.start, frames.stop, not request.output.alpha
        voiced = inspection.scene.frames
        first, last = (min(max(edge, start), stop) for edge in (voiced.start, voiced.stop))
        yield from read_own_frames(request, inspection, range(start, first), over, as_yuv=as_yuv)
        yield from self._paint_frames(over, request, inspection, range(first, last))
        yield from read_own_frames(request, inspection, range(last, stop), over, as_yuv=as_yuv)

    def _paint_frames(
        self, over: media.Background, request: Request, inspection: Inspection, frames: range
    ) -> Iterator[U8]:
        options, _ = read_options(request.options)
        faces = open_faces(request, inspection)
        boxes = np.concatenate([face.face_boxes for face in faces])
        label = Label(inspection.width, inspection.height, boxes) if options.label else None
        if inspection.avatar_kind == "video":
            yield from self._paint_video(over, request, inspection, frames, faces, label)
            return
        image = load_image(request, inspection, over)
        portraits = [Portrait(image, of.face, of.mouth, of.tone) for of in (face.references[0] for face in faces)]
        drawn = stamp_frames(draw_still(image, portraits, faces, frames, sway=options.sway), label)
        if request.output.alpha:
            yield from drawn
            return
        (still,), rect = stamp_frames(iter([image.copy()]), label), join_rects([each.rect for each in portraits])
        planes = media.PatchedPlanes(still, rect, inspection.colour)
        for frame in drawn:
            yield planes.convert(frame)

    def _paint_video(
        self,
        over: media.Background,
        request: Request,
        inspection: Inspection,
        frames: range,
        faces: list[PreparedPreview],
        label: Label | None,
    ) -> Iterator[U8]:
        """Yield frames of a video avatar as planes in which the faces alone are drawn, or in BGR for transparency."""
        options, _ = read_options(request.options)
        as_yuv = not request.output.alpha
        with open_video(request, inspection, over, as_yuv=as_yuv) as video:
            shown = (cycle_frame(n, len(video), options.cycle) for n in frames)
            pictures = ((n, video.read(n)) for n in shown)
            size = inspection.width, inspection.height
            canvas: Canvas = media.PlanesEditor(*size, video.colour) if as_yuv else WholeFrames(*size)
            yield from draw_video(pictures, canvas, faces, frames, label)

    def trace_faces(self, request: Request, inspection: Inspection) -> list[FaceTrace]:
        """Return where the faces are; those of the last job are kept, as its parts come one after another."""
        if self._traced is None or self._traced[:2] != (request, inspection):
            self._traced = request, inspection, trace_all(request, inspection)
        return self._traced[2]

    def report(self, request: Request, inspection: Inspection) -> dict[str, Any]:
        options, _ = read_options(request.options)
        if options.draft:
            return {"thumbnail_frame": 0, "label": False, "notes": []}
        faces = open_faces(request, inspection)
        lost = int(max((face.weight == 0).sum() for face in faces))
        notes = [f"no face was seen in {lost} frames of the avatar; they are shown as they are"] if lost else []
        return {"thumbnail_frame": faces[0].thumbnail_frame, "label": bool(options.label), "notes": notes}


# inspecting ----------------------------------------------------------------------------------------------------------


def open_video(
    request: Request, inspection: Inspection, over: media.Background | None = None, *, as_yuv: bool = False
) -> media.VideoFrames:
    """Open the avatar at the rate and in the size of the result, in BGR or as the planes of its own colour.

    `over`: what its transparent pixels show, None: what the job says.
    """
    return media.VideoFrames(
        request.files.avatar,
        inspection.rate,
        inspection.width,
        inspection.height,
        name=Path(request.avatar).name,
        as_yuv=as_yuv,
        background=over or media.read_background(request),
    )


def read_own_frames(
    request: Request, inspection: Inspection, frames: range, over: media.Background, *, as_yuv: bool
) -> Iterator[U8]:
    """Yield the frames that no voice changes, as planes as they are decoded, or in BGR."""
    if not frames:
        return
    options, _ = read_options(request.options)
    with open_video(request, inspection, over, as_yuv=as_yuv) as video:
        for n in frames:
            yield video.read(cycle_frame(n, len(video), options.cycle))


def find_window(inspection: Inspection, length: int) -> range:
    """Return the frames of a video avatar of that length in which a face is looked for."""
    voiced = inspection.scene.frames
    return voiced if voiced.stop <= length else range(length)


def load_image(request: Request, inspection: Inspection, over: media.Background | None = None) -> U8:
    """Read the image avatar in the size of the result, (height, width, 3) uint8 BGR; `over` as in `open_video`."""
    over = over or media.read_background(request)
    image = media.read_image(request.files.avatar, Path(request.avatar).name, background=over)
    return fit_to_size(image, inspection.width, inspection.height)


def fit_to_size(image: U8, width: int, height: int) -> U8:
    """Scale to the size of the result, or cut where only an odd row or column is too much."""
    if 0 <= image.shape[0] - height <= 1 and 0 <= image.shape[1] - width <= 1:
        return np.ascontiguousarray(image[:height, :width])
    smaller = height < image.shape[0]
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return np.asarray(scaled, np.uint8)


@dataclass(frozen=True, slots=True)
class FaceChoice:
    """Which face: that of the options, or number `options.face` in frames that show `needed` faces."""

    options: Options
    needed: int = 0

    def choose(self, faces: tuple[Face, ...]) -> Face | None:
        """Return the face among those of a frame, from left to right; None where it isn't there."""
        if self.options.face == "largest":
            return choose_largest(faces) if faces else None
        return faces[self.options.face] if max(self.options.face + 1, self.needed) <= len(faces) else None


def list_choices(options: Options, inspection: Inspection) -> list[FaceChoice]:
    """Return the choice of the face of each voice."""
    return [
        FaceChoice(options if voice.face is None else options.model_copy(update={"face": voice.face}), needed)
        for needed in [inspection.faces_needed]
        for voice in inspection.all_voices
    ]


def trace_all(request: Request, inspection: Inspection) -> list[FaceTrace]:
    """Return where the faces of a prepared job are in all its frames."""
    options, _ = read_options(request.options)
    faces = open_faces(request, inspection)
    length = len(faces[0].weight)
    if request.is_scene and inspection.avatar_kind == "video":
        with open_video(request, inspection) as video:
            length = len(video)
    shown = np.array([cycle_frame(n, length, options.cycle) for n in range(inspection.frames)])
    return [face.trace(shown) for face in faces]


def find_first_face(request: Request, inspection: Inspection, choice: FaceChoice, name: str) -> tuple[U8, Face]:
    """Return the first picture with the chosen face. Raises EngineError no_face, bad_option."""
    most, given = 0, make_given_face(request, inspection, choice.options)
    for picture in sample_pictures(request, inspection):
        if given is not None:
            return picture, refine_face(picture, given)
        faces = find_faces(picture)
        most = max(most, len(faces))
        if (face := choice.choose(faces)) is not None:
            return picture, face
    if not most:
        raise EngineError("no_face", f"no face was found in {name}", advise(request, inspection))
    asked, number = ('"voices"', choice.needed - 1) if choice.needed else ('the option "face"', choice.options.face)
    message = f"{asked} asks for number {number}, but {name} shows {most} (counted from 0, left to right)"
    raise EngineError("bad_option", message, 'give a smaller number, or "largest"')


def advise(request: Request, inspection: Inspection) -> str:
    """Return what to do about an avatar without a face."""
    if inspection.avatar_kind == "image":
        picture = load_image(request, inspection)
        for quarters in (1, 3, 2):
            if find_faces(np.ascontiguousarray(np.rot90(picture, -quarters))):
                return TURNED.format(90 * quarters)
    larger = max(1.0, read_shown_size(request)[1] / inspection.height)
    return NO_FACE.format(math.ceil(larger * measure_smallest(inspection.width, inspection.height)))


def refine_face(picture: U8, given: Face) -> Face:
    """Return a face given by its box with the eyes and landmarks that are seen there, if any are."""
    seen = find_face_near(picture, np.array(given.eyes))
    return given if seen is None else replace(seen, box=given.box)


def sample_pictures(request: Request, inspection: Inspection, most: int = SEARCHED_FRAMES) -> Iterator[U8]:
    """Yield the image, or so many frames spread over the video."""
    if inspection.avatar_kind == "image":
        yield load_image(request, inspection)
        return
    with open_video(request, inspection) as video:
        window = find_window(inspection, len(video)) if request.is_scene else range(len(video))
        for n in sorted({len(window) * k // most for k in range(most)}):
            yield video.read(window[n])


def locate_mouth(picture: U8, face: Face, options: Options, request: Request, inspection: Inspection) -> Mouth:
    if options.mouth is None:
        return find_mouth(picture, face)
    return fit_mouth(picture, face, scale_mouth(options.mouth, request, inspection))


def scale_mouth(mouth: Sequence[float], request: Request, inspection: Inspection) -> tuple[float, float, float, float]:
    """Return the box of a mouth in pixels of the result."""
    shown, (x, y, w, h) = read_shown_size(request), mouth
    across, down = inspection.width / shown[0], inspection.height / shown[1]
    return x * across, y * down, w * across, h * down


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


def name_part(kind: str, number: int) -> str:
    """Return the name of a file of the preparation: that of the first face has no number."""
    return f"{kind}-{number}.npz" if number else f"{kind}.npz"


def fetch_geometry(request: Request, inspection: Inspection, choice: FaceChoice, progress: ProgressCallback) -> bytes:
    """Return the geometry of a face, a .npz file, from the cache if it is there."""
    options = choice.options
    key = make_key("preview", VERSION, inspection.avatar_sha256, inspection.width, inspection.height, inspection.fps)
    key = make_key(key, options.face, options.mouth)
    if options.face_box is not None:
        key = make_key(key, options.face_box)
    if request.is_scene and inspection.avatar_kind == "video":
        key = make_key(key, inspection.scene.start, inspection.scene.stop)
    if choice.needed:
        key = make_key(key, "of", choice.needed)
    if background := inspection.media_sha256.get("background", request.background):
        key = make_key(key, "over", background)
    cache = AvatarCache(Path(request.cache), request.cache_bytes)
    entry = cache.get_or_build(key, lambda folder: write_geometry(folder, request, inspection, choice, progress))
    cache.note_avatar(inspection.avatar_sha256, key)
    return (entry / "geometry.npz").read_bytes()


def write_geometry(
    folder: Path, request: Request, inspection: Inspection, choice: FaceChoice, progress: ProgressCallback
) -> None:
    """Write geometry.npz: the reference of each shot, and the shot and the eyes in each frame of the avatar."""
    options = choice.options
    if inspection.avatar_kind == "video" and options.face_box is None:
        with open_video(request, inspection) as video:
            window = find_window(inspection, len(video)) if request.is_scene else range(len(video))
            frames = (video.read(n) for n in window)
            track = follow_face(frames, lambda image: choice.choose(find_faces(image)), progress)
            references = [
                measure_reference(video.read(window[n]), track.eyes[n], shot, options, request, inspection)
                for shot, n in enumerate(track.choose_references())
                if np.isfinite(track.gap[n])
            ]
        if not references:  # it is there too shortly to be followed
            picture, face = find_first_face(request, inspection, choice, Path(request.avatar).name)
            track = replace(Track.of_still(face, len(window)), weight=np.zeros(len(window)))
            references = [Reference.measure(picture, face, locate_mouth(picture, face, options, request, inspection))]
    else:
        picture, face = find_first_face(request, inspection, choice, Path(request.avatar).name)
        track, window = Track.of_still(face, 1), range(1)
        if inspection.avatar_kind == "video":
            with open_video(request, inspection) as video:
                track, window = Track.of_still(face, len(video)), range(len(video))
                picture = video.read(0)
        mouth = locate_mouth(picture, face, options, request, inspection)
        if options.face_box is not None:
            mouth = replace(mouth, contrast=GIVEN)
        references = [Reference.measure(picture, face, mouth)]
    parts = dict[str, Any]()
    for shot, reference in enumerate(references):
        parts |= reference.to_arrays(shot)
    parts |= {"eyes": track.place_at_mouth(*(reference.face for reference in references)), "weight": track.weight}
    if inspection.avatar_kind == "video":
        with open_video(request, inspection) as video:
            pictures = (video.read(window[n]) for n in range(0, len(window), EVERY))
            parts["bare_steps"] = measure_bare_steps(pictures, parts["eyes"], track.shots, references, progress)
    np.savez(folder / "geometry.npz", **parts, shots=track.shots, first=np.array(window.start))


def measure_bare_steps(
    pictures: Iterator[U8], eyes: F64, shots: I64, references: Sequence[Reference], progress: Callable[[int], None]
) -> Floats:
    """Return what `measure_steps` returns of every fifth frame around the mouth, (n, k, 3) float16.

    Where it can't be measured, it is as in the reference frame of the shot.
    """
    found = []
    for at, picture in enumerate(pictures):
        reference = references[shots[EVERY * at]]
        mouth = reference.mouth
        [edge] = place_around(eyes[[EVERY * at]], mouth.x, mouth.y, mouth.half_width)
        steps = measure_steps(picture, edge, len(picture), "around") if np.isfinite(edge).all() else reference.bare
        found.append(np.where(np.isfinite(steps), steps, reference.bare))
        progress(0)
    return np.array(found, np.float16)


@dataclass(frozen=True, slots=True)
class Reference:
    """The face in the frame whose lips and chin rest on the other frames of a shot; a still has one as well.

    resting    what `cut_lower_face` returns
    bare       what `measure_steps` returns of the edge around the mouth
    """

    face: Face
    mouth: Mouth
    tone: Tone
    resting: U8
    bare: Floats

    @classmethod
    def measure(cls, picture: U8, face: Face, mouth: Mouth) -> Reference:
        [edge] = place_around(np.array([face.eyes]), mouth.x, mouth.y, mouth.half_width)
        bare = measure_steps(picture, edge, len(picture), "around").astype(np.float32)
        return cls(face, mouth, measure_tone(picture, face), cut_lower_face(picture, face, mouth), bare)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], shot: int) -> Reference:
        names = ("first_eyes", "landmarks", "likeness", "mouth", "tone", "resting", "bare")
        eyes, points, likeness, mouth, tone, resting, bare = (arrays[name_array(name, shot)] for name in names)
        face = make_face(eyes, Landmarks(points, float(likeness), 0.0))
        return cls(face, Mouth.from_array(mouth), Tone(*map(float, tone)), resting, bare)

    def to_arrays(self, shot: int) -> dict[str, Any]:
        arrays = {
            "resting": self.resting,
            "bare": self.bare,
            "first_eyes": np.array(self.face.eyes),
            "landmarks": self.face.landmarks.points,
            "likeness": np.array(self.face.landmarks.likeness),
            "mouth": self.mouth.to_array(),
            "tone": np.array(astuple(self.tone)),
        }
        return {name_array(name, shot): array for name, array in arrays.items()}


def name_array(name: str, shot: int) -> str:
    return f"{name}-{shot}" if shot else name


def measure_reference(
    picture: U8, eyes: F64, shot: int, options: Options, request: Request, inspection: Inspection
) -> Reference:
    """Measure the face in the reference frame of a shot.

    A mouth that the job gives is that of the first shot, and of those in which the face has its mouth near it.
    """
    face = make_face(eyes, fit_landmarks(picture, eyes))
    if shot and options.mouth is not None:
        x, y, w, h = scale_mouth(options.mouth, request, inspection)
        away = transform_points([(x + w / 2, y + h / 2)], face.to_upright)[0] - measure_lips(face)[:2]
        if np.hypot(*away) > OWN_MOUTH * UNIT:
            options = options.model_copy(update={"mouth": None})
    return Reference.measure(picture, face, locate_mouth(picture, face, options, request, inspection))


def place_around(eyes: F64, x: float | F64, y: float | F64, reach: float | F64) -> F64:
    """Return (n, 4) the boxes around mouths at (x, y) in face units, of half the width `reach`."""
    return place_by_eyes(eyes, x - reach - 25, y - 30, x + reach + 25, y + 50)


SEED_STEP = 16
"""At least the number of voices of a job: each has a seed of its own, whatever the option `seed` is."""


def make_motion(request: Request, inspection: Inspection, options: Options, number: int = 0) -> dict[str, Any]:
    """Return how the face of a voice moves in each frame: curve (n, 2), shut (n,), pose (n, 5), and strength (n,).

    All are 0 in frames that no voice changes, and fade towards them.
    """
    voiced, rate = inspection.all_voices[number].frames, inspection.rate
    curve = make_mouth_curve(media.read_waveform(request.files.voice_path(number), RATE), len(voiced), rate)
    curve[:, 0] = np.clip(curve[:, 0] * options.strength, 0, 1)
    blink = inspection.avatar_kind == "image" if options.blink is None else options.blink
    seed = int(inspection.audio_sha256[:12] or "0", 16) + number + SEED_STEP * options.seed
    shut = make_blinks(len(voiced), rate, seed) if blink else np.zeros(len(voiced), np.float32)
    parts = {"curve": curve, "shut": shut, "pose": make_sway(curve[:, 0], rate, seed)}
    parts["strength"] = make_strength(voiced, inspection.frames, rate)
    edges = (voiced.start, inspection.frames - voiced.stop)
    return {name: np.pad(part, (edges, *[(0, 0)] * (part.ndim - 1))) for name, part in parts.items()}


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
    """The files that `prepare` wrote for one face."""

    def __init__(self, prepared: Path, number: int = 0) -> None:
        with np.load(prepared / name_part("motion", number), allow_pickle=False) as motion:
            self.curve, self.shut, self.pose = motion["curve"], motion["shut"], motion["pose"]
            self.strength = motion["strength"]
        with np.load(prepared / name_part("geometry", number), allow_pickle=False) as geometry:
            self.eyes, self.weight, self.shots = geometry["eyes"], geometry["weight"], geometry["shots"]
            self.references = [Reference.from_arrays(geometry, shot) for shot in range(int(self.shots.max()) + 1)]
            self.first = int(geometry["first"])
            self.bare_steps: Floats | None = geometry.get("bare_steps")
        self._tools: tuple[int, LowerFace, MouthPainter] | None = None

    @property
    def thumbnail_frame(self) -> int:
        """A frame with mouth and eyes open, near the middle."""
        opening = self.curve[:, 0]
        far = np.abs(np.arange(len(opening)) / len(opening) - 0.5)
        return int(np.argmax(np.minimum(opening, 0.7) - 0.2 * far - self.shut))

    @property
    def face_boxes(self) -> Floats:
        """(n, 4): x, y, w, h in pixels of the face in every frame that shows it."""
        at = self.weight > 0
        faces = [reference.face for reference in self.references]
        boxes = np.array([(*face.box[:2] - np.mean(face.eyes, 0), *face.box[2:]) for face in faces])[self.shots[at]]
        return np.column_stack([self.eyes[at].mean(1) + boxes[:, :2], boxes[:, 2:]])

    def trace(self, source: I64) -> FaceTrace:
        """Return where the face is in frames that show frames `source` (n,) of the avatar."""
        known = np.clip(source - self.first, 0, len(self.weight) - 1)
        mouths = [reference.mouth for reference in self.references]
        measured = np.array([(mouth.x, mouth.y, mouth.half_width) for mouth in mouths])[self.shots[known]]
        eyes, (x, y, reach) = self.eyes[known], measured.T
        return FaceTrace(
            faces=place_by_eyes(eyes, *_WHOLE_FACE),
            mouths=place_by_eyes(eyes, x - 1.15 * reach, y - 18, x + 1.15 * reach, y + 32),
            uppers=place_by_eyes(eyes, *_UPPER_FACE),
            painted=place_around(eyes, x, y, reach),
            seen=(known == source - self.first) & (self.weight[known] > 0),
            expected=self.curve[: len(source), 0],
            bare=self._find_bare(known),
        )

    def _find_bare(self, known: I64) -> Floats:
        """Return the steps of tone that the avatar has around its mouth in some of its frames, (n, k, 3)."""
        bare = np.array([reference.bare for reference in self.references])
        if self.bare_steps is None:
            return np.broadcast_to(bare, (len(known), *bare.shape[1:]))
        near = known // EVERY
        is_same = self.shots[EVERY * near] == self.shots[known]
        return np.where(is_same[:, None, None], self.bare_steps[near], bare[self.shots[known]]).astype(np.float16)

    def read_shape(self, n: int) -> tuple[float, float]:
        opening, spread = self.curve[n] * self.strength[n]
        return float(opening), float(spread)

    def _take_tools(self, shot: int) -> tuple[LowerFace, MouthPainter]:
        """Return what draws a shot; that of one shot is kept."""
        if self._tools is None or self._tools[0] != shot:
            of = self.references[shot]
            resting, painter = LowerFace(of.resting, of.face, of.mouth), MouthPainter(of.face, of.mouth, of.tone)
            self._tools = shot, resting, painter
        return self._tools[1:]

    def draw_on(self, canvas: Canvas, frame: U8, n: int, source: int) -> None:
        """Move the face in frame `n`, which shows the avatar's frame `source`, in place."""
        seen = source - self.first
        shot = int(self.shots[seen])
        weight = float(self.weight[seen] * self.strength[n])
        moves, shut = weight > 0 and self.references[shot].mouth.is_visible, float(self.shut[n]) * weight
        if not moves and shut <= 0:
            return
        face = move_face(self.references[shot].face, self.eyes[seen])
        resting, painter = self._take_tools(shot)
        rects = [painter.find_rect(face, canvas.size), resting.find_rect(face, canvas.size)] if moves else []
        rects += [find_eyes(face, canvas.size)] if shut > 0 else []
        with canvas.open_part(frame, widen_rect(join_rects(rects), AROUND * face.eye_distance)) as (part, origin):
            face = shift_face(face, origin)
            if moves:
                resting.lay(part, face, weight)
                draw_mouth(part, face, painter, self.read_shape(n), weight)
            if shut > 0:
                draw_lids(part, face, shut)


def open_faces(request: Request, inspection: Inspection) -> list[PreparedPreview]:
    """Return the prepared faces of all voices."""
    return [PreparedPreview(request.files.prepared, number) for number in range(len(inspection.all_voices))]


def draw_draft(request: Request, inspection: Inspection) -> U8:
    """Return the picture in which the face was found, with the boxes of the faces that would speak."""
    choice = list_choices(read_options(request.options)[0], inspection)[0]
    picture, _ = find_first_face(request, inspection, choice, Path(request.avatar).name)
    outline_boxes(picture, [box for name, box in inspection.details.items() if name.startswith("face")])
    return picture


def stamp_frames(frames: Iterator[U8], label: Label | None) -> Iterator[U8]:
    """Yield the frames, with the label if there is one."""
    for frame in frames:
        if label is not None:
            label.stamp(frame)
        yield frame


def draw_still(
    image: U8, portraits: list[Portrait], faces: list[PreparedPreview], frames: range, *, sway: bool
) -> Iterator[U8]:
    """Yield frames of an image avatar, each in the memory of the one before.

    Heads of several faces don't sway: they would move each other.
    """
    frame = np.empty_like(image)
    for n in frames:
        if len(faces) == 1:
            pose = faces[0].pose[n] * faces[0].strength[n] if sway else None
            yield portraits[0].render(faces[0].read_shape(n), float(faces[0].shut[n]), pose, frame)
            continue
        np.copyto(frame, image)
        for portrait, face in zip(portraits, faces, strict=True):
            portrait.draw_on(frame, face.read_shape(n), float(face.shut[n]))
        yield frame


class Canvas(Protocol):
    """Opens parts of frames to be drawn into, see `media.PlanesEditor`."""

    size: tuple[int, int]

    def open_part(self, frame: U8, rect: Rect) -> AbstractContextManager[tuple[U8, tuple[int, int]]]: ...


class WholeFrames:
    """The canvas of frames in BGR: each is drawn into as it is."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)

    def open_part(self, frame: U8, _: Rect) -> AbstractContextManager[tuple[U8, tuple[int, int]]]:
        return nullcontext((frame, (0, 0)))


def draw_video(
    pictures: Iterator[tuple[int, U8]],
    canvas: Canvas,
    faces: list[PreparedPreview],
    frames: range,
    label: Label | None,
) -> Iterator[U8]:
    """Draw into `pictures`, frames of a video avatar with their numbers in it, and yield them as the result's `frames`;
    those without the face are unchanged.

    The lips and the chin of one frame of each shot rest on all of its frames, and move there as the sound asks.
    """
    for n, (source, frame) in zip(frames, pictures, strict=True):
        for face in faces:
            face.draw_on(canvas, frame, n, source)
        if label is not None:
            with canvas.open_part(frame, label.rect) as (part, (_, top)):
                label.stamp(part, top)
        yield frame
