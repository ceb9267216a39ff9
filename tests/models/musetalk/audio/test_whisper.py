"""From sound to what the UNet hears at each frame, against the published program's own windows."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers.models.whisper.configuration_whisper import WhisperConfig
from transformers.models.whisper.feature_extraction_whisper import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder as HuggingFaceEncoder
from transformers.models.whisper.modeling_whisper import WhisperModel

from models.musetalk.audio.whisper import (
    CHUNK_SAMPLES,
    FeatureFile,
    WhisperEncoder,
    audio_windows,
    count_frames,
    read_chunks,
    read_speech,
)
from tests import media_samples
from tests.models.musetalk import recipe, voices

Floats = npt.NDArray[np.float32]

FULL = {"d_model": 384, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536, "decoder_layers": 1}
RATES = [Fraction(12), Fraction(24000, 1001), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30)]
RATES += [Fraction(48), Fraction(60000, 1001)]


@cache
def encoder() -> WhisperEncoder:
    """Return an encoder with the tiny Whisper."""
    folder = recipe.DATA / "weights" / "whisper"
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    net = HuggingFaceEncoder(WhisperConfig.from_json_file(folder / "config.json"))
    mine = {name.removeprefix("model.encoder."): value for name, value in state.items() if "encoder." in name}
    net.load_state_dict({name: mine[name] for name in net.state_dict()})
    return WhisperEncoder(net, WhisperFeatureExtractor(), torch.device("cpu"), torch.float32)


def read(path: Path, seconds: float, rate: int = 16_000, channels: int = 1) -> Floats:
    return read_speech(voices.wav(path / "voice.wav", voices.synthetic(seconds, rate, channels), rate))


def literally(features: Floats, samples: int, rate: Fraction) -> list[Floats]:
    """The published rule, step by step: pads of zeros, and slices that end where the sequence does."""
    fps, heard = int(rate), features[: math.floor(samples / 16000 * 50)]
    step = 50 / fps
    pad = math.ceil(step)
    padded = np.concatenate([0 * heard[: pad * 2], heard, 0 * heard[: 3 * pad * 2]])
    first = [math.floor(i * step) for i in range(math.floor(samples / 16000 * fps))]
    return [padded[start : start + 10].reshape(-1, features.shape[-1]) for start in first]


def ramp(samples: int) -> Floats:
    """Features that say where they come from: 20 ms each, in seconds of their middle."""
    positions = samples * 50 // 16000
    return np.broadcast_to(((np.arange(positions) + 0.5) / 50)[:, None, None], (positions, 1, 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "sound"),
    [
        ("synth_2s5_16k_mono", (2.5, 16_000, 1)),
        ("synth_2s_44k_stereo", (2.0, 44_100, 2)),
        ("synth_33s_16k_mono", (33.37, 16_000, 1)),
    ],
)
def test_windows_are_the_references(tmp_path: Path, name: str, sound: tuple[float, int, int]) -> None:
    """Resampling, mel, encoder, layers, joins at 30 s and windows at 25 fps, in both ways."""
    golden = recipe.golden(f"01_audio_{name}_fps25")
    samples = read(tmp_path, *sound)
    assert len(samples) == golden["samples_16k"]
    if "pcm16k_every_8th" in golden:
        assert np.abs(samples[::8] - golden["pcm16k_every_8th"]).max() <= 1e-6
    features = encoder().encode(samples)
    frames = count_frames(len(samples), Fraction(25), reference=True)
    assert frames == golden["num_frames"]
    for reference in (True, False):
        cut = audio_windows(features, len(samples), Fraction(25), range(frames), reference=reference)
        assert cut.shape == tuple(golden["shape"])
        assert np.abs(cut[golden["frames"]] - golden["windows"]).max() <= 1e-5
        assert np.abs(cut.mean((1, 2)) - golden["frame_mean"]).max() <= 1e-6
        assert np.abs(np.abs(cut).mean((1, 2)) - golden["frame_absmean"]).max() <= 1e-6
    for rate in (Fraction(30), Fraction(30000, 1001)):
        wanted = np.stack(literally(features.reshape(len(features), -1, features.shape[-1]), len(samples), rate))
        cut = audio_windows(features, len(samples), rate, range(len(wanted)), reference=True)
        assert np.array_equal(cut, wanted)


def test_other_context(tmp_path: Path) -> None:
    """One frame before and three after."""
    golden = recipe.golden("01_audio_pad_left1_right3_fps25")
    samples = read(tmp_path, 2.5)
    features = encoder().encode(samples)
    cut = audio_windows(features, len(samples), Fraction(25), range(62), reference=True, context=(1, 3))
    assert np.abs(cut[golden["frames"]] - golden["windows"]).max() <= 1e-5


def test_full_size_whisper(tmp_path: Path) -> None:
    """The real architecture with recipe weights."""
    golden = recipe.golden("01_audio_realsize_whisper_fps25")
    net: Any = recipe.fill(WhisperModel(WhisperConfig(encoder_layers=4, **FULL))).encoder
    samples = read(tmp_path, 2.5)
    full = WhisperEncoder(net, WhisperFeatureExtractor(), torch.device("cpu"), torch.float32)
    cut = audio_windows(full.encode(samples), len(samples), Fraction(25), range(62), reference=True)
    assert np.abs(cut[golden["frames"]] - golden["windows"]).max() <= 1e-5
    assert np.abs(cut.mean((1, 2)) - golden["frame_mean"]).max() <= 1e-6


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("samples", [40_000, 32_000, 16_017, 14_400])
def test_reference_at_other_rates(rate: Fraction, samples: int) -> None:
    """The rate truncated, times in floats, and the pad by the rounded length of a frame: as the published rule says."""
    features = np.random.default_rng(1).normal(size=(samples // 320, 2, 3)).astype(np.float32)
    wanted = literally(features, samples, rate)
    assert len(wanted) == count_frames(samples, rate, reference=True)
    cut = audio_windows(features, samples, rate, range(len(wanted)), reference=True)
    for n, window in enumerate(wanted):  # where the published program has too few positions, it gives up
        assert np.array_equal(cut[n, : len(window)], window)
        assert not cut[n, len(window) :].any()


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30), Fraction(49)])
def test_both_ways_agree_where_the_reference_is_right(rate: Fraction) -> None:
    """At whole rates from 25 to 49 the default cuts the same windows, but where floats lose a position."""
    features = ramp(160_000)
    frames = range(count_frames(160_000, rate))
    ours, theirs = (audio_windows(features, 160_000, rate, frames, reference=reference) for reference in (False, True))
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("rate", [*RATES, Fraction(1), Fraction(15), Fraction(50), Fraction(60), Fraction(120)])
def test_windows_are_centred_at_every_rate(rate: Fraction) -> None:
    """The middle of a window is never before its frame begins, and at most 20 ms after, over an hour and more."""
    samples = 3700 * 16000
    frames = range(math.ceil(rate * 3600), math.ceil(rate * 3600) + 90)
    middle = audio_windows(ramp(samples), samples, rate, frames)[:, :, 0].astype(np.float64).mean(1)
    late = middle - np.array([float(n / rate) for n in frames])
    assert late.min() > -1e-3
    assert late.max() < 0.021


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60000, 1001)])
def test_broadcast_rates_stay_in_sync_for_an_hour(rate: Fraction) -> None:
    """An hour of sound has an hour of frames; the reference's truncated rate would drift by more than 30 s."""
    samples = 3600 * 16000
    assert abs(count_frames(samples, rate) / rate - 3600) < 1 / rate
    assert abs(count_frames(samples, rate, reference=True) / rate - 3600) > 30


