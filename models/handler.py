"""Run the stages of a job in a worker: copy and probe the media, keep the engine loaded, encode,
join, verify.

What engines share is here: an engine only inspects, prepares and yields frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

from models import media
from models.advice.looking import advise, refuse_poor_input
from models.atomic import hold_folder, sync
from models.avatars import AvatarCache
from models.catalog import ENGINES
from models.composition import plan_composition, write_voices
from models.first_part import assemble_first_part
from models.inputs import copy_input
from models.motion.stage import CLIP, Animator, explain_lost_face, follow_clip, hash_clip, note_clip, read_facts
from models.quality.measuring import measure_job, watch_part
from models.quality.sheet import choose_frames, choose_tile_size, draw_sheet
from models.short_jobs import run_short_job
from models.types import Engine, EngineError, Inspection, ProgressCallback, Request, SupportsLoad

IMAGE_FPS = Fraction(25)
MIN_SIDE, MAX_SIDE = 16, 16_384
"""The shortest and the longest side of a result, in pixels; H.264 has no longer ones."""
LONGEST_SIDE, SHORTEST_SIDE = 4096, 2304
"""The largest video that players must know, H.264 level 5.2; more only if `output.height` asks for it."""


def open_handler(device: str, options: dict[str, Any]) -> Handler:
    """Return the handler of a worker that starts. `device` is its id, "cpu:0" or "GPU-<uuid>".

    Options: `threads` of one span; `preload`, the name of an engine to load at once, with
    `models_dir`.
    """
    media.limit_threads(options.get("threads", 1))
    handler = Handler(device)
    if options.get("preload"):
        handler.preload(options["preload"], options["models_dir"])
    return handler


class Handler:
    """Runs spans, one at a time. The engine of the last span stays loaded for the next.

    `stats`: "model", the engine that is loaded, "load_s", and what its `load` returns.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.stats: dict[str, Any] = {}
        self._engine: tuple[str, Engine] | None = None
        self._animator: Animator | None = None
        self._cache_ns = 0

    def run(self, payload: dict[str, Any], start: int, stop: int, progress: ProgressCallback) -> dict[str, Any]:
        """Do units [start, stop) of the payload's stage, or all stages of a short job. Raises EngineError."""
        if payload["stage"] == "examine":
            return media.describe_worker()
        if payload["stage"] == "selftest":
            return run_selftest(self.device, payload, progress)
        if payload.get("goes_on"):
            return run_short_job(self.run, payload, progress)
        request = Request.from_dict(payload["request"])
        if payload["stage"] == "inspect":
            return {"outline": self.inspect(request, progress).to_dict()}
        inspection = Inspection.from_dict(payload["outline"])
        if payload["stage"] == "animate":
            return self.animate(request, inspection, payload["step"], (start, stop), progress)
        request = follow_clip(request)
        if payload["stage"] == "prepare":
            media.settle_encoder(request, inspection)
            self.prepare(request, inspection, start, stop, progress)
            return {}
        if payload["stage"] == "render":
            self.render(request, inspection, start, stop, progress)
            return {}
        if payload["stage"] == "first":
            assemble_first_part(request, inspection, payload["stop"])
            return {}
        self._make_room_in_cache(request)
        return self.assemble(request, inspection, payload["spans"])

    def _make_room_in_cache(self, request: Request) -> None:
        """Remove what is too much in the cache: other machines may have sent entries since the last time.

        What can't be removed, or is removed by another worker meanwhile, is no fault of the job.
        """
        root = Path(request.cache)
        with suppress(OSError):
            if root.exists() and (changed_ns := root.stat().st_mtime_ns) != self._cache_ns:
                self._cache_ns = changed_ns
                AvatarCache(root, request.cache_bytes).make_room()

    def preload(self, name: str, models_dir: str) -> None:
        """Load an engine before its first job, which tries again after a failure."""
        try:
            self.load_engine(name, models_dir)
        except (EngineError, RuntimeError, MemoryError, OSError) as error:
            print(f"{name} was not loaded: {error}", flush=True)
            self._engine, self.stats = None, {}

    def load_engine(self, name: str, models_dir: str) -> Engine:
        """Return the engine with its weights loaded, which `prepare` and `render` need."""
        engine = self.open_engine(name)
        if self.stats.get("model") != name:
            began = time.monotonic()
            stats = engine.load(models_dir) if isinstance(engine, SupportsLoad) else {}
            self.stats = {"model": name, "load_s": round(time.monotonic() - began, 3), **stats}
        return engine

    def open_engine(self, name: str) -> Engine:
        """Return the engine, with or without its weights."""
        if self._engine is None or self._engine[0] != name:
            if self._animator is not None:
                self._animator.close()
            self._engine, self.stats = None, {}  # free the old engine before the new one allocates memory
            module, _, cls = ENGINES[name].factory.partition(":")
            factory: Callable[[str], Engine] = getattr(import_module(module), cls)
            self._engine = (name, factory(self.device))
        return self._engine[1]

    def inspect(self, request: Request, progress: ProgressCallback = lambda _: None) -> Inspection:
        """Copy the media to where no other process changes them, and plan the job."""
        self.open_engine(request.engine)  # its imports are not the job's
        hashes = {role: copy_medium(request, role, progress) for role in ("avatar", "audio", *request.media)}
        if not request.motion:
            return self._inspect_copies(request, hashes, progress)
        with media.spend(request.limits, progress) as budget:
            budget.name = Path(request.avatar).name
            animation = self.open_animator().plan(request, hashes["avatar"], progress)
        hashes["photo"] = hashes["avatar"]
        if animation is None:
            return self._inspect_clip(request, hashes, progress)
        return replace(self._inspect_copies(request, hashes, progress), animation=animation)

    def animate(
        self, request: Request, inspection: Inspection, step: int, span: tuple[int, int], progress: ProgressCallback
    ) -> dict[str, Any]:
        """Do units of a task of the clip. The last one returns the inspection with the clip as the avatar."""
        animation, animator = inspection.animation, self.open_animator()
        assert animation is not None  # noqa: S101 - else the stage has no tasks
        if step == len(animation.tasks) - 1:
            animator.finish(request, inspection, progress)
            hashes = {**inspection.media_sha256, "audio": inspection.audio_sha256}
            return {"outline": self._inspect_clip(request, hashes, progress).to_dict()}
        self._make_room(animation.memory_bytes, request.motion["device_bytes"])
        animator.run(request, animation, step, span, progress)
        if not self.stats.get("model"):
            self.stats = {"model": animation.engine, "load_s": 0.0}
        return {}

    def open_animator(self) -> Animator:
        if self._animator is None:
            self._animator = Animator(self.device)
        return self._animator

    def _make_room(self, need_bytes: int, device_bytes: int) -> None:
        """Free the engine that moves lips if a card has no room for it beside the one that makes the clip."""
        if self._engine is not None and 0 < device_bytes < need_bytes + self.stats.get("held_bytes", 0):
            self._engine, self.stats = None, {}

    def _inspect_clip(self, request: Request, hashes: dict[str, str], progress: ProgressCallback) -> Inspection:
        """Inspect a job whose avatar has become a clip."""
        hashes = {**hashes, "avatar": hash_clip(request)}
        try:
            inspection = self._inspect_copies(follow_clip(request), hashes, progress)
        except EngineError as error:
            raise explain_lost_face(error, request) from error
        return note_clip(inspection, read_facts(request))

    def _inspect_copies(self, request: Request, hashes: dict[str, str], progress: ProgressCallback) -> Inspection:
        """Inspect the media that have been copied, whose hashes are known by their roles."""
        engine, output = self.open_engine(request.engine), request.output
        further = {role: digest for role, digest in hashes.items() if role not in ("avatar", "audio")}
        encoder = media.ALPHA_ENCODER if output.alpha else media.plan_encoder(output.encoder)
        with media.spend(request.limits, progress) as budget:
            budget.name = Path(request.audio).name
            track = request.options.get("audio_track")
            sound = media.read_sound(request.files.audio, budget.name, request.limits, track)
            budget.name = Path(request.avatar).name
            picture = media.read_picture(request.files.avatar, budget.name, request.limits)
            inspection = self._plan(request, sound, picture, encoder)
            inspection = replace(
                inspection, avatar_sha256=hashes["avatar"], audio_sha256=hashes["audio"], media_sha256=further
            )
            write_voices(request, inspection, progress)
            inspection = engine.inspect(request, inspection)
            advice = advise(request, inspection)
        if advice and request.strict:
            raise refuse_poor_input(advice)
        units = {"inspect": 1, "render": inspection.frames, "assemble": 1, **inspection.units}
        return replace(inspection, units=units, advice=advice)

    def _plan(self, request: Request, sound: media.Sound, picture: media.Picture, encoder: str) -> Inspection:
        rate = Fraction(request.fps) if request.fps else picture.fps or IMAGE_FPS
        width, height = choose_frame_size(picture.width, picture.height, request.output.height)
        check_frame_size(width, height, Path(request.avatar).name, request.limits.pixels)
        notes = [*note_changes(request, picture, rate, (width, height)), *note_transparency(request)]
        plan = plan_composition(request, sound, picture, rate)
        return Inspection(
            frames=plan.frames,
            fps=str(rate),
            width=width,
            height=height,
            duration_s=plan.duration_s,
            units={},
            encoder=encoder,
            avatar_kind=picture.kind,
            notes=(*sound.notes, *notes, *plan.notes),
            voices=plan.voices,
            layers=plan.layers,
        )

    def prepare(
        self, request: Request, inspection: Inspection, start: int, stop: int, progress: ProgressCallback
    ) -> None:
        """Do units [start, stop) of the preparation. The unit after the last joins the parts."""
        if start < inspection.units.get("prepare", 1):
            self.load_engine(request.engine, request.models_dir).prepare(request, inspection, start, stop, progress)
        else:
            self.load_engine(request.engine, request.models_dir).complete(request, inspection, progress)

    def render(
        self, request: Request, inspection: Inspection, start: int, stop: int, progress: ProgressCallback
    ) -> None:
        """Encode frames [start, stop) as one part. For a missing encoder see `fall_back`."""
        try:
            media.write_part(
                request.files.part_path(start, stop),
                watch_part(self.load_engine(request.engine, request.models_dir), request, inspection, start, stop),
                count=stop - start,
                fps=inspection.rate,
                width=inspection.width,
                height=inspection.height,
                encoder=media.read_encoder(request.files, inspection),
                crf=request.output.crf,
                progress=progress,
                colour=inspection.colour,
            )
        except EngineError as error:
            media.fall_back(error, request.files, inspection)
            raise

    def assemble(self, request: Request, inspection: Inspection, spans: list[list[int]]) -> dict[str, Any]:
        """Join and verify the video, write preview picture and contact sheet. Return figures for result.json."""
        engine = self.open_engine(request.engine)
        report, quality = engine.report(request, inspection), measure_job(engine, request, inspection, spans)
        kept = media.KeptPictures(
            choose_frames(inspection.frames), choose_tile_size(inspection.width, inspection.height)
        )
        with hold_folder(Path(request.out).parent) as staging:
            out = staging / Path(request.out).name
            out.mkdir(exist_ok=True)
            stats = media.assemble_video(
                [request.files.part_path(start, stop) for start, stop in spans],
                audio=request.files.audio,
                out=out / request.output.file_name,
                frames=inspection.frames,
                fps=inspection.rate,
                metadata=request.metadata,
                copies_audio=request.output.audio == "copy",
                layers=[(request.files.medium_path(layer.role), layer) for layer in inspection.layers],
                alpha=request.output.alpha,
                kept=kept,
            )
            media.write_jpeg(out / "contact.jpg", draw_sheet(kept.pictures, inspection.rate, quality))
            with media.VideoFrames(out / request.output.file_name, inspection.rate) as video:
                media.write_jpeg(out / "preview.jpg", video.read(report.pop("thumbnail_frame", 0)))
            if request.motion.get("clip"):
                copy_input(request.files.avatar, out / CLIP, request.limits.media_bytes)
                sync(out / CLIP)
        figures = {"quality": quality} if quality else {}
        figures |= {"motion": facts} if (facts := read_facts(request)) else {}
        return {**stats, "encoder": media.read_encoder(request.files, inspection), **figures, **report}


