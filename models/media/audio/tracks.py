"""Which sound track of a film is the voice: the one that players take, or the one that the job asks for."""

from __future__ import annotations

from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition

from models.media.opening import unreadable_file
from models.types import EngineError

_LANGUAGES = {
    "ar": ("ara",),
    "cs": ("ces", "cze"),
    "de": ("deu", "ger"),
    "el": ("ell", "gre"),
    "en": ("eng",),
    "es": ("spa",),
    "fa": ("fas", "per"),
    "fr": ("fra", "fre"),
    "hi": ("hin",),
    "it": ("ita",),
    "ja": ("jpn",),
    "ko": ("kor",),
    "nl": ("nld", "dut"),
    "pl": ("pol",),
    "pt": ("por",),
    "ro": ("ron", "rum"),
    "ru": ("rus",),
    "sv": ("swe",),
    "tr": ("tur",),
    "uk": ("ukr",),
    "zh": ("zho", "chi"),
}
"""Two letters of ISO 639-1, and the three that films carry, of which some languages have two."""


def choose_track(container: InputContainer, path: Path, name: str) -> av.AudioStream:
    """Return the track that was asked for, else the first default one that can be decoded, else the
    first that can. Raises EngineError audio_unreadable.
    """
    kept = _get_track_file(path)
    if kept.exists():
        return container.streams.audio[int(kept.read_text())]
    tracks = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if not container.streams.audio and container.streams.video:
        raise unreadable_file("audio", f"{name} holds pictures and no sound; are face and voice swapped?")
    if not tracks:
        raise unreadable_file("audio", f"{name} holds no sound that can be decoded")
    return next((track for track in tracks if track.disposition & Disposition.default), tracks[0])


def keep_track(container: InputContainer, path: Path, name: str, wanted: int | str) -> None:
    """Keep beside the copy of a medium which track a job asks for: by number from 1, or by language.

    All later stages read it there. Raises EngineError bad_option.
    """
    languages = [str(stream.metadata.get("language", "und")).lower() for stream in container.streams.audio]
    if isinstance(wanted, int):
        found = [wanted - 1] if 0 < wanted <= len(languages) else []
    else:
        alike = _list_codes(wanted.lower())
        found = [index for index, language in enumerate(languages) if language.partition("-")[0] in alike]
    decodable = [index for index in found if container.streams.audio[index].codec_context is not None]
    if not decodable:
        there = ", ".join(f"{number} ({language})" for number, language in enumerate(languages, 1)) or "none"
        trouble = "can't be decoded" if found else "is not there"
        message = (
            f'the option "audio_track" asks for {wanted!r}, which {trouble}: the sound tracks of {name} are {there}'
        )
        raise EngineError("bad_option", message, 'give a number, counted from 1, or a language such as "en" or "eng"')
    _get_track_file(path).write_text(str(decodable[0]))


def forget_track(path: Path) -> None:
    """Take what players take."""
    _get_track_file(path).unlink(missing_ok=True)


def _list_codes(language: str) -> set[str]:
    """Return all codes of a language that is given by one of them."""
    for short, codes in _LANGUAGES.items():
        if language == short or language in codes:
            return {short, *codes}
    return {language}


def _get_track_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.track")
