"""What `musedrop tune` measures in a worker: frames a second in each batch size, compiled, and with their video.

The networks of `measure_pace` stay open between its calls, so that several workers can start at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import torch

from models import media
from models.arrays import F32, U8
from models.musetalk.inpainting.batching import BatchSizes
from models.musetalk.inpainting.compile import make_kernel_folder
from models.musetalk.inpainting.memory_errors import is_out_of_memory
from models.musetalk.inpainting.precision import choose_precision
from models.musetalk.selftest.accuracy import name_state, wait_for_code
from models.musetalk.selftest.encoding import CRF, HEIGHT, RATE, WIDTH
from models.musetalk.selftest.loading import OpenNetworks, free_memory, open_networks, read_inputs
from models.musetalk.selftest.samples import draw_frames

Figures = dict[str, Any]
BATCHES = {"cuda": 4, "cpu": 1}
"""Batches that are timed at once."""
ROUNDS = {"cuda": 4, "cpu": 2}
"""How often they are timed, of which the fastest counts: the first is slower, and other programs take time, too."""
PART_BATCHES = {"cuda": 8, "cpu": 1}
"""Batches of the part of a video that `measure_pace` makes again and again."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How `measure_pace` works.

    batch     frames that go through the networks at once
    kernels   the cache for compiled code, None without
    seconds   for how long; 0 only opens the networks
    """

    models_dir: Path
    batch: int
    kernels: Path | None
    encoder: str
    seconds: float

    @classmethod
    def read(cls, asked: dict[str, Any]) -> Pace:
        kernels = Path(asked["cache"]) if asked["compile"] else None
        return cls(Path(asked["models_dir"]), asked["batch"], kernels, asked["encoder"], asked["seconds"])


def measure_batches(device: torch.device, models_dir: Path, tick: Callable[[], None]) -> Figures:
    """Return frames a second of UNet and decoder for each batch size that memory allows, by its size as text."""
    networks = open_networks(models_dir, device, choose_precision(device))
    full, kind, rates, inputs = networks.inpainter.sizes, networks.kind, {}, read_inputs(networks, 1)
    for size in list_sizes(full.unet):
        tick()
        networks.inpainter.set_sizes(BatchSizes(size, min(size, full.decode), full.encode))
        try:
            rates[str(size)] = measure_rate(networks, device, size, inputs)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not rates:
                raise
            break
        if networks.inpainter.sizes.unet < size:  # memory ran out, and it went on with half
            del rates[str(size)]
            break
    del networks
    free_memory(device)
    return {"networks": kind, "card": name_type(device), "fps": rates}


def list_sizes(most: int) -> list[int]:
    """Return the powers of two up to `most`.

    >>> list_sizes(16)
    [1, 2, 4, 8, 16]
    """
    return [1 << power for power in range(most.bit_length())]


def name_type(device: torch.device) -> str:
    """Return the name by which jobs know this type of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def measure_rate(networks: OpenNetworks, device: torch.device, batch: int, inputs: tuple[F32, F32]) -> float:
    """Return frames a second of full batches, as a job's loop runs them; `inputs` are those of one frame."""
    count = batch * BATCHES[device.type]
    latents, windows = (rows.repeat(count, 0) for rows in inputs)
    best_s = float("inf")
    for _ in range(ROUNDS[device.type]):
        began_s = time.perf_counter()
        networks.inpainter.inpaint(latents, windows)
        best_s = min(best_s, time.perf_counter() - began_s)
    return round(count / best_s, 3)


def measure_compiled(
    device: torch.device, models_dir: Path, batch: int, cache: Path, tick: Callable[[], None]
) -> Figures:
    """Return `state` of the compiled code and, where it is ready, `fps` in this batch size. A CPU compiles nothing."""
    if device.type == "cpu":
        return {"state": "cards only"}
    networks = open_networks(models_dir, device, choose_precision(device), batch_size=batch)
    networks.inpainter.compile(make_kernel_folder(cache, device))
    state = name_state(wait_for_code(networks, tick))
    found: Figures = {"state": state}
    if state == "ready":
        found["fps"] = measure_rate(networks, device, networks.inpainter.sizes.unet, read_inputs(networks, 1))
    del networks
    free_memory(device)
    return found


_open: dict[tuple[Path, int, Path | None], OpenNetworks] = {}


def measure_pace(device: torch.device, asked: Pace, tick: Callable[[], None]) -> Figures:
    """Paint faces and encode a 720p frame for each, again and again; return frames, seconds and CPU seconds."""
    networks = open_for_pace(device, asked, tick)
    count = asked.batch * PART_BATCHES[device.type]
    if not asked.seconds:
        return {"frames": 0, "seconds": 0.0, "cpu_s": 0.0}
    latents, windows = (rows.repeat(count, 0) for rows in read_inputs(networks, 1))
    planes: list[Any] = [cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420) for frame in draw_frames(WIDTH, HEIGHT, 4)]

    def make_frames() -> Iterator[U8]:
        painted = networks.inpainter.stream(
            range(count), lambda part: latents[part.start : part.stop], lambda part: windows[part.start : part.stop]
        )
        pictures = cycle(planes)
        for faces in painted:
            yield from islice(pictures, len(faces))

    frames, began_s, cpu_s = 0, time.perf_counter(), time.process_time()
    size: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "encoder": asked.encoder, "crf": CRF}
    with TemporaryDirectory(prefix="musedrop-tune-") as folder:
        while not frames or time.perf_counter() - began_s < asked.seconds:
            path = Path(folder) / "part.mp4"
            media.write_part(path, make_frames(), count=count, fps=RATE, progress=lambda _: tick(), **size)
            frames += count
    seconds = time.perf_counter() - began_s
    return {"frames": frames, "seconds": round(seconds, 3), "cpu_s": round(time.process_time() - cpu_s, 3)}


def open_for_pace(device: torch.device, asked: Pace, tick: Callable[[], None]) -> OpenNetworks:
    """Return the networks of the last call, or open others in their place, compiled if that is asked for."""
    key = asked.models_dir, asked.batch, asked.kernels
    if key not in _open:
        _open.clear()
        free_memory(device)
        networks = open_networks(asked.models_dir, device, choose_precision(device), batch_size=asked.batch)
        if asked.kernels is not None:
            networks.inpainter.compile(make_kernel_folder(asked.kernels, device))
            wait_for_code(networks, tick)
        _open[key] = networks
    return _open[key]
