"""The stage `animate` in a worker: plan the clip of a photo, run its tasks, and put the clip in the photo's place."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2

from models import media
from models.arrays import U8
from models.atomic import atomic_folder, atomic_write, hash_file, make_temp_path
from models.avatars import AvatarCache, fetch_entry, link_or_copy, make_key
from models.motion.boxes import cut_middle, place_boxes
from models.motion.catalog import MOTION_ENGINES, stamp_motion
from models.motion.types import MotionEngine, MotionFiles, MotionPlan, MotionRequest
from models.preview.face import find_faces
from models.types import Animation, EngineError, Inspection, ProgressCallback, Request

VERSION = 1
"""Version of the clips in the cache: a change of interpolation or encoding raises it."""
FPS = Fraction(25)
CLIP, ABOUT = "clip.mkv", "about.json"
OWN_KEYS = ("engine", "interpolation", "clip")
"""Keys of `Request.motion` that the engine doesn't see."""


class Animator:
    """Runs the tasks of clips. The engine of the last one stays loaded for the next."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._engine: tuple[str, MotionEngine] | None = None

    def open_engine(self, name: str) -> MotionEngine:
        if self._engine is None or self._engine[0] != name:
            self._engine = None  # free the old engine before the new one allocates memory
            module, _, cls = MOTION_ENGINES[name].factory.partition(":")
            factory: Callable[[str], MotionEngine] = getattr(import_module(module), cls)
            self._engine = (name, factory(self.device))
        return self._engine[1]

    def close(self) -> None:
        """Free the engine."""
        self._engine = None

    def plan(self, request: Request, photo_sha256: str, progress: ProgressCallback) -> Animation | None:
        """Plan the clip of the photo; None if the cache has it, which then is in the place of the avatar.

        Raises EngineError bad_value for a video, no_face, and what the engine refuses.
        """
        name = Path(request.avatar).name
        picture = media.read_picture(request.files.avatar, name, request.limits)
        if picture.kind == "video":
            message = f"motion was asked for, but {name} is a video, which moves already"
            raise EngineError("bad_value", message, "leave out motion, or give a photo of the person")
        photo, stamp = self._write_photo(request, name), stamp_request(request)
        plan = self.open_engine(request.motion["engine"]).inspect(make_motion_request(request))
        check_shown(request, photo, plan)
        key = make_clip_key(photo_sha256, plan, request.motion["interpolation"])
        if adopt_clip(request, key, _refuse_to_build, progress):
            return None
        files = MotionFiles(request.files.animation)
        write_plan(plan, files)
        write_stamp(stamp, files)
        return Animation(request.motion["engine"], key, plan.units, plan.memory_bytes)

    def _write_photo(self, request: Request, name: str) -> U8:
        """Write the avatar as an upright picture without transparency, once it is known to show a face; return it."""
        image = media.read_image(request.files.avatar, name, request.limits, media.read_background(request))
        if "face_box" not in request.options and not find_faces(image):
            hint = "choose a portrait from the front, well lit; the option face_box says where the face is"
            raise EngineError("no_face", f"no face was found in {name}, so nobody can be made to move", hint)
        with atomic_write(request.files.photo, durable=False) as temp_path:
            temp_path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
        return image

    def run(
        self, request: Request, animation: Animation, step: int, span: tuple[int, int], progress: ProgressCallback
    ) -> None:
        """Do the units of a task of the animation, but not those of the last, which is `finish`.

        Raises EngineError part_damaged where files were damaged on disk: then all is made again.
        """
        files, engine = MotionFiles(request.files.animation), self.open_engine(animation.engine)
        with redo_damaged(files), one_operator_thread(self.device):
            if step == 0:
                files.folder.mkdir(exist_ok=True)
                plan = files.read_plan() if files.plan.exists() else engine.inspect(make_motion_request(request))
                plan = replace(plan, request=make_motion_request(request))  # the paths of this machine
                write_plan(plan, files)
                engine.prepare(plan, files.folder, progress)
            elif step > len(animation.units):
                self._decode(engine, files, progress)
            elif span[0] < animation.units[step - 1]:
                engine.denoise(files.folder, step - 1, *span, progress)
            else:
                engine.advance(files.folder, step - 1, progress)
                if step > 1:  # another worker may still add the units of the present step
                    files.remove_step(step - 2)

    def _decode(self, engine: MotionEngine, files: MotionFiles, progress: ProgressCallback) -> None:
        if not files.frames.exists():
            with atomic_folder(files.frames) as folder:
                engine.decode(files.folder, folder, progress)

    def finish(self, request: Request, inspection: Inspection, progress: ProgressCallback) -> None:
        """Make the clip of its decoded frames, keep it in the cache, and put it in the place of the avatar.

        Raises EngineError weights_damaged where weights were replaced since the clip was planned: the cache would have
        it as one of other weights.
        """
        files, animation = MotionFiles(request.files.animation), inspection.animation
        assert animation is not None  # noqa: S101 - else this stage has no tasks
        photo_sha256 = inspection.media_sha256["photo"]

        def build(folder: Path) -> None:
            plan, method = files.read_plan(), request.motion["interpolation"]
            rate = media.write_clip(
                files.frames, folder / CLIP, Fraction(plan.fps), method, FPS, request.limits, progress
            )
            about = describe_clip(plan, rate, method, photo_sha256)
            (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

        with redo_damaged(files):
            check_stamp(request, files)
            adopt_clip(request, animation.key, build, progress)
        shutil.rmtree(files.folder, ignore_errors=True)


def make_motion_request(request: Request) -> MotionRequest:
    asked = {name: value for name, value in request.motion.items() if name not in OWN_KEYS}
    return MotionRequest(str(request.files.photo), Path(request.avatar).name, request.models_dir, **asked)


def make_clip_key(photo_sha256: str, plan: MotionPlan, interpolation: str) -> str:
    """Return the key of the clip in the cache, which depends on all that decides its frames."""
    return make_key("clip", VERSION, photo_sha256, plan.identity, interpolation)


def describe_clip(plan: MotionPlan, rate: Fraction, method: str, photo_sha256: str) -> dict[str, Any]:
    """Return what result.json says of a clip, and `musedrop avatar list`."""
    seconds = round(float((plan.frames - 1) / Fraction(plan.fps)), 2)
    method = method if str(rate) != plan.fps else "none"
    facts = {**plan.facts, "width": plan.width, "height": plan.height, "seconds": seconds, "fps": str(rate)}
    facts |= {"native_frames": plan.frames, "native_fps": plan.fps, "interpolation": method, "notes": list(plan.notes)}
    summary = f"clip by {facts.get('engine')}, {seconds:g} s, seed {plan.request.seed}"
    return {"avatar_sha256": photo_sha256, "summary": summary, "made_at_s": int(time.time()), "facts": facts}


def adopt_clip(request: Request, key: str, build: Callable[[Path], None], progress: ProgressCallback) -> bool:
    """Put the clip of the cache, which `build` makes if it is missing, in the place of the avatar.

    Return False where `build` refuses to.
    """
    target = request.files.work / "clip"
    shutil.rmtree(target, ignore_errors=True)
    with AvatarCache(Path(request.cache), request.cache_bytes) as cache:
        try:
            was_there = fetch_entry(cache, key, build, target, lambda: progress(0))
        except LookupError:
            return False
    facts = json.loads((target / ABOUT).read_bytes())["facts"] | {"from_cache": was_there}
    with atomic_write(request.files.clip_facts, durable=False) as temp_path:
        temp_path.write_text(json.dumps(facts), encoding="utf-8")
    beside = make_temp_path(request.files.avatar)
    link_or_copy(target / CLIP, beside)
    beside.replace(request.files.avatar)
    return True


def check_shown(request: Request, photo: U8, plan: MotionPlan) -> None:
    """Raise EngineError no_face or bad_option where the clip would not show the face that the photo (h, w, 3) shows."""
    size, shown = (photo.shape[1], photo.shape[0]), cut_middle(photo, (plan.width, plan.height))
    place_boxes(request.options, size, (plan.width, plan.height))
    if "face_box" not in request.options and shown.shape != photo.shape and not find_faces(shown):
        name = Path(request.avatar).name
        message = f"the clip would show the middle of {name}, in which no face was found"
        raise EngineError("no_face", message, "cut the photo so that the face is in its middle")


def follow_clip(request: Request) -> Request:
    """Return the request with boxes of the photo in pixels of the clip, where that has taken the place of the photo."""
    facts = read_facts(request)
    if not facts:
        return request
    photo = media.read_picture(request.files.photo, Path(request.avatar).name, request.limits)
    sizes = (photo.width, photo.height), (facts["width"], facts["height"])
    return replace(request, options=place_boxes(request.options, *sizes))


def explain_lost_face(error: EngineError, request: Request) -> EngineError:
    """Return what to say of a clip in which the face of the photo isn't found any more."""
    if error.code != "no_face":
        return error
    message = f"the clip that was made of {Path(request.avatar).name} shows no face, though the photo does"
    return EngineError("no_face", message, "ask for another motion.seed, more motion.steps, or a larger motion.size")


