"""Read sound: its exact length, whether mp4 can hold its packets, and its samples.

The length is that of the samples that decode, from the first that a player would play to the last:
encoder delay and padding that the file declares are left out. A file that ends before the length
in its header is refused, where the format has a reliable one (wav, aiff, flac, mp4, webm with
sound alone, mp3 with a Xing header); aac, ac3, ogg and plain mp3 have none. Single damaged frames
are skipped; a file with more than one in fifty is refused.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.container import InputContainer

from models.arrays import F32
from models.media.audio.checking import SoundMeter
from models.media.audio.clock import SoundClock, make_silence
from models.media.audio.lengths import (
    ends_inside_frame,
    has_invented_length,
    has_more_than_told,
    has_second_wav,
    read_promised_s,
)
from models.media.audio.mixing import mix_frames
from models.media.audio.tracks import choose_track, forget_track, keep_track
from models.media.budget import charge, name_cost
from models.media.formats import check_format
from models.media.opening import check_file, configure_decoder, open_media, translate_read_errors, unreadable_file
from models.types import EngineError, Limits

MP4_HOLDS = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
PLAYED_CODECS = frozenset({"aac", "mp3"})
"""What all players play in an mp4; with the others of MP4_HOLDS some are mute."""
SHORTEST_S = 0.04
_SHORTFALL_S = Fraction(1, 10)
_DAMAGED_SHARE = 0.02
_GRAINS = {"aac": 1024, "mp3": 576, "ac3": 1536, "eac3": 256, "opus": 120}
_SLOWEST_MP3 = 16_000  # mp4 has no MPEG 2.5


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound, measured by decoding it to its end.

    samples     per channel, at `rate`
    channels    of the file, before any downmix
    codec       its name in FFmpeg, such as "pcm_s16le" or "mp3"
    copyable    whether mp4 can hold the packets as they are
    notes       sentences for result.json
    """

    samples: int
    rate: int
    channels: int
    codec: str
    copyable: bool
    notes: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        return self.samples / self.rate


def read_sound(path: Path, name: str, limits: Limits, track: object = None) -> Sound:
    """Decode a sound, or the sound track of a video, to its end once. `name` is what the user calls
    the file, `track` the number or the language of the track that a job asks for.

    Raises EngineError media_too_large, audio_empty, audio_unreadable, audio_too_short,
    audio_too_long, bad_option.
    """
    forget_track(path)
    if isinstance(track, int | str) and not isinstance(track, bool):  # other values are refused by the engine
        _select_track(path, name, limits, track)
    check_file(path, name, "audio", limits)
    meter = SoundMeter(name)
    sound = scan_sound(path, name, limits.audio_s, meter.add).sound
    notes = (*sound.notes, *meter.describe())
    if sound.duration_s < SHORTEST_S:
        message = f"{name} lasts {1000 * sound.duration_s:.0f} ms; at least {1000 * SHORTEST_S:.0f} ms are needed"
        raise EngineError("audio_too_short", message, "send a longer recording")
    return replace(sound, notes=notes)


def _select_track(path: Path, name: str, limits: Limits, wanted: int | str) -> None:
    check_file(path, name, "audio", limits)
    check_format(path, name, "audio")
    with translate_read_errors(name, "audio", path), open_media(path, "audio") as container:
        keep_track(container, path, name, wanted)


def read_soundtrack(path: Path, name: str, limits: Limits) -> Sound:
    """Decode a sound that no mouth follows to its end once; like `read_sound`, of any length."""
    check_file(path, name, "audio", limits)
    name_cost(name)
    meter = SoundMeter(name)
    sound = scan_sound(path, name, max(limits.audio_s, limits.video_s), meter.add).sound
    meter.describe()  # checks the last samples, too
    return sound