def run_selftest(device: str, payload: dict[str, Any], progress: ProgressCallback) -> dict[str, Any]:
    """Run a check of the self-test; return its figures. It imports torch."""
    figures: dict[str, Any] = import_module("models.musetalk.selftest.checks").run_check(device, payload, progress)
    return figures


def copy_medium(request: Request, role: str, progress: ProgressCallback) -> str:
    """Copy a medium of the request into its work folder; like `copy_input`. A folder of pictures becomes a video."""
    source = Path(request.media[role] if role in request.media else getattr(request, role))
    target, mark = request.files.medium_path(role), request.marks.get(role, ())
    if role == "avatar" and source.is_dir():
        with media.spend(request.limits, progress) as budget:
            budget.name = source.name
            fps = Fraction(request.fps or IMAGE_FPS)
            return media.join_pictures(source, target, request.limits, fps, mark, lambda _: progress(0))
    return copy_input(source, target, request.limits.media_bytes, mark, lambda _: progress(0))


def choose_frame_size(width: int, height: int, wanted_height: int | None) -> tuple[int, int]:
    """Return width and height of the result in pixels, both even as 4:2:0 video requires.

    >>> choose_frame_size(1023, 767, None)
    (1022, 766)
    >>> choose_frame_size(1920, 1080, 720)
    (1280, 720)
    >>> choose_frame_size(3000, 4000, None)
    (2304, 3072)
    """
    if wanted_height is not None:
        width, height = round(width * wanted_height / height), wanted_height
    elif (excess := max(max(width, height) / LONGEST_SIDE, min(width, height) / SHORTEST_SIDE)) > 1:
        width, height = round(width / excess), round(height / excess)
    return max(2, width - width % 2), max(2, height - height % 2)