def stamp_request(request: Request) -> str:
    """Return a stamp of the weights that a clip of the request is made with."""
    return stamp_motion(Path(request.models_dir), request.motion)


def write_stamp(stamp: str, files: MotionFiles) -> None:
    with atomic_write(files.stamp, durable=False) as temp_path:
        temp_path.write_text(stamp, encoding="ascii")


def check_stamp(request: Request, files: MotionFiles) -> None:
    """Raise EngineError weights_damaged unless the weights are those of the time when the clip was planned."""
    if files.stamp.exists() and files.stamp.read_text(encoding="ascii") != stamp_request(request):
        shutil.rmtree(files.folder, ignore_errors=True)
        message = "the weights were replaced while the clip was made with them; it is made again"
        raise EngineError("weights_damaged", message, "leave the weights alone while jobs with motion run", retry=True)


def hash_clip(request: Request) -> str:
    return hash_file(request.files.avatar)


def read_facts(request: Request) -> dict[str, Any]:
    """Return what is known of the clip that is the avatar; nothing for jobs without one."""
    if not request.motion or not request.files.clip_facts.exists():
        return {}
    facts: dict[str, Any] = json.loads(request.files.clip_facts.read_bytes())
    return facts


def note_clip(inspection: Inspection, facts: dict[str, Any]) -> Inspection:
    """Add what the engine has to say of the clip."""
    return replace(inspection, notes=(*inspection.notes, *facts.get("notes", ())))


