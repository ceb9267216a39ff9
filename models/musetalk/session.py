"""The heavy half of the engine: prepares a job and paints its frames, with the networks of one studio."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.atomic import atomic_folder, atomic_write
from models.avatars import AvatarCache, make_key
from models.musetalk import prepared_job as scene
from models.musetalk.audio.vad import measure_levels
from models.musetalk.audio.whisper import Floats, read_chunks
from models.musetalk.avatar import prepare as preparation
from models.musetalk.avatar import store as entry
from models.musetalk.avatar.frames import BgrFrames, open_yuv
from models.musetalk.compositing.composite import BgrBlend, YuvBlend
from models.musetalk.compositing.pipeline import BlendCache, Faces, Picture, compose_frames
from models.musetalk.networks import Networks, Setup
from models.musetalk.options import Options, read_options
from models.musetalk.prepared_job import Compositor, PreparedJob
from models.musetalk.tracking.intervals import find_runs
from models.types import EngineError, Inspection, Request

__all__ = ["RenderSession", "Setup", "select_device"]

CONTEXT_BYTES = 600_000_000
"""What a CUDA context takes beside torch's own allocations."""
AVATAR_FORMAT = 1
"""Of what is kept of an avatar: another number makes older entries useless."""


def select_device(name: str) -> torch.device:
    return torch.device("cpu" if name.startswith("cpu") else "cuda:0")