def test_frames_are_counted_in_integers() -> None:
    """A sound of k frames fills k frames, always."""
    for rate in RATES + [Fraction(120)]:
        for k in range(1, 300):
            assert count_frames(math.ceil(k * 16000 / rate), rate) == k


@pytest.mark.parametrize("samples", [640, 641, 1000, 1279])
@pytest.mark.parametrize("rate", [Fraction(12), Fraction(25), Fraction(60), Fraction(120)])
def test_shortest_sounds(samples: int, rate: Fraction) -> None:
    """From 40 ms up every frame has a whole window; the reference would end its process."""
    features = encoder().encode_chunk(np.full(samples, 0.1, np.float32))
    assert features.shape == (samples // 320, 5, 64)
    for reference in (False, True):
        frames = range(max(1, count_frames(samples, rate, reference=reference)))
        cut = audio_windows(features, samples, rate, frames, reference=reference)
        assert cut.shape == (len(frames), 50, 64)
        assert np.abs(cut[0]).max() > 0


def test_a_span_has_the_windows_of_the_whole() -> None:
    """Cut anywhere, even beyond the end of the sound, frame n has its one window."""
    features = np.random.default_rng(2).normal(size=(200, 2, 3)).astype(np.float32)
    whole = audio_windows(features, 64_000, Fraction(30), range(130))
    parts = [
        audio_windows(features, 64_000, Fraction(30), range(a, b)) for a, b in ((0, 1), (1, 50), (50, 127), (127, 130))
    ]
    assert np.array_equal(np.concatenate(parts), whole)
    assert audio_windows(features, 64_000, Fraction(30), range(5, 5)).shape == (0, 20, 3)
    assert not audio_windows(features, 64_000, Fraction(30), range(900, 901)).any()


def test_long_sound_goes_through_a_file(tmp_path: Path) -> None:
    """Piece by piece to disk and back by slices: the same features, the same windows, the same length."""
    path = voices.wav(tmp_path / "long.wav", voices.synthetic(61.3))
    samples = encoder().encode_to_file(tmp_path / "features.npy", read_chunks(path))
    assert [len(piece) for piece in read_chunks(path)] == [CHUNK_SAMPLES, CHUNK_SAMPLES, samples - 2 * CHUNK_SAMPLES]
    features, kept = encoder().encode(read_speech(path)), FeatureFile(tmp_path / "features.npy")
    assert kept.shape == features.shape == (61.3 * 50, 5, 64)
    assert np.array_equal(np.load(tmp_path / "features.npy"), features)
    for frames in (range(3), range(740, 760), range(1500, 1540)):
        cut = audio_windows(kept, samples, Fraction(25), frames)
        assert np.array_equal(cut, audio_windows(features, samples, Fraction(25), frames))


@pytest.mark.filterwarnings("ignore:.* is deprecated and slated for removal:DeprecationWarning")
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_sound_is_read_as_librosa_reads_it(tmp_path: Path, rate: int) -> None:
    """Bit for bit, channels and number of samples included."""
    for channels in (1, 2):
        path = voices.wav(tmp_path / "voice.wav", voices.synthetic(1.2345, rate, channels), rate)
        assert np.array_equal(read_speech(path), librosa.load(path, sr=16_000)[0])


@pytest.mark.parametrize("suffix", [".mp3", ".m4a", ".ogg", ".webm", ".flac"])
def test_other_formats_are_in_step(tmp_path: Path, suffix: str) -> None:
    """A click lies where it was, in formats with priming and padding too."""
    path = media_samples.sound(tmp_path / f"click{suffix}", media_samples.click(1.0, 48_000, 0.6), 48_000)
    samples = read_speech(path)
    assert abs(len(samples) - 16_000) <= 700
    loud = np.abs(samples)
    assert abs(int((loud > loud.max() / 2).argmax()) - 9_600) <= 32
