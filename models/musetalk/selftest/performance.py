"""How fast a device is, and how much memory it takes and gives back."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.musetalk.audio.features import SAMPLE_RATE
from models.musetalk.audio.speech import make_speech
from models.musetalk.inpainting.forms import USUAL_NAME, choose_form, measure_best, measure_forms
from models.musetalk.inpainting.precision import choose_precision
from models.musetalk.selftest.loading import (
    RATE,
    SPEECH_S,
    OpenNetworks,
    count_frames,
    free_memory,
    open_networks,
    read_inputs,
)
from models.musetalk.selftest.samples import draw_face, draw_frames

Figures = dict[str, Any]
COPY_BYTES = {"cuda": 256 << 20, "cpu": 64 << 20}
ROUNDS = 3
SMALL_BATCH = 4
FRAME_WIDTH, FRAME_HEIGHT = 1280, 720
FACE_FRAMES = {"cuda": 8, "cpu": 1}

_held: list[OpenNetworks] = []


def measure_copies(device: torch.device) -> Figures:
    """Return GB/s of copies: to the card and back, from pinned and from pageable memory; on a CPU in its memory."""
    size = COPY_BYTES[device.type]
    host = torch.zeros(size, dtype=torch.uint8)
    if device.type == "cpu":
        other = torch.empty_like(host)
        return {"in memory": _measure_rate(lambda: other.copy_(host), size, device)}
    there = torch.empty(size, dtype=torch.uint8, device=device)
    pinned = torch.zeros(size, dtype=torch.uint8, pin_memory=True)
    return {
        "to the card": _measure_rate(lambda: there.copy_(pinned, non_blocking=True), size, device),
        "from the card": _measure_rate(lambda: pinned.copy_(there, non_blocking=True), size, device),
        "pageable to the card": _measure_rate(lambda: there.copy_(host), size, device),
    }


def _measure_rate(work: Callable[[], Any], size: int, device: torch.device) -> float:
    return round(size / 1e9 / measure_best(work, device, ROUNDS)[0], 2)


def measure_speed(device: torch.device, models_dir: Path, tick: Callable[[], None]) -> Figures:
    """Return frames a second of each stage, and the memory before, at the peak and after, in bytes."""
    rounds = ROUNDS if device.type == "cuda" else 0
    free_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before_bytes = _read_used_bytes(device)
    began_s = time.perf_counter()
    networks = open_networks(models_dir, device, choose_precision(device))
    load_s = time.perf_counter() - began_s
    kind, batch, rates = networks.kind, networks.inpainter.sizes.unet, {}
    for stage, frames, work in _list_stages(networks, device):
        tick()
        rates[stage] = round(frames / measure_best(work, device, rounds)[0], 2)
    peak_bytes = _read_peak_bytes(device)
    del networks, work
    free_memory(device)
    memory = {"before": before_bytes, "peak": peak_bytes, "after": _read_used_bytes(device)}
    return {"networks": kind, "batch": batch, "load_s": round(load_s, 2), "fps": rates, "memory_bytes": memory}


def _list_stages(networks: OpenNetworks, device: torch.device) -> list[tuple[str, float, Callable[[], Any]]]:
    """Return name, frames and the work for them of each stage."""
    count, seen = count_frames(device), FACE_FRAMES[device.type]
    frames, squares = draw_frames(FRAME_WIDTH, FRAME_HEIGHT, seen), [draw_face(512)] * seen
    latents, windows = read_inputs(networks, count)
    speech, crops = make_speech(SPEECH_S), draw_face()[None].repeat(seen, 0)
    return [
        ("whisper", len(speech) / SAMPLE_RATE * float(RATE), lambda: networks.whisper_encoder.encode(speech)),
        ("detect", seen, lambda: networks.faces["detect"](frames)),
        ("landmarks", seen, lambda: networks.faces["landmarks"](frames)),
        ("parse", seen, lambda: networks.faces["parse"](squares)),
        ("encode", seen, lambda: networks.inpainter.latents(crops)),
        ("paint", count, lambda: networks.inpainter.inpaint(latents, windows)),
    ]


def paint_and_hash(device: torch.device, models_dir: Path, tick: Callable[[], None]) -> Figures:
    """Paint the same frames several times; return the hash of each time, and the seconds of one.

    The batch doesn't depend on the free memory, which another worker may take meanwhile.
    """
    networks = open_networks(models_dir, device, choose_precision(device), batch_size=SMALL_BATCH)
    latents, windows = read_inputs(networks, count_frames(device))
    hashes, began_s = set(), time.perf_counter()
    rounds = ROUNDS if device.type == "cuda" else 1
    for _ in range(rounds):
        tick()
        faces = networks.inpainter.inpaint(latents, windows)
        hashes.add(hashlib.sha256(np.ascontiguousarray(faces).tobytes()).hexdigest())
    seconds, kind = (time.perf_counter() - began_s) / rounds, networks.kind
    del networks
    free_memory(device)
    return {"networks": kind, "hashes": sorted(hashes), "seconds": round(seconds, 3)}


def compare_forms(device: torch.device, models_dir: Path, tick: Callable[[], None]) -> Figures:
    """Time each form of UNet and decoder, and choose one; of tiny ones on a processor, whose jobs run the usual."""
    is_card = device.type == "cuda"
    networks = open_networks(*(models_dir, device, choose_precision(device)) if is_card else (None, device, "fp32"))
    inpainter, kind = networks.inpainter, networks.kind
    batch, rounds = (inpainter.sizes.decode, ROUNDS) if is_card else (1, 1)
    found = measure_forms(*inpainter.networks, device, batch, rounds, tick)
    del networks, inpainter
    free_memory(device)
    return {
        "networks": kind,
        "card": torch.cuda.get_device_name(device) if is_card else "",
        "batch": batch,
        "forms": {name: asdict(one) for name, one in found.items()},
        "chosen": choose_form(found) if is_card else USUAL_NAME,
    }


def hold_networks(device: torch.device, models_dir: Path) -> Figures:
    """Load the networks and keep them, for a worker that is killed next; return what it holds, in bytes."""
    _held.append(open_networks(models_dir, device, choose_precision(device)))
    read_inputs(_held[0], 1)
    return {"networks": _held[0].kind, "held_bytes": _read_used_bytes(device)}


def _read_used_bytes(device: torch.device) -> int:
    """Return what this process takes now: of the card in tensors and cached blocks, or of the host's memory."""
    if device.type == "cuda":
        return int(torch.cuda.memory_reserved(device))
    return _read_status("VmRSS")


def _read_peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    return _read_status("VmHWM")


def _read_status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)
