"""Hear a sound while the inspection decodes it: how loud it is, and whether the later stages can use it."""

from __future__ import annotations

import av
import numpy as np
from av.audio.resampler import AudioResampler

from models.arrays import F32
from models.media.audio.mixing import SampleBuffer, read_shape
from models.types import EngineError

LOUDEST = 1000
"""The largest sample, where 1 is full scale: AAC encoders take minutes or fail on sound that is much louder."""
SLOWEST_HZ, FASTEST_HZ = 1000, 768_000
MOST_SHAPES = 16
_BLOCKS_PER_S = 50
_SILENT_DB = -70.0
_STEADY_DB = 9.0
_SHORTEST_S = 1


class SoundMeter:
    """Measures the level of a sound in its loudest channel, about a second at once, and refuses
    sound that would break the mixing or the encoding of the result.

    Raises EngineError audio_unreadable.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._mixed: set[tuple[str, str, int]] = set()
        self._buffer: SampleBuffer | None = None
        self._powers: list[F32] = []

    def add(self, frame: av.AudioFrame) -> None:
        """Hear the next frame."""
        if self._buffer is None or self._buffer.shape != read_shape(frame):
            self._measure()
            self._check_shape(frame)
            self._buffer = SampleBuffer(frame)
        self._buffer.add(frame)
        if self._buffer.is_full:
            self._measure()

    def describe(self) -> tuple[str, ...]:
        """Return a note where the whole sound is silent, or where no voice is in it."""
        self._measure()
        levels = 10 * np.log10(np.concatenate([np.zeros(0, np.float32), *self._powers]) + 1e-12)
        if levels.max(initial=-120) < _SILENT_DB:
            return (f"{self._name} is silent: the mouth stays closed",)
        quiet, loud = np.percentile(levels, [10, 95])
        if len(levels) >= _SHORTEST_S * _BLOCKS_PER_S and loud - quiet < _STEADY_DB:
            return (f"no voice was found in {self._name}: its level is as steady as that of noise or of a tone",)
        return ()

    def _check_shape(self, frame: av.AudioFrame) -> None:
        """Try to mix the sound to mono and stereo, as the stages after this one do."""
        if (shape := read_shape(frame)) in self._mixed:
            return
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
        self._mixed.add(shape)

    def _measure(self) -> None:
        """Measure and check what was heard since the last time."""
        if self._buffer is None or not (channels := self._buffer.take()).size:
            return
        if self._buffer.is_float and not -LOUDEST <= channels.min() <= channels.max() <= LOUDEST:  # also NaN
            raise self._refuse(f"holds samples that are no numbers, or above {LOUDEST}", "16-bit wav")
        block = min(channels.shape[1], max(1, self._buffer.rate // _BLOCKS_PER_S))
        whole = channels.shape[1] // block * block
        blocks = channels[:, :whole].reshape(len(channels), -1, block)
        self._powers.append((np.vecdot(blocks, blocks) / np.float32(block)).max(0))

    def _refuse(self, what: str, form: str) -> EngineError:
        return EngineError("audio_unreadable", f"{self._name} {what}", f"save it again as {form}")
