"""How exactly a device computes: narrow networks against the CPU's float32, then the installed weights.

A job's precision against float32, batches of one against full ones, compiled code against none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.arrays import U8
from models.musetalk.audio.speech import make_speech
from models.musetalk.inpainting.compile import make_kernel_folder
from models.musetalk.inpainting.fused_weights import channels_go_last, optimise
from models.musetalk.inpainting.modules import (
    LATENT,
    Decode,
    Encode,
    MemoryLayout,
    Predict,
    channels_last_layout,
    contiguous_layout,
)
from models.musetalk.inpainting.precision import DTYPES, choose_precision, precision_name
from models.musetalk.inpainting.streams import open_stream
from models.musetalk.nets import bisenet, dwpose, s3fd
from models.musetalk.selftest import tiny_networks
from models.musetalk.selftest.loading import (
    OpenNetworks,
    count_frames,
    free_memory,
    is_finite,
    open_networks,
    open_tiny_whisper,
    paint_faces,
    read_inputs,
)
from models.musetalk.selftest.samples import MOUTH, draw_face

Figures = dict[str, Any]
COMPILE_S = 150.0
ALONE = 1
PSNR_OF_EQUAL_DB = 100.0

CPU = torch.device("cpu")


# narrow networks -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def compare_networks(device: torch.device, precision: str, tick: Callable[[], None]) -> Figures:
    """Return the errors of UNet and VAE in a precision on the device, by name; see `compare`."""
    wanted = _run_networks(CPU, torch.float32, plain=True)
    tick()
    found = _run_networks(device, DTYPES[precision], plain=False)
    return {name: compare(found[name], wanted[name]) for name in wanted}


def _run_networks(device: torch.device, dtype: torch.dtype, *, plain: bool) -> dict[str, Tensor]:
    """Run the networks as a job does: folded, in 16 bits with the channels last, or, plain, as they were published."""
    open_stream(device)  # sets how float32 is multiplied, as for a job
    nets: list[Any] = [tiny_networks.build_unet(), tiny_networks.build_vae()]
    unet, vae = (nn.Module.to(net, device=device, dtype=dtype) for net in nets)
    if not plain:
        unet, vae = optimise(unet), optimise(vae)
    layout: MemoryLayout = channels_last_layout if not plain and channels_go_last(dtype) else contiguous_layout
    crops = torch.from_numpy(draw_face()[None]).to(device)
    latents = _make_noise(2, 2 * LATENT[0], *LATENT[1:]).to(device)
    windows = _make_noise(2, 50, tiny_networks.FEATURES).to(device)
    return {
        "encode": Encode(vae, layout)(crops),
        "unet": Predict(unet, layout)(latents, windows),
        "decode": Decode(vae, layout).image(latents[:, : LATENT[0]].to(dtype)),
    }


@torch.no_grad()
def compare_face_networks(device: torch.device, tick: Callable[[], None]) -> Figures:
    """Return the errors of detector, pose net, parser and Whisper on the device, which always run in float32."""
    wanted = _run_face_networks(CPU)
    tick()
    found = _run_face_networks(device)
    return {name: compare(found[name], wanted[name]) for name in wanted}


def _run_face_networks(device: torch.device) -> dict[str, Tensor]:
    open_stream(device)
    face = draw_face(384)
    nets = {name: net.to(device) for name, net in tiny_networks.build_face_networks().items()}
    seen = torch.from_numpy(face[None]).to(device)
    upright = torch.from_numpy(np.ascontiguousarray(face[None, :, 48:336])).to(device)
    return {
        "detector": _join(nets["s3fd"](s3fd.network_input(seen))),
        "pose": _join(nets["pose"](dwpose.network_input(upright))),
        "parser": nets["bisenet"](bisenet.network_input(face)[None].to(device)),
        "whisper": torch.from_numpy(open_tiny_whisper(device).encode(make_speech(0.5))),
    }


def _join(results: Iterable[Any]) -> Tensor:
    """Return all numbers of a network's results in one row."""
    return torch.cat([r.flatten() if isinstance(r, Tensor) else _join(r) for r in results])


