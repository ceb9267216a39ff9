"""Checksums of parts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from models import media
from models.types import EngineError
from tests import media_samples as samples
from tests.models.media.parts import write_part


def test_a_block_of_a_part_that_was_lost_is_noticed(tmp_path: Path) -> None:
    """A part with a block of zeros, as after a disk error, is refused."""
    part = write_part(
        tmp_path / "part.mp4", (samples.numbered(n, 320, 240) for n in range(48)), 48, width=320, height=240
    )
    voice = samples.speech_wav(tmp_path / "voice.wav", 1.92)
    data = part.read_bytes()
    first, last = data.index(b"mdat") + 900, data.index(b"moov") - 512
    for at in np.random.default_rng(4).integers(first, last, 30):
        part.write_bytes(data[:at] + bytes(512) + data[at + 512 :])
        with pytest.raises(EngineError) as found:
            media.assemble_video([part], audio=voice, out=tmp_path / "r.mp4", frames=48, fps=Fraction(25), metadata={})
        assert found.value.code == "part_damaged"
        assert found.value.retry
        assert str(tmp_path) not in found.value.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.mp4", "voice.wav"]
