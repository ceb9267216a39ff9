"""Whisper's encoder beside that of transformers, with the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.whisper.configuration_whisper import WhisperConfig
from transformers.models.whisper.feature_extraction_whisper import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from models.musetalk.nets.whisper import Encoder, MelSpectrogram

CONFIG: dict[str, Any] = {
    "d_model": 64,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 96,
    "dropout": 0.0,
    "vocab_size": 51865,
}


@pytest.mark.parametrize("seconds", [0.3, 31.0])
def test_mel_frames_are_those_of_transformers(seconds: float) -> None:
    """To the bit, of a short sound and of one that is cut at 30 s; so are the filters."""
    sound = np.random.default_rng(2).normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)
    extractor: Any = WhisperFeatureExtractor  # has no types
    theirs = extractor()
    wanted = theirs(sound, sampling_rate=16_000, return_tensors="pt").input_features
    ours = MelSpectrogram()
    assert np.array_equal(ours.mel_filters, theirs.mel_filters)
    assert torch.equal(ours(sound), wanted)


@torch.no_grad()
def test_states_are_those_of_transformers() -> None:
    """All of them, to the bit, from weights of the same names."""
    torch.manual_seed(3)
    theirs = WhisperEncoder(WhisperConfig(**CONFIG)).eval()
    ours = Encoder(**CONFIG)
    ours.load_state_dict(theirs.state_dict())
    mel = torch.randn(1, 80, 3000)
    wanted = theirs(mel, output_hidden_states=True).hidden_states
    for state, one in zip(ours(mel), wanted, strict=True):
        assert torch.equal(state, one)


@pytest.mark.parametrize("change", [{"encoder_attention_heads": 5}, {"activation_function": "relu"}])
def test_other_networks_are_refused(change: dict[str, Any]) -> None:
    """Heads that don't divide the width, and another activation."""
    with pytest.raises(ValueError, match="don't fit"):
        Encoder(**{**CONFIG, **change})
    with pytest.raises(ValueError, match="8000 samples"):
        MelSpectrogram(sampling_rate=8000)
