"""What a frame of the preview engine costs: drawing, encoding, both, and measuring its quality.

Of a portrait at several heights, of the same face in a wide picture, and of a video avatar. The figures are CPU time of
a process with one thread on one core: the time on a quiet machine.

    python -m benchmarks.preview
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import cv2  # noqa: E402 - after the process was bound to one core

from models import media  # noqa: E402 - after the process was bound to one core
from models.handler import Handler  # noqa: E402
from models.preview.engine import PreviewEngine  # noqa: E402
from models.quality.measuring import measure_job  # noqa: E402
from models.quality.meter import watch_frames  # noqa: E402
from models.types import Inspection, Output, Request  # noqa: E402

EXAMPLES = Path(__file__).parents[1] / "inbox_example"


def measure_s(work: object) -> float:
    start = time.process_time()
    for _ in work:  # type: ignore[attr-defined]
        pass
    return time.process_time() - start


def measure_meter_s(engine: PreviewEngine, request: Request, inspection: Inspection, frames: int) -> float:
    """Return what the meter of quality takes for so many frames, rendered by one worker in parts of a second."""
    kept, path = list(engine.render(request, inspection, 0, 100)), Path(request.work) / "watched.npz"
    engine, begin = PreviewEngine("cpu:0"), time.process_time()  # it has not traced the faces yet
    measure_job(engine, request, inspection, [[0, frames]])
    once, watched = time.process_time() - begin, 0.0
    for start in range(0, 100, 25):
        begin = time.process_time()
        traces = [trace.cut(start, start + 25) for trace in engine.trace_faces(request, inspection)]
        list(watch_frames(iter(kept[start : start + 25]), traces, start, inspection.height, path))
        watched += time.process_time() - begin
    return once + watched * frames / len(kept)


def write_wide(path: Path) -> Path:
    """Write the portrait at 720 x 720 in the middle of a picture of 1280 x 720."""
    square = cv2.resize(media.read_image(EXAMPLES / "collins.jpg"), (720, 720), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), cv2.copyMakeBorder(square, 0, 0, 280, 280, cv2.BORDER_REFLECT))
    return path


def measure(file: Path, height: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        folders: dict[str, Any] = {name: f"{folder}/{name}" for name in ("work", "out", "cache", "models_dir")}
        for path in folders.values():
            Path(path).mkdir()
        avatar, audio = str(file), str(EXAMPLES / "speech.wav")
        request = Request(
            engine="preview",
            avatar=avatar,
            audio=audio,
            work=folders["work"],
            out=folders["out"],
            cache=folders["cache"],
            models_dir=folders["models_dir"],
            output=Output(height=height),
        )
        start = time.process_time()
        inspection: Inspection = Handler("cpu:0").inspect(request)
        looked = time.process_time()
        engine = PreviewEngine("cpu:0")
        engine.prepare(request, inspection, 0, 1, lambda _: None)
        ready = time.process_time()
        frames = min(inspection.frames, 200)
        drawing = measure_s(engine.render(request, inspection, 0, frames))
        both = time.process_time()
        Handler("cpu:0").render(replace(request, work=folders["work"]), inspection, 0, frames, lambda _: None)
        total = time.process_time() - both
        meter = measure_meter_s(engine, request, inspection, frames)
    print(
        f"{inspection.avatar_kind} {inspection.width:5d} x {height}: "
        f"inspect {looked - start:.2f} s, prepare {ready - looked:.2f} s, "
        f"draw {1000 * drawing / frames:5.1f} ms, draw and encode {1000 * total / frames:5.1f} ms a frame, "
        f"{frames / float(inspection.rate) / total:.1f} x real time, the meter {100 * meter / total:.1f} % of it"
    )


def main() -> None:
    media.limit_threads(1)
    for height in (512, 720, 1080):
        measure(EXAMPLES / "collins.jpg", height)
    with tempfile.TemporaryDirectory() as folder:
        measure(write_wide(Path(folder) / "wide.png"), 720)
    for height in (480, 720):
        measure(EXAMPLES / "collins.mp4", height)


if __name__ == "__main__":
    main()