def read_waveform(path: Path, rate: int = 16_000, longest_s: float = float("inf")) -> F32:
    """Return the whole sound as (n,) float32, mono, at `rate` Hz; n is round(duration_s * rate) of
    `read_sound`. Only the first `longest_s` seconds are read.

    Raises EngineError audio_unreadable.
    """
    data = bytearray()
    with open_sound(path, path.name) as (container, stream):
        decoder = Decoder(container, stream)
        for frame in resample(mix_frames(decoder), sample_format="flt", layout="mono", rate=rate):
            data += memoryview(frame.planes[0])[: 4 * frame.samples]
            if len(data) >= 4 * rate * longest_s:
                return np.frombuffer(data, np.float32)[: int(rate * longest_s)]
    samples = round(decoder.duration_s * rate)
    data += bytes(max(0, 4 * samples - len(data)))
    return np.frombuffer(data, np.float32)[:samples]


@contextmanager
def open_sound(path: Path, name: str) -> Iterator[tuple[InputContainer, av.AudioStream]]:
    """Yield the container and its sound track. Raises EngineError audio_unreadable."""
    check_format(path, name, "audio")
    with translate_read_errors(name, "audio", path), open_media(path, "audio") as container:
        yield container, configure_decoder(choose_track(container, path, name))


class Decoder:
    """Yield the decoded frames of a sound, without padding, and count them.

    The figures are final after the last frame.
    """

    def __init__(self, container: InputContainer, stream: av.AudioStream) -> None:
        self.container, self.stream = container, stream
        self.kind = container.format.name.split(",")[0]
        tracks = [track.index for track in container.streams.audio]
        self.language = stream.metadata.get("language", "und")
        self.tracks, self.track = len(tracks), tracks.index(stream.index) + 1
        self.last_packet = b""
        self.codec = stream.codec_context.codec.canonical_name
        self.samples: Counter[int] = Counter()  # by rate: a joined file may change it
        self.channels = self.holes = self.packets = 0
        self.packet_samples: list[int] = []
        self.skipped = 0
        self.is_broken = False  # an mp4 ends inside of its last packet
        self.silent_s = self.late_s = 0.0  # in gaps, and before the first frame
        self._clock = SoundClock(container, stream)
        self._counted: dict[tuple[int | None, int, int], int] = {}  # fractions cost more than decoding

    @property
    def rate(self) -> int:
        return next(iter(self.samples), 0)

    @property
    def duration_s(self) -> Fraction:
        return sum((Fraction(count, rate) for rate, count in self.samples.items()), Fraction(0))

    def measure_s(self) -> float:
        """Return the seconds up to now, rounded: `duration_s` costs more."""
        return sum(count / rate for rate, count in self.samples.items())

    def __iter__(self) -> Iterator[av.AudioFrame]:
        held: av.AudioFrame | None = None
        for frame in self._decode_packets():
            if held is not None:
                yield self._count(held)
            held = frame
            yield from self._fill(frame, self._clock.measure_gap(frame))
        if held is not None:
            tail_s = self._clock.measure_tail(held)
            yield self._count(_truncate(held, self._count_heard_samples(held)))
            yield from self._fill(held, tail_s)

    def _fill(self, frame: av.AudioFrame, gap_s: float) -> Iterator[av.AudioFrame]:
        """Yield the silence of a gap beside a frame."""
        if gap_s:
            self.silent_s += gap_s
            self.late_s += 0 if self.samples else gap_s
            yield from map(self._count, make_silence(frame, gap_s))

    def _count(self, frame: av.AudioFrame) -> av.AudioFrame:
        charge(size_bytes=frame.samples * frame.layout.nb_channels * frame.format.bytes)
        self.samples[frame.sample_rate] += frame.samples
        self.channels = self.channels or frame.layout.nb_channels
        return frame

    def _count_heard_samples(self, frame: av.AudioFrame) -> int:
        """Return how many samples of the last frame are played; the rest is the encoder's padding.

        Read from the frame's declared duration, where the container's clock is fine enough, and
        from the length of the track in an mp4, because a parser may have restored the full frame.
        """
        samples = frame.samples
        if frame.duration and frame.time_base and frame.time_base * frame.sample_rate <= 2:
            samples = round(frame.duration * frame.time_base * frame.sample_rate) or samples
        if self.kind == "mov" and self.stream.duration and len(self.samples) <= 1:
            track = round(self.stream.duration * (self.stream.time_base or 0) * frame.sample_rate)
            left = track + round(self.late_s * frame.sample_rate) - self.samples[frame.sample_rate]
            if left + frame.sample_rate // 1000 < samples:  # writers round it to a millisecond
                samples = max(1, left)
        return min(samples, frame.samples)

    def _decode_packets(self) -> Iterator[av.AudioFrame]:
        failed = 0
        for packet in self._read_packets():
            try:
                frames = packet.decode()
            except av.FFmpegError:
                failed += 1
                continue
            if frames and self.samples:
                self.holes, failed = self.holes + failed, 0
            yield from (frame for frame in frames if frame.samples and frame.sample_rate)

    def _read_packets(self) -> Iterator[av.Packet[av.AudioStream]]:
        """Yield all packets; `_check_decoded` finds by the length that a stream broke off."""
        packets, last = self.container.demux(self.stream), None
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.FFmpegError):
                self.last_packet = bytes(last) if last is not None else b""
                return
            charge()
            if packet.size:
                self._note_packet(packet)
                self.is_broken = packet.is_corrupt and self.kind == "mov"
                last = packet
            yield packet

    def _note_packet(self, packet: av.Packet[av.AudioStream]) -> None:
        if not self.packets and packet.has_sidedata("skip_samples"):
            (self.skipped,) = struct.unpack("<I", bytes(packet.get_sidedata("skip_samples"))[:4])
        self.packets += 1
        context = self.stream.codec_context
        key = (packet.duration, context.sample_rate, context.frame_size)
        if key not in self._counted:
            self._counted[key] = count_samples(packet, self.codec, context.sample_rate)
        self.packet_samples.append(self._counted[key])


