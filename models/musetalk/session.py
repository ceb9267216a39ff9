"""The stages of a job that need networks: prepares a job, and renders its frames."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import media
from models.arrays import F32, U8
from models.atomic import atomic_folder, atomic_write
from models.avatars import AvatarCache, fetch_entry, make_key
from models.media.prefetch import closing_all
from models.musetalk.audio.features import audio_windows
from models.musetalk.audio.resampling import read_chunks
from models.musetalk.audio.speech import make_speech
from models.musetalk.audio.vad import measure_levels
from models.musetalk.avatar.frames import BgrFrames, OpaqueFrames, open_yuv
from models.musetalk.avatar.prepare import prepare_avatar
from models.musetalk.avatar.store import PreparedAvatar
from models.musetalk.compositing.composite import Blend, BlendStyle, Compositor
from models.musetalk.compositing.corner_label import CornerLabel
from models.musetalk.compositing.pipeline import BlendCache, FrameReader, KeptVideo, compose_frames, read_frames
from models.musetalk.draft import blend_faces, read_keys
from models.musetalk.engines.plan import EnginePlan
from models.musetalk.engines.qdq import Bits
from models.musetalk.inpainting.forms import USUAL_NAME
from models.musetalk.inpainting.memory_errors import is_out_of_memory
from models.musetalk.networks import Networks, Setup
from models.musetalk.options import Options, has_draft_decoder, read_inspected_options
from models.musetalk.prepared_job import (
    AVATAR,
    ENGINE,
    FEATURES,
    STATS,
    FrameSchedule,
    PreparedJob,
    PreparedVoices,
    ScenePart,
    name_voice_folder,
    plan_frames,
)
from models.musetalk.tracking.intervals import find_runs
from models.musetalk.weights.loader import Weights
from models.types import EngineError, Inspection, Request

__all__ = ["RenderSession", "Setup", "choose_form_for", "choose_tuning_for", "select_device"]

CONTEXT_BYTES = 600_000_000
"""Memory of a CUDA context, beside torch's own allocations."""
SAMPLE_FRAMES = {"cuda": 8, "cpu": 4}
"""Frames of the avatar that 8 bits are calibrated on; a processor takes seconds for each of a dozen trials."""
SPEECH_S, SPEECH_RATE = 3.0, Fraction(25)
AVATAR_FORMAT = 1
"""Version of the prepared avatars in the cache: another number makes older entries useless."""


def select_device(name: str) -> torch.device:
    """Return the torch device of "cpu:0", or of the only card that this process sees.

    Raises EngineError engine_unavailable for a card where PyTorch is a build for processors.
    """
    if name.startswith("cpu"):
        return torch.device("cpu")
    if not torch.backends.cuda.is_built():
        message = f"PyTorch {torch.__version__} is a build for processors alone, and can't use the card {name}"
        raise EngineError("engine_unavailable", message, "install its CUDA build, see https://pytorch.org")
    return torch.device("cuda:0")


def choose_form_for(device: str, forms: Mapping[str, str]) -> str:
    """Return the form of the networks on a device, by the name of its type; see `Request.forms`."""
    on_card = forms and not device.startswith("cpu")
    return forms.get(torch.cuda.get_device_name(0), USUAL_NAME) if on_card else USUAL_NAME


