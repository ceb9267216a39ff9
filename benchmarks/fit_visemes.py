"""Fit the viseme table of models/preview/visemes.py and print its rows.

Run from the root as `python -m benchmarks.fit_visemes`.
It needs the Debian packages libespeak-ng1 and flite, whose programs report the time of each phoneme.
The sentences and voices of the tests are not used here.
"""

from __future__ import annotations

import subprocess
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.arrays import F32, F64
from models.preview import speech, visemes
from tests.models.phonemes import Phoneme, resample, speak

SENTENCES = (
    "Drop a face and a voice into a folder, and a moment later you have a talking video.",
    "My mother bought a big blue balloon for the baby, and papa put it upon the table.",
    "We see three green trees near the sea. He keeps these keys.",
    "Who knew that you could move the moon so soon? Go home, Joe, don't be slow.",
    "The car is parked far apart from the large barn, father.",
    "Please ask her to bring these things with her from the store.",
    "Six spoons of fresh snow peas, five thick slabs of cheese, and maybe a snack for her brother Bob.",
    "Nobody knows what happened to the small brown fox on that happy afternoon.",
    "I am in a hurry. Every evening in the winter he reads the news in the kitchen.",
    "Peter Piper picked a peck of pickled peppers; mama made more marmalade.",
    "The boat floated slowly over the ocean while the old crow looked below.",
    "Hot coffee, apples, bananas and a glass of water.",
)
ESPEAK_VOICES = ("en-us", "en-us+f2", "en-us+f4", "en-us+m3", "en-us+m1", "en-us+klatt2")
FLITE_VOICES = ("slt", "awb", "kal16")
SPOKEN = {
    "a": "ɑː ɑːɹ a aː aɪ aʊ æ aa ae ay aw",
    "uh": "ʌ ɐ ah",
    "e": "ɛ eɪ e eː eh ey",
    "i": "iː i ɪ iy ih ᵻ ɪɹ",
    "schwa": "ə ɚ ɜ ɜː ax er əl",
    "o": "oʊ oː oːɹ ɔːɹ ɔː ɔ ɔɪ o ɒ ow ao oy",
    "u": "uː ʊ ʉ ʉː uw uh w ʍ",
    "mbp": "m b p",
    "f": "f v",
    "s": "s z",
    "sh": "ʃ tʃ dʒ ʒ sh ch jh zh",
    "t": "t d n l ɾ θ ð th dh",
    "k": "k ɡ g ŋ ng h hh j y ɹ r",
    "rest": "pau",
}
VISEME_OF = {phoneme: name for name, phonemes in SPOKEN.items() for phoneme in phonemes.split()} | {"": "rest"}


def speak_flite(text: str, voice: str) -> tuple[F32, list[Phoneme]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = ["flite", "-voice", voice, "-psdur", "-t", text, "-o", str(path)]
        ends = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        with wave.open(str(path)) as sound:
            samples = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
            waveform = resample(samples.astype(np.float32) / np.float32(32768), sound.getframerate())
    names, stops = zip(*(entry.rsplit(":", 1) for entry in ends), strict=True)
    edges = [0.0, *map(float, stops)]
    return waveform, [Phoneme(name, edges[i], edges[i + 1]) for i, name in enumerate(names)]


def speak_sentences() -> Iterator[tuple[F32, list[Phoneme]]]:
    for text in SENTENCES:
        for voice in ESPEAK_VOICES:
            yield speak(text, voice)
        for voice in FLITE_VOICES:
            yield speak_flite(text, voice)


def label_features() -> tuple[F32, npt.NDArray[np.intp]]:
    """Return the features of every hop, clean and with noise at -25 dB, and its viseme's number."""
    rng = np.random.default_rng(1)
    rows, classes = [], []
    for waveform, phonemes in speak_sentences():
        noise = rng.normal(0, waveform.std() * 10 ** (-25 / 20), len(waveform)).astype(np.float32)
        for heard in (waveform, waveform + noise):
            features = speech.extract_features(heard)
            known = _find_visemes(phonemes, len(features))
            rows.append(features[known >= 0])
            classes.append(known[known >= 0])
    return np.concatenate(rows), np.concatenate(classes)


def _find_visemes(phonemes: list[Phoneme], hops: int) -> npt.NDArray[np.intp]:
    middle_s = (np.arange(hops) + 0.5) / speech.HOPS_PER_S
    found = np.full(hops, list(visemes.SHAPES).index("rest"))
    for p in phonemes:
        name = VISEME_OF.get(p.ipa)
        found[(middle_s >= p.start_s) & (middle_s < p.stop_s)] = list(visemes.SHAPES).index(name) if name else -1
    return found


def fit_visemes(rows: F32, classes: npt.NDArray[np.intp]) -> F64:
    """Linear discriminant analysis: (visemes, 1 + features), the constant first."""
    means = np.array([rows[classes == c].mean(0) for c in range(len(visemes.SHAPES))])
    rest = rows - means[classes]
    covariance = rest.T @ rest / len(rest)
    precision = np.linalg.inv(covariance + 0.05 * np.diag(np.diag(covariance)))
    prior = np.sqrt(np.bincount(classes))  # between "as often as in English" and "all alike"
    constant = np.log(prior / prior.sum()) - np.einsum("ij,jk,ik->i", means, precision, means) / 2
    return np.column_stack([constant, means @ precision])


if __name__ == "__main__":
    for name, row in zip(visemes.SHAPES, fit_visemes(*label_features()), strict=True):
        print(f"# {name}\n" + " ".join(f"{value:.1f}" for value in row))
