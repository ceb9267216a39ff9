"""One encoder for all parts of a job, though the device that inspects it is not the one that renders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import media
from models.handler import Handler
from models.media.output import encoders
from models.types import Colour, EngineError, Inspection, Output, Request
from tests import media_samples as samples

NVENC_WORKS = encoders.probe_encoder("h264_nvenc") == "usable"
needs_no_nvenc = pytest.mark.skipif(NVENC_WORKS, reason="NVENC works here")


def a_job(folder: Path, asked: str = "auto") -> tuple[Request, Inspection]:
    request = Request("stub", "", "", str(folder / "work"), str(folder / "out"), "", "", output=Output(encoder=asked))  # type: ignore[arg-type]
    request.files.work.mkdir(exist_ok=True)
    return request, Inspection(8, "25", 256, 256, 0.32, {"render": 8}, encoder="auto")


class Stub:
    """An engine that yields grey planes."""

    def prepare(self, *_: object) -> None:
        pass

    def render(self, _request: Request, _inspection: Inspection, start: int, stop: int) -> Iterator[np.ndarray]:
        return (np.full((384, 256), 40 + n, np.uint8) for n in range(start, stop))

    def report(self, *_: object) -> dict[str, object]:
        return {}


def handler() -> Handler:
    one = Handler("cpu:0")
    one._engine = ("stub", Stub())  # type: ignore[assignment]
    return one


def test_encoders_are_tried_before_they_are_promised() -> None:
    """x264 works everywhere; NVENC is refused with a reason where it doesn't encode."""
    assert media.choose_encoder("libx264") == "libx264"
    states = media.describe_worker()["encoders"]
    assert states["libx264"] == "usable"
    if states["h264_nvenc"] != "usable":
        assert media.choose_encoder("auto") == "libx264"
        with pytest.raises(EngineError, match="encoder_unavailable"):
            media.choose_encoder("h264_nvenc")


@needs_no_nvenc
def test_a_trial_tells_what_an_encoder_can_do() -> None:
    """NVENC without a GPU raises PermissionError, which the trial returns as its answer."""
    assert encoders.try_encoder("h264_nvenc").startswith("it fails (")
    assert encoders.try_encoder("libx264") == "usable"


def test_plans_leave_open_what_only_the_rendering_device_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GPU in the machine `auto` stays `auto`; without one it is x264, and NVENC is refused."""
    monkeypatch.setattr(encoders, "has_nvidia_gpu", lambda: True)
    assert [encoders.plan_encoder(asked) for asked in ("auto", "h264_nvenc", "libx264")] == [
        "auto",
        "h264_nvenc",
        "libx264",
    ]
    monkeypatch.setattr(encoders, "has_nvidia_gpu", lambda: False)
    assert encoders.plan_encoder("auto") == "libx264"
    with pytest.raises(EngineError, match="encoder_unavailable"):
        encoders.plan_encoder("h264_nvenc")


@needs_no_nvenc
def test_the_first_rendering_device_decides_for_all(tmp_path: Path) -> None:
    """`prepare` writes the choice once, and every later stage reads it."""
    request, inspection = a_job(tmp_path)
    handler().run({"stage": "prepare", "request": request.to_dict(), "outline": inspection.to_dict()}, 0, 1, print)
    assert request.files.encoder.read_text() == encoders.read_encoder(request.files, inspection) == "libx264"
    request.files.encoder.write_text("h264_nvenc")
    encoders.settle_encoder(request, inspection)
    assert encoders.read_encoder(request.files, inspection) == "h264_nvenc"
    assert encoders.read_encoder(request.files, replace(inspection, encoder="libx264")) == "libx264"


@needs_no_nvenc
def test_what_was_asked_for_by_name_is_checked_before_rendering(tmp_path: Path) -> None:
    """NVENC on a device without it is refused in `prepare`, with a hint."""
    request, inspection = a_job(tmp_path, "h264_nvenc")
    with pytest.raises(EngineError) as refused:
        encoders.settle_encoder(request, replace(inspection, encoder="h264_nvenc"))
    assert (refused.value.code, refused.value.retry) == ("encoder_unavailable", False)


@needs_no_nvenc
def test_a_device_without_the_chosen_encoder_brings_the_job_to_x264(tmp_path: Path) -> None:
    """With unlike devices the part fails once, with a retry, and then all parts are x264."""
    request, inspection = a_job(tmp_path)
    request.files.encoder.write_text("h264_nvenc")
    with pytest.raises(EngineError) as failed:
        handler().render(request, inspection, 0, 4, lambda _: None)
    assert (failed.value.code, failed.value.retry) == ("encoder_unavailable", True)
    assert encoders.read_encoder(request.files, inspection) == "libx264"
    for start in (0, 4):
        handler().render(request, inspection, start, start + 4, lambda _: None)
    request.files.audio.parent.mkdir()
    samples.speech_wav(request.files.audio.with_suffix(".wav"), 0.32).rename(request.files.audio)
    facts = handler().assemble(request, inspection, [[0, 4], [4, 8]])
    assert facts["encoder"] == "libx264"


@needs_no_nvenc
def test_an_encoder_asked_for_by_name_does_not_give_way(tmp_path: Path) -> None:
    """Only `auto` may change the encoder."""
    request, inspection = a_job(tmp_path)
    named = replace(inspection, encoder="h264_nvenc", colour=Colour())
    with pytest.raises(EngineError, match="encoder_unavailable"):
        handler().render(request, named, 0, 4, lambda _: None)
    assert not request.files.encoder.exists()
