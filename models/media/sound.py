"""Sound: how long it really is, and its waveform."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.container import InputContainer

from models.media.container import opened, unreadable
from models.types import EngineError, Limits

SHORTEST_S = 0.04
COPIED = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac", "opus", "flac"})
"""Codecs that mp4 holds as they are. mp3float is FFmpeg's decoder of mp3."""
CUT_S = 0.1
"""A file that ends this much, and 2 %, before its header says so is cut off."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound as it decodes. `offset_s`: container time of its first audible sample."""

    duration_s: float
    rate: int
    channels: int
    codec: str
    offset_s: Fraction

    @property
    def copyable(self) -> bool:
        return self.codec in COPIED


def sound_stream(container: InputContainer, name: str) -> AudioStream:
    if not container.streams.audio:
        raise unreadable(name, "audio", "there is no sound in it")
    return container.streams.audio[0]


def read_sound(path: Path, name: str, limits: Limits) -> Sound:
    """Decode the first sound track to its end; headers are not trusted about its length.

    Raises EngineError: audio_unreadable (no sound, damaged, or shorter than its header says), audio_empty,
    audio_too_short, audio_too_long.
    """
    with opened(path, name, "audio") as container:
        stream = sound_stream(container, name)
        samples, first, end = 0, None, Fraction(0)
        for packet in container.demux(stream):
            if packet.size and packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * (packet.time_base or Fraction(1)))
            for frame in packet.decode():
                samples += frame.samples
                first = frame_time(frame) if first is None else first
                if samples > (limits.audio_s + 1) * stream.rate:
                    raise too_long(name, limits)
        codec = stream.codec_context.name
        channels, rate = stream.channels, stream.rate
        declared = declared_s(container, path)
    if first is None or not samples:
        raise EngineError("audio_empty", f"{name} holds no sound", "record it again: the file has a header and no samples")
    decoded_s = samples / rate
    duration_s = min(decoded_s, float(end - first)) if end > first else decoded_s
    check_length(name, duration_s, declared, limits)
    return Sound(duration_s, rate, channels, codec, first)


def frame_time(frame: av.AudioFrame) -> Fraction:
    return (frame.pts or 0) * (frame.time_base or Fraction(1))


def check_length(name: str, duration_s: float, declared: float | None, limits: Limits) -> None:
    if declared is not None and duration_s < 0.98 * declared - CUT_S:
        raise unreadable(name, "audio", f"it says it lasts {declared:.2f} s but ends after {duration_s:.2f} s: it is cut off")
    if duration_s < SHORTEST_S:
        message = f"{name} lasts {1000 * duration_s:.0f} ms; the shortest is {1000 * SHORTEST_S:.0f} ms"
        raise EngineError("audio_too_short", message, "send a longer recording")
    if duration_s > limits.audio_s:
        raise too_long(name, limits)


def too_long(name: str, limits: Limits) -> EngineError:
    message = f"{name} lasts more than {limits.audio_s:g} s"
    return EngineError("audio_too_long", message, "send it in pieces, or raise limits.audio_s in the settings")


def declared_s(container: InputContainer, path: Path) -> float | None:
    """What the header says of the length, where it is a statement of the writer and not a guess from the bit rate."""
    kind = container.format.name
    if kind == "wav":
        return wav_declared_s(path)
    with path.open("rb") as file:
        head = file.read(4096)
    states = kind.startswith(("mov", "matroska", "flac")) or (kind == "mp3" and (b"Xing" in head or b"Info" in head))
    video = bool(container.streams.video)
    return container.duration / av.time_base if states and container.duration and not video else None


def wav_declared_s(path: Path) -> float | None:
    """FFmpeg corrects a WAV header by the size of the file; Python's reader tells what it says."""
    try:
        with wave.open(str(path)) as header:
            seconds = header.getnframes() / header.getframerate()
            size = header.getnframes() * header.getnchannels() * header.getsampwidth()
    except (wave.Error, EOFError, ZeroDivisionError):
        return None
    streamed = size >= 0x7FFFFFFF  # written to a pipe: the length was not known
    return None if streamed else seconds


def waveform_pieces(path: Path, rate: int) -> Iterator[npt.NDArray[np.float32]]:
    with opened(path, path.name, "audio") as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        for frame in container.decode(sound_stream(container, path.name)):
            frame.pts = None  # the resampler would fill gaps between time stamps that are only rounded
            for piece in resampler.resample(frame):
                yield piece.to_ndarray()[0]
        for piece in resampler.resample(None):
            yield piece.to_ndarray()[0]


def read_waveform(path: Path, rate: int = 16_000) -> npt.NDArray[np.float32]:
    """The first sound track as mono, (n,) float32 in [-1, 1] at `rate` Hz. Its first sample is heard at time 0."""
    pieces = list(waveform_pieces(path, rate))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
