"""When each picture of a video is shown: read from its packets, without decoding."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

import av
from av.container import InputContainer

from models.media.budget import charge
from models.media.opening import unreadable_file
from models.media.pictures.sizes import SizeWatch
from models.types import EngineError, Limits

STILL_FPS = Fraction(25)
SLOWEST, FASTEST = Fraction(24000, 1001), Fraction(60)
"""Rates between which a video keeps its own: lips need the first, and a face gains nothing above the second."""
_USUAL = tuple(
    Fraction(*rate)
    for rate in [(24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (48, 1), (50, 1), (60000, 1001), (60, 1)]
)
_NEAR = Fraction(1, 200)
_DOUBLED = Fraction(30)
_STEADY_SHARE = 0.9
_ROUNDING_S = Fraction(1, 1000)
"""By which the clock of a container misses the time of a picture, at most."""
_CUT_OFF_S = Fraction(1, 2)
_MOST_FPS = 1000
_JOINED = ("mpegts", "mpeg", "ogg")
_RESTART_S, _LEAP_S = Fraction(1, 10), 10


@dataclass(frozen=True, slots=True)
class Timeline:
    """Pictures of a video in the order they are shown.

    stamps      when each is shown, ascending and without repeats, in units of `base` seconds
    keys        positions in `stamps` from which decoding can start
    last        how long the last picture is shown, in units of `base`
    seekable    whether decoded pictures carry these stamps; if not, they are counted from the first
    restarts    how often the clock of the file starts again; these stamps go on
    resized     whether its packets say that the size of the pictures changes
    """

    stamps: tuple[int, ...]
    keys: tuple[int, ...]
    last: int
    base: Fraction
    seekable: bool = True
    restarts: int = 0
    resized: bool = False

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def duration_s(self) -> Fraction:
        return (self.stamps[-1] - self.stamps[0] + self.last) * self.base

    def count_frames(self, fps: Fraction) -> int:
        """Return the number of frames of the video at a constant rate."""
        return max(1, round(self.duration_s * fps))

    def find_picture(self, index: int, fps: Fraction, early_s: Fraction = _ROUNDING_S) -> int:
        """Return the position of the picture that a player shows at index / fps seconds.

        One that starts at most `early_s` later counts, see `measure_tolerance`.
        """
        time = (index / fps + early_s) / self.base
        return max(0, bisect_right(self.stamps, self.stamps[0] + floor(time)) - 1)

    def measure_tolerance(self, fps: Fraction) -> Fraction:
        """Return the seconds by which a picture may be shown early at a constant rate.

        A quarter of a frame where the rate is the video's own, or one is a multiple of the other,
        because timestamps are rounded and phones jitter: at 2 / 30 s, 66.67 ms, a picture that a
        webm stamps 67 ms would be missed, and the one before it shown twice.
        """
        own = self.measure_fps()
        ratio = max(fps / own, own / fps)
        related = abs(ratio - round(ratio)) <= _NEAR * ratio
        return 1 / (4 * max(fps, own)) if related else min(_ROUNDING_S, 1 / (4 * fps))

    def find_position(self, stamp: int) -> int:
        """Return the position of the picture that is on screen at `stamp`."""
        return max(0, bisect_right(self.stamps, stamp) - 1)

    def find_key(self, position: int) -> int:
        """Return the index in `keys` of the last one at or before `position`."""
        return max(0, bisect_right(self.keys, position) - 1)

    def choose_fps(self) -> Fraction:
        """Return a constant rate that suits lips: the video's own, twice or an n-th of it, or 25.

        >>> choose = lambda step: Timeline((0, step, 2 * step), (0,), step, Fraction(1, 120)).choose_fps()
        >>> [str(choose(step)) for step in (4, 10, 20, 1)]
        ['30', '25', '25', '60']
        """
        own = self.measure_fps()
        if own > FASTEST:
            own /= ceil(own / FASTEST)
        elif own < SLOWEST and STILL_FPS <= 2 * own <= _DOUBLED:
            own *= 2
        return own if own >= SLOWEST else STILL_FPS

    def measure_fps(self) -> Fraction:
        """Return the rate that nine of ten steps between pictures say, else the average.

        One within half a percent of a usual rate becomes that rate, so that a phone's 29.93 becomes
        30.
        """
        if len(self) == 1:
            return STILL_FPS
        steps = sorted(later - earlier for earlier, later in pairwise(self.stamps))
        if steps[0] == steps[-1]:
            return 1 / (steps[0] * self.base)
        rounding, usual_step = max(Fraction(1), _ROUNDING_S / self.base), steps[len(steps) // 2]
        alike = [step for step in steps if abs(step - usual_step) <= rounding]
        said = alike if len(alike) >= _STEADY_SHARE * len(steps) else steps
        rate = len(said) / (sum(said) * self.base)
        usual = min(_USUAL, key=lambda usual: abs(usual - rate))
        return usual if abs(usual - rate) <= _NEAR * rate else rate.limit_denominator(1001)


def read_timeline(container: InputContainer, stream: av.VideoStream, name: str, limits: Limits) -> Timeline:
    """Read all packets of the stream. Raises EngineError avatar_unreadable, video_too_long."""
    clock = _SteadyClock(container, stream.codec_context.codec.canonical_name)
    packets = list(_read_packets(container, stream, name, limits, clock))
    if not packets:
        raise unreadable_file("avatar", f"{name} holds no picture")
    placed = _place_packets(container, stream, packets, clock.restarts)
    return replace(placed, resized=True) if clock.sizes.is_changing() else placed


def _place_packets(
    container: InputContainer, stream: av.VideoStream, packets: list[_Packet], restarts: int
) -> Timeline:
    base = stream.time_base or Fraction(1, 1000)
    if container.format.name == "avi" or any(packet.pts is None for packet in packets):
        return _count_slots(packets, stream, base)
    if restarts:
        return _join_clocks(packets, base, restarts)
    stamps = sorted({packet.pts for packet in packets if packet.pts is not None})
    position = {stamp: index for index, stamp in enumerate(stamps)}
    keys = sorted({0} | {position[packet.pts] for packet in packets if packet.key and packet.pts is not None})
    last = max((packet for packet in packets if packet.pts == stamps[-1]), key=lambda packet: packet.duration)
    return Timeline(tuple(stamps), tuple(keys), last.duration or _median_step(stamps), base)


@dataclass(frozen=True, slots=True)
class _Packet:
    pts: int | None
    dts: int | None
    duration: int
    key: bool


class _SteadyClock:
    """Makes one clock of those of recordings that were written one after another.

    A clock starts again where it goes back by a tenth of a second, or, in formats that are joined like
    that, where it leaps by ten.
    """

    def __init__(self, container: InputContainer, codec: str) -> None:
        self.sizes = SizeWatch(codec)
        self._leaping = container.format.name in _JOINED
        self._due: int | None = None
        self._shift = self.restarts = 0

    def read(self, packet: av.Packet[av.VideoStream]) -> _Packet:
        """Return the times of the next packet of the stream on the one clock."""
        pts, dts, base = packet.pts, packet.dts, packet.time_base
        if dts is not None:
            leap_s = (dts - self._due) * base if self._due is not None else 0
            if self._due is not None and (leap_s < -_RESTART_S or (self._leaping and leap_s > _LEAP_S)):
                self.restarts += 1
                self._shift += self._due - dts
            self._due = dts + (packet.duration or 0)
            dts += self._shift
        self.sizes.see(packet)
        return _Packet(None if pts is None else pts + self._shift, dts, packet.duration or 0, packet.is_keyframe)


def _read_packets(
    container: InputContainer, stream: av.VideoStream, name: str, limits: Limits, clock: _SteadyClock
) -> Iterator[_Packet]:
    single = container.format.name.endswith("_pipe")  # a photo may carry a second picture: a depth or a gain map
    count, most, reached_s = 0, limits.video_s * _MOST_FPS, Fraction(0)
    for packet in container.demux():
        charge()
        own = packet.stream_index == stream.index and packet.size > 0
        known = clock.read(packet) if own else None  # type: ignore[arg-type]  # its index says that it is of video
        pts = known.pts if known else packet.pts
        if pts is not None and packet.size and not (clock.restarts and known is None):
            reached_s = max(reached_s, (pts + (packet.duration or 0)) * packet.time_base)
        if known is None:
            continue
        count += 1
        if reached_s - _read_start_s(stream) > limits.video_s or count > most:
            message = f"{name} lasts longer than {limits.video_s:.0f} s, the limit"
            raise EngineError("video_too_long", message, "send a shorter video, or raise limits.video_s")
        if not packet.is_discard:
            yield known
        if single:
            return
    _check_complete(container, stream, name, count, reached_s)


def _read_start_s(stream: av.VideoStream) -> Fraction:
    return (stream.start_time or 0) * (stream.time_base or Fraction(0))


def _check_complete(
    container: InputContainer, stream: av.VideoStream, name: str, count: int, reached_s: Fraction
) -> None:
    """Refuse a cut-off video: mp4 lists its packets, webm states its length."""
    kind = container.format.name.split(",")[0]
    if kind == "mov" and count < len(stream.index_entries):
        raise unreadable_file("avatar", f"{name} is cut off: {count} of {len(stream.index_entries)} frames are there")
    promised_s = Fraction(container.duration or 0, av.time_base) if kind == "matroska" else Fraction(0)
    if reached_s < promised_s - _CUT_OFF_S:
        raise unreadable_file(
            "avatar", f"{name} is cut off: {float(reached_s):.1f} s of {float(promised_s):.1f} s are there"
        )


def _count_slots(packets: list[_Packet], stream: av.VideoStream, base: Fraction) -> Timeline:
    """Return the timeline of a container without presentation times."""
    slots = sorted({packet.dts for packet in packets if packet.dts is not None})
    if len(slots) != len(packets):
        slots, base = list(range(len(packets))), 1 / (stream.average_rate or STILL_FPS)
    return Timeline(tuple(slots), (0,), _median_step(slots), base, seekable=False)


def _join_clocks(packets: list[_Packet], base: Fraction, restarts: int) -> Timeline:
    """Return the timeline of recordings that were joined: every picture in the order of the file."""
    stamps: list[int] = []
    for stamp in sorted(packet.pts for packet in packets if packet.pts is not None):
        stamps.append(max(stamp, stamps[-1] + 1) if stamps else stamp)
    return Timeline(tuple(stamps), (0,), _median_step(stamps), base, seekable=False, restarts=restarts)


def _median_step(stamps: list[int]) -> int:
    steps = sorted(later - earlier for earlier, later in pairwise(stamps))
    return steps[len(steps) // 2] if steps else 1
