"""The tiny Whisper, and sounds as it takes them."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import torch

from models.arrays import F32
from models.musetalk.audio.resampling import read_speech
from models.musetalk.audio.whisper import WhisperEncoder
from models.musetalk.nets.whisper import Encoder, MelSpectrogram
from tests.models.musetalk import recipe, voices

RATES = [Fraction(12), Fraction(24000, 1001), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30)]
RATES += [Fraction(48), Fraction(60000, 1001)]


@cache
def open_encoder() -> WhisperEncoder:
    """Return an encoder with the tiny Whisper."""
    folder = recipe.DATA / "weights" / "whisper"
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    net = Encoder(**json.loads((folder / "config.json").read_bytes()))
    mine = {name.removeprefix("model.encoder."): value for name, value in state.items() if "encoder." in name}
    net.load_state_dict({name: mine[name] for name in net.state_dict()})
    return WhisperEncoder(net, MelSpectrogram(), torch.device("cpu"), torch.float32)


def read_synthetic(path: Path, seconds: float, rate: int = 16_000, channels: int = 1) -> F32:
    return read_speech(voices.wav(path / "voice.wav", voices.synthetic(seconds, rate, channels), rate))


def cut_as_published(features: F32, samples: int, rate: Fraction) -> list[F32]:
    """The published rule, step by step: pads of zeros, and slices that end where the sequence does."""
    fps, heard = int(rate), features[: math.floor(samples / 16000 * 50)]
    step = 50 / fps
    pad = math.ceil(step)
    padded = np.concatenate([0 * heard[: pad * 2], heard, 0 * heard[: 3 * pad * 2]])
    first = [math.floor(i * step) for i in range(math.floor(samples / 16000 * fps))]
    return [padded[start : start + 10].reshape(-1, features.shape[-1]) for start in first]


def ramp_features(samples: int) -> F32:
    """Features that say where they come from: 20 ms each, in seconds of their middle."""
    positions = samples * 50 // 16000
    return np.broadcast_to(((np.arange(positions) + 0.5) / 50)[:, None, None], (positions, 1, 1)).astype(np.float32)
