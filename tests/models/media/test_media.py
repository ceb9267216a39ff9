"""Media rooms on real files: every format that people send, every oddity, and the proof of what is written."""

from __future__ import annotations

import itertools
import wave
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from models import media
from models.arrays import U8
from models.types import EngineError, Limits
from tests import media_samples as samples

LIMITS = Limits()
FORMATS = [".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus", ".webm", ".ac3"]
FRAME_OF = {".aac": 2100, ".ac3": 1600, ".ogg": 128}
"""Samples by which formats without an exact length are longer than what went in."""


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("rate", [44_100, 16_000])
def test_every_format_of_sound_has_its_true_length(tmp_path: Path, suffix: str, rate: int) -> None:
    """What decodes counts, without the encoder's priming and padding where the file declares them."""
    if suffix == ".ac3" and rate == 16_000:
        rate = 48_000
    path = samples.sound(tmp_path / f"voice{suffix}", samples.speech(1.7, rate), rate)
    sound = media.read_sound(path, "voice", LIMITS)
    assert 0 <= sound.duration_s - 1.7 <= FRAME_OF.get(suffix, 2) / sound.rate
    heard = media.read_waveform(path, 16_000)
    assert heard.shape == (round(sound.duration_s * 16_000),)
    assert heard.dtype == np.float32


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".m4a", ".flac", ".ogg", ".opus", ".webm"])
def test_waveforms_start_at_time_zero(tmp_path: Path, suffix: str) -> None:
    """A click at 0.5 s is heard at 0.5 s, whatever delay the codec has."""
    path = samples.sound(tmp_path / f"click{suffix}", samples.click(1.0, 48_000, 0.5), 48_000)
    heard = media.read_waveform(path, 48_000)
    assert abs(int(np.argmax(np.abs(heard) > 0.15)) - 24_000) < 120


def test_the_sound_track_of_a_video_is_a_sound(tmp_path: Path) -> None:
    """A video may be the voice."""
    path = samples.video(tmp_path / "talk.mp4", 25, sound_wave=samples.speech(1.0), sound_rate=16_000)
    assert media.read_sound(path, "talk", LIMITS).duration_s == pytest.approx(1.0, abs=0.001)


