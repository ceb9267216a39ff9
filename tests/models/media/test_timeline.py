"""Rates and lengths of videos, and the picture that is shown at a time."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from models import media
from models.types import EngineError, Limits
from tests import media_samples as samples

LIMITS = Limits()


def test_a_video_says_its_rate_and_length(tmp_path: Path) -> None:
    """Exact rates stay exact, odd sizes are reported as they are, one frame makes an image."""
    for fps in (Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60)):
        path = samples.video(tmp_path / "v.mp4", 50, fps=fps)
        picture = media.read_picture(path, "v", LIMITS)
        assert (picture.kind, picture.fps, picture.frames) == ("video", fps, 50)
    odd = media.read_picture(samples.video(tmp_path / "odd.mkv", 5, 97, 65, pix_fmt="yuv444p"), "odd", LIMITS)
    assert (odd.width, odd.height) == (97, 65)
    assert media.read_picture(samples.video(tmp_path / "one.mp4", 1), "one", LIMITS).kind == "image"
    wide = samples.video(tmp_path / "wide.mp4", 5, aspect=Fraction(2))
    assert media.read_picture(wide, "wide", LIMITS).width == 192
    with pytest.raises(EngineError, match="video_too_long"):
        media.read_picture(wide, "wide", Limits(video_s=0.1))


def test_variable_frame_rates_are_evened_out(tmp_path: Path) -> None:
    """Frame k is the picture that a player shows at time k / fps."""
    times = [Fraction(n, 50) for n in (0, 1, 2, 10, 11, 12, 13, 40, 41, 60)]
    path = samples.video(tmp_path / "vfr.mkv", len(times), times=times)
    with media.VideoFrames(path, Fraction(25)) as frames:
        shown = [samples.number_of(frames.read(k)) for k in range(len(frames))]
    expected = [max(n for n, time in enumerate(times) if time <= Fraction(k, 25)) for k in range(len(shown))]
    assert shown == expected
    assert len(shown) >= 30


def phone(count: int) -> list[Fraction]:
    """Return times of thirty frames a second as a phone stamps them, a few milliseconds early or late."""
    jitter = np.random.default_rng(8).integers(-4, 5, count)
    jitter[0] = 0
    return [Fraction(n, 30) + Fraction(int(late), 1000) for n, late in enumerate(jitter)]


def test_a_jittering_clock_skips_and_repeats_nothing(tmp_path: Path) -> None:
    """A phone's variable rate near 30 is 30, and each picture is shown once."""
    path = samples.video(tmp_path / "phone.mp4", 60, times=phone(60))
    picture = media.read_picture(path, "phone.mp4", LIMITS)
    assert (picture.fps, picture.frames) == (Fraction(30), 60)
    with media.VideoFrames(path, Fraction(30)) as frames:
        assert samples.numbers_shown(frames, range(60)) == list(range(60))


def test_a_variable_rate_keeps_its_speed(tmp_path: Path) -> None:
    """A picture that is shown for a second is shown for a second at any rate of the frames."""
    times = [Fraction(n, 20) for n in range(20)] + [Fraction(2) + Fraction(n, 20) for n in range(20)]
    path = samples.video(tmp_path / "pause.mp4", 40, times=times)
    picture = media.read_picture(path, "pause.mp4", LIMITS)
    assert picture.duration_s == pytest.approx(3.0, abs=0.06)
    for fps in (Fraction(10), Fraction(25), Fraction(60)):
        with media.VideoFrames(path, fps) as frames:
            seen = samples.numbers_shown(frames, range(len(frames)))
            assert abs(len(seen) - 3 * fps) <= fps // 10
            assert seen[round(fps * Fraction(3, 2))] == 19
            assert all(later >= earlier for earlier, later in pairwise(seen))


