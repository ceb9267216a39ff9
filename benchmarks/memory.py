"""Peak host memory of a long MuseTalk job beside a short one, each in a new process.

    nice -n 10 python -m benchmarks.memory [--short 20] [--long 600] [--height 1080] [--fps 2] [--frames 30]

Frames, sound, encoder and engine are real; the networks are the tiny ones of the tests, because
networks don't affect what grows with the length of a job.
The low frame rate saves time: all queues, caches and the encoder's look-ahead are full within the
short job's 40 frames, and the long job has 30 times its sound and frames.
One worker does the whole job, span by span, as for the daemon. The limit is 1.1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gpu_pool.types import grid
from models.arrays import U8
from models.handler import open_handler
from models.media.output.encode import write_part
from models.types import Request
from tests import media_samples as samples
from tests.models.musetalk import tiny

MIB = 2**20
BAR = 1.1
STAGES = ("inspect", "prepare", "render", "assemble")


# what both jobs are made of ------------------------------------------------------------------------------------------


def write_avatar(path: Path, height: int, count: int, fps: Fraction) -> Path:
    """Write a video with a swaying bright spot, which the tests' detector takes for a face."""
    width = height * 16 // 9 // 2 * 2
    size: dict[str, Any] = {"width": width, "height": height}
    frames = draw_swaying(width, height, count)
    write_part(path, frames, count=count, fps=fps, encoder="libx264", crf=18, progress=lambda _: None, **size)
    return path


def draw_swaying(width: int, height: int, count: int) -> Iterator[U8]:
    random = np.random.default_rng(0)
    room = cv2.resize(random.integers(0, 40, (height // 40, width // 40, 3), np.uint8), (width, height))
    tall = height // 3
    shade = np.linspace(170, 250, tall)[None, :, None] - np.linspace(0, 20, tall)[:, None, None]
    face = (shade * [0.8, 0.9, 1.0]).astype(np.uint8)
    for number in range(count):
        frame = np.asarray(room, np.uint8).copy()
        left, top = (width - tall) // 2 + round(8 * np.sin(number / 7)), (height - tall) // 2
        frame[top : top + tall, left : left + tall] = face
        yield frame


def write_voice(path: Path, seconds: int) -> Path:
    """A minute of a voice-like sound, again and again."""
    minute = (samples.speech(min(60, seconds)) * 32767).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        for start in range(0, seconds, 60):
            sound.writeframes(minute[: 32_000 * (seconds - start)])
    return path


# one job, in a process of its own ------------------------------------------------------------------------------------


def run_job(folder: Path, models_dir: Path) -> dict[str, Any]:
    """Peaks in MiB of each stage, and overall; frames and seconds of the job."""
    for name in ("work", "out", "cache"):
        (folder / name).mkdir()
    request = Request(
        engine="musetalk",
        avatar=str(folder.parent / "avatar.mp4"),
        audio=str(folder / "voice.wav"),
        work=str(folder / "work"),
        out=str(folder / "out"),
        cache=str(folder / "cache"),
        models_dir=str(models_dir),
        options={"precision": "fp32"},
    )
    handler = open_handler("cpu:0", {"threads": 1})
    payload: dict[str, Any] = {"request": request.to_dict()}
    peaks: dict[str, float] = {}
    began, spans = time.perf_counter(), [(0, 1)]
    for stage in STAGES:
        if stage == "render":
            spans = [
                (span.start, span.stop) for span in grid(payload["outline"]["frames"], payload["outline"]["batch"])
            ]
        payload |= {"stage": stage, "spans": [list(span) for span in spans]}
        with record_peak(peaks, stage):
            for start, stop in spans if stage == "render" else [(0, 1)]:
                told = handler.run(payload, start, stop, lambda _: None)
        payload |= {"outline": told["outline"]} if stage == "inspect" else {}
    lost = sum(stop - start for start, stop in told["musetalk"]["no_face"])
    frames = payload["outline"]["frames"]
    seconds = time.perf_counter() - began
    return {"peaks": peaks, "frames": frames, "painted": frames - lost, "seconds": seconds, "spans": len(spans)}


class record_peak:  # noqa: N801 - reads as a verb
    """Record the peak resident memory of the block; the kernel's high-water mark is reset before."""

    def __init__(self, peaks: dict[str, float], stage: str) -> None:
        self.peaks, self.stage = peaks, stage

    def __enter__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")

    def __exit__(self, *_: object) -> None:
        lines = Path("/proc/self/status").read_text().splitlines()
        high = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        self.peaks[self.stage] = high * 1024 / MIB


# the comparison ------------------------------------------------------------------------------------------------------


def measure(root: Path, seconds: int) -> dict[str, Any]:
    folder = root / f"{seconds}"
    folder.mkdir()
    write_voice(folder / "voice.wav", seconds)
    command = [sys.executable, "-m", "benchmarks.memory", "--child", str(folder), str(root / "models")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def print_report(seconds: int, found: dict[str, Any]) -> float:
    peaks = found["peaks"]
    highest = max(peaks.values())
    figures = "".join(f"{peaks[stage]:10.0f}" for stage in STAGES)
    tail = f"{highest:10.0f}{found['frames']:8}{found['painted']:9}{found['spans']:7}{found['seconds']:9.0f}"
    print(f"{seconds:8} s{figures}{tail}", flush=True)
    return float(highest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (("--short", 20), ("--long", 600), ("--height", 1080), ("--fps", 2), ("--frames", 30)):
        parser.add_argument(name, type=int, default=usual)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(run_job(*map(Path, asked.child))))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tiny.lay_out(root / "models")
        write_avatar(root / "avatar.mp4", asked.height, asked.frames, Fraction(asked.fps))
        heads = (*STAGES, "peak MiB", "frames", "painted", "spans", "seconds")
        widths = (10, 10, 10, 10, 10, 8, 9, 7, 9)
        print("sound".rjust(10) + "".join(head.rjust(width) for head, width in zip(heads, widths, strict=True)))
        short = print_report(asked.short, measure(root, asked.short))
        long = print_report(asked.long, measure(root, asked.long))
    print(f"the long job takes {long / short:.3f} of the short one's memory; the limit is {BAR}")


if __name__ == "__main__":
    main()
