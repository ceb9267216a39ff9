"""Whether the later stages can use a sound: decided while the inspection decodes it."""

from __future__ import annotations

import av
import numpy as np
from av.audio.resampler import AudioResampler

from models.types import EngineError

_FLOATS = frozenset(("flt", "fltp", "dbl", "dblp"))
LOUDEST = 1000
"""The largest sample, where 1 is full scale: AAC encoders take minutes or fail on sound that is much louder."""
SLOWEST_HZ, FASTEST_HZ = 1000, 768_000
MOST_SHAPES = 16


class SampleChecker:
    """Refuses sound that would break the mixing or the encoding of the result.

    Raises EngineError audio_unreadable.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._mixed: set[tuple[str, str, int]] = set()

    def check(self, frame: av.AudioFrame) -> None:
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if shape not in self._mixed:
            self._check_shape(frame)
            self._mixed.add(shape)
        if frame.format.name in _FLOATS and not (np.abs(frame.to_ndarray()) <= LOUDEST).all():  # also NaN
            raise self._refuse(f"holds samples that are no numbers, or above {LOUDEST}", "16-bit wav")

    def _check_shape(self, frame: av.AudioFrame) -> None:
        """Try to mix the sound to mono and stereo, as the stages after this one do."""
        if not SLOWEST_HZ <= frame.sample_rate <= FASTEST_HZ:
            raise self._refuse(f"has {frame.sample_rate} samples a second", "wav of 48000 Hz")
        if len(self._mixed) >= MOST_SHAPES:
            raise self._refuse(f"changes its rate or channels more than {MOST_SHAPES} times", "wav")
        try:
            for layout in ("mono",) if frame.layout.nb_channels == 1 else ("mono", "stereo"):
                AudioResampler("flt", layout, frame.sample_rate).resample(frame)
        except (av.FFmpegError, ValueError) as error:
            channels = frame.layout.nb_channels
            raise self._refuse(f"has {channels} channels that cannot be mixed to stereo", "mono or stereo") from error

    def _refuse(self, what: str, form: str) -> EngineError:
        return EngineError("audio_unreadable", f"{self._name} {what}", f"save it again as {form}")