def hostile_sounds(folder: Path) -> Iterator[tuple[str, Path]]:
    text = folder / "text.wav"
    text.write_text("this is no sound " * 50)
    yield "audio_unreadable", text
    empty = folder / "empty.wav"
    empty.write_bytes(b"")
    yield "audio_empty", empty
    header = folder / "header.wav"
    with wave.open(str(header), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    yield "audio_empty", header
    yield "audio_too_short", samples.sound(folder / "short.wav", samples.tone(0.01))
    for suffix in (".wav", ".mp3", ".m4a", ".flac"):
        whole = samples.sound(folder / f"whole{suffix}", samples.speech(2.0))
        yield "audio_unreadable", samples.cut(whole, folder / f"cut{suffix}", 0.6)
    yield "audio_unreadable", samples.video(folder / "silent.mp4", 5)
    playlist = folder / "list.wav"
    playlist.write_text("#EXTM3U\n#EXTINF:2,\nfile:///etc/passwd\n")
    yield "audio_unreadable", playlist


def test_hostile_sounds_are_refused_by_name(tmp_path: Path) -> None:
    """Text, emptiness, cut files, videos without sound and playlists each get a code, a reason and a hint."""
    for code, path in hostile_sounds(tmp_path):
        with pytest.raises(EngineError) as refused:
            media.read_sound(path, "voice.wav", LIMITS)
        assert (path.name, refused.value.code) == (path.name, code)
        assert "voice.wav" in refused.value.message
        assert refused.value.hint


def test_limits_of_sound(tmp_path: Path) -> None:
    """Length and size have limits that the message names."""
    path = samples.sound(tmp_path / "long.wav", samples.tone(3.0))
    with pytest.raises(EngineError, match="audio_too_long"):
        media.read_sound(path, "long.wav", Limits(audio_s=2.0))
    with pytest.raises(EngineError, match="media_too_large"):
        media.read_sound(path, "long.wav", Limits(media_bytes=1000))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_every_format_of_picture(tmp_path: Path, suffix: str) -> None:
    """Stills are read as what they show."""
    path = samples.picture(tmp_path / f"face{suffix}")
    picture = media.read_picture(path, "face", LIMITS)
    assert (picture.kind, picture.width, picture.height, picture.fps) == ("image", 90, 60, None)
    assert np.abs(media.read_image(path, "face").astype(int) - samples.quarters()).mean() < 8


UPRIGHT: dict[int, Callable[[U8], U8]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientations(tmp_path: Path, orientation: int) -> None:
    """All eight orientations of a phone's JPEG are turned upright, mirrored ones too."""
    path = samples.picture(tmp_path / "face.jpg", exif_orientation=orientation)
    seen = UPRIGHT[orientation](samples.quarters())
    picture = media.read_picture(path, "face", LIMITS)
    assert (picture.height, picture.width) == seen.shape[:2]
    assert np.abs(media.read_image(path, "face").astype(int) - seen).mean() < 8


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_flags_of_videos(tmp_path: Path, rotation: int) -> None:
    """A video filmed upright on a phone is upright here."""
    path = samples.video(tmp_path / "phone.mp4", 3, 90, 60, rotation=rotation, frames=iter([samples.quarters()] * 3))
    picture = media.read_picture(path, "phone", LIMITS)
    seen = np.rot90(samples.quarters(), -rotation // 90)
    assert (picture.height, picture.width) == seen.shape[:2]
    with media.VideoFrames(path, Fraction(25)) as frames:
        assert np.abs(frames.read(1).astype(int) - seen).mean() < 12


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    """A small file that claims enormous dimensions is refused before anything is allocated."""
    from tests.e2e.test_daemon import png_header

    for side in (60_000, 15_000):
        path = tmp_path / "bomb.png"
        path.write_bytes(png_header(side, side))
        with pytest.raises(EngineError) as refused:
            media.read_picture(path, "bomb.png", LIMITS)
        assert refused.value.code == "avatar_too_large"
        assert str(side) in refused.value.message


def test_hostile_pictures_are_refused(tmp_path: Path) -> None:
    """Text, emptiness and cut files are no avatars; neither is a sound."""
    text = tmp_path / "text.jpg"
    text.write_text("no picture" * 99)
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    video = samples.video(tmp_path / "whole.mp4", 50)
    cut = samples.cut(video, tmp_path / "cut.mp4", 0.3)
    voice = samples.speech_wav(tmp_path / "voice.wav", 1.0)
    for path in (text, empty, cut, voice):
        with pytest.raises(EngineError) as refused:
            media.read_picture(path, "avatar.jpg", LIMITS)
        assert refused.value.code == "avatar_unreadable"
        assert "avatar.jpg" in refused.value.message


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


@pytest.mark.parametrize("order", ["ascending", "descending", "ping-pong", "random"])
def test_frames_by_number_in_any_order(tmp_path: Path, order: str) -> None:
    """With B-frames and long distances between key frames, each number gives its own frame."""
    path = samples.video(tmp_path / "v.mp4", 90, options={"g": "60", "bf": "3"})
    numbers = list(range(90))
    numbers = {
        "ascending": numbers,
        "descending": numbers[::-1],
        "ping-pong": numbers + numbers[-2::-1],
        "random": list(np.random.default_rng(1).permutation(90)),
    }[order]
    with media.VideoFrames(path, Fraction(25)) as frames:
        assert len(frames) == 90
        assert [samples.number_of(frames.read(int(n))) for n in numbers] == numbers


def test_frames_read_in_any_order_are_identical(tmp_path: Path) -> None:
    """Random access gives the very pictures that reading from the start gives."""
    path = samples.video(tmp_path / "v.mp4", 60, options={"g": "25", "bf": "3"})
    with media.VideoFrames(path, Fraction(25)) as one, media.VideoFrames(path, Fraction(25)) as other:
        forwards = [one.read(n) for n in range(60)]
        for n in (59, 30, 31, 0, 45, 12):
            assert np.array_equal(other.read(n), forwards[n])


def test_variable_frame_rates_are_evened_out(tmp_path: Path) -> None:
    """At time k / fps the frame is seen that a player would show then."""
    times = [Fraction(n, 50) for n in (0, 1, 2, 10, 11, 12, 13, 40, 41, 60)]
    path = samples.video(tmp_path / "vfr.mkv", len(times), times=times)
    with media.VideoFrames(path, Fraction(25)) as frames:
        shown = [samples.number_of(frames.read(k)) for k in range(len(frames))]
    expected = [max(n for n, time in enumerate(times) if time <= Fraction(k, 25)) for k in range(len(shown))]
    assert shown == expected
    assert len(shown) >= 30


@pytest.mark.parametrize(("codec", "suffix"), [("mpeg4", ".avi"), ("libvpx-vp9", ".webm"), ("mpeg4", ".mkv")])
def test_frames_of_other_containers(tmp_path: Path, codec: str, suffix: str) -> None:
    """AVI, WebM and Matroska can be read backwards too."""
    path = samples.video(tmp_path / f"v{suffix}", 40, codec=codec, pix_fmt="yuv420p")
    with media.VideoFrames(path, Fraction(25)) as frames:
        assert [samples.number_of(frames.read(n)) for n in (39, 20, 0, 21, 5)] == [39, 20, 0, 21, 5]


def write(path: Path, start: int, stop: int, fps: Fraction = Fraction(25), width: int = 96, height: int = 64) -> Path:
    media.write_part(
        path,
        (samples.numbered(n, width, height) for n in range(start, stop)),
        count=stop - start,
        fps=fps,
        width=width,
        height=height,
        encoder="libx264",
        crf=10,
        progress=lambda _: None,
    )
    return path


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    """Nothing of the time or the machine gets into a part."""
    assert write(tmp_path / "a.mp4", 0, 40).read_bytes() == write(tmp_path / "b.mp4", 0, 40).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


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


@pytest.mark.parametrize("lengths", [(50,), (1, 2, 24, 25), (25, 25, 1), (7, 7, 7, 7)])
@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(60)])
def test_parts_are_joined_frame_by_frame(tmp_path: Path, lengths: tuple[int, ...], fps: Fraction) -> None:
    """However a job was cut, the joined video has each frame once, in order, at its exact time."""
    frames = sum(lengths)
    edges = [sum(lengths[:n]) for n in range(len(lengths) + 1)]
    parts = [write(tmp_path / f"{a}.mp4", a, b, fps) for a, b in itertools.pairwise(edges)]
    voice = samples.speech_wav(tmp_path / "voice.wav", float(frames / fps))
    out = tmp_path / "result.mp4"
    facts = media.assemble_video(parts, audio=voice, out=out, frames=frames, fps=fps, metadata={"title": "hello"})
    assert facts == {"audio_codec": "aac", "audio_copied": False}
    with av.open(str(out)) as container:
        shown = [(samples.time_of(frame), samples.number_in(frame)) for frame in container.decode(video=0)]
        assert container.metadata["title"] == "hello"
        assert container.streams.video[0].average_rate == fps
    assert shown == [(n / fps, n) for n in range(frames)]


@pytest.mark.parametrize("suffix", [*FORMATS])
@pytest.mark.parametrize("fps", [Fraction(25), Fraction(60)])
def test_the_original_sound_stays_in_step(tmp_path: Path, suffix: str, fps: Fraction) -> None:
    """A click is heard in the result when it is heard in the source, and sound and picture end together."""
    path = samples.sound(tmp_path / f"click{suffix}", samples.click(1.23, 48_000, 0.7), 48_000)
    sound = media.read_sound(path, "click", LIMITS)
    frames = round(sound.duration_s * fps)
    part = write(tmp_path / "part.mp4", 0, frames, fps)
    out = tmp_path / "result.mp4"
    facts = media.assemble_video([part], audio=path, out=out, frames=frames, fps=fps, metadata={})
    assert facts["audio_copied"] == (suffix not in (".wav", ".ogg"))
    before, after = media.read_waveform(path, 48_000), media.read_waveform(out, 48_000)
    at = [int(np.argmax(np.abs(heard) > 0.15)) for heard in (before, after)]
    assert abs(at[0] - at[1]) < 96
    assert abs(len(after) / 48_000 - frames / fps) <= 1 / fps


def test_a_damaged_part_is_found(tmp_path: Path) -> None:
    """A part that was cut, or that belongs to another encoding, is named and can be done again."""
    good, bad = write(tmp_path / "a.mp4", 0, 24), write(tmp_path / "b.mp4", 24, 48)
    voice = samples.speech_wav(tmp_path / "voice.wav", 1.92)
    samples.cut(bad, bad, 0.5)
    other = write(tmp_path / "c.mp4", 24, 48, width=128)
    for parts in ([good, bad], [good, other], [good]):
        with pytest.raises(EngineError) as found:
            media.assemble_video(parts, audio=voice, out=tmp_path / "r.mp4", frames=48, fps=Fraction(25), metadata={})
        assert found.value.code == "part_damaged"
        assert found.value.retry
    assert not (tmp_path / "r.mp4").exists()


def broken_results(folder: Path) -> Iterator[tuple[str, Path]]:
    voice = samples.speech(2.0)
    good = samples.video(folder / "good.mp4", 50, sound_wave=voice, faststart=True)
    yield "frames instead of", samples.video(folder / "few.mp4", 49, sound_wave=voice, faststart=True)
    yield "is shown at", samples.video(folder / "fast.mp4", 50, fps=26, sound_wave=voice, faststart=True)
    yield "index", samples.video(folder / "slow.mp4", 50, sound_wave=voice)
    yield "sound ends", samples.video(folder / "short.mp4", 50, sound_wave=samples.speech(1.8), faststart=True)
    yield "read to its end", samples.video(folder / "mute.mp4", 50, faststart=True)
    yield "", samples.cut(good, folder / "cut.mp4", 0.8)


def test_verification_finds_every_fault(tmp_path: Path) -> None:
    """Too few frames, wrong times, a late index, short or missing sound, a cut file: none passes, the good one does."""
    for word, path in broken_results(tmp_path):
        with pytest.raises(EngineError) as found:
            media.verify_video(path, 50, Fraction(25))
        assert found.value.code == "result_invalid"
        assert word in found.value.message, path.name
    media.verify_video(tmp_path / "good.mp4", 50, Fraction(25))


def test_encoders_are_tried_before_they_are_promised() -> None:
    """x264 works everywhere; NVENC is refused with a reason where it doesn't encode."""
    assert media.choose_encoder("libx264") == "libx264"
    states = media.describe_worker()["encoders"]
    assert states["libx264"] == "usable"
    if states["h264_nvenc"] != "usable":
        assert media.choose_encoder("auto") == "libx264"
        with pytest.raises(EngineError, match="encoder_unavailable"):
            media.choose_encoder("h264_nvenc")


def test_a_part_starts_with_a_key_frame_and_needs_no_other(tmp_path: Path) -> None:
    """Parts are closed: the first packet is a key frame, and all frames decode from the part alone."""
    with av.open(str(write(tmp_path / "a.mp4", 0, 30))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        assert packets[0].is_keyframe
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 30
