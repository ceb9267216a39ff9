"""Plan which frames of a result follow the voice, and which sounds are heard in it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

from models import media
from models.types import (
    EngineError,
    GivenVoice,
    Inspection,
    Layer,
    ProgressCallback,
    Request,
    Voice,
    name_voice_role,
)

NO_OWN_SOUND = ("audio_unreadable", "audio_empty")
"""Errors of a film whose own sound can't be heard: it is silent beside the scene."""


@dataclass(frozen=True, slots=True)
class Composition:
    """Frames of the result, its voices, what is heard, and sentences for result.json."""

    frames: int
    duration_s: float
    voices: tuple[Voice, ...] = ()
    layers: tuple[Layer, ...] = ()
    notes: tuple[str, ...] = ()


def plan_composition(request: Request, sound: media.Sound, picture: media.Picture, rate: Fraction) -> Composition:
    """Return the plan of a job with that voice and avatar at `rate` frames a second.

    The further media are read. Raises EngineError bad_value, and what reading them raises.
    """
    if request.is_draft:
        return _plan_draft(request, rate)
    if request.voices:
        plan = _plan_voices(request, sound, rate)
    else:
        plan = _plan_scene(request, sound, picture, rate) if request.is_scene else _plan_whole(sound, rate)
    if "soundtrack" not in request.media:
        return plan
    name = Path(request.media["soundtrack"]).name
    track = media.read_soundtrack(request.files.medium_path("soundtrack"), name, request.limits)
    layer = Layer("soundtrack", stop_s=_cut_at(track.duration_s, plan.duration_s), gain_db=request.soundtrack_db)
    return Composition(
        plan.frames,
        plan.duration_s,
        plan.voices,
        (*(plan.layers or (Layer("audio"),)), layer),
        (*plan.notes, *track.notes),
    )


def _plan_draft(request: Request, rate: Fraction) -> Composition:
    voices = tuple(Voice(0, 1, voice.face) for voice in request.voices)
    return Composition(1, float(1 / rate), voices, (Layer("audio", stop_s=float(1 / rate)),))


def _plan_whole(sound: media.Sound, rate: Fraction) -> Composition:
    return Composition(max(1, round(sound.duration_s * rate)), sound.duration_s)


def _plan_voices(request: Request, first: media.Sound, rate: Fraction) -> Composition:
    """Plan a result in which several faces speak: each mouth follows its own voice in all frames."""
    sounds = [first, *(_read_voice(request, number) for number in range(1, len(request.voices)))]
    ends_s = [
        Fraction(str(v.from_s)) + Fraction(s.samples, s.rate) for v, s in zip(request.voices, sounds, strict=True)
    ]
    end_s = max(ends_s)
    if end_s > request.limits.audio_s:
        latest = max(request.voices, key=lambda voice: voice.from_s)
        why = f"the result would last longer than {request.limits.audio_s:.0f} s, the limit"
        raise _refuse_time("from_s", Fraction(str(latest.from_s)), why)
    frames = max(1, round(end_s * rate))
    layers = [Layer(name_voice_role(number), start_s=voice.from_s) for number, voice in enumerate(request.voices)]
    voices = tuple(Voice(0, frames, voice.face) for voice in request.voices)
    notes = tuple(note for sound in sounds[1:] for note in sound.notes)
    return Composition(frames, float(end_s), voices, tuple(layers), notes)


def _read_voice(request: Request, number: int) -> media.Sound:
    role = name_voice_role(number)
    return media.read_sound(request.files.medium_path(role), Path(request.media[role]).name, request.limits)


def _plan_scene(request: Request, sound: media.Sound, picture: media.Picture, rate: Fraction) -> Composition:
    """Plan a result in which only the frames between `from_s` and `to_s` follow the voice."""
    name, audio_name = Path(request.avatar).name, Path(request.audio).name
    film_frames = max(1, round(picture.length_s * rate)) if picture.kind == "video" else 0
    film_s = film_frames / rate
    begin_s = Fraction(str(request.from_s or 0))
    end_s = Fraction(str(request.to_s)) if request.to_s is not None else begin_s + Fraction(sound.samples, sound.rate)
    notes = []
    if film_frames and begin_s >= film_s:
        raise _refuse_time("from_s", begin_s, f"{name} ends at {float(film_s):.2f} s")
    if film_frames and request.to_s is not None and end_s > film_s:
        notes.append(f"{name} ends at {float(film_s):.2f} s, and the voice with it: to_s is {float(end_s):g}")
        end_s = film_s
    longest_s = max(request.limits.audio_s, request.limits.video_s)
    if end_s > longest_s:
        raise _refuse_time("from_s", begin_s, f"the result would last longer than {longest_s:.0f} s, the limit")
    frames = max(film_frames, round(end_s * rate), 1)
    voice = Voice(ceil(begin_s * rate), min(frames, ceil(end_s * rate)))
    if voice.start >= voice.stop:
        raise _refuse_time("from_s", begin_s, "no frame of the result is shown between it and the end of the voice")
    if sound.duration_s > end_s - begin_s:
        notes.append(f"{audio_name} lasts {sound.duration_s:.2f} s; {float(end_s - begin_s):.2f} s of it are heard")
    stop_s = _cut_at(float(begin_s) + sound.duration_s, float(end_s))
    layers = [Layer("audio", start_s=float(begin_s), stop_s=stop_s)]
    own = _read_own_sound(request) if picture.kind == "video" else None
    if own is not None:
        layers.insert(0, Layer("avatar", mute_s=(float(begin_s), float(end_s))))
        notes += own.notes
    elif picture.kind == "video":
        notes.append(f"{name} has no sound that can be read: it is silent where the voice isn't heard")
    return Composition(frames, float(frames / rate), (voice,), tuple(layers), tuple(notes))


def _cut_at(end_s: float, result_s: float) -> float | None:
    return result_s if end_s > result_s else None


def _read_own_sound(request: Request) -> media.Sound | None:
    """Return the avatar's own sound, None where it has none that can be heard."""
    try:
        return media.read_soundtrack(request.files.avatar, Path(request.avatar).name, request.limits)
    except EngineError as error:
        if error.code in NO_OWN_SOUND:
            return None
        raise


def _refuse_time(key: str, value_s: Fraction, why: str) -> EngineError:
    hint = "from_s and to_s are seconds of the result, and of the film that the avatar is"
    return EngineError("bad_value", f"{key} is {float(value_s):g}: {why}", hint)


def write_voices(request: Request, inspection: Inspection, tick: ProgressCallback) -> None:
    """Write what each mouth follows, where that is not all of the audio from the first frame on."""
    given = request.voices or ((GivenVoice(0, request.from_s or 0.0),) if request.is_scene else ())
    for number, (voice, asked) in enumerate(zip(inspection.voices, given, strict=True)):
        target = request.files.voice_part_path(number)
        skip_s = float(voice.start / inspection.rate - Fraction(str(asked.from_s)))
        length_s = float(len(voice.frames) / inspection.rate)
        source = request.files.medium_path(name_voice_role(number))
        media.write_voice(source, target, skip_s=skip_s, length_s=length_s, tick=tick)
