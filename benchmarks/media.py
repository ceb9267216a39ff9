"""What reading and writing media costs a frame, and what a file of each type costs.

python -m benchmarks.media [HEIGHT]
python -m benchmarks.media --against FOLDER     the file types beside another checkout, turn by turn
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from PIL import Image

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


# file types ----------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]
ROUNDS = 9
SOUND_S, CLIP_FRAMES = 20.0, 50
STEADY_HEAP = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
"""Keep freed memory: else page faults, whose number depends on the files read before, cost up to a fifth."""
SOUNDS = (".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus", ".webm", ".aiff", ".ac3")
PICTURES = (".jpg", ".png", ".webp", ".bmp", ".tif", ".gif")
CLIPS = {"h264.mp4": "libx264", "hevc.mp4": "libx265", "vp9.webm": "libvpx-vp9", "vp8.webm": "libvpx"}
CLIPS |= {"mpeg2.ts": "mpeg2video", "mjpeg.avi": "mjpeg", "h264.mkv": "libx264", "h264.mov": "libx264"}


def write_types(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield "sound" or "avatar", and a file, for each type."""
    wave = samples.speech(SOUND_S, 48_000)
    for suffix in SOUNDS:
        yield "sound", samples.sound(folder / f"voice{suffix}", wave, 48_000)
    frames = list(draw_moving(1280, 720, CLIP_FRAMES))
    large = np.asarray(cv2.resize(frames[0], (2560, 1440)), np.uint8)
    for suffix in PICTURES:
        path = folder / f"face{suffix}"
        cv2.imwrite(str(path), large)
        yield "avatar", path
    transparent = np.dstack([large[..., ::-1], np.full(large.shape[:2], 200, np.uint8)])
    Image.fromarray(transparent).save(folder / "transparent.png")
    yield "avatar", folder / "transparent.png"
    for name, codec in CLIPS.items():
        yield "avatar", samples.video(folder / name, CLIP_FRAMES, 1280, 720, codec=codec, frames=iter(frames))


class Reader:
    """A process that reads files by the code of a checkout."""

    def __init__(self, root: Path) -> None:
        program = [sys.executable, str(Path(__file__).with_name("media_reader.py"))]
        env = {**os.environ, **STEADY_HEAP, "PYTHONPATH": str(root)}
        self._process = subprocess.Popen(program, cwd=root, env=env, stdin=-1, stdout=-1, text=True)

    def measure_s(self, kind: str, path: Path) -> float | None:
        """Return the CPU time of reading a file, None where it can't be read."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{kind} {path}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        return None if answer == "-" else float(answer)

    def close(self) -> None:
        self._process.communicate()


def measure_types(folder: Path, roots: list[Path]) -> None:
    """Print the CPU time of a file of each type: the median of some rounds, in which the checkouts take turns."""
    readers = [Reader(root) for root in roots]
    for kind, path in write_types(folder):
        rounds = [[reader.measure_s(kind, path) for reader in readers] for _ in range(ROUNDS + 1)][1:]
        figures = [[one for one in of_reader if one is not None] for of_reader in zip(*rounds, strict=True)]
        medians = [median(one) if one else None for one in figures]
        text = "".join(f"{1000 * one:10.1f} ms CPU" if one is not None else "  can't be read" for one in medians)
        first, last = medians[0], medians[-1]
        ratio = f"{100 * (first / last - 1):+8.1f} %" if len(readers) > 1 and first and last else ""
        print_row(f"a file {path.name}", text + ratio)
    for reader in readers:
        reader.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        if sys.argv[1:2] == ["--against"]:
            measure_types(Path(scratch), [ROOT, Path(sys.argv[2])])
        else:
            measure(Path(scratch), int(sys.argv[1]) if len(sys.argv) > 1 else 720)
            measure_types(Path(scratch), [ROOT])
