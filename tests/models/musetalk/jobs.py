"""Jobs for the engine with the tiny weights: their avatars, requests and preparation."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2

from models.handler import Handler
from models.media.output.encode import write_part
from models.musetalk.engine import MuseTalkEngine
from models.types import Inspection, Request
from tests.models.musetalk import tiny
from tests.share import voice


def write_video(path: Path, faces: list[bool]) -> Path:
    """Write a video whose frames show a face or none."""
    frames = (tiny.picture(face=face, seed=number) for number, face in enumerate(faces))
    size: dict[str, Any] = {"width": tiny.WIDTH, "height": tiny.HEIGHT}
    write_part(
        path, frames, count=len(faces), fps=Fraction(25), encoder="libx264", crf=4, progress=lambda _: None, **size
    )
    return path


def write_image(path: Path, *, face: bool = True) -> Path:
    """Write a picture that shows a face or none."""
    cv2.imwrite(str(path), tiny.picture(face=face))
    return path


def make_request(
    tmp_path: Path, models_dir: Path, avatar: Path, seconds: float = 0.4, job: str = "work", **options: Any
) -> Request:
    """Return a request for a result of `seconds`, in folders below `tmp_path`."""
    audio = tmp_path / "voice.wav"
    audio.write_bytes(voice(seconds))
    for name in (job, "out", "cache"):
        (tmp_path / name).mkdir(exist_ok=True)
    folders: dict[str, Any] = {
        "work": str(tmp_path / job),
        "out": str(tmp_path / "out"),
        "cache": str(tmp_path / "cache"),
    }
    return Request(
        engine="musetalk",
        avatar=str(avatar),
        audio=str(audio),
        models_dir=str(models_dir),
        options={"precision": "fp32", **options},
        **folders,
    )


def prepare_job(request: Request) -> tuple[MuseTalkEngine, Inspection]:
    """Inspect and prepare a job with a new engine."""
    inspection = Handler("cpu:0").inspect(request)
    engine = MuseTalkEngine("cpu:0")
    engine.prepare(request, inspection, 0, inspection.units["prepare"], lambda _: None)
    return engine, inspection