def choose_tuning_for(device: str, tuned: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return what tuning found fastest on a device, by the name of its type; see `Request.tuned`."""
    if not tuned:
        return {}
    return tuned.get("cpu" if device.startswith("cpu") else torch.cuda.get_device_name(0), {})


class RenderSession:
    """Prepares and renders jobs with one set of networks, which stay loaded between the jobs."""

    def __init__(self, setup: Setup, device: torch.device, weights: Weights | None = None) -> None:
        """Take face networks and Whisper from `weights`, if given.

        Raises EngineError weights_missing, weights_damaged, weights_unsafe.
        """
        self.networks = Networks(setup, device, weights)
        self._video = KeptVideo()

    # preparing -------------------------------------------------------------------------------------------------------

    def prepare(self, request: Request, inspection: Inspection, tick: Callable[[], None]) -> None:
        """Write the folder `request.files.prepared`: avatar, features and schedule.

        The avatar comes from the cache if it is there.

        `tick` is called every few frames, and may raise to cancel the work. Raises EngineError
        no_face, bad_option, disk_full, out_of_memory, and those of unreadable media.
        """
        self._video.close()
        options = read_inspected_options(request, inspection)
        with explain_out_of_memory(), atomic_folder(request.files.prepared) as folder:
            for number, voice in enumerate(inspection.all_voices):
                own = options if voice.face is None else options.model_copy(update={"face": voice.face})
                target = name_voice_folder(folder, number)
                target.mkdir(exist_ok=True)
                self._prepare_voice(request, inspection, own, target, number, tick)
            if options.bits:
                self._plan_engine(request, inspection, options, options.bits, folder, tick)

    def _prepare_voice(
        self,
        request: Request,
        inspection: Inspection,
        options: Options,
        folder: Path,
        number: int,
        tick: Callable[[], None],
    ) -> None:
        """Write the folder of one voice."""
        started_s = time.monotonic()
        from_cache = self._prepare_avatar(request, inspection, options, folder / AVATAR, tick)
        avatar_s = time.monotonic() - started_s
        avatar = PreparedAvatar(folder / AVATAR)
        window = find_window(request, inspection)
        if options.no_face == "fail":
            require_faces(avatar, inspection, Path(request.avatar).name, window)
        samples, levels_db = self._encode_voice(request.files.voice_path(number), folder / FEATURES, tick)
        part = None
        if request.is_scene:
            first = window.start if window else 0
            part = ScenePart(inspection.scene.frames, first, inspection.details["avatar_frames"])
        schedule = plan_frames(avatar, levels_db, inspection.frames, inspection.rate, options, part)
        schedule.write(folder)
        stats = {
            "version": options.version,
            "way": options.way,
            "avatar_from_cache": from_cache,
            "avatar_seconds": round(avatar_s, 3),
            "voice_seconds": round(time.monotonic() - started_s - avatar_s, 3),
            "samples": samples,
            **summarize_frames(avatar, schedule, inspection.scene.frames),
        }
        (folder / STATS).write_text(json.dumps(stats, indent=1) + "\n", encoding="utf-8")

    def _prepare_avatar(
        self, request: Request, inspection: Inspection, options: Options, target: Path, tick: Callable[[], None]
    ) -> bool:
        """Put the prepared avatar into `target`; return whether it was in the cache."""
        about = {
            "name": Path(request.avatar).name,
            "avatar_sha256": inspection.avatar_sha256,
            "summary": f"musetalk {options.parsing}, {inspection.width}x{inspection.height}",
            "options": options.preparation_inputs,
        }
        window, count = find_window(request, inspection), inspection.faces_needed

        def build(folder: Path) -> None:
            face_box = inspection.details.get("face_box")
            with BgrFrames(request, inspection, window, reference=options.is_reference) as frames:
                prepare_avatar(folder, frames, inspection.rate, self.networks, options, about, tick, face_box, count)

        with AvatarCache(Path(request.cache), request.cache_bytes) as cache:
            key = self.make_avatar_key(request, inspection, options, window)
            was_there = fetch_entry(cache, key, build, target, tick)
            cache.note_avatar(inspection.avatar_sha256, key)
        return was_there

    def make_avatar_key(
        self, request: Request, inspection: Inspection, options: Options, window: range | None = None
    ) -> str:
        """Return a hash of all that a prepared avatar depends on.

        A still picture does not depend on the rate. `window`: the frames that are prepared, None
        for all.
        """
        rate = inspection.fps if inspection.avatar_kind == "video" else ""
        setup = self.networks.setup
        part: list[Any] = [] if window is None else [[window.start, window.stop]]
        part += [f"of {inspection.faces_needed}"] if inspection.faces_needed else []
        background = inspection.media_sha256.get("background", request.background)
        part += [f"over {background}"] if background else []
        return make_key(
            "musetalk",
            AVATAR_FORMAT,
            *part,
            inspection.avatar_sha256,
            [inspection.width, inspection.height, rate],
            options.preparation_inputs,
            [self.networks.vision_fingerprint, self.networks.device.type, setup.precision, setup.plain],
        )

    def _plan_engine(
        self,
        request: Request,
        inspection: Inspection,
        options: Options,
        bits: Bits,
        folder: Path,
        tick: Callable[[], None],
    ) -> None:
        """Write how this job runs in 8 bits, found on its avatars and the built-in speech, whatever its voice says."""
        count = max(SAMPLE_FRAMES[self.networks.device.type], self.networks.engine_batches["unet"])
        voices = range(len(inspection.all_voices))
        avatars = [PreparedAvatar(name_voice_folder(folder, number) / AVATAR) for number in voices]
        speech = make_speech(SPEECH_S)
        features = self.networks.whisper_encoder.encode(speech)
        spoken = audio_windows(features, len(speech), SPEECH_RATE, range(count), context=options.audio_context)
        store = Path(request.cache), request.cache_bytes, tick
        plan = self.networks.fetch_plan(bits, store, sample_latents(avatars, count), spoken)
        plan.write(folder / ENGINE)

    def _encode_voice(self, sound: Path, path: Path, tick: Callable[[], None]) -> tuple[int, F32]:
        """Write the voice's features to `path`; return its number of samples and levels in dB."""
        levels: list[F32] = []

        def read_and_measure() -> Iterator[F32]:
            for chunk in read_chunks(sound):
                tick()
                levels.append(measure_levels([chunk]))
                yield chunk

        samples = self.networks.whisper_encoder.encode_to_file(path, read_and_measure())
        return samples, np.concatenate([np.zeros(0, np.float32), *levels])

    # rendering -------------------------------------------------------------------------------------------------------

    def render(self, request: Request, inspection: Inspection, start: int, stop: int) -> Generator[U8]:
        """Yield frames start..stop-1 of a prepared job, uint8.

        They are planes (h * 3 / 2, w), BGR (h, w, 3) in the reference's way, or BGRA (h, w, 4) where
        the output keeps transparency.

        Raises EngineError out_of_memory, and those of an unreadable avatar.
        """
        options = read_inspected_options(request, inspection)
        job = PreparedVoices(request.files.prepared, len(inspection.all_voices))
        frames, is_last = range(start, stop), stop == inspection.frames
        plan = EnginePlan.read(request.files.prepared / ENGINE) if options.bits else None
        opened = choose_frames(request, inspection, options)
        with explain_out_of_memory():
            self.networks.use_engine(plan, (Path(request.cache), request.cache_bytes, lambda: None))
            composed = compose_frames(
                read_frames(
                    partial(self._video.reuse_or_open, opened, (request, inspection), is_last=is_last),
                    job.jobs[0].source[start:stop].tolist(),
                ),
                (self._inpaint_draft if options.is_draft else self._inpaint_faces)(job, inspection, options, frames),
                zip_blends([make_blends(one, request, inspection, options, frames) for one in job.jobs]),
            )
            if label := options.describe_label(has_draft_decoder(inspection)):
                composed = stamp_frames(label, composed, inspection, job)
            if not request.output.alpha:
                yield from composed
            else:
                with closing_all(composed):
                    yield from (media.keep_opacity(frame[..., :3], frame[..., 3]) for frame in composed)
        if start == 0:
            with atomic_write(request.files.inpainter_stats) as path:
                path.write_text(json.dumps(self.stats()), encoding="utf-8")

    def stats(self) -> dict[str, Any]:
        """Return how the inpainter works, for the result: precision, batch, seconds of loading."""
        return {**self.networks.inpainter.stats(), "load_seconds": round(self.networks.load_s, 3)}

    def measure_footprint(self) -> dict[str, Any]:
        """Load the networks; return `held_bytes` and `batch`.

        `held_bytes` is the memory that this process takes of the card, `batch` is in frames.
        """
        batch = self.networks.inpainter.sizes.unet
        return {"held_bytes": torch.cuda.memory_reserved() + CONTEXT_BYTES, "batch": batch}

    def _inpaint_faces(
        self, job: PreparedVoices, inspection: Inspection, options: Options, frames: range
    ) -> Iterator[U8]:
        for run in job.find_inpainted_runs(frames):
            yield from self.networks.inpainter.stream(
                run,
                job.read_latents,
                lambda part: job.audio_windows(
                    part, inspection.rate, reference=options.is_reference, context=options.audio_context
                ),
                inspection.frames * len(job.jobs),
            )

    def _inpaint_draft(
        self, job: PreparedVoices, inspection: Inspection, options: Options, frames: range
    ) -> Iterator[U8]:
        plan, count = job.plan_draft(), len(job.jobs)
        shown = plan.find_shown(range(frames.start * count, frames.stop * count))
        heard = partial(
            job.audio_windows, rate=inspection.rate, reference=options.is_reference, context=options.audio_context
        )

        def read(rows: Callable[[range], F32]) -> Callable[[range], F32]:
            return lambda part: read_keys(plan.keys[part.start : part.stop], rows, 2 * count)

        painted = self.networks.inpainter.stream(
            plan.find_needed(shown),
            read(job.read_latents),
            read(heard),
            len(plan.keys),
            self.networks.open_draft_decoder() if has_draft_decoder(inspection) else None,
        )
        yield from blend_faces(plan, shown, painted)


def sample_latents(avatars: Sequence[PreparedAvatar], count: int) -> F32:
    """Return the latents of faces that are spread over all avatars, (count, 8, 32, 32) float32."""
    seen = [np.flatnonzero(avatar.seen) for avatar in avatars]
    shares = [(number % len(avatars), number / count) for number in range(count)]
    rows = [avatars[one].read_latents(seen[one][[int(share * len(seen[one]))]]) for one, share in shares]
    return np.concatenate(rows)


def stamp_frames(text: str, frames: Generator[U8], inspection: Inspection, job: PreparedVoices) -> Generator[U8]:
    """Yield the frames with a label in a corner."""
    boxes = np.concatenate([one.avatar.boxes[one.avatar.seen] for one in job.jobs])
    label = CornerLabel(text, (inspection.width, inspection.height), boxes)
    with closing_all(frames):
        for frame in frames:
            label.stamp(frame)
            yield frame


def zip_blends(of_voices: Sequence[Iterator[Blend | None]]) -> Iterator[tuple[Blend, ...]]:
    """Yield the blends of all faces of each frame."""
    for blends in zip(*of_voices, strict=True):
        yield tuple(blend for blend in blends if blend is not None)


def choose_frames(
    request: Request, inspection: Inspection, options: Options
) -> Callable[[], AbstractContextManager[FrameReader]]:
    """Return what opens the frames that the mouths are blended into."""
    if request.output.alpha:
        return partial(OpaqueFrames, request, inspection, reference=options.is_reference)
    if options.is_reference:
        return partial(BgrFrames, request, inspection, reference=True)
    return partial(open_yuv, request, inspection)


def make_blends(
    job: PreparedJob, request: Request, inspection: Inspection, options: Options, frames: range
) -> Iterator[Blend | None]:
    """Yield the blend of each frame, None where the mouth is not inpainted.

    The reference blends BGR, ours YUV, or BGR where transparency is kept.
    """
    colour = None if options.is_reference or request.output.alpha else inspection.colour
    style = BlendStyle(options.matches_colour, options.has_antialiasing)
    compositor = Compositor(job.avatar, (inspection.width, inspection.height), colour, style)
    cache = BlendCache(compositor.make_blend)
    for frame in frames:
        source, weight = int(job.source[frame]) - job.first, float(job.weight[frame])
        if weight <= 0:
            yield None
        else:
            yield cache.get(source) if weight >= 1 else compositor.make_blend(source, weight)


def find_window(request: Request, inspection: Inspection) -> range | None:
    """Return the frames of a video avatar that are prepared, None for all of them."""
    voiced = inspection.scene.frames
    within = voiced.stop <= inspection.details["avatar_frames"]
    return voiced if request.is_scene and within and inspection.avatar_kind == "video" else None


def summarize_frames(avatar: PreparedAvatar, schedule: FrameSchedule, voiced: range) -> dict[str, Any]:
    """Return what the result says about its frames, as JSON.

    The intervals without a face or a voice among the frames that follow the voice, and what is
    known of the boxes.
    """
    first = voiced.start
    return {
        "poster": schedule.thumbnail_frame,
        "no_face": [[first + start, first + stop] for start, stop in find_runs(~schedule.seen)],
        "silent": [[first + start, first + stop] for start, stop in find_runs(schedule.voice <= 0)],
        **{name: avatar.about[name] for name in ("jitter_px", "raw_jitter_px", "cuts", "shift_range")},
    }


def require_faces(avatar: PreparedAvatar, inspection: Inspection, name: str, window: range | None = None) -> None:
    """Raise EngineError no_face with the first frame of the avatar that shows no face."""
    missing = np.flatnonzero(~avatar.seen)
    if len(missing):
        first = int(missing[0]) + (window.start if window else 0)
        message = f"frame {first} of {name} ({float(first / inspection.rate):.2f} s) shows no face"
        message += f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        hint = 'cut the video, or say "no_face": "keep" to show such frames as they are'
        raise EngineError("no_face", message, hint)


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Raise EngineError out_of_memory where memory runs out even in the smallest batches."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "free memory on the device, or choose a smaller output.height; it is tried again on any device with room"
        message = f"memory ran out: {str(error).partition('.')[0]}"
        raise EngineError("out_of_memory", message, hint, retry=True) from error