@dataclass(frozen=True, slots=True)
class Scan:
    """A sound and the samples of each packet; the first `skipped` are not played."""

    sound: Sound
    packet_samples: list[int]
    skipped: int


def scan_sound(
    path: Path, name: str, longest_s: float, listen: Callable[[av.AudioFrame], None] = lambda _: None
) -> Scan:
    """Decode to the end; `listen` gets each frame. Raises EngineError audio_unreadable, audio_empty, audio_too_long."""
    with open_sound(path, name) as (container, stream):
        decoder = Decoder(container, stream)
        for frame in decoder:
            listen(frame)
            if decoder.measure_s() > longest_s:
                message = f"{name} lasts longer than {longest_s:.0f} s, the limit"
                raise EngineError("audio_too_long", message, "send a shorter recording, or raise limits.audio_s")
        promised_s = read_promised_s(path, container, stream)
        _check_decoded(decoder, promised_s, path, name)
    sound = Sound(
        samples=round(decoder.duration_s * decoder.rate),
        rate=decoder.rate,
        channels=decoder.channels,
        codec=decoder.codec,
        copyable=_is_copyable(decoder),
        notes=tuple(_describe(decoder, promised_s, path, name)),
    )
    return Scan(sound, decoder.packet_samples, decoder.skipped)


def _describe(decoder: Decoder, promised_s: Fraction, path: Path, name: str) -> Iterator[str]:
    """Yield notes on the length of a sound."""
    there_s = f"{float(decoder.duration_s):.2f} s"
    if is_short(decoder, promised_s):
        yield f"the header of {name} says {float(promised_s):.2f} s, but its sound is whole with {there_s}"
    if decoder.kind == "wav" and has_invented_length(path):
        yield f"the header of {name} has a length that was never written; the {there_s} that are there are used"
    if decoder.kind == "wav" and has_second_wav(path):
        yield f"{name} holds a second wav behind the first; only the first, {there_s}, is used"
    if decoder.kind == "wav" and has_more_than_told(path):
        yield f"{name} goes on behind the end that its header says; only the {there_s} before it are used"
    if decoder.tracks > 1:
        language = "" if decoder.language == "und" else f" ({decoder.language})"
        yield f"{name} has {decoder.tracks} sound tracks; track {decoder.track}{language} is used"
    if decoder.silent_s:
        yield f"in {decoder.silent_s:.2f} s of {name} nothing was sent; they are silent, as players have it"


