"""Speech with its phonemes, from the events of libespeak-ng, by ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from models.arrays import F32, I16
from tests.needs import missing

RATE = 16000
_RETRIEVAL, _PHONEME_EVENTS, _IPA, _UTF8, _PHONEME, _WORDS_PER_MINUTE = 1, 1, 2, 1, 7, 1


@dataclass(frozen=True, slots=True)
class Phoneme:
    """An IPA symbol ("" is a pause) heard from start_s to stop_s."""

    ipa: str
    start_s: float
    stop_s: float


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@cache
def _library() -> tuple[ctypes.CDLL, int]:
    try:
        library = ctypes.CDLL("libespeak-ng.so.1")
    except OSError:
        missing("Debian package libespeak-ng1 is missing")
    rate: int = library.espeak_Initialize(_RETRIEVAL, 0, None, _PHONEME_EVENTS | _IPA)
    if rate <= 0:
        missing("Debian package espeak-ng-data is missing")
    return library, rate


def speak(text: str, voice: str, words_per_minute: int = 165) -> tuple[F32, list[Phoneme]]:
    """Return the waveform (n,) float32 at 16 kHz and its phonemes. Skip the test without libespeak-ng."""
    library, rate = _library()
    sound: list[I16] = []
    starts: list[tuple[str, int]] = []

    def hear(samples: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
        if samples and count:
            sound.append(np.ctypeslib.as_array(samples, (count,)).copy())
        starts.extend(
            (e.id.string.decode(errors="ignore"), e.sample) for e in _until_last(events) if e.type == _PHONEME
        )
        return 0

    callback = _Callback(hear)
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()):
        raise ValueError(f"espeak-ng has no voice {voice!r}")
    library.espeak_SetParameter(_WORDS_PER_MINUTE, words_per_minute, 0)
    data = text.encode() + b"\0"
    library.espeak_Synth(data, len(data), 0, 0, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    waveform = np.concatenate(sound).astype(np.float32) / np.float32(32768)
    edges = [sample / rate for _, sample in starts] + [len(waveform) / rate]
    heard = [Phoneme(ipa, edges[i], edges[i + 1]) for i, (ipa, _) in enumerate(starts)]
    return resample(waveform, rate), heard


def _until_last(events: ctypes._Pointer[_Event]) -> Iterator[_Event]:
    i = 0
    while events[i].type:
        yield events[i]
        i += 1


def resample(waveform: F32, rate: int) -> F32:
    """Return the sound at 16 kHz, resampled by its spectrum."""
    count = round(len(waveform) * RATE / rate)
    spectrum = np.fft.rfft(waveform)[: count // 2 + 1]
    padded = np.pad(spectrum, (0, count // 2 + 1 - len(spectrum)))
    return np.fft.irfft(padded, count).astype(np.float32) * np.float32(count / len(waveform))
