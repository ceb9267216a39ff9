"""Faults of a finished video that its check finds."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from models import media
from models.types import EngineError
from tests import media_samples as samples


def broken_results(folder: Path) -> Iterator[tuple[str, Path]]:
    voice = samples.speech(2.0)
    good = samples.video(folder / "good.mp4", 50, sound_wave=voice, faststart=True)
    yield "frames instead of", samples.video(folder / "few.mp4", 49, sound_wave=voice, faststart=True)
    yield "is shown at", samples.video(folder / "fast.mp4", 50, fps=26, sound_wave=voice, faststart=True)
    yield "index", samples.video(folder / "slow.mp4", 50, sound_wave=voice)
    yield "sound ends", samples.video(folder / "short.mp4", 50, sound_wave=samples.speech(1.8), faststart=True)
    yield "read to its end", samples.video(folder / "mute.mp4", 50, faststart=True)
    yield "", samples.cut(good, folder / "cut.mp4", 0.8)


def test_verification_finds_every_fault(tmp_path: Path) -> None:
    """Wrong frame counts, times, index or sound and a cut file are refused; the good file passes."""
    for word, path in broken_results(tmp_path):
        with pytest.raises(EngineError) as found:
            media.verify_video(path, 50, Fraction(25))
        assert found.value.code == "result_invalid"
        assert word in found.value.message, path.name
    media.verify_video(tmp_path / "good.mp4", 50, Fraction(25))
