"""The stage `animate` in a worker: plan the clip of a photo, run its tasks, and put the clip in the photo's place."""

from __future__ import annotations

import json
import os
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
from models.atomic import atomic_folder, atomic_write, hash_file, make_temp_path
from models.avatars import AvatarCache, fetch_entry, make_key
from models.motion.catalog import MOTION_ENGINES
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
        self._write_photo(request, name)
        plan = self.open_engine(request.motion["engine"]).inspect(make_motion_request(request))
        key = make_clip_key(photo_sha256, plan, request.motion["interpolation"])
        if adopt_clip(request, key, _refuse_to_build, progress):
            return None
        files = MotionFiles(request.files.animation)
        write_plan(plan, files)
        return Animation(request.motion["engine"], key, plan.units, plan.memory_bytes)

    def _write_photo(self, request: Request, name: str) -> None:
        """Write the avatar as an upright picture without transparency, once it is known to show a face."""
        image = media.read_image(request.files.avatar, name, request.limits, media.read_background(request))
        if "face_box" not in request.options and not find_faces(image):
            hint = "choose a portrait from the front, well lit; the option face_box says where the face is"
            raise EngineError("no_face", f"no face was found in {name}, so nobody can be made to move", hint)
        with atomic_write(request.files.photo, durable=False) as temp_path:
            temp_path.write_bytes(cv2.imencode(".png", image)[1].tobytes())

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
        """Make the clip of its decoded frames, keep it in the cache, and put it in the place of the avatar."""
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
    os.link(target / CLIP, beside)
    beside.replace(request.files.avatar)
    return True


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


@contextmanager
def name_the_clip(request: Request) -> Iterator[None]:
    """Say of a clip without a face that it is the clip: the photo was looked at before the clip was made."""
    try:
        yield
    except EngineError as error:
        if error.code != "no_face" or not read_facts(request):
            raise
        message = f"no face was found in the clip that was made of {Path(request.avatar).name}"
        hint = "try another seed or prompt of motion, or a photo in which the face is larger"
        raise EngineError("no_face", message, hint) from error


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
    """Remove all files of a clip of which one can't be read, as after a power cut."""
    from safetensors import SafetensorError  # workers run without the extras, too

    try:
        yield
    except (SafetensorError, json.JSONDecodeError) as error:
        shutil.rmtree(files.folder, ignore_errors=True)
        message = f"a part of the clip was damaged on disk ({error}); it is made again"
        raise EngineError("part_damaged", message, "is the disk all right?", retry=True) from error


def _refuse_to_build(folder: Path) -> None:
    raise LookupError(folder)
