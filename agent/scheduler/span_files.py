"""Which files a span reads and makes, for machines that don't see the state folder. Pure but for one listing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gpu_pool.cluster.courier import SpanFiles
from gpu_pool.types import RunSpan
from models.motion.types import MotionFiles
from models.types import Inspection, Request


def list_span_files(run: RunSpan) -> SpanFiles:
    """Return the files of a span of `prepare`, `render` or `animate`.

    Other stages of jobs run on this machine alone; what is no stage of a job, such as a check of a card, has no files.
    """
    if "request" not in run.payload:
        return SpanFiles()
    request = Request.from_dict(dict(run.payload["request"]))
    inspection = Inspection.from_dict(dict(run.payload["outline"]))
    files, stage = request.files, run.payload["stage"]
    given = (files.medium_path("avatar").parent, files.encoder)
    if stage == "animate":
        return list_animation_files(MotionFiles(files.animation), inspection, run, given)
    if stage == "render":
        made = (files.part_path(run.start, run.stop),)
        beside = (files.samples_path(run.start, run.stop), files.encoder, files.inpainter_stats)
        return SpanFiles((*given, files.prepared), made, beside)
    index = request.avatar_index_path(inspection.avatar_sha256)
    beside = (files.encoder, Path(request.cache, "*"), index / "*")
    known = tuple(list_entries(Path(request.cache), index))
    units = inspection.units.get("prepare", 1)
    if units == 1 or run.start >= units:
        return SpanFiles((*given, files.prepared_parts, *known), (files.prepared,), beside)
    return SpanFiles((*given, *known), (files.prepared_part_path(run.start, run.stop),), beside)


def list_animation_files(
    files: MotionFiles, inspection: Inspection, run: RunSpan, given: tuple[Path, ...]
) -> SpanFiles:
    """Return the files of a unit of a clip; see `MotionFiles`."""
    animation, task = inspection.animation, run.payload["step"]
    assert animation is not None  # noqa: S101 - else there is nothing to animate
    steps, reads = len(animation.units), (*given, files.plan, files.constants)
    if task == 0:
        return SpanFiles(reads, (files.state_path(0),), (files.constants,))
    if task > steps:
        return SpanFiles((*reads, files.state_path(steps), *map(files.kept_path, range(steps))), (files.frames,))
    reads = (*reads, files.state_path(task - 1))
    if run.start < animation.units[task - 1]:
        return SpanFiles(reads, (files.unit_path(task - 1, run.start),))
    return SpanFiles(
        (*reads, files.unit_path(task - 1, 0).parent), (files.state_path(task),), (files.kept_path(task - 1),)
    )


def list_entries(cache: Path, index: Path) -> Iterator[Path]:
    """Yield the entries of the cache that were made of an avatar."""
    if index.is_dir():
        yield from (entry for note in sorted(index.iterdir()) if (entry := cache / note.name).is_dir())
