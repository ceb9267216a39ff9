"""Mix several sounds to one: what is heard in a result whose sound is no single file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import av
import numpy as np

from models.arrays import F32
from models.media.audio.mixing import mix_frames, read_channels
from models.media.audio.sound import Decoder, open_sound, resample
from models.types import Layer, ProgressCallback

MIX_RATE = 48_000
PEAK = 10 ** (-1 / 20)
"""The loudest sample of a mix: 1 dB of headroom, so that the peaks of an encoder fit too."""
_EDGE_S = 0.01
"""Seconds in which a sound is faded where it is cut, which clicks otherwise."""
_BLOCK = MIX_RATE


class LayerReader:
    """Reads a sound of at most two channels from its beginning, at MIX_RATE, block by block."""

    def __init__(self, path: Path, layer: Layer, stack: ExitStack) -> None:
        container, stream = stack.enter_context(open_sound(path, path.name))
        layout = "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo"
        self._layer, self._at = layer, 0
        self._frames = resample(Decoder(container, stream), sample_format="fltp", layout=layout, rate=MIX_RATE)
        self._held = np.zeros((1 if layout == "mono" else 2, round(layer.start_s * MIX_RATE)), np.float32)

    @property
    def channels(self) -> int:
        return len(self._held)

    def read(self, count: int) -> F32:
        """Return the next samples as they are heard, (channels, count); zeros after the end."""
        pieces, length = [self._held], self._held.shape[1]
        while length < count and (frame := next(self._frames, None)) is not None:
            pieces.append(read_channels(frame))
            length += frame.samples
        joined = np.concatenate(pieces, axis=1)
        self._held = joined[:, count:]
        block = np.pad(joined[:, :count], ((0, 0), (0, max(0, count - length))))
        heard = block * self._compute_gains(count)
        self._at += count
        return np.asarray(heard, np.float32)

    def _compute_gains(self, count: int) -> F32:
        layer, t = self._layer, (self._at + np.arange(count)) / MIX_RATE
        gains = np.full(count, 10 ** (layer.gain_db / 20))
        if layer.stop_s is not None:
            gains *= np.clip((layer.stop_s - t) / _EDGE_S, 0, 1)
        if layer.mute_s is not None:
            start_s, stop_s = layer.mute_s
            gains *= np.clip(np.maximum(1 - (t - start_s) / _EDGE_S, 1 - (stop_s - t) / _EDGE_S), 0, 1)
        return gains.astype(np.float32)


def mix_layers(layers: Sequence[tuple[Path, Layer]], samples: int) -> Iterator[F32]:
    """Yield the sum of the layers in blocks of (channels, n) float32 at MIX_RATE, `samples` in all.

    Nothing is louder than PEAK: where the sum is, all of it is lowered. Raises EngineError
    audio_unreadable.
    """
    peak = max((float(np.abs(block).max(initial=0)) for block in _add_layers(layers, samples)), default=0.0)
    gain = np.float32(min(1.0, PEAK / peak) if peak else 1.0)
    for block in _add_layers(layers, samples):
        yield block * gain


def _add_layers(layers: Sequence[tuple[Path, Layer]], samples: int) -> Iterator[F32]:
    with ExitStack() as stack:
        readers = [LayerReader(path, layer, stack) for path, layer in layers]
        channels = max(reader.channels for reader in readers)
        for start in range(0, samples, _BLOCK):
            count = min(_BLOCK, samples - start)
            total = np.zeros((channels, count), np.float32)
            for reader in readers:
                total += reader.read(count)
            yield total


def make_frames(blocks: Iterator[F32]) -> Iterator[av.AudioFrame]:
    """Yield blocks of a mix as frames."""
    for block in blocks:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), "fltp", "mono" if len(block) == 1 else "stereo")
        frame.sample_rate = MIX_RATE
        yield frame


def write_voice(source: Path, target: Path, *, skip_s: float, length_s: float, tick: ProgressCallback) -> None:
    """Write what the mouth of a voice follows: `length_s` of a sound, in one channel, as a float WAV.

    skip_s   seconds at the beginning that are left out; where it is below 0, so much silence is added
    tick     called with the number of blocks written so far

    Raises EngineError audio_unreadable.
    """
    with open_sound(source, source.name) as (container, stream), av.open(f"file:{target}", "w", format="wav") as output:
        rate = stream.codec_context.sample_rate
        track = output.add_stream("pcm_f32le", rate=rate, layout="mono")
        blocks = _cut(_read_mono(Decoder(container, stream), rate), round(skip_s * rate), round(length_s * rate))
        for number, block in enumerate(blocks):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block[None]), "flt", "mono")
            frame.sample_rate = rate
            output.mux(track.encode(frame))
            tick(number)
        output.mux(track.encode(None))


def _read_mono(decoder: Decoder, rate: int) -> Iterator[F32]:
    for frame in resample(mix_frames(decoder), sample_format="fltp", layout="mono", rate=rate):
        yield read_channels(frame)[0]


def _cut(blocks: Iterator[F32], skip: int, length: int) -> Iterator[F32]:
    """Yield `length` samples from `skip` on, with zeros before the beginning and after the end."""
    silence = itertools.repeat(np.zeros(_BLOCK, np.float32))
    lead = max(0, -skip)
    before = (np.zeros(min(_BLOCK, lead - at), np.float32) for at in range(0, lead, _BLOCK))
    skip, left = max(0, skip), length
    for block in itertools.chain(before, blocks, silence):
        kept = block[skip:][:left]
        skip -= len(block) - len(block[skip:])
        left -= len(kept)
        if len(kept):
            yield kept
        if not left:
            return
