"""What benchmarks.musetalk measures besides UNet and VAE, at 720p.

These are the face networks, the paste, the encoder, and whole clips.
Face networks have their full width and random weights.
Whole clips use the narrow ones of the tests, which find a face in the avatar; random ones find none.
The "cold" rows therefore understate the preparation; the rows of the stages don't.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import memory, weights
from gpu_pool.types import grid
from models import media
from models.handler import Handler, open_handler
from models.media.output.encode import write_part
from models.musetalk.compositing.composite import YuvBlend
from models.musetalk.compositing.masks import square_around
from models.musetalk.inpainting.streams import DeviceStream, open_stream
from models.musetalk.nets import bisenet, dwpose, s3fd
from models.musetalk.tracking.detection import REDUCED_SIDE, FaceNets
from models.types import Request
from tests.models.musetalk import tiny

Work = tuple[str, int, Callable[[], Any]]
HEIGHT, WIDTH, FPS = 720, 1280, Fraction(25)
CLIPS = {"cuda": (3, 60), "cpu": (3,), "cpu, full": (1,)}
"""Seconds of each clip. On a CPU the long one at full size would take an hour."""


# stages --------------------------------------------------------------------------------------------------------------


def face_stages(device: torch.device) -> Iterator[Work]:
    """Name, frames and the work for them, of 720p frames."""
    many = 8 if device.type == "cuda" else 2
    detector, pose, parser = (net().eval().to(device) for net in (s3fd.S3FD, dwpose.DwPose, bisenet.BiSeNet))
    nets, frames = FaceNets(detector, pose, device), list(memory.draw_swaying(WIDTH, HEIGHT, many))
    squares = [np.ascontiguousarray(frame[:, 280:1000]) for frame in frames]
    stream = open_stream(device)
    yield "detect", many, in_stream(stream, lambda: nets._search_reduced(frames, REDUCED_SIDE))
    yield "landmarks", many, in_stream(stream, lambda: nets.find_landmarks(frames))
    yield "parse", many, in_stream(stream, lambda: bisenet.class_maps(parser, squares))


def in_stream(stream: DeviceStream, work: Callable[[], Any]) -> Callable[[], Any]:
    """Run work as the engine does: on a CPU in one thread, so that no waiting is measured."""

    def run() -> Any:
        wait = stream.run(work)
        return wait()

    return run


def host_stages(folder: Path) -> Iterator[Work]:
    """The paste into a frame's planes, and the encoder."""
    box, count = (480, 180, 800, 600), 50
    mask = np.zeros((square_around(box)[3] - square_around(box)[1],) * 2, np.uint8)
    mask[80:-80, 80:-80] = 200
    paste = YuvBlend(mask, box, square_around(box), (WIDTH, HEIGHT))
    face = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    with media.VideoFrames(make_avatar(folder), FPS, as_yuv=True) as video:
        frames = [video.read(number % len(video)) for number in range(count)]
    size: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "encoder": "libx264", "crf": 18, "progress": [].append}

    def paste_all() -> None:
        for frame in frames:
            paste.apply(frame, face)

    yield "paste", count, paste_all
    yield "x264", count, lambda: write_part(folder / "part.mp4", iter(frames), count=count, fps=FPS, **size)


def make_avatar(folder: Path) -> Path:
    path = folder / "avatar.mp4"
    return path if path.exists() else memory.write_avatar(path, HEIGHT, 25, FPS)


# whole clips ---------------------------------------------------------------------------------------------------------


def clips(
    size: str, device: torch.device, folder: Path, threads: int, before: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Run each clip cold, in a new process without cached avatar, then warm in the same process.

    before   the folder of an older version, whose code runs the same clip first, on the same files
    """
    tiny.lay_out(folder / "models")
    if size == "full":
        for part in ("musetalkV15", "sd-vae", "whisper"):
            shutil.rmtree(folder / "models" / part)
        with contextlib.redirect_stdout(sys.stderr):
            weights.lay_out(folder / "models", ("unet", "sd-vae", "whisper"))
    make_avatar(folder)
    for seconds in CLIPS["cpu, full" if (device.type, size) == ("cpu", "full") else device.type]:
        for name, code in (("before", before), ("now", Path.cwd())):
            if code is None:
                continue
            place = folder / name
            if not place.exists():
                place.mkdir()
                (place / "models").symlink_to(folder / "models")
                (place / "avatar.mp4").hardlink_to(folder / "avatar.mp4")
            command = [sys.executable, "-m", "benchmarks.clips", str(place), str(seconds), device.type, str(threads)]
            run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=code)
            yield from ({"code": name, **clip} for clip in json.loads(run.stdout.splitlines()[-1]))


def run_clips(folder: Path, seconds: int, device: str, threads: int) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    place = folder / f"clip{seconds}"
    place.mkdir()
    voice = memory.write_voice(place / "voice.wav", seconds)
    handler = open_handler("cpu:0" if device == "cpu" else "cuda:0", {"threads": threads})
    return [run_clip(handler, folder, place, voice, name) for name in ("cold", "warm")]


def run_clip(handler: Handler, folder: Path, place: Path, voice: Path, name: str) -> dict[str, Any]:
    """Run one job as a worker does, from media files to the published mp4."""
    (place / "cache").mkdir(exist_ok=True)
    folders = {kind: place / name / kind for kind in ("work", "out")}
    for path in folders.values():
        path.mkdir(parents=True)
    request = Request(
        engine="musetalk",
        avatar=str(make_avatar(folder)),
        audio=str(voice),
        cache=str(place / "cache"),
        models_dir=str(folder / "models"),
        work=str(folders["work"]),
        out=str(folders["out"]),
    )
    wall, cpu = time.perf_counter(), time.process_time()
    frames, told = run_job(handler, request)
    spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "frames": frames}
    cached = told["musetalk"]["avatar_from_cache"]
    return {"name": f"{voice.parent.name.removeprefix('clip')} s {name}", "cached": cached, **spent}


def run_job(handler: Handler, request: Request) -> tuple[int, dict[str, Any]]:
    """Run all stages. Return the number of frames, and the content of result.json."""
    payload: dict[str, Any] = {"request": request.to_dict(), "stage": "inspect"}
    payload["outline"] = handler.run(payload, 0, 1, lambda _: None)["outline"]
    frames = int(payload["outline"]["frames"])
    handler.run({**payload, "stage": "prepare"}, 0, 1, lambda _: None)
    spans = grid(frames, payload["outline"]["batch"])
    for span in spans:
        handler.run({**payload, "stage": "render"}, span.start, span.stop, lambda _: None)
    payload["spans"] = [[span.start, span.stop] for span in spans]
    return frames, handler.run({**payload, "stage": "assemble"}, 0, 1, lambda _: None)


if __name__ == "__main__":
    print(json.dumps(run_clips(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))
