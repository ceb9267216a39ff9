"""What reading and writing media costs a frame.

python -m benchmarks.media [HEIGHT]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from models import media
from models.arrays import U8
from models.media.pictures.colour import ToYuv
from tests import media_samples as samples

FPS = Fraction(25)
FRAMES = 250
PART = 24


def draw_moving(width: int, height: int, count: int) -> Iterator[U8]:
    """A detailed picture that drifts, with something that opens and closes in the middle of it."""
    noise = np.random.default_rng(1).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    scene = np.asarray(cv2.resize(noise, (width + 64, height + 64), interpolation=cv2.INTER_CUBIC), np.uint8)
    for n in range(count):
        x, y = int(16 + 12 * np.sin(n / 9)), int(16 + 12 * np.cos(n / 7))
        frame = np.array(scene[y : y + height, x : x + width], np.uint8)
        opening = max(1, int(height / 20 * (1 + np.sin(n * 0.9))))
        cv2.ellipse(frame, (width // 2, height // 2), (height // 12, opening), 0, 0, 360, (40, 30, 90), -1)
        yield frame


def format_ms(work: Callable[[], object], frames: int, rounds: int = 3) -> str:
    """Format the best of some rounds, and the CPU time of all threads, which depends less on load."""
    wall, cpu = map(min, zip(*(measure_s(work) for _ in range(rounds)), strict=True))
    return f"{1000 * wall / frames:8.2f} ms wall {1000 * cpu / frames:8.2f} ms CPU"


def measure_s(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def write_part(path: Path, frames: list[U8]) -> Path:
    height, width = frames[0].shape[:2]
    media.write_part(
        path,
        iter(frames),
        count=len(frames),
        fps=FPS,
        width=width,
        height=height,
        encoder="libx264",
        crf=18,
        progress=lambda _: None,
    )
    return path


def make_reader(path: Path, order: list[int]) -> Callable[[], None]:
    def read() -> None:
        with media.VideoFrames(path, FPS) as video:
            for index in order:
                video.read(index)

    return read


def print_row(name: str, figures: str) -> None:
    print(f"{name:<44}{figures}")


def measure(folder: Path, height: int) -> None:
    width = height * 16 // 9 // 2 * 2
    frames = list(draw_moving(width, height, FRAMES))
    print(f"{width} x {height}, {FRAMES} frames")
    to_yuv = ToYuv()
    print_row("BGR -> yuv420p BT.709", format_ms(lambda: [to_yuv(frame) for frame in frames[:50]], 50))
    print_row("write_part, 24 frames", format_ms(lambda: write_part(folder / "part.mp4", frames[:PART]), PART))
    long_gop = write_part(folder / "long.mp4", frames)
    short_gop = samples.video(folder / "short.mp4", FRAMES, width, height, frames=iter(frames), options={"g": "30"})
    upwards, downwards = list(range(FRAMES)), list(range(FRAMES - 1, -1, -1))
    for name, path in (("key frame every 250", long_gop), ("key frame every 30", short_gop)):
        print_row(f"VideoFrames ascending, {name}", format_ms(make_reader(path, upwards), FRAMES))
        print_row(f"VideoFrames descending, {name}", format_ms(make_reader(path, downwards), FRAMES, 1))
        jumps = [int(n) for n in np.random.default_rng(0).integers(0, FRAMES, 25)]
        print_row(f"VideoFrames random, {name}", format_ms(make_reader(path, jumps), len(jumps), 1))
    print_row("open VideoFrames (once)", format_ms(make_reader(long_gop, []), 1))
    assemble_video(folder, frames)


def assemble_video(folder: Path, frames: list[U8]) -> None:
    edges = [*range(0, FRAMES, PART), FRAMES]
    parts = [write_part(folder / f"{start}.mp4", frames[start:stop]) for start, stop in pairwise(edges)]
    voice = samples.speech_wav(folder / "voice.wav", float(FRAMES / FPS))
    out = folder / "result.mp4"

    def join() -> None:
        media.assemble_video(parts, audio=voice, out=out, frames=FRAMES, fps=FPS, metadata={})

    print_row("assemble and verify", format_ms(join, FRAMES))
    print_row("verify alone", format_ms(lambda: media.verify_video(out, FRAMES, FPS), FRAMES))
    print_row("read_waveform (a second of sound)", format_ms(lambda: media.read_waveform(voice), int(FRAMES / FPS)))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        measure(Path(scratch), int(sys.argv[1]) if len(sys.argv) > 1 else 720)
