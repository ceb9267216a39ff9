"""The networks that the self-test runs: the installed weights, or narrow ones where there are none."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from models.arrays import F32, U8
from models.musetalk.audio.features import audio_windows
from models.musetalk.audio.speech import make_speech
from models.musetalk.audio.whisper import WhisperEncoder
from models.musetalk.inpainting.inpainter import Inpainter, open_inpainter
from models.musetalk.inpainting.precision import Precision
from models.musetalk.nets.bisenet import class_maps
from models.musetalk.nets.whisper import MelSpectrogram
from models.musetalk.networks import Networks, Setup
from models.musetalk.selftest import tiny_networks
from models.musetalk.selftest.samples import draw_face
from models.musetalk.tracking.detection import FaceNets
from models.musetalk.weights.index import default_version, missing_files_for

RATE = Fraction(25)
SPEECH_S = 1.0
FRAMES = {"cuda": 25, "cpu": 4}
"""Frames that a check paints: a second on a card, one batch on a CPU, where each takes seconds."""

Kind = Literal["installed", "tiny"]


@dataclass(frozen=True, slots=True)
class OpenNetworks:
    """What a job uses, open on a device.

    kind    whether they have the installed weights, or those from a seed
    faces   detects a face, finds its landmarks and parses it, each in a list of frames
    """

    kind: Kind
    inpainter: Inpainter
    whisper_encoder: WhisperEncoder
    faces: dict[str, Callable[[list[U8]], Any]]


def choose_kind(models_dir: Path) -> Kind:
    """Return which networks the self-test runs with this folder of weights."""
    return "tiny" if missing_files_for(default_version(models_dir), models_dir) else "installed"


def open_networks(
    models_dir: Path | None,
    device: torch.device,
    precision: Precision,
    *,
    plain: bool = False,
    batch_size: int | None = None,
) -> OpenNetworks:
    """Open UNet and VAE in a precision, as a job does: tiny ones without a folder.

    Raises EngineError weights_damaged, weights_unsafe.
    """
    if models_dir is None or choose_kind(models_dir) == "tiny":
        return _open_tiny(device, precision, plain=plain, batch_size=batch_size)
    setup = Setup(str(models_dir), default_version(models_dir), precision, batch_size, plain, None)
    networks = Networks(setup, device)
    faces: dict[str, Callable[[list[U8]], Any]] = {
        "detect": lambda frames: networks.detect(frames, reference=False),
        "landmarks": networks.find_landmarks,
        "parse": networks.parse_faces,
    }
    return OpenNetworks("installed", networks.inpainter, networks.whisper_encoder, faces)


def _open_tiny(device: torch.device, precision: Precision, *, plain: bool, batch_size: int | None) -> OpenNetworks:
    def load(dtype: torch.dtype) -> Any:
        return tuple(torch.nn.Module.to(net, dtype) for net in (tiny_networks.build_unet(), tiny_networks.build_vae()))

    inpainter = open_inpainter(load, device, precision, plain=plain, batch_size=batch_size)
    nets = {name: net.to(device) for name, net in tiny_networks.build_face_networks().items()}
    finder = FaceNets(nets["s3fd"], nets["pose"], device)
    faces: dict[str, Callable[[list[U8]], Any]] = {
        "detect": finder.detect,
        "landmarks": finder.find_landmarks,
        "parse": lambda squares: class_maps(nets["bisenet"], squares),
    }
    return OpenNetworks("tiny", inpainter, open_tiny_whisper(device), faces)


def open_tiny_whisper(device: torch.device) -> WhisperEncoder:
    return WhisperEncoder(tiny_networks.build_whisper(), MelSpectrogram(), device, torch.float32)


def read_inputs(networks: OpenNetworks, frames: int) -> tuple[F32, F32]:
    """Return the latents of the built-in face and what is heard at each frame of the built-in speech."""
    latents = networks.inpainter.latents(draw_face()[None]).repeat(frames, 0)
    samples = make_speech(SPEECH_S)
    features = networks.whisper_encoder.encode(samples)
    return latents, audio_windows(features, len(samples), RATE, range(frames))


def paint_faces(networks: OpenNetworks, frames: int) -> U8:
    """Paint the built-in face as it says the built-in speech, (frames, 256, 256, 3) uint8 BGR."""
    return networks.inpainter.inpaint(*read_inputs(networks, frames))


def count_frames(device: torch.device) -> int:
    return FRAMES[device.type]


def free_memory(device: torch.device) -> None:
    """Give back what tensors took that are not used any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


def is_finite(values: F32) -> bool:
    return bool(np.isfinite(values).all())
