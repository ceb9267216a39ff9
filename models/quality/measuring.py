"""Measure a job while a worker makes it: samples of each part, and their figures once all is rendered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from models import media
from models.arrays import U8, Floats
from models.preview.speech import RATE, make_mouth_curve
from models.quality.figures import merge_figures, summarise_face
from models.quality.meter import Samples, watch_frames
from models.types import Engine, Inspection, Request, SupportsTrace


def watch_part(engine: Engine, request: Request, inspection: Inspection, start: int, stop: int) -> Iterator[U8]:
    """Yield frames [start, stop) as the engine renders them, and leave samples of them beside the parts."""
    frames = engine.render(request, inspection, start, stop)
    if request.is_draft or not isinstance(engine, SupportsTrace):
        return frames
    traces = [trace.cut(start, stop) for trace in engine.trace_faces(request, inspection)]
    path = request.files.samples_path(start, stop)
    path.parent.mkdir(exist_ok=True)
    return watch_frames(frames, traces, start, inspection.height, path)


def measure_job(
    engine: Engine, request: Request, inspection: Inspection, spans: list[list[int]]
) -> dict[str, Any] | None:
    """Return the figures of a rendered job, as JSON; None of an engine that can't be measured."""
    if request.is_draft or not isinstance(engine, SupportsTrace):
        return None
    traces = engine.trace_faces(request, inspection)
    samples = Samples.make_empty(len(traces), inspection.frames)
    for start, stop in spans:
        samples.fill(request.files.samples_path(start, stop), start)
    figures = []
    for number, (voice, trace) in enumerate(zip(inspection.all_voices, traces, strict=True)):
        voiced = trace.cut(voice.start, voice.stop)
        expected = expect_openings(request, inspection, number) if voiced.expected is None else voiced.expected
        figures.append(summarise_face(voiced, samples.cut(number, voice.frames), expected, inspection.rate))
    return merge_figures(figures)


def expect_openings(request: Request, inspection: Inspection, number: int) -> Floats:
    """Return (n,) how far the sound of a voice opens a mouth in each of its frames, 0 to 1.

    By level and formants, as the preview engine moves lips: fitted to phonemes.
    """
    waveform = media.read_waveform(request.files.voice_path(number), RATE)
    return make_mouth_curve(waveform, len(inspection.all_voices[number].frames), inspection.rate)[:, 0]
