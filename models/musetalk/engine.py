"""The MuseTalk engine, as the handler calls it.

Inspecting and reporting load no network; `session` does the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from models import media
from models.arrays import U8
from models.heavy_imports import import_heavy
from models.musetalk.avatar.frames import open_yuv
from models.musetalk.engines.plan import EnginePlan
from models.musetalk.inpainting.batching import BatchSizes, grid_step
from models.musetalk.options import Options, has_draft_decoder, read_inspected_options, read_options
from models.musetalk.prepared_job import ENGINE, PreparedVoices, read_stats
from models.musetalk.weights.index import (
    DRAFT_DECODER,
    default_version,
    find_part,
    missing_error,
    missing_files_for,
    read_hashes,
)
from models.options import scale_box
from models.quality.trace import FaceTrace
from models.types import EngineError, Inspection, ProgressCallback, Request

if TYPE_CHECKING:
    from models.musetalk.session import RenderSession

MIN_BATCH_SIZES = BatchSizes(unet=4, decode=4, encode=4)
"""Batch sizes for which a card must have room; with more room they grow."""
NVENC_BYTES = 300_000_000
"""What an encoder on the card takes beside PyTorch, by a context of its own; not measured here."""

ENGINE_BYTES = 3_000_000_000
"""What engines in 8 bits take beside PyTorch's networks: up to 1.9 GB of weights, and room to work; not measured."""


