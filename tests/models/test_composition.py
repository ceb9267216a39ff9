"""Which frames of a result follow the voice, and what is heard in it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from models import media
from models.composition import Composition, plan_composition
from models.types import EngineError, GivenVoice, Layer, Limits, Request, Voice
from tests.media_samples import sound, tone

FILM = media.Picture("video", 64, 64, Fraction(25), 100, 4.0, Fraction(25), length_s=Fraction(4))
STILL = media.Picture("image", 64, 64)
RATE = Fraction(25)


def plan(tmp_path: Path, picture: media.Picture, seconds: float, **asked: Any) -> Composition:
    """Return the plan for a voice of that length; the avatar is `film.mp4`, a tone of four seconds."""
    work = tmp_path / "work" / "input"
    work.mkdir(parents=True)
    sound(tmp_path / "film.wav", tone(4.0)).rename(work / "avatar")
    folders: dict[str, Any] = dict.fromkeys(("out", "cache", "models_dir"), str(tmp_path))
    request = Request("preview", "film.mp4", "voice.wav", str(tmp_path / "work"), **folders)
    voice = media.Sound(round(16_000 * seconds), 16_000, 1, "pcm_s16le", copyable=False)
    return plan_composition(replace(request, **asked), voice, picture, RATE)


def test_without_a_scene_all_frames_follow_the_audio(tmp_path: Path) -> None:
    """And nothing is mixed."""
    assert plan(tmp_path, FILM, 2.0) == Composition(50, 2.0)


@pytest.mark.parametrize(
    ("from_s", "to_s", "seconds", "voiced", "stop_s", "frames"),
    [
        (1.0, 2.0, 1.0, (25, 50), None, 100),
        (1.2, None, 1.0, (30, 55), None, 100),
        (1.01, 1.99, 1.0, (26, 50), 1.99, 100),
        (None, 1.0, 3.0, (0, 25), 1.0, 100),
        (3.0, 9.0, 3.0, (75, 100), 4.0, 100),
        (3.0, None, 3.0, (75, 150), None, 150),
    ],
)
def test_the_frames_of_a_scene(
    tmp_path: Path,
    from_s: float | None,
    to_s: float | None,
    seconds: float,
    voiced: tuple[int, int],
    stop_s: float | None,
    frames: int,
) -> None:
    """Those shown between both times follow the voice; the film keeps its length, unless the voice goes on."""
    made = plan(tmp_path, FILM, seconds, from_s=from_s, to_s=to_s)
    assert (made.frames, made.voices) == (frames, (Voice(*voiced),))
    own, voice = made.layers
    assert own.role == "avatar"
    assert own.mute_s is not None
    assert own.mute_s[0] == voice.start_s == (from_s or 0)
    assert voice.stop_s == stop_s
    assert ("heard" in " ".join(made.notes)) == (stop_s is not None)


def test_a_picture_waits_for_its_voice(tmp_path: Path) -> None:
    """A still lasts until its voice ends, and has no sound of its own."""
    made = plan(tmp_path, STILL, 1.0, from_s=2.0)
    assert (made.frames, made.voices, made.layers) == (75, (Voice(50, 75),), (Layer("audio", start_s=2.0),))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"from_s": 4.0}, "film.mp4 ends at 4.00 s"),
        ({"from_s": 1.01, "to_s": 1.02}, "no frame"),
    ],
)
def test_a_scene_that_is_none_is_refused(tmp_path: Path, asked: dict[str, float], says: str) -> None:
    """With what is wrong with its times."""
    with pytest.raises(EngineError) as refused:
        plan(tmp_path, FILM, 1.0, **asked)
    assert refused.value.code == "bad_value"
    assert says in refused.value.message
    assert "from_s and to_s" in refused.value.hint


def test_a_still_that_would_last_for_days_is_refused(tmp_path: Path) -> None:
    """The limits of the settings hold for what the times ask for, too."""
    with pytest.raises(EngineError) as refused:
        plan(tmp_path, STILL, 1.0, from_s=100.0, limits=Limits(audio_s=60, video_s=60))
    assert "60 s, the limit" in refused.value.message


def test_a_film_without_sound_is_silent_beside_the_scene(tmp_path: Path) -> None:
    """That is noted, and no failure."""
    (tmp_path / "work" / "input").mkdir(parents=True)
    made = plan_without_sound(tmp_path)
    assert made.layers == (Layer("audio", start_s=1.0),)
    assert any("has no sound" in note for note in made.notes)


def plan_without_sound(tmp_path: Path) -> Composition:
    folders: dict[str, Any] = dict.fromkeys(("out", "cache", "models_dir"), str(tmp_path))
    request = Request("preview", "film.mp4", "voice.wav", str(tmp_path / "work"), **folders, from_s=1.0)
    request.files.avatar.write_bytes(b"no sound at all")
    voice = media.Sound(16_000, 16_000, 1, "pcm_s16le", copyable=False)
    return plan_composition(request, voice, FILM, RATE)


def test_a_soundtrack_is_heard_beside_the_voice(tmp_path: Path) -> None:
    """From the start, at its level, and no longer than the result."""
    (tmp_path / "work" / "input").mkdir(parents=True)
    sound(tmp_path / "music.wav", tone(3.0)).rename(tmp_path / "work" / "input" / "soundtrack")
    folders: dict[str, Any] = dict.fromkeys(("out", "cache", "models_dir"), str(tmp_path))
    given: dict[str, Any] = {"media": {"soundtrack": "music.wav"}, "soundtrack_db": -6.0}
    request = Request("preview", "face.jpg", "voice.wav", str(tmp_path / "work"), **folders, **given)
    voice = media.Sound(16_000, 16_000, 1, "pcm_s16le", copyable=False)
    made = plan_composition(request, voice, STILL, RATE)
    assert (made.frames, made.voices) == (25, ())
    assert made.layers == (Layer("audio"), Layer("soundtrack", stop_s=1.0, gain_db=-6.0))


def test_several_voices_last_until_the_last_one_ends(tmp_path: Path) -> None:
    """Each begins at its time, all faces follow theirs in all frames, and the sound is the mix."""
    work = tmp_path / "work" / "input"
    work.mkdir(parents=True)
    sound(tmp_path / "b.wav", tone(1.0)).rename(work / "audio-1")
    folders: dict[str, Any] = dict.fromkeys(("out", "cache", "models_dir"), str(tmp_path))
    given: dict[str, Any] = {"media": {"audio-1": "b.wav"}, "voices": (GivenVoice(1), GivenVoice(0, 4.0))}
    request = Request("preview", "two.jpg", "a.wav", str(tmp_path / "work"), **folders, **given)
    first = media.Sound(32_000, 16_000, 1, "pcm_s16le", copyable=False)
    made = plan_composition(request, first, STILL, RATE)
    assert (made.frames, made.duration_s) == (125, 5.0)
    assert made.voices == (Voice(0, 125, 1), Voice(0, 125, 0))
    assert made.layers == (Layer("audio"), Layer("audio-1", start_s=4.0))
    assert Request.from_dict(request.to_dict()) == request
    with pytest.raises(EngineError) as refused:
        plan_composition(replace(request, voices=(GivenVoice(1), GivenVoice(0, 9e5))), first, STILL, RATE)
    assert refused.value.code == "bad_value"