def write_plan(plan: MotionPlan, files: MotionFiles) -> None:
    files.folder.mkdir(exist_ok=True)
    with atomic_write(files.plan, durable=False) as temp_path:
        temp_path.write_text(plan.to_json_text(), encoding="utf-8")


@contextmanager
def one_operator_thread(device: str) -> Iterator[None]:
    """Let each operator on a processor run in one thread.

    A sum that several threads make has other last digits, and a clip must not depend on how many threads a worker has.
    """
    import torch  # only a worker that runs an engine has it

    threads = torch.get_num_threads()
    if device.startswith("cpu"):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def redo_damaged(files: MotionFiles) -> Iterator[None]:
    """Remove all files of a clip of which one can't be read or is missing, as after a power cut."""
    from safetensors import SafetensorError  # workers run without the extras, too

    try:
        yield
    except (SafetensorError, json.JSONDecodeError, FileNotFoundError) as error:
        if isinstance(error, FileNotFoundError) and not Path(error.filename or "").is_relative_to(files.folder):
            raise
        shutil.rmtree(files.folder, ignore_errors=True)
        message = f"a part of the clip was damaged on disk ({error}); it is made again"
        raise EngineError("part_damaged", message, "is the disk all right?", retry=True) from error


def _refuse_to_build(folder: Path) -> None:
    raise LookupError(folder)
