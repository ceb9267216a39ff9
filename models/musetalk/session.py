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
from models.musetalk.audio.vad import levels
from models.musetalk.audio.whisper import Floats, pieces
from models.musetalk.avatar import prepare as preparation
from models.musetalk.avatar import store as entry
from models.musetalk.avatar.frames import BgrFrames, open_yuv
from models.musetalk.compositing.composite import Paste, PlanesPaste
from models.musetalk.compositing.pipeline import Faces, Pastes, Picture, film
from models.musetalk.networks import Networks, Setup
from models.musetalk.options import Options, read_options
from models.musetalk.prepared_job import Pasting, Scene
from models.musetalk.tracking.intervals import ranges
from models.types import EngineError, Inspection, Request

__all__ = ["Production", "Setup", "device_of"]

CONTEXT_BYTES = 600_000_000
"""What a CUDA context takes beside torch's own allocations."""
FORMAT = 1
"""Of what is kept of an avatar: another number makes older entries useless."""


def device_of(name: str) -> torch.device:
    return torch.device("cpu" if name.startswith("cpu") else "cuda:0")


class Production:
    def __init__(self, setup: Setup, device: torch.device) -> None:
        self.studio = Networks(setup, device)

    # preparing -------------------------------------------------------------------------------------------------------

    def prepare(self, request: Request, outline: Inspection, tick: Callable[[], None]) -> None:
        """Leave the folder `request.files.prepared`: the avatar, from the cache or made now, and the voice."""
        options, _ = read_options(request.options)
        with memory_named(), atomic_folder(request.files.prepared) as folder:
            started = time.monotonic()
            from_cache = self._avatar(request, outline, options, folder / scene.AVATAR, tick)
            avatar_s = time.monotonic() - started
            prepared = entry.Prepared(folder / scene.AVATAR)
            if options.no_face == "fail":
                check_faces(prepared, outline, Path(request.avatar).name)
            samples, level = self._hear(request, folder / scene.HEARD, tick)
            course = scene.course(prepared, level, outline.frames, outline.rate, options)
            scene.write_course(folder, course)
            facts = {
                "version": options.version,
                "way": options.way,
                "avatar_from_cache": from_cache,
                "avatar_seconds": round(avatar_s, 3),
                "voice_seconds": round(time.monotonic() - started - avatar_s, 3),
                "samples": samples,
                "poster": int(course["poster"]),
                "no_face": list(ranges(~prepared.seen[course["source"]])),
                "silent": list(ranges(course["voice"] <= 0)),
                **{name: prepared.about[name] for name in ("jitter_px", "raw_jitter_px", "cuts", "shift_range")},
            }
            (folder / entry.FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    def _avatar(
        self, request: Request, outline: Inspection, options: Options, target: Path, tick: Callable[[], None]
    ) -> bool:
        about = {
            "name": Path(request.avatar).name,
            "avatar_sha256": outline.avatar_sha256,
            "summary": f"musetalk {options.parsing}, {outline.width}x{outline.height}",
            "options": options.of_preparation(),
        }

        def build(folder: Path) -> None:
            with BgrFrames(request, outline) as frames:
                preparation.prepare(folder, frames, outline.rate, self.studio, options, about, tick)

        with AvatarCache(Path(request.cache), request.cache_bytes) as cache:
            return entry.fetch(cache, self.key(outline, options), build, target, tick)

    def key(self, outline: Inspection, options: Options) -> str:
        """Everything that a prepared avatar depends on. The rate of a still picture is no part of it."""
        rate = outline.fps if outline.avatar_kind == "video" else ""
        setup = self.studio.setup
        return make_key(
            "musetalk",
            FORMAT,
            outline.avatar_sha256,
            [outline.width, outline.height, rate],
            options.of_preparation(),
            [self.studio.vision_fingerprint, self.studio.device.type, setup.precision, setup.plain],
        )

    def _hear(self, request: Request, path: Path, tick: Callable[[], None]) -> tuple[int, Floats]:
        """Write what Whisper hears to `path`; returns the number of samples at 16 kHz, and their levels."""
        loud: list[Floats] = []

        def listened() -> Iterator[Floats]:
            for piece in pieces(request.files.audio):
                tick()
                loud.append(levels([piece]))
                yield piece

        samples = self.studio.whisper_encoder.write(path, listened())
        return samples, np.concatenate([np.zeros(0, np.float32), *loud])

    # rendering -------------------------------------------------------------------------------------------------------

    def render(self, request: Request, outline: Inspection, start: int, stop: int) -> Generator[Picture]:
        options, _ = read_options(request.options)
        shot = Scene(request.files.prepared)
        frames = range(start, stop)
        with memory_named():
            yield from film(
                self._backgrounds(request, outline, options, shot.source[start:stop]),
                self._faces(shot, outline, options, frames),
                self._pastes(shot, outline, options, frames),
            )
        if start == 0:
            with atomic_write(Path(request.work) / entry.PAINTED) as path:
                path.write_text(json.dumps(self.stats()), encoding="utf-8")

    def stats(self) -> dict[str, Any]:
        return {**self.studio.inpainter.stats(), "load_seconds": round(self.studio.load_s, 3)}

    def footprint(self) -> dict[str, Any]:
        """Once the networks are loaded: bytes that this process holds of the card, and frames in a batch."""
        batch = self.studio.inpainter.sizes.unet
        return {"held_bytes": torch.cuda.memory_reserved() + CONTEXT_BYTES, "batch": batch}

    def _backgrounds(
        self, request: Request, outline: Inspection, options: Options, sources: npt.NDArray[np.int64]
    ) -> Iterator[Picture]:
        """The reference pastes into BGR; ours into the planes that the video has."""
        opened = BgrFrames(request, outline) if options.exact else open_yuv(request, outline)
        with opened as video:
            for source in sources.tolist():
                yield video.read(source)

    def _faces(self, shot: Scene, outline: Inspection, options: Options, frames: range) -> Iterator[Faces]:
        for run in shot.painted(frames):
            yield from self.studio.inpainter.stream(
                run, shot.latents, lambda part: shot.windows(part, outline.rate, reference=options.exact)
            )

    def _pastes(
        self, shot: Scene, outline: Inspection, options: Options, frames: range
    ) -> Iterator[Paste | PlanesPaste | None]:
        pasting = Pasting(shot.prepared, (outline.width, outline.height), None if options.exact else outline.colour)
        kept = Pastes(pasting.make)
        for frame in frames:
            source, weight = int(shot.source[frame]), float(shot.weight[frame])
            if weight <= 0:
                yield None
            else:
                yield kept.of(source) if weight >= 1 else pasting.make(source, weight)


def check_faces(prepared: entry.Prepared, outline: Inspection, name: str) -> None:
    """Raises EngineError no_face naming the first frame without one."""
    missing = np.flatnonzero(~prepared.seen)
    if len(missing):
        first = int(missing[0])
        message = f"frame {first} of {name} ({float(first / outline.rate):.2f} s) shows no face"
        message += f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        hint = 'cut the video, or say "no_face": "keep" to show such frames as they are'
        raise EngineError("no_face", message, hint)


@contextmanager
def memory_named() -> Iterator[None]:
    """Say what to do where memory ran out even for one frame at a time."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        hint = "free memory on the device, or choose a smaller output.height; it is tried again on any device with room"
        message = f"memory ran out with one frame at a time: {str(error).partition('.')[0]}"
        raise EngineError("out_of_memory", message, hint, retry=True) from error
