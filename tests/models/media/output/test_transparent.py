"""Videos that keep transparency: ProRes 4444 in a mov, in parts that are joined and verified."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from models import media
from models.media.output.encode import ALPHA_ENCODER
from models.types import EngineError
from tests import media_samples as samples
from tests.models.media.transparent import draw_rgba

FPS = Fraction(30000, 1001)


def write_parts(folder: Path, encoder: str = ALPHA_ENCODER) -> list[Path]:
    bgra = draw_rgba()[..., [2, 1, 0, 3]]
    paths = [folder / f"{number}.mp4" for number in range(2)]
    for path in paths:
        frames = iter([bgra if encoder == ALPHA_ENCODER else np.ascontiguousarray(bgra[..., :3])] * 5)
        size = {"width": bgra.shape[1], "height": bgra.shape[0]}
        media.write_part(path, frames, count=5, fps=FPS, encoder=encoder, crf=18, progress=lambda _: None, **size)
    return paths


def test_parts_become_a_mov_with_transparency(tmp_path: Path) -> None:
    """All frames, with exact times, colours and opacity, and the sound."""
    voice = samples.speech_wav(tmp_path / "voice.wav", float(10 / FPS))
    out = tmp_path / "result.mov"
    parts = write_parts(tmp_path)
    facts = media.assemble_video(parts, audio=voice, out=out, frames=10, fps=FPS, metadata={"title": "a"}, alpha=True)
    assert facts == {"audio_codec": "aac", "audio_copied": False}
    with av.open(str(out)) as container:
        assert container.metadata["title"] == "a"
        frames = list(container.decode(video=0))
    assert [frame.pts * frame.time_base for frame in frames] == [n / FPS for n in range(10)]  # type: ignore[operator]
    rgba = frames[-1].to_ndarray(format="rgba").astype(int)
    right = draw_rgba().astype(int)
    assert np.abs(rgba[..., 3] - right[..., 3])[:, 2:-2].max() <= 3
    assert np.abs(rgba[..., :3] - right[..., :3])[right[..., 3] > 0].max() <= 4


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    """A part depends on its frames alone, as all parts do."""
    one, two = write_parts(tmp_path)
    assert one.read_bytes() == two.read_bytes()


def test_a_copy_of_sound_that_a_mov_does_not_hold_is_encoded(tmp_path: Path) -> None:
    """`copy` keeps Opus in an mp4; a mov has no place for it."""
    voice = samples.sound(tmp_path / "voice.opus", samples.speech(float(10 / FPS), 48_000), 48_000, codec="libopus")
    options = {"frames": 10, "fps": FPS, "metadata": {}, "copies_audio": True, "alpha": True}
    parts = write_parts(tmp_path)
    facts = media.assemble_video(parts, audio=voice, out=tmp_path / "result.mov", **options)  # type: ignore[arg-type]
    assert facts["audio_codec"] == "aac"


def test_a_result_without_transparency_fails_its_check(tmp_path: Path) -> None:
    """The check looks for opacity in every picture."""
    voice = samples.speech_wav(tmp_path / "voice.wav", float(10 / FPS))
    options = {"frames": 10, "fps": FPS, "metadata": {}, "alpha": True}
    with pytest.raises(EngineError, match="no transparency"):
        media.assemble_video(
            write_parts(tmp_path, "libx264"),
            audio=voice,
            out=tmp_path / "result.mov",
            **options,  # type: ignore[arg-type]
        )
