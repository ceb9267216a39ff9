"""What a downloaded config may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers.models.whisper.configuration_whisper import WhisperConfig
from transformers.models.whisper.feature_extraction_whisper import WhisperFeatureExtractor

from models.checkpoints.configs import KnownConfig, find_other_value
from models.musetalk.weights.published_configs import MEL, TAESD, UNET, VAE, WHISPER


def ask(tmp_path: Path, known: KnownConfig, text: str) -> str:
    (tmp_path / "config.json").write_text(text, newline="\r\n")
    return find_other_value(tmp_path / "config.json", known)


@pytest.mark.parametrize("known", [UNET, VAE, TAESD, WHISPER, MEL])
def test_the_published_values_are_taken(tmp_path: Path, known: KnownConfig) -> None:
    """Also without those that are defaults, with the version that wrote them, and with the lines of Windows."""
    assert ask(tmp_path, known, json.dumps(dict(known.values), indent=1)) == ""
    assert ask(tmp_path, known, json.dumps({**known.values, "_class_name": "Any"})) == ""
    assert ask(tmp_path, known, "{}") == ""


@pytest.mark.parametrize(
    ("known", "name", "value"),
    [
        (UNET, "act_fn", "relu"),
        (UNET, "attention_head_dim", 16),
        (UNET, "norm_eps", 0.1),
        (UNET, "freq_shift", False),
        (UNET, "resnet_time_scale_shift", "scale_shift"),
        (VAE, "scaling_factor", 0.2),
        (VAE, "use_quant_conv", False),
        (TAESD, "latent_magnitude", 2),
        (WHISPER, "activation_function", "relu"),
        (WHISPER, "scale_embedding", True),
        (MEL, "n_fft", 512),
        (MEL, "dither", 0.5),
    ],
)
def test_another_value_is_named(tmp_path: Path, known: KnownConfig, name: str, value: Any) -> None:
    """Also one that no shape of a tensor would give away."""
    assert ask(tmp_path, known, json.dumps({**known.values, name: value})).startswith(f"{name} {value} instead of ")


@pytest.mark.parametrize(("text", "found"), [("[]", "no object"), ("{", "no JSON"), (" " * (5 << 20), "too large")])
def test_what_is_no_config(tmp_path: Path, text: str, found: str) -> None:
    """It is refused before anything is built from it."""
    assert found in ask(tmp_path, UNET, text)


def test_the_values_are_those_of_the_libraries() -> None:
    """Each name is one that they know, so that none is held to in vain; Whisper's own files say much else."""
    for kind, known in ((UNet2DConditionModel, UNET), (AutoencoderKL, VAE), (AutoencoderTiny, TAESD)):
        with torch.device("meta"):
            net: Any = kind(**known.values)
        assert {name: net.config[name] for name in known.values} == dict(known.values)
    config = WhisperConfig(**WHISPER.values)
    assert {name: getattr(config, name) for name in WHISPER.values} == dict(WHISPER.values)
    extractor = WhisperFeatureExtractor(**MEL.values)
    assert {name: getattr(extractor, name) for name in MEL.values} == dict(MEL.values)
