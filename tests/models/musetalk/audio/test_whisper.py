"""Whisper, against windows that MuseTalk made with the same weights."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.whisper.configuration_whisper import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperModel

from models.musetalk.audio.features import CHUNK_SAMPLES, FeatureFile, audio_windows, count_frames
from models.musetalk.audio.resampling import read_chunks, read_speech
from models.musetalk.audio.whisper import WhisperEncoder
from models.musetalk.nets.whisper import Encoder, MelSpectrogram
from tests.models.musetalk import recipe, voices
from tests.models.musetalk.audio.tiny_whisper import (
    cut_as_published,
    open_encoder,
    read_synthetic,
)

FULL: dict[str, Any] = {"d_model": 384, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536, "decoder_layers": 1}


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
    samples = read_synthetic(tmp_path, *sound)
    assert len(samples) == golden["samples_16k"]
    if "pcm16k_every_8th" in golden:
        assert np.abs(samples[::8] - golden["pcm16k_every_8th"]).max() <= 1e-6
    features = open_encoder().encode(samples)
    frames = count_frames(len(samples), Fraction(25), reference=True)
    assert frames == golden["num_frames"]
    for reference in (True, False):
        cut = audio_windows(features, len(samples), Fraction(25), range(frames), reference=reference)
        assert cut.shape == tuple(golden["shape"])
        assert np.abs(cut[golden["frames"]] - golden["windows"]).max() <= 1e-5
        assert np.abs(cut.mean((1, 2)) - golden["frame_mean"]).max() <= 1e-6
        assert np.abs(np.abs(cut).mean((1, 2)) - golden["frame_absmean"]).max() <= 1e-6
    for rate in (Fraction(30), Fraction(30000, 1001)):
        wanted = np.stack(cut_as_published(features.reshape(len(features), -1, features.shape[-1]), len(samples), rate))
        cut = audio_windows(features, len(samples), rate, range(len(wanted)), reference=True)
        assert np.array_equal(cut, wanted)


def test_full_size_whisper(tmp_path: Path) -> None:
    """The real architecture with recipe weights."""
    golden = recipe.golden("01_audio_realsize_whisper_fps25")
    theirs: Any = recipe.fill(WhisperModel(WhisperConfig(encoder_layers=4, **FULL))).encoder
    net = Encoder(encoder_layers=4, **FULL)
    net.load_state_dict(theirs.state_dict())
    samples = read_synthetic(tmp_path, 2.5)
    full = WhisperEncoder(net, MelSpectrogram(), torch.device("cpu"), torch.float32)
    cut = audio_windows(full.encode(samples), len(samples), Fraction(25), range(62), reference=True)
    assert np.abs(cut[golden["frames"]] - golden["windows"]).max() <= 1e-5
    assert np.abs(cut.mean((1, 2)) - golden["frame_mean"]).max() <= 1e-6


def test_long_sound_goes_through_a_file(tmp_path: Path) -> None:
    """Piece by piece to disk and back by slices: the same features, the same windows, the same length."""
    path = voices.wav(tmp_path / "long.wav", voices.synthetic(61.3))
    samples = open_encoder().encode_to_file(tmp_path / "features.npy", read_chunks(path))
    assert [len(piece) for piece in read_chunks(path)] == [CHUNK_SAMPLES, CHUNK_SAMPLES, samples - 2 * CHUNK_SAMPLES]
    features, kept = open_encoder().encode(read_speech(path)), FeatureFile(tmp_path / "features.npy")
    assert kept.shape == features.shape == (61.3 * 50, 5, 64)
    assert np.array_equal(np.load(tmp_path / "features.npy"), features)
    for frames in (range(3), range(740, 760), range(1500, 1540)):
        cut = audio_windows(kept, samples, Fraction(25), frames)
        assert np.array_equal(cut, audio_windows(features, samples, Fraction(25), frames))
