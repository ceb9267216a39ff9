"""The built-in speech."""

from __future__ import annotations

import numpy as np

from models.musetalk.audio.speech import make_speech


def test_the_speech_is_a_voice() -> None:
    """A second of it, loud enough, without a jump to a limit, with most of its power below 4 kHz."""
    speech = make_speech(1.0)
    assert (speech.shape, speech.dtype) == ((16_000,), np.dtype(np.float32))
    assert 0.03 < speech.std() < np.abs(speech).max() <= 0.3001
    power = np.abs(np.fft.rfft(speech)) ** 2
    assert power[:4000].sum() > 0.99 * power.sum()