def check_frame_size(width: int, height: int, name: str, pixels: int) -> None:
    """Refuse what no encoder or no face fits into. Raises EngineError avatar_too_large, avatar_too_small."""
    size = f"a video of {name} would have {width} x {height} pixels"
    if max(width, height) > MAX_SIDE or width * height > pixels:
        message = f"{size}; at most {MAX_SIDE} a side and {pixels / 1e6:.0f} million in all are possible"
        raise EngineError("avatar_too_large", message, "send it smaller or cut it, or ask for a smaller output.height")
    if min(width, height) < MIN_SIDE:
        raise EngineError("avatar_too_small", f"{size}; at least {MIN_SIDE} a side are needed", "send it larger")


def note_changes(request: Request, picture: media.Picture, rate: Fraction, size: tuple[int, int]) -> Iterator[str]:
    """Yield sentences on rate, size and colours that the job did not ask for and the avatar has not."""
    yield from picture.notes
    name, own, (width, height) = Path(request.avatar).name, picture.own_fps, size
    if own is not None and request.fps is None and rate != own:
        yield f"{name} has {float(own):.4g} frames a second; the video has {float(rate):.4g}, which suits lips"
    if request.output.height is None and max(picture.width - width, picture.height - height) > 1:
        yield (
            f"{name} has {picture.width} x {picture.height} pixels; the video has {width} x {height}, "
            "which players can show (output.height asks for more)"
        )


def note_transparency(request: Request) -> Iterator[str]:
    """Yield sentences on a background, or a transparency to keep, that the avatar has no use for.

    Raises EngineError about a background that can't be read.
    """
    background = request.media.get("background", "")
    if background:
        path, name = request.files.medium_path("background"), Path(background).name
        if media.read_picture(path, name, request.limits).kind == "video":
            yield f"{name} moves; its first picture is the background"
    if request.output.alpha:
        yield "the video is ProRes 4444, which keeps transparency; crf and encoder have no effect on it"
    elif not (background or request.background):
        return
    path, name = request.files.avatar, Path(request.avatar).name
    over_white, over_black = (media.read_image(path, name, request.limits, over) for over in (media.WHITE, media.BLACK))
    if media.measure_opacity(over_white, over_black).min() == 255:
        yield f"{name} begins without transparency: " + (
            "the video has none there" if request.output.alpha else "no background is seen there"
        )