def test_frames_at_twice_the_rate_come_twice(tmp_path: Path) -> None:
    """A higher rate repeats pictures, a lower one leaves some out."""
    path = samples.video(tmp_path / "v.mp4", 20)
    with media.VideoFrames(path, Fraction(50)) as frames:
        assert samples.numbers_shown(frames, range(40)) == [n // 2 for n in range(40)]
    with media.VideoFrames(path, Fraction(25, 2)) as frames:
        assert samples.numbers_shown(frames, range(10)) == list(range(0, 20, 2))
        with pytest.raises(IndexError, match="there is no frame 10"):
            frames.read(10)


@pytest.mark.parametrize(("suffix", "faststart"), [(".mp4", True), (".mp4", False), (".webm", False), (".mkv", False)])
@pytest.mark.parametrize("share", [0.3, 0.85])
def test_a_video_that_breaks_off_is_refused(tmp_path: Path, suffix: str, faststart: bool, share: float) -> None:
    """A cut-off video is refused, though its beginning plays."""
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    whole = samples.video(tmp_path / f"whole{suffix}", 100, codec=codec, faststart=faststart)
    cut = samples.cut(whole, tmp_path / "avatar", share)
    with pytest.raises(EngineError) as refused:
        media.read_picture(cut, "face.mp4", LIMITS)
    assert refused.value.code == "avatar_unreadable"
    assert refused.value.message.startswith("face.mp4 ")
    assert str(tmp_path) not in refused.value.message


@pytest.mark.parametrize(
    ("times", "fps"),
    [
        ([Fraction(n) for n in range(4)], 25),
        ([Fraction(n, 6) for n in range(12)], 25),
        ([Fraction(n, 10) for n in range(12)], 25),
        ([Fraction(n, 12) for n in range(12)], 25),
        ([Fraction(2 * n, 25) for n in range(12)], 25),
        ([Fraction(n * 1001, 15000) for n in range(12)], Fraction(30000, 1001)),
        ([Fraction(n, 20) for n in range(12)], 25),
        ([Fraction(n, 240) for n in range(48)], 60),
        ([Fraction(n, 100) for n in range(20)], 50),
        ([Fraction(n * n, 100) for n in range(20)], 25),
        ([Fraction(n, 60) for n in range(30)] + [3 + Fraction(n, 60) for n in range(30)], 60),
        ([Fraction(n, 25) for n in range(20)] + [Fraction(n + 2, 25) for n in range(20, 40)], 25),
    ],
    ids=["slideshow", "6", "10", "12", "12.5", "14.985", "20", "240", "100", "varying", "screen", "trimmed"],
)
def test_a_rate_suits_lips_and_its_frames_are_those_of_a_player(
    tmp_path: Path, times: list[Fraction], fps: Fraction
) -> None:
    """From 23.976 to 60 frames a second, of which each shows what a player shows at its time."""
    path = samples.video(tmp_path / "v.mp4", len(times), times=times)
    assert media.read_picture(path, "v.mp4", LIMITS).fps == fps
    with media.VideoFrames(path, Fraction(fps)) as frames:
        shown = samples.numbers_shown(frames, range(len(frames)))
    late = Fraction(1, 1000)  # what a container's clock may miss
    assert shown == [
        max(n for n, time in enumerate(times) if time <= k / Fraction(fps) + late) for k in range(len(shown))
    ]


def write_avi(path: Path, slots: list[int]) -> Path:
    """Write numbered frames into these slots of 1 / 25 s; the slots between them are empty."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mjpeg", rate=Fraction(25))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for slot in slots:
            frame = av.VideoFrame.from_ndarray(samples.numbered(slot), "bgr24")
            frame.pts, frame.time_base = slot, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def test_dropped_frames_of_an_avi_leave_its_rate(tmp_path: Path) -> None:
    """Empty slots of an AVI show the picture before them; the rate stays, and so does the length."""
    path = write_avi(tmp_path / "v.avi", [n for n in range(60) if n % 20 != 7])
    picture = media.read_picture(path, "v.avi", LIMITS)
    assert picture.fps == 25
    assert picture.duration_s == pytest.approx(2.4, abs=0.05)


@pytest.mark.parametrize(("suffix", "later_s"), [(".ts", 0), (".ts", 100), (".mpg", 0)])
def test_a_clock_that_starts_again_loses_nothing(tmp_path: Path, suffix: str, later_s: int) -> None:
    """Of joined segments, whose clock goes back or leaps, all pictures are shown in order, with a note."""
    codec = "libx264" if suffix == ".ts" else "mpeg2video"
    joined = tmp_path / f"joined{suffix}"
    with joined.open("wb") as file:
        for part in range(2):
            frames = iter([samples.numbered(n + 50 * part, 352, 288) for n in range(50)])
            times = [Fraction(n, 25) + later_s * part for n in range(50)] if later_s else None
            piece = samples.video(tmp_path / f"{part}{suffix}", 50, 352, 288, codec=codec, frames=frames, times=times)
            file.write(piece.read_bytes())
    picture = media.read_picture(joined, "joined", LIMITS)
    assert picture.fps == 25
    assert abs(picture.frames - 100) <= 1
    assert "starts again" in picture.notes[0]
    with media.VideoFrames(joined, Fraction(25)) as frames_read:
        shown = samples.numbers_shown(frames_read, range(len(frames_read)))
        assert len(set(shown)) >= 99
        assert shown == sorted(shown)
        assert samples.number_of(frames_read.read(60)) == pytest.approx(60, abs=1)


@pytest.mark.parametrize("name", ["slow.gif", "slow.mp4", "uneven.mp4"])
def test_lips_on_a_slow_video_move_at_25_frames_a_second(tmp_path: Path, name: str) -> None:
    """A GIF and a video of 12 pictures a second, and one of uneven steps, are shown at 25, pictures repeated."""
    every_s = [Fraction(n, 12) for n in range(24)]
    times = [time_s + Fraction(n % 3, 100) for n, time_s in enumerate(every_s)] if name == "uneven.mp4" else every_s
    codec = "gif" if name.endswith("gif") else "libx264"
    path = samples.video(tmp_path / name, 24, fps=Fraction(12), times=times, codec=codec)
    picture = media.read_picture(path, name, LIMITS)
    assert picture.fps == 25
    with media.VideoFrames(path, picture.fps) as frames:
        shown = samples.numbers_shown(frames, range(len(frames)))
    assert set(shown) == set(range(24))
    assert shown == sorted(shown)
    assert len(shown) == pytest.approx(50, abs=2)
