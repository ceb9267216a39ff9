"""From frames and a sound to a video that is right: in step, whole, tagged, and never half written."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from models import media
from models.arrays import F32, U8
from models.types import EngineError, Limits
from tests import media_samples as samples

LIMITS = Limits()


def write(path: Path, frames: Iterator[U8], count: int, *, encoder: str = "libx264", **asked: object) -> Path:
    progress = asked.pop("progress", lambda _: None)
    fps = asked.pop("fps", Fraction(25))
    size = {"width": 96, "height": 64} | asked
    media.write_part(path, frames, count=count, fps=fps, encoder=encoder, crf=14, progress=progress, **size)  # type: ignore[arg-type]
    return path


def shift_ms(before: F32, after: F32, rate: int) -> float:
    """How much later the second sound is, by cross correlation."""
    n = min(len(before), len(after))
    product = np.fft.irfft(np.fft.rfft(before[:n], 2 * n).conj() * np.fft.rfft(after[:n], 2 * n))
    late = int(np.argmax(product))
    return 1000 * (late if late < n else late - 2 * n) / rate


SOUNDS = [
    ("voice.wav", 16_000, None),
    ("voice.wav", 96_000, None),
    ("voice.mp3", 44_100, None),
    ("voice.mp3", 22_050, None),
    ("voice.mp3", 8_000, None),
    ("voice.m4a", 16_000, None),
    ("voice.m4a", 44_100, None),
    ("voice.webm", 48_000, None),
    ("voice.mka", 44_100, "aac"),
    ("voice.mka", 44_100, "libmp3lame"),
    ("voice.mp4", 48_000, "alac"),
    ("voice.mp4", 44_100, "libmp3lame"),
    ("voice.ts", 44_100, "aac"),
    ("voice.avi", 44_100, "libmp3lame"),
    ("voice.opus", 48_000, None),
    ("voice.flac", 96_000, None),
    ("voice.ac3", 44_100, None),
]
NOT_COPIED = {("voice.wav", 16_000), ("voice.wav", 96_000), ("voice.mp3", 8_000)}


@pytest.mark.parametrize(("name", "rate", "codec"), SOUNDS)
def test_sound_and_picture_begin_and_end_together(tmp_path: Path, name: str, rate: int, codec: str | None) -> None:
    """Whatever the codec's delay and padding: in step within a millisecond, and as long, even at 60 frames a second."""
    wave = samples.speech(0.7567, rate) + samples.click(0.7567, rate, 0.3)
    path = samples.sound(tmp_path / name, wave, rate, codec=codec)
    sound = media.read_sound(path, name, LIMITS)
    frames = round(Fraction(sound.samples, sound.rate) * 60)
    part = write(tmp_path / "part.mp4", samples.numbered_frames(frames), frames, fps=Fraction(60))
    out = tmp_path / "result.mp4"
    facts = media.assemble_video([part], audio=path, out=out, frames=frames, fps=Fraction(60), metadata={})
    assert facts["audio_copied"] == ((name, rate) not in NOT_COPIED)
    before, after = media.read_waveform(path, 48_000), media.read_waveform(out, 48_000)
    assert abs(shift_ms(before, after, 48_000)) < 1
    assert abs(len(before) - len(after)) < 48
    assert abs(media.read_sound(out, "result", LIMITS).duration_s - frames / 60) <= 1 / 60