def _make_noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def compare(found: Tensor, wanted: Tensor) -> Figures:
    """Return `finite`; `error`, the mean deviation as a share of the values' own size; `largest` of their spread."""
    numbers, exact = found.detach().to(CPU, torch.float64), wanted.detach().to(CPU, torch.float64)
    if not numbers.isfinite().all():
        return {"finite": False, "error": 0.0, "largest": 0.0}
    apart = numbers - exact
    error = apart.square().mean().sqrt() / exact.square().mean().sqrt()
    return {"finite": True, "error": float(error), "largest": float(apart.abs().max() / exact.std())}


# the weights of a job ------------------------------------------------------------------------------------------------


def compare_precisions(device: torch.device, models_dir: Path, tick: Callable[[], None]) -> Figures:
    """Paint a second of speech in the usual precision, the fast way, and in float32, the published way."""
    count = count_frames(device)
    fast = open_networks(models_dir, device, choose_precision(device))
    latents, windows = read_inputs(fast, count)
    tick()
    faces = fast.inpainter.inpaint(latents, windows)
    told = {
        "networks": fast.kind,
        "precision": precision_name(fast.inpainter.dtype),
        "wanted": choose_precision(device),
        "finite": is_finite(latents) and is_finite(windows) and fast.inpainter.is_finite(),
        "frames": count,
    }
    del fast
    free_memory(device)
    tick()
    exact = open_networks(models_dir, device, "fp32", plain=True)
    return {**told, **compare_faces(faces, paint_faces(exact, count))}


def compare_batches(device: torch.device, models_dir: Path, tick: Callable[[], None]) -> Figures:
    """Paint the same frames one at a time and in full batches."""
    count = count_frames(device)
    many = open_networks(models_dir, device, choose_precision(device))
    latents, windows = read_inputs(many, count)
    wanted, batch = many.inpainter.inpaint(latents, windows), many.inpainter.sizes.unet
    del many
    free_memory(device)
    tick()
    one = open_networks(models_dir, device, choose_precision(device), batch_size=ALONE)
    told = {"networks": one.kind, "precision": precision_name(one.inpainter.dtype), "batch": batch, "frames": count}
    return {**told, **compare_faces(one.inpainter.inpaint(latents, windows), wanted)}


def compare_compiled(device: torch.device, models_dir: Path, cache: Path, tick: Callable[[], None]) -> Figures:
    """Paint the same frames by compiled code, and by the networks as they are; a CPU compiles nothing."""
    if device.type == "cpu":
        return {"state": "cards only"}
    count = count_frames(device)
    networks = open_networks(models_dir, device, choose_precision(device))
    latents, windows = read_inputs(networks, count)
    wanted = networks.inpainter.inpaint(latents, windows)
    networks.inpainter.compile(make_kernel_folder(cache, device))
    states = wait_for_code(networks, tick)
    precision = precision_name(networks.inpainter.dtype)
    told: Figures = {"networks": networks.kind, "precision": precision, "state": name_state(states), "frames": count}
    if told["state"] == "ready":
        told |= compare_faces(networks.inpainter.inpaint(latents, windows), wanted)
    return told


def wait_for_code(networks: OpenNetworks, tick: Callable[[], None]) -> set[str]:
    """Wait until all is compiled, or the time for it is up; return the states of what is compiled."""
    states: set[str] = set()
    for _ in range(int(COMPILE_S)):
        states = set(networks.inpainter.stats().get("compiled", {}).values())
        if not states & {"compiling", "waiting"}:
            break
        networks.inpainter.wait_until_compiled(0.5)
        tick()
    return states


def name_state(states: set[str]) -> str:
    poor = ("failed", "differs", "compiling", "waiting")
    return next((state for state in poor if state in states), "ready" if states else "failed")


def compare_faces(found: U8, wanted: U8) -> Figures:
    """Return how the mouths of two runs differ: `psnr_db`, and the `largest` difference in levels of 255."""
    rows, columns = MOUTH
    one, other = (faces[:, rows, columns].astype(np.float64) for faces in (found, wanted))
    apart = np.abs(one - other)
    return {"psnr_db": measure_psnr(one, other), "largest": int(apart.max()), "spread": float(other.std())}


def measure_psnr(found: Any, wanted: Any) -> float:
    """Return the PSNR of levels of 255 in dB, PSNR_OF_EQUAL_DB where both are the same."""
    mean_square = float(np.mean((np.asarray(found, np.float64) - np.asarray(wanted, np.float64)) ** 2))
    return round(min(PSNR_OF_EQUAL_DB, 10 * math.log10(255**2 / mean_square)), 2) if mean_square else PSNR_OF_EQUAL_DB