def resample(frames: Iterable[av.AudioFrame], *, sample_format: str, layout: str, rate: int) -> Iterator[av.AudioFrame]:
    """Yield the sound in another format, layout and rate, without timestamps and gaps."""
    resampler, shape = None, None
    for frame in frames:
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is not None and shape != now:
            yield from filter(None, resampler.resample(None))
        if shape != now:
            resampler, shape = AudioResampler(sample_format, layout, rate), now
        assert resampler is not None  # noqa: S101 - made for the first frame
        frame.pts = None
        yield from resampler.resample(frame)
    if resampler is not None:
        yield from filter(None, resampler.resample(None))


def count_samples(packet: av.Packet[av.AudioStream], codec: str, rate: int) -> int:
    """Return how many samples a packet decodes to.

    Where the container's clock is coarse, this is the nearest number that the codec can produce.
    """
    exact = Fraction(packet.duration or 0) * packet.time_base * rate
    if packet.time_base * rate <= 2 and exact.denominator == 1:
        return int(exact)
    grain = packet.stream.codec_context.frame_size or _GRAINS.get(codec, 1)
    return max(1, round(exact / grain)) * grain


def is_short(decoder: Decoder, promised_s: Fraction) -> bool:
    """Whether less was decoded than the header promises."""
    return decoder.duration_s < promised_s - _SHORTFALL_S


def _check_decoded(decoder: Decoder, promised_s: Fraction, path: Path, name: str) -> None:
    if not decoder.packets:
        raise EngineError("audio_empty", f"{name} holds no sound at all", "record it again")
    if not decoder.duration_s:
        raise unreadable_file("audio", f"{name} holds sound that cannot be decoded")
    _check_all_packets(decoder, name)
    if is_short(decoder, promised_s) and ends_inside_frame(path, decoder.kind, decoder.last_packet):
        message = f"{name} is cut off: {float(decoder.duration_s):.2f} s of {float(promised_s):.2f} s are there"
        raise unreadable_file("audio", message)
    if decoder.holes > max(1, _DAMAGED_SHARE * decoder.packets):
        message = f"{name} is damaged: {decoder.holes} of {decoder.packets} frames cannot be decoded"
        raise unreadable_file("audio", message)


def _check_all_packets(decoder: Decoder, name: str) -> None:
    """Refuse an mp4 that lists more packets than are there."""
    listed = len(decoder.stream.index_entries) if decoder.kind == "mov" else 0
    if decoder.packets < listed or decoder.is_broken:
        message = f"{name} is cut off: {decoder.packets} of {listed} frames are there"
        raise unreadable_file("audio", message)


def _is_copyable(decoder: Decoder) -> bool:
    """Whether mp4 can hold the packets, and their declared samples add up to the decoded ones."""
    if decoder.codec not in MP4_HOLDS or decoder.holes or decoder.silent_s or len(decoder.samples) != 1:
        return False
    played = sum(decoder.packet_samples) - decoder.skipped
    (rate, samples), *_ = decoder.samples.items()
    if rate != decoder.stream.codec_context.sample_rate or (decoder.codec == "mp3" and rate < _SLOWEST_MP3):
        return False
    return abs(played - samples) <= max(decoder.packet_samples)


def _truncate(frame: av.AudioFrame, samples: int) -> av.AudioFrame:
    """Return the first `samples` of a frame."""
    if samples >= frame.samples:
        return frame
    values: Any = frame.to_ndarray()
    width = samples if frame.format.is_planar else samples * frame.layout.nb_channels
    kept = av.AudioFrame.from_ndarray(np.ascontiguousarray(values[:, :width]), frame.format.name, frame.layout.name)
    kept.sample_rate = frame.sample_rate
    return kept