def test_the_sound_track_of_a_film_goes_along(tmp_path: Path) -> None:
    """A film given as the voice gives its sound, not its pictures."""
    film = samples.video(tmp_path / "film.mp4", 25, sound_wave=samples.speech(1.0))
    part = write(tmp_path / "part.mp4", samples.numbered_frames(25), 25)
    media.assemble_video([part], audio=film, out=tmp_path / "r.mp4", frames=25, fps=Fraction(25), metadata={})
    with av.open(str(tmp_path / "r.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        assert container.streams.audio[0].codec_context.name == "aac"


@pytest.mark.parametrize("lengths", [(1, 2, 24, 25), (1, 1, 1), (52,)])
def test_cutting_a_job_changes_no_picture(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    """Joined parts show what was painted, up to what the codec loses, and as well as an encoding in one piece."""
    count = sum(lengths)
    edges = [0, *itertools.accumulate(lengths)]
    parts = [
        write(tmp_path / f"{a}.mp4", (samples.numbered(n) for n in range(a, b)), b - a)
        for a, b in itertools.pairwise(edges)
    ]
    voice = samples.speech_wav(tmp_path / "voice.wav", count / 25)
    out = tmp_path / "result.mp4"
    media.assemble_video(parts, audio=voice, out=out, frames=count, fps=Fraction(25), metadata={})
    whole = write(tmp_path / "whole.mp4", samples.numbered_frames(count), count)
    with media.VideoFrames(out, Fraction(25)) as joined, media.VideoFrames(whole, Fraction(25)) as single:
        assert (len(joined), len(single)) == (count, count)
        for n in range(count):
            painted = samples.numbered(n).astype(int)
            lost, lost_in_one = (np.abs(video.read(n) - painted).mean() for video in (joined, single))
            assert lost < 3
            assert lost < lost_in_one + 1


def test_assembling_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """Neither time nor chance gets into the result; words about it do."""
    part = write(tmp_path / "part.mp4", samples.numbered_frames(30), 30)
    voice = samples.speech_wav(tmp_path / "voice.wav", 1.2)
    words = {"title": "hello", "comment": "musedrop, engine preview"}
    outs = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for out in outs:
        media.assemble_video([part], audio=voice, out=out, frames=30, fps=Fraction(25), metadata=words)
    assert outs[0].read_bytes() == outs[1].read_bytes()
    with av.open(str(outs[0])) as container:
        assert {key: container.metadata[key] for key in words} == words


def test_a_block_of_a_part_that_was_lost_is_noticed(tmp_path: Path) -> None:
    """Zeros where the disk lost a block never become a published video."""
    part = write(tmp_path / "part.mp4", (samples.numbered(n, 320, 240) for n in range(48)), 48, width=320, height=240)
    voice = samples.speech_wav(tmp_path / "voice.wav", 1.92)
    data = part.read_bytes()
    first, last = data.index(b"mdat") + 900, data.index(b"moov") - 512
    for at in np.random.default_rng(4).integers(first, last, 30):
        part.write_bytes(data[:at] + bytes(512) + data[at + 512 :])
        with pytest.raises(EngineError) as found:
            media.assemble_video([part], audio=voice, out=tmp_path / "r.mp4", frames=48, fps=Fraction(25), metadata={})
        assert found.value.code == "part_damaged"
        assert found.value.retry
        assert str(tmp_path) not in found.value.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.mp4", "voice.wav"]


def test_a_part_with_frames_missing_is_named(tmp_path: Path) -> None:
    """Of several parts it is the broken one that the message names."""
    parts = [write(tmp_path / f"{n}.mp4", samples.numbered_frames(24), 24) for n in range(3)]
    samples.cut(samples.video(tmp_path / "whole.mp4", 24, faststart=True), parts[1], 0.8)
    voice = samples.speech_wav(tmp_path / "voice.wav", 2.88)
    with pytest.raises(EngineError, match="the part 1 is damaged"):
        media.assemble_video(parts, audio=voice, out=tmp_path / "r.mp4", frames=72, fps=Fraction(25), metadata={})


def test_a_voice_that_does_not_fit_the_pictures_is_no_result(tmp_path: Path) -> None:
    """Two frames of difference between the ends are too many: nothing is published."""
    part = write(tmp_path / "part.mp4", samples.numbered_frames(25), 25)
    voice = samples.speech_wav(tmp_path / "voice.wav", 1.09)
    with pytest.raises(EngineError, match=r"its sound ends at 1\.090 s, its pictures at 1\.000 s") as found:
        media.assemble_video([part], audio=voice, out=tmp_path / "r.mp4", frames=25, fps=Fraction(25), metadata={})
    assert found.value.code == "result_invalid"
    assert not (tmp_path / "r.mp4").exists()


class Stopped(Exception):
    pass


def stop_at_three(done: int) -> None:
    if done == 3:
        raise Stopped


def fill_the_disk(_: int) -> None:
    with Path("/dev/full").open("wb", buffering=0) as disk:
        disk.write(b"x")


def test_a_part_that_is_interrupted_never_appears(tmp_path: Path) -> None:
    """Cancelled, or the disk filled up: no file, no leftover, and the reason passes through."""
    with pytest.raises(Stopped):
        write(tmp_path / "part.mp4", samples.numbered_frames(9), 9, progress=stop_at_three)
    with pytest.raises(EngineError) as refused:
        write(tmp_path / "part.mp4", samples.numbered_frames(9), 9, progress=fill_the_disk)
    assert (refused.value.code, refused.value.retry) == ("disk_full", True)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told_after_each_frame(tmp_path: Path) -> None:
    """Whoever listens hears every number once, in order."""
    heard: list[int] = []
    write(tmp_path / "part.mp4", samples.numbered_frames(7), 7, progress=heard.append)
    assert heard == [1, 2, 3, 4, 5, 6, 7]


def test_an_encoder_that_fails_is_not_taken_for_a_file(tmp_path: Path) -> None:
    """Without a card NVENC says "not permitted", like a read-only disk: the message names the encoder."""
    if media.describe_worker()["encoders"]["h264_nvenc"] == "usable":
        pytest.skip("NVENC works here")
    with pytest.raises(EngineError) as refused:
        write(
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
        write(tmp_path / "part.mp4", iter([samples.numbered(0), samples.numbered(1, 98, 64)]), 2)
    assert list(tmp_path.iterdir()) == []
