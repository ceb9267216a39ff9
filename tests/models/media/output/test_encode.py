"""Parts: complete or absent, the same bytes for the same frames, tagged with their colour."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from threading import Thread

import av
import numpy as np
import pytest

from models import media
from models.media.output.encode import translate_encoder_errors
from models.types import EngineError
from tests import media_samples as samples
from tests.media_samples import quarters
from tests.models.media.bars import FPS
from tests.models.media.parts import write_numbered, write_part


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    """A part depends on neither time nor machine."""
    assert (
        write_numbered(tmp_path / "a.mp4", 0, 40).read_bytes() == write_numbered(tmp_path / "b.mp4", 0, 40).read_bytes()
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_the_same_frames_give_the_same_bytes_every_time(tmp_path: Path) -> None:
    """Forty encodings are equal: x264's instructions that make small pictures vary are not used."""
    frames = [samples.numbered(n) for n in range(40)]
    for n, frame in enumerate(frames):
        frame[12:56, 20:70] = 5 * n
    seen = set()
    for _ in range(40):
        asked = {"count": 40, "fps": FPS, "width": 96, "height": 64, "encoder": "libx264", "crf": 18}
        media.write_part(tmp_path / "part.mp4", iter(frames), progress=lambda _: None, **asked)  # type: ignore[arg-type]
        seen.add((tmp_path / "part.mp4").read_bytes())
    assert len(seen) == 1


def test_a_part_starts_with_a_key_frame_and_needs_no_other(tmp_path: Path) -> None:
    """Parts are closed: the first packet is a key frame, and all frames decode from the part alone."""
    with av.open(str(write_numbered(tmp_path / "a.mp4", 0, 30))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        assert packets[0].is_keyframe
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 30


def test_colours_survive(tmp_path: Path) -> None:
    """Flat colours come back within two levels, and the file is tagged BT.709 limited."""
    frame = np.zeros((720, 1280, 3), np.uint8)
    bars = [(255, 255, 255), (0, 255, 255), (255, 255, 0), (0, 255, 0), (255, 0, 255), (0, 0, 255), (255, 0, 0)]
    for n, bgr in enumerate(bars):
        frame[:, n * 160 : (n + 1) * 160] = bgr
    media.write_part(
        tmp_path / "bars.mp4",
        iter([frame, frame]),
        count=2,
        fps=Fraction(25),
        width=1280,
        height=720,
        encoder="libx264",
        crf=4,
        progress=lambda _: None,
    )
    with media.VideoFrames(tmp_path / "bars.mp4", Fraction(25)) as frames:
        seen = frames.read(0)
    for n, bgr in enumerate(bars):
        centre = seen[300:400, n * 160 + 60 : n * 160 + 100].reshape(-1, 3).astype(int)
        assert np.abs(np.median(centre, axis=0) - bgr).max() <= 2
    with av.open(str(tmp_path / "bars.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)


def test_a_part_with_the_wrong_number_of_frames_never_appears(tmp_path: Path) -> None:
    """An engine that stops early leaves no file behind."""
    with pytest.raises(ValueError, match="3 frames instead of 5"):
        media.write_part(
            tmp_path / "a.mp4",
            samples.numbered_frames(3),
            count=5,
            fps=Fraction(25),
            width=96,
            height=64,
            encoder="libx264",
            crf=10,
            progress=lambda _: None,
        )
    assert not list(tmp_path.iterdir())


class Stopped(Exception):
    pass


def stop_at_three(done: int) -> None:
    if done == 3:
        raise Stopped


def fill_the_disk(_: int) -> None:
    with Path("/dev/full").open("wb", buffering=0) as disk:
        disk.write(b"x")


def test_a_part_that_is_interrupted_never_appears(tmp_path: Path) -> None:
    """After a cancel or on a full disk no file is left, and the error passes."""
    with pytest.raises(Stopped):
        write_part(tmp_path / "part.mp4", samples.numbered_frames(9), 9, progress=stop_at_three)
    with pytest.raises(EngineError) as refused:
        write_part(tmp_path / "part.mp4", samples.numbered_frames(9), 9, progress=fill_the_disk)
    assert (refused.value.code, refused.value.retry) == ("disk_full", True)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told_after_each_frame(tmp_path: Path) -> None:
    """The callback gets every number once, in order."""
    heard: list[int] = []
    write_part(tmp_path / "part.mp4", samples.numbered_frames(7), 7, progress=heard.append)
    assert heard == [1, 2, 3, 4, 5, 6, 7]


def test_an_encoder_that_fails_is_not_taken_for_a_file(tmp_path: Path) -> None:
    """NVENC without a GPU raises "not permitted", like a read-only disk: the message names the encoder."""
    if media.describe_worker()["encoders"]["h264_nvenc"] == "usable":
        pytest.skip("NVENC works here")
    with pytest.raises(EngineError) as refused:
        write_part(
            tmp_path / "part.mp4",
            iter([np.zeros((256, 256, 3), np.uint8)] * 2),
            2,
            encoder="h264_nvenc",
            width=256,
            height=256,
        )
    assert refused.value.code == "encoder_unavailable"
    assert "h264_nvenc" in refused.value.message
    assert list(tmp_path.iterdir()) == []


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    """An engine that changes its size in the middle is stopped, not scaled."""
    with pytest.raises(ValueError, match="frame 2 is"):
        write_part(tmp_path / "part.mp4", iter([samples.numbered(0), samples.numbered(1, 98, 64)]), 2)
    assert list(tmp_path.iterdir()) == []


def test_a_jpeg_can_be_written_for_the_preview(tmp_path: Path) -> None:
    """It is read back unchanged, odd sizes too."""
    media.write_jpeg(tmp_path / "preview.jpg", quarters(91, 61))
    assert np.abs(media.read_image(tmp_path / "preview.jpg", "p").astype(int) - quarters(91, 61)).mean() < 4
    assert [path.name for path in tmp_path.iterdir()] == ["preview.jpg"]


def test_an_encoder_that_gets_no_thread_is_not_called_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of processes is the machine's; x264 only says that it could not be opened."""

    def refuse(_thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", refuse)
    with pytest.raises(OSError, match="temporarily unavailable"), translate_encoder_errors("libx264"):
        raise av.error.ExternalError(-1, "Generic error in an external library")
