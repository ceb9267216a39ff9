"""Advice while a job is inspected, and a strict job that refuses it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.advice import looking
from models.handler import Handler
from models.types import EngineError, Inspection
from tests.models.preview.test_engine import portrait, request_for
from tests.share import EXAMPLES, face


def test_a_job_is_told_and_a_strict_one_refused(tmp_path: Path) -> None:
    """A small face is told, and survives the way to the daemon; a job that is strict is not made."""
    source = tmp_path / "small.jpg"
    source.write_bytes(face(200))
    request = request_for(tmp_path, source)
    inspection = Inspection.from_dict(Handler("cpu:0").inspect(request).to_dict())
    assert "face_small" in inspection.advice
    with pytest.raises(EngineError, match="the face is") as refused:
        Handler("cpu:0").inspect(replace(request, strict=True))
    assert refused.value.code == "poor_input"


@pytest.mark.parametrize("avatar", ["collins.jpg", "collins.mp4"])
def test_good_input_passes_a_strict_job(tmp_path: Path, avatar: str) -> None:
    """The portrait and the video of the examples, with their voice, give no cause for advice."""
    request = replace(request_for(tmp_path, EXAMPLES / avatar), audio=str(EXAMPLES / "hello.wav"), strict=True)
    assert Handler("cpu:0").inspect(request).advice == {}


def test_media_that_cost_too_much_to_look_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job goes on without advice."""

    def refuse(*_given: object) -> None:
        raise EngineError("media_too_costly", "too much", "less")

    monkeypatch.setattr(looking, "sample_pictures", refuse)
    assert Handler("cpu:0").inspect(replace(request_for(tmp_path, portrait(tmp_path)), strict=True)).advice == {}