class RenderSession:
    def __init__(self, setup: Setup, device: torch.device) -> None:
        self.studio = Networks(setup, device)

    # preparing -------------------------------------------------------------------------------------------------------

    def prepare(self, request: Request, outline: Inspection, tick: Callable[[], None]) -> None:
        """Leave the folder `request.files.prepared`: the avatar, from the cache or made now, and the voice."""
        options, _ = read_options(request.options)
        with explain_out_of_memory(), atomic_folder(request.files.prepared) as folder:
            started = time.monotonic()
            from_cache = self._prepare_avatar(request, outline, options, folder / scene.AVATAR, tick)
            avatar_s = time.monotonic() - started
            prepared = entry.PreparedAvatar(folder / scene.AVATAR)
            if options.no_face == "fail":
                require_faces(prepared, outline, Path(request.avatar).name)
            samples, level = self._encode_voice(request, folder / scene.FEATURES, tick)
            course = scene.plan_schedule(prepared, level, outline.frames, outline.rate, options)
            scene.write_schedule(folder, course)
            facts = {
                "version": options.version,
                "way": options.way,
                "avatar_from_cache": from_cache,
                "avatar_seconds": round(avatar_s, 3),
                "voice_seconds": round(time.monotonic() - started - avatar_s, 3),
                "samples": samples,
                "poster": int(course["poster"]),
                "no_face": list(find_runs(~prepared.seen[course["source"]])),
                "silent": list(find_runs(course["voice"] <= 0)),
                **{name: prepared.about[name] for name in ("jitter_px", "raw_jitter_px", "cuts", "shift_range")},
            }
            (folder / entry.STATS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    def _prepare_avatar(
        self, request: Request, outline: Inspection, options: Options, target: Path, tick: Callable[[], None]
    ) -> bool:
        about = {
            "name": Path(request.avatar).name,
            "avatar_sha256": outline.avatar_sha256,
            "summary": f"musetalk {options.parsing}, {outline.width}x{outline.height}",
            "options": options.preparation_inputs,
        }

        def build(folder: Path) -> None:
            with BgrFrames(request, outline) as frames:
                preparation.prepare_avatar(folder, frames, outline.rate, self.studio, options, about, tick)

        with AvatarCache(Path(request.cache), request.cache_bytes) as cache:
            return entry.fetch_avatar(cache, self.avatar_key(outline, options), build, target, tick)

    def avatar_key(self, outline: Inspection, options: Options) -> str:
        """Everything that a prepared avatar depends on. The rate of a still picture is no part of it."""
        rate = outline.fps if outline.avatar_kind == "video" else ""
        setup = self.studio.setup
        return make_key(
            "musetalk",
            AVATAR_FORMAT,
            outline.avatar_sha256,
            [outline.width, outline.height, rate],
            options.preparation_inputs,
            [self.studio.vision_fingerprint, self.studio.device.type, setup.precision, setup.plain],
        )

    def _encode_voice(self, request: Request, path: Path, tick: Callable[[], None]) -> tuple[int, Floats]:
        """Write what Whisper hears to `path`; returns the number of samples at 16 kHz, and their levels."""
        loud: list[Floats] = []

        def read_and_measure() -> Iterator[Floats]:
            for piece in read_chunks(request.files.audio):
                tick()
                loud.append(measure_levels([piece]))
                yield piece

        samples = self.studio.whisper_encoder.encode_to_file(path, read_and_measure())
        return samples, np.concatenate([np.zeros(0, np.float32), *loud])

    # rendering -------------------------------------------------------------------------------------------------------

    def render(self, request: Request, outline: Inspection, start: int, stop: int) -> Generator[Picture]:
        options, _ = read_options(request.options)
        shot = PreparedJob(request.files.prepared)
        frames = range(start, stop)
        with explain_out_of_memory():
            yield from compose_frames(
                self._read_backgrounds(request, outline, options, shot.source[start:stop]),
                self._inpaint_faces(shot, outline, options, frames),
                self._make_blends(shot, outline, options, frames),
            )
        if start == 0:
            with atomic_write(Path(request.work) / entry.INPAINTER_STATS) as path:
                path.write_text(json.dumps(self.stats()), encoding="utf-8")

    def stats(self) -> dict[str, Any]:
        return {**self.studio.inpainter.stats(), "load_seconds": round(self.studio.load_s, 3)}

    def measure_footprint(self) -> dict[str, Any]:
        """Once the networks are loaded: bytes that this process holds of the card, and frames in a batch."""
        batch = self.studio.inpainter.sizes.unet
        return {"held_bytes": torch.cuda.memory_reserved() + CONTEXT_BYTES, "batch": batch}

    def _read_backgrounds(
        self, request: Request, outline: Inspection, options: Options, sources: npt.NDArray[np.int64]
    ) -> Iterator[Picture]:
        """The reference pastes into BGR; ours into the planes that the video has."""
        opened = BgrFrames(request, outline) if options.is_reference else open_yuv(request, outline)
        with opened as video:
            for source in sources.tolist():
                yield video.read(source)

    def _inpaint_faces(
        self, shot: PreparedJob, outline: Inspection, options: Options, frames: range
    ) -> Iterator[Faces]:
        for run in shot.find_inpainted_runs(frames):
            yield from self.studio.inpainter.stream(
                run, shot.latents, lambda part: shot.audio_windows(part, outline.rate, reference=options.is_reference)
            )

    def _make_blends(
        self, shot: PreparedJob, outline: Inspection, options: Options, frames: range
    ) -> Iterator[BgrBlend | YuvBlend | None]:
        colour = None if options.is_reference else outline.colour
        compositor = Compositor(shot.prepared, (outline.width, outline.height), colour)
        kept = BlendCache(compositor.make_blend)
        for frame in frames:
            source, weight = int(shot.source[frame]), float(shot.weight[frame])
            if weight <= 0:
                yield None
            else:
                yield kept.get(source) if weight >= 1 else compositor.make_blend(source, weight)


def require_faces(prepared: entry.PreparedAvatar, outline: Inspection, name: str) -> None:
    """Raises EngineError no_face naming the first frame without one."""
    missing = np.flatnonzero(~prepared.seen)
    if len(missing):
        first = int(missing[0])
        message = f"frame {first} of {name} ({float(first / outline.rate):.2f} s) shows no face"
        message += f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        hint = 'cut the video, or say "no_face": "keep" to show such frames as they are'
        raise EngineError("no_face", message, hint)


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Say what to do where memory ran out even for one frame at a time."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        hint = "free memory on the device, or choose a smaller output.height; it is tried again on any device with room"
        message = f"memory ran out with one frame at a time: {str(error).partition('.')[0]}"
        raise EngineError("out_of_memory", message, hint, retry=True) from error
