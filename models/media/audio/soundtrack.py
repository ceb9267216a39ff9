"""The sound of a finished video: the original packets, or AAC where mp4 cannot hold those.

Times are counted in samples. What a player skips, an encoder's priming, goes before time 0; the
last packet is declared as long as what is heard of it, so that sound and picture end together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer

from models.media.audio.layers import MIX_RATE, make_frames, mix_layers
from models.media.audio.sound import Decoder, Scan, open_sound, resample
from models.types import Layer

AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
AAC_BIT_RATE = 192_000

Timed = tuple[Fraction, int, Any]
"""(decoding time in seconds, 0 for pictures and 1 for sound, packet)"""


def copy_packets(output: OutputContainer, audio: Path, scan: Scan) -> Iterator[Timed]:
    """Yield the packets of the file unchanged, for a new stream of `output`."""
    with open_sound(audio, audio.name) as (_, stream):
        target = output.add_stream_from_template(stream)
    target.time_base = Fraction(1, scan.sound.rate)
    return _time_copied(target, audio, scan)


def _time_copied(target: av.AudioStream, audio: Path, scan: Scan) -> Iterator[Timed]:
    rate, at = scan.sound.rate, -scan.skipped
    last = len(scan.packet_samples) - 1
    with open_sound(audio, audio.name) as (container, stream):
        packets = (packet for packet in container.demux(stream) if packet.size)
        for number, (packet, samples) in enumerate(zip(packets, scan.packet_samples, strict=True)):
            left = scan.sound.samples - at
            if left <= 0:
                return
            packet.stream, packet.time_base = target, Fraction(1, rate)
            packet.pts = packet.dts = at
            packet.duration = left if number == last else min(samples, left)
            yield Fraction(at, rate), 1, packet
            at += samples


def encode_aac(output: OutputContainer, audio: Path, scan: Scan) -> Iterator[Timed]:
    """Yield AAC packets, at the sound's own rate if AAC has it, in at most two channels."""
    rate = min(AAC_RATES, key=lambda known: abs(known - scan.sound.rate))
    layout = "mono" if scan.sound.channels == 1 else "stereo"
    target = _add_aac_stream(output, rate, layout)
    samples = round(Fraction(scan.sound.samples, scan.sound.rate) * rate)
    return _truncate_last(target, _read_frames(audio, layout, rate), samples)


def encode_mix(output: OutputContainer, layers: Sequence[tuple[Path, Layer]], length_s: Fraction) -> Iterator[Timed]:
    """Yield AAC packets of the mix of several sounds, which lasts `length_s`."""
    blocks = mix_layers(layers, round(length_s * MIX_RATE))
    first = next(blocks)
    target = _add_aac_stream(output, MIX_RATE, "mono" if len(first) == 1 else "stereo")
    return _truncate_last(target, make_frames(chain([first], blocks)), round(length_s * MIX_RATE))


def _add_aac_stream(output: OutputContainer, rate: int, layout: str) -> av.AudioStream:
    target = output.add_stream("aac", rate=rate, layout=layout)
    assert isinstance(target, av.AudioStream)  # noqa: S101 - AAC is sound
    target.codec_context.bit_rate = AAC_BIT_RATE
    return target


def _truncate_last(target: av.AudioStream, frames: Iterable[av.AudioFrame], samples: int) -> Iterator[Timed]:
    rate = target.codec_context.sample_rate
    for packet in _encode_frames(target, frames, rate):
        left = samples - packet.pts
        if left <= 0:
            return
        packet.duration = min(packet.duration, left)
        yield Fraction(packet.pts, rate), 1, packet


def _read_frames(audio: Path, layout: str, rate: int) -> Iterator[av.AudioFrame]:
    with open_sound(audio, audio.name) as (container, stream):
        yield from resample(Decoder(container, stream), sample_format="fltp", layout=layout, rate=rate)


def _encode_frames(target: av.AudioStream, frames: Iterable[av.AudioFrame], rate: int) -> Iterator[Any]:
    fed = 0
    for frame in frames:
        frame.pts, frame.time_base = fed, Fraction(1, rate)
        fed += frame.samples
        yield from target.encode(frame)
    yield from target.encode(None)
