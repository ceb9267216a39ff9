"""The clock of a sound: silence where nothing was sent, by the times of its packets."""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.container import InputContainer

_CLOCKED = ("mov", "matroska", "ogg", "mpegts", "mpeg", "flv", "asf")
"""Formats whose packets carry times; in others they are counted from the samples."""
_RESTARTING = ("ogg", "mpegts", "mpeg")
"""Formats that are joined by writing one file after another: a leap there is another clock."""
_LEAP_S = 10
_RESTART_S = -0.5
_LATE_START_S = 0.03
_FINEST_S = 0.01
_PIECE_S = 1


class SoundClock:
    """Find the silence before each frame of a sound.

    A gap is a leap between two frames of three quarters of a frame or more. A clock that jitters
    or drifts makes none, and one that starts again goes on where it was.
    """

    def __init__(self, container: InputContainer, stream: av.AudioStream) -> None:
        kind = container.format.name.split(",")[0]
        self._clocked, self._restarting = kind in _CLOCKED, kind in _RESTARTING
        self._start_s = (container.start_time or 0) / av.time_base
        if kind == "mov" and stream.frames:  # not of fragments, which keep the time of a broadcast
            self._start_s = min(self._start_s, 0.0)
        self._due_s: float | None = None
        self._base_s = self._end_s = 0.0

    def measure_gap(self, frame: av.AudioFrame) -> float:
        """Return the seconds of silence before the frame, the next one in order."""
        if not self._clocked or frame.pts is None:
            return 0.0
        self._base_s = self._base_s or float(frame.time_base or 0)
        at_s, length_s = frame.pts * self._base_s, frame.samples / frame.sample_rate
        gap_s, due_s = self._compare(at_s, _compute_tolerance_s(length_s))
        self._due_s, self._end_s = due_s + gap_s + length_s, at_s + length_s
        return gap_s

    def measure_tail(self, frame: av.AudioFrame) -> float:
        """Return the seconds of silence after the last frame, by its declared duration."""
        if not self._clocked or not frame.duration or frame.time_base is None:
            return 0.0
        length_s = frame.samples / frame.sample_rate
        tail_s = frame.duration * float(frame.time_base) - length_s
        return tail_s if tail_s > max(_LATE_START_S, _compute_tolerance_s(length_s)) else 0.0

    def _compare(self, at_s: float, tolerance_s: float) -> tuple[float, float]:
        """Return the gap before a frame at `at_s`, and when it was due."""
        if self._due_s is None:
            late_s = at_s - self._start_s
            return (late_s, self._start_s) if late_s > max(_LATE_START_S, tolerance_s) else (0.0, at_s)
        leap_s = at_s - self._end_s
        if leap_s < _RESTART_S or (self._restarting and leap_s > _LEAP_S):
            return 0.0, at_s
        gap_s = at_s - self._due_s
        return (gap_s if min(leap_s, gap_s) > tolerance_s else 0.0), self._due_s


def make_silence(like: av.AudioFrame, gap_s: float) -> Iterator[av.AudioFrame]:
    """Yield silent frames of the format, layout and rate of another."""
    rate, left = like.sample_rate, round(gap_s * like.sample_rate)
    while left > 0:
        samples = min(left, _PIECE_S * rate)
        frame = av.AudioFrame(format=like.format.name, layout=like.layout.name, samples=samples)
        for plane in frame.planes:
            plane.update((b"\x80" if like.format.name.startswith("u8") else b"\0") * plane.buffer_size)
        frame.sample_rate = rate
        left -= samples
        yield frame


def _compute_tolerance_s(length_s: float) -> float:
    return max(_FINEST_S, length_s * 0.75)
