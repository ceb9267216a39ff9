"""Joined parts: every frame once, in order, at its exact time."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from models import media
from models.types import EngineError
from tests import media_samples as samples
from tests.models.media.parts import write_numbered, write_part


@pytest.mark.parametrize("lengths", [(50,), (1, 2, 24, 25), (25, 25, 1), (7, 7, 7, 7)])
@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(60)])
def test_parts_are_joined_frame_by_frame(tmp_path: Path, lengths: tuple[int, ...], fps: Fraction) -> None:
    """For any cut of a job, the joined video has each frame once, in order, at its exact time."""
    frames = sum(lengths)
    edges = [sum(lengths[:n]) for n in range(len(lengths) + 1)]
    parts = [write_numbered(tmp_path / f"{a}.mp4", a, b, fps) for a, b in itertools.pairwise(edges)]
    voice = samples.speech_wav(tmp_path / "voice.wav", float(frames / fps))
    out = tmp_path / "result.mp4"
    facts = media.assemble_video(parts, audio=voice, out=out, frames=frames, fps=fps, metadata={"title": "hello"})
    assert facts == {"audio_codec": "aac", "audio_copied": False}
    with av.open(str(out)) as container:
        shown = [(samples.time_of(frame), samples.number_in(frame)) for frame in container.decode(video=0)]
        assert container.metadata["title"] == "hello"
        assert container.streams.video[0].average_rate == fps
    assert shown == [(n / fps, n) for n in range(frames)]


def test_a_damaged_part_is_found(tmp_path: Path) -> None:
    """A part that was cut, or has another encoding, is named in an error with a retry."""
    good, bad = write_numbered(tmp_path / "a.mp4", 0, 24), write_numbered(tmp_path / "b.mp4", 24, 48)
    voice = samples.speech_wav(tmp_path / "voice.wav", 1.92)
    samples.cut(bad, bad, 0.5)
    other = write_numbered(tmp_path / "c.mp4", 24, 48, width=128)
    for parts in ([good, bad], [good, other], [good]):
        with pytest.raises(EngineError) as found:
            media.assemble_video(parts, audio=voice, out=tmp_path / "r.mp4", frames=48, fps=Fraction(25), metadata={})
        assert found.value.code == "part_damaged"
        assert found.value.retry
    assert not (tmp_path / "r.mp4").exists()


@pytest.mark.parametrize("lengths", [(1, 2, 24, 25), (1, 1, 1), (52,)])
def test_cutting_a_job_changes_no_picture(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    """Joined parts show the painted frames as well as one encoding of all does."""
    count = sum(lengths)
    edges = [0, *itertools.accumulate(lengths)]
    parts = [
        write_part(tmp_path / f"{a}.mp4", (samples.numbered(n) for n in range(a, b)), b - a)
        for a, b in itertools.pairwise(edges)
    ]
    voice = samples.speech_wav(tmp_path / "voice.wav", count / 25)
    out = tmp_path / "result.mp4"
    media.assemble_video(parts, audio=voice, out=out, frames=count, fps=Fraction(25), metadata={})
    whole = write_part(tmp_path / "whole.mp4", samples.numbered_frames(count), count)
    with media.VideoFrames(out, Fraction(25)) as joined, media.VideoFrames(whole, Fraction(25)) as single:
        assert (len(joined), len(single)) == (count, count)
        for n in range(count):
            painted = samples.numbered(n).astype(int)
            lost, lost_in_one = (np.abs(video.read(n) - painted).mean() for video in (joined, single))
            assert lost < 3
            assert lost < lost_in_one + 1


def test_assembling_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """The result depends on neither time nor chance, and has the metadata."""
    part = write_part(tmp_path / "part.mp4", samples.numbered_frames(30), 30)
    voice = samples.speech_wav(tmp_path / "voice.wav", 1.2)
    words = {"title": "hello", "comment": "musedrop, engine preview"}
    outs = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for out in outs:
        media.assemble_video([part], audio=voice, out=out, frames=30, fps=Fraction(25), metadata=words)
    assert outs[0].read_bytes() == outs[1].read_bytes()
    with av.open(str(outs[0])) as container:
        assert {key: container.metadata[key] for key in words} == words


def test_a_part_with_frames_missing_is_named(tmp_path: Path) -> None:
    """The message names the broken one of several parts."""
    parts = [write_part(tmp_path / f"{n}.mp4", samples.numbered_frames(24), 24) for n in range(3)]
    samples.cut(samples.video(tmp_path / "whole.mp4", 24, faststart=True), parts[1], 0.8)
    voice = samples.speech_wav(tmp_path / "voice.wav", 2.88)
    with pytest.raises(EngineError, match="the part 1 is damaged"):
        media.assemble_video(parts, audio=voice, out=tmp_path / "r.mp4", frames=72, fps=Fraction(25), metadata={})


def test_a_voice_that_does_not_fit_the_pictures_is_no_result(tmp_path: Path) -> None:
    """A difference of two frames between the ends is refused."""
    part = write_part(tmp_path / "part.mp4", samples.numbered_frames(25), 25)
    voice = samples.speech_wav(tmp_path / "voice.wav", 1.09)
    with pytest.raises(EngineError, match=r"its sound ends at 1\.090 s, its pictures at 1\.000 s") as found:
        media.assemble_video([part], audio=voice, out=tmp_path / "r.mp4", frames=25, fps=Fraction(25), metadata={})
    assert found.value.code == "result_invalid"
    assert not (tmp_path / "r.mp4").exists()