class MuseTalkEngine:
    """See models.types.Engine.

    `device` is "cpu:0", or the id of the only card that this process sees.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._session: RenderSession | None = None

    def inspect(self, request: Request, inspection: Inspection) -> Inspection:
        """Check options, weights and avatar.

        Raises EngineError bad_option, weights_missing, avatar_unreadable.
        """
        options, notes = read_options(request.options, default_version(Path(request.models_dir)))
        if missing_files_for(options.version, Path(request.models_dir)):
            raise missing_error(options.version, Path(request.models_dir))
        if options.is_reference and (request.is_scene or request.voices):
            message = 'the option "reference" renders one face in all of a video, as the original program does'
            raise EngineError("bad_option", message, 'leave out "reference", or from_s, to_s and voices')
        if options.bits:
            check_engines(self.device)
        with open_yuv(request, inspection) as frames:
            colour, avatar_frames = frames.colour, len(frames)
        details: dict[str, Any] = {"avatar_frames": avatar_frames, "version": options.version}
        details |= {"forms": request.forms, "tuned": request.tuned}
        if options.is_draft:
            details["draft_decoder"] = find_part(DRAFT_DECODER, Path(request.models_dir)) is not None
        if options.face_box is not None:
            shown = media.read_picture(request.files.avatar, Path(request.avatar).name, request.limits)
            size = (inspection.width, inspection.height)
            details["face_box"] = scale_box(options.face_box, "face_box", (shown.width, shown.height), size)
        total = count_reference_frames(inspection) if options.is_reference else inspection.frames
        return replace(
            inspection,
            frames=total,
            colour=inspection.colour if options.is_reference or request.output.alpha else colour,
            units={"inspect": 1, "prepare": 1, "render": total, "assemble": 1},
            batch=grid_step(options.frames_per_batch) * (2 if options.is_draft else 1),
            memory_bytes=count_bytes(options, inspection),
            notes=inspection.notes + notes,
            details=details,
        )

    def load(self, models_dir: str) -> dict[str, Any]:
        """Load what a job with default options needs; return `held_bytes` and `batch`.

        `held_bytes` is the memory that this process takes of the card, `batch` is in frames.

        A CPU worker loads nothing before its first job: two sets of weights would take the memory
        of two.
        """
        if self.device.startswith("cpu"):
            return {}
        options = Options(version=default_version(Path(models_dir)))
        return self._open_session(models_dir, options, Path()).measure_footprint()

    def prepare(
        self, request: Request, inspection: Inspection, start: int, stop: int, progress: ProgressCallback
    ) -> None:
        """Prepare the job, in one unit.

        The avatar, which takes longest, is taken from the cache if it is there.
        """
        if not request.files.prepared.exists():
            self.open_session(request, inspection).prepare(request, inspection, lambda: progress(0))
        progress(stop - start)

    def complete(self, request: Request, inspection: Inspection, progress: ProgressCallback) -> None:
        """Do nothing: the preparation is one unit, as boxes are smoothed over the whole video."""

    def render(self, request: Request, inspection: Inspection, start: int, stop: int) -> Iterator[U8]:
        """Yield frames start..stop-1; see `RenderSession.render`."""
        yield from self.open_session(request, inspection).render(request, inspection, start, stop)

    def trace_faces(self, request: Request, inspection: Inspection) -> list[FaceTrace]:
        """Return where the faces are; the blended half of a face begins in the middle of its box."""
        return [job.trace() for job in PreparedVoices(request.files.prepared, len(inspection.all_voices)).jobs]

    def report(self, request: Request, inspection: Inspection) -> dict[str, Any]:
        """Return `thumbnail_frame`, `notes`, and under `musetalk` how the video was made."""
        stats = read_stats(request.files.prepared)
        inpainter_file = request.files.inpainter_stats
        inpainter = json.loads(inpainter_file.read_bytes()) if inpainter_file.exists() else {}
        without_face = sum(stop - start for start, stop in stats["no_face"])
        lost = [f"{without_face} of {inspection.frames} frames show no face; they are left as they are"]
        notes = lost if without_face else []
        options = read_inspected_options(request, inspection)
        if options.bits and (plan := EnginePlan.read(request.files.prepared / ENGINE)).note:
            notes.append(plan.note)
        is_draft, is_small = options.is_draft, has_draft_decoder(inspection)
        if is_draft:
            notes.append("this is a draft: every second mouth is painted, the others are averages of their neighbours")
        if is_small:
            notes.append("the mouths of this draft were decoded by a small network (TAESD), which shows less detail")
        return {
            "thumbnail_frame": stats.pop("poster"),
            "label": bool(options.describe_label()),
            "notes": notes,
            "weights_sha256": read_hashes(
                options.version, Path(request.models_dir), [DRAFT_DECODER] if is_small else []
            ),
            "musetalk": {
                **stats,
                "quality": "draft" if is_draft else "full",
                "decoder": "taesd" if is_small else "vae",
                "painter": inpainter,
            },
        }

    def open_session(self, request: Request, inspection: Inspection) -> RenderSession:
        """Return a session with the networks for this job: the last job's, if they are the same.

        Weights whose files were replaced since are loaded again.
        """
        options, told = read_inspected_options(request, inspection), inspection.details
        return self._open_session(request.models_dir, options, Path(request.cache), told)

    def _open_session(
        self, models_dir: str, options: Options, cache: Path, told: Mapping[str, Any] = MappingProxyType({})
    ) -> RenderSession:
        import_heavy("models.musetalk.session")
        from models.musetalk.session import RenderSession, Setup, choose_form_for, choose_tuning_for, select_device

        form = choose_form_for(self.device, told.get("forms", {}))
        tuned = choose_tuning_for(self.device, told.get("tuned", {}))
        setup = Setup.of(models_dir, options, cache, form, tuned, "cpu" if self.device.startswith("cpu") else "cuda")
        if self._session is None or not self._session.networks.adapt(setup):
            old = self._session.networks if self._session else None
            weights = old.weights if old and old.has_weights_of(setup) else None
            self._session = old = None  # frees the memory of the old networks before the new ones take theirs
            self._session = RenderSession(setup, select_device(self.device), weights)
        return self._session


def check_engines(device: str) -> None:
    """Raise EngineError engine_unavailable where a device can't run 8 bits, before anything is prepared."""
    from models.musetalk.engines.providers import find_host
    from models.musetalk.session import select_device

    find_host(select_device(device))


def count_bytes(options: Options, inspection: Inspection) -> int:
    """Return the memory of a card that a worker needs: networks, batches, and the context of NVENC beside them."""
    encoder = NVENC_BYTES if inspection.encoder in ("auto", "h264_nvenc") else 0
    engines = ENGINE_BYTES if options.bits else 0
    return MIN_BATCH_SIZES.device_bytes(4 if options.precision == "fp32" else 2) + encoder + engines


def count_reference_frames(inspection: Inspection) -> int:
    """Return the number of frames as MuseTalk counts them: whole frames only.

    At a rate that is not a whole number, where MuseTalk would lose the end of the sound, all
    frames count.
    """
    if inspection.rate.denominator != 1:
        return inspection.frames
    return max(1, int(inspection.duration_s * int(inspection.rate)))
