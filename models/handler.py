"""What a worker does with a payload: snapshot and probe the media, keep the engine warm, encode, join, verify.

Everything that engines share is here, so that an engine only looks, prepares and yields frames.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

from models import media
from models.atomic import atomic_write, hash_file
from models.catalog import ENGINES
from models.types import Engine, EngineError, Inspection, ProgressCallback, Request, SupportsLoad

IMAGE_FPS = Fraction(25)


def open_handler(device: str, options: dict[str, Any]) -> Handler:
    """What a worker opens when it starts. `device` is its id, "cpu:0" or "GPU-<uuid>".

    Options: `threads` of one span; `preload`, the name of an engine to load at once, with `models_dir`.
    """
    media.limit_threads(options.get("threads", 1))
    handler = Handler(device)
    if options.get("preload"):
        handler.preload(options["preload"], options["models_dir"])
    return handler


class Handler:
    """Runs spans, one at a time. The engine of the last span stays warm for the next.

    `facts`: "model", the engine that is loaded, "load_s", and what the engine says of itself.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.facts: dict[str, Any] = {}
        self._engine: tuple[str, Engine] | None = None

    def run(self, payload: dict[str, Any], start: int, stop: int, tick: ProgressCallback) -> dict[str, Any]:
        """Do units [start, stop) of the payload's stage. Raises EngineError for what a person can mend."""
        if payload["stage"] == "examine":
            return media.describe_worker()
        request = Request.from_dict(payload["request"])
        if payload["stage"] == "inspect":
            return {"outline": self.inspect(request).to_dict()}
        outline = Inspection.from_dict(payload["outline"])
        if payload["stage"] == "prepare":
            media.settle_encoder(request, outline)
            self.prepare(request, outline, start, stop, tick)
            return {}
        if payload["stage"] == "render":
            self.render(request, outline, start, stop, tick)
            return {}
        return self.assemble(request, outline, payload["spans"])

    def preload(self, name: str, models_dir: str) -> None:
        """Load an engine before there is a job for it. One that can't be loaded now is left to the first job, which
        then says why."""
        try:
            self.loaded(name, models_dir)
        except (EngineError, RuntimeError, MemoryError, OSError) as error:
            print(f"{name} was not loaded: {error}", flush=True)
            self._engine, self.facts = None, {}

    def loaded(self, name: str, models_dir: str) -> Engine:
        """The engine, with its weights if it has any: what a worker that only looks or assembles never needs."""
        engine = self.engine(name)
        if self.facts.get("model") != name:
            began = time.monotonic()
            told = engine.load(models_dir) if isinstance(engine, SupportsLoad) else {}
            self.facts = {"model": name, "load_s": round(time.monotonic() - began, 3), **told}
        return engine

    def engine(self, name: str) -> Engine:
        if self._engine is None or self._engine[0] != name:
            self._engine, self.facts = None, {}  # let the old one go before the new one takes its memory
            module, _, cls = ENGINES[name].factory.partition(":")
            factory: Callable[[str], Engine] = getattr(import_module(module), cls)
            self._engine = (name, factory(self.device))
        return self._engine[1]

    def inspect(self, request: Request) -> Inspection:
        """Copy the media where nobody else can change them, and find out what the job will be."""
        avatar_sha256 = snapshot(Path(request.avatar), request.files.avatar, request.limits.media_bytes)
        audio_sha256 = snapshot(Path(request.audio), request.files.audio, request.limits.media_bytes)
        sound = media.read_sound(request.files.audio, Path(request.audio).name, request.limits)
        picture = media.read_picture(request.files.avatar, Path(request.avatar).name, request.limits)
        rate = Fraction(request.fps) if request.fps else picture.fps or IMAGE_FPS
        width, height = frame_size(picture.width, picture.height, request.output.height)
        outline = Inspection(
            frames=max(1, round(sound.duration_s * rate)),
            fps=str(rate),
            width=width,
            height=height,
            duration_s=sound.duration_s,
            units={},
            encoder=media.plan_encoder(request.output.encoder),
            avatar_sha256=avatar_sha256,
            audio_sha256=audio_sha256,
            avatar_kind=picture.kind,
        )
        outline = self.engine(request.engine).inspect(request, outline)
        return replace(outline, units={"inspect": 1, "render": outline.frames, "assemble": 1, **outline.units})

    def prepare(self, request: Request, outline: Inspection, start: int, stop: int, tick: ProgressCallback) -> None:
        """The unit after the last one joins what the others have left."""
        if start < outline.units.get("prepare", 1):
            self.loaded(request.engine, request.models_dir).prepare(request, outline, start, stop, tick)
        else:
            self.loaded(request.engine, request.models_dir).complete(request, outline, tick)

    def render(self, request: Request, outline: Inspection, start: int, stop: int, tick: ProgressCallback) -> None:
        try:
            media.write_part(
                request.files.part_path(start, stop),
                self.loaded(request.engine, request.models_dir).render(request, outline, start, stop),
                count=stop - start,
                fps=outline.rate,
                width=outline.width,
                height=outline.height,
                encoder=media.read_encoder(request.files, outline),
                crf=request.output.crf,
                tick=tick,
                colour=outline.colour,
            )
        except EngineError as error:
            media.fall_back(error, request.files, outline)
            raise

    def assemble(self, request: Request, outline: Inspection, spans: list[list[int]]) -> dict[str, Any]:
        """Join, mux and verify the mp4 in `request.out`, and take the preview picture from it."""
        out = Path(request.out)
        out.mkdir(parents=True, exist_ok=True)
        facts = media.assemble(
            [request.files.part_path(start, stop) for start, stop in spans],
            audio=request.files.audio,
            out=out / "result.mp4",
            frames=outline.frames,
            fps=outline.rate,
            metadata=request.metadata,
        )
        report = self.engine(request.engine).report(request, outline)
        with media.VideoFrames(out / "result.mp4", outline.rate) as video:
            media.write_jpeg(out / "preview.jpg", video.read(report.pop("thumbnail_frame", 0)))
        return {**facts, "encoder": media.read_encoder(request.files, outline), **report}


def snapshot(source: Path, target: Path, limit_bytes: int) -> str:
    """Copy `source`, whole or not at all; returns its SHA-256. The name in errors is the user's."""
    try:
        size = source.stat().st_size
        if size > limit_bytes:
            message = f"{source.name} has {size / 2**20:.0f} MiB; the limit is {limit_bytes / 2**20:.0f} MiB"
            raise EngineError("media_too_large", message, "send a smaller file, or raise limits.media_mib")
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target, durable=False) as temp:
            shutil.copyfile(source, temp)
    except FileNotFoundError:
        message = f"{source.name} was there when the job was accepted and is gone now"
        raise EngineError("missing_media", message, "drop it again and retry the job", retry=True) from None
    return hash_file(target)


def frame_size(width: int, height: int, wanted_height: int | None) -> tuple[int, int]:
    """Size of the result in pixels, both even as 4:2:0 video needs them; an odd picture loses a row or column.

    >>> frame_size(1023, 767, None)
    (1022, 766)
    >>> frame_size(1920, 1080, 720)
    (1280, 720)
    """
    if wanted_height is not None:
        width, height = round(width * wanted_height / height), wanted_height
    return max(2, width - width % 2), max(2, height - height % 2)
