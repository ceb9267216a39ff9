"""What a window-step of MuseV costs: FLOPs, seconds, memory, and how soon ready files are open.

python -m benchmarks.musev                    tiny networks
python -m benchmarks.musev --full             full size with random weights in bf16, about 6 GiB of memory
python -m benchmarks.musev --full --flops     FLOPs alone, on shapes without memory
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.checkpoints.states import move_tensor
from models.musev.nets.unet import Conditions, MotionUNet, Shape
from models.musev.weights.loader import PRESETS, build_empty

TINY = {"channels": (32, 64, 64, 64), "words": 24, "heads": 4}
FRAMES = 13
"""Of a window: the given one, and twelve."""
SIZES = ((512, 320), (512, 512), (512, 960), (704, 1216))


def fill_at_random(net: Any, dtype: torch.dtype) -> MotionUNet:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in net.state_dict().items():
        numbers = torch.empty(tensor.shape, dtype=dtype).normal_(0, 0.02, generator=generator)
        state[name] = numbers + 1 if "norm" in name and name.endswith("weight") else numbers
    net.load_state_dict(state, assign=True)
    filled: MotionUNet = net
    return filled


def make_inputs(
    shape: Shape, width: int, height: int, halves: int, dtype: torch.dtype, device: str = "cpu"
) -> tuple[Tensor, Tensor, Conditions]:
    """Return latents, timestep and conditions of a window, for one half of guidance or both."""
    make: Callable[..., Tensor] = lambda *size: torch.zeros(halves, *size, dtype=dtype, device=device)  # noqa: E731
    tall, wide = height // 8, width // 8
    sizes = [(0, 1), (0, 1), (0, 1), (0, 2), (1, 2), (1, 2), (1, 4), (2, 4), (2, 4), (2, 8), (3, 8), (3, 8), (3, 8)]
    maps = [make(shape.channels[block], -(-tall // part), -(-wide // part)) for block, part in sizes]
    image = make(4, shape.words) if shape.reference else None
    given = Conditions(make(77, shape.words), maps if shape.reference else (), image)
    return make(4, FRAMES, tall, wide), torch.zeros((), device=device), given


def count_flops(shape: Shape, width: int, height: int) -> float:
    """Return the TFLOP of a window-step, both halves."""
    net: Any = build_empty(lambda: MotionUNet(shape))
    latents, time_step, given = make_inputs(shape, width, height, 2, torch.float32, "meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net.predict(latents, time_step, given)
    return counter.get_total_flops() / 1e12


def measure_steps(net: MotionUNet, width: int, height: int, rounds: int, dtype: torch.dtype) -> list[float]:
    """Return the seconds of one half of a window-step, as often as asked."""
    latents, time_step, given = make_inputs(net.shape, width, height, 1, dtype)
    seconds = []
    with torch.inference_mode():
        for _ in range(rounds):
            started = time.perf_counter()
            net.predict(latents, time_step, given)
            seconds.append(time.perf_counter() - started)
    return seconds


def measure_load(net: MotionUNet, folder: Path) -> tuple[float, float]:
    """Return seconds and seconds of this processor from ready files, in the page cache, to networks."""
    path = folder / "unet.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, path)
    started, before = time.perf_counter(), time.process_time()
    again: Any = build_empty(lambda: MotionUNet(net.shape))
    with safe_open(path, framework="pt", device="cpu") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
    device = torch.device("cpu")
    again.load_state_dict({k: move_tensor(t, device, t.dtype) for k, t in state.items()}, assign=True)
    return time.perf_counter() - started, time.process_time() - before


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--flops", action="store_true")
    parser.add_argument("--variant", choices=list(PRESETS), default="musev_referencenet")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    shape = Shape(**({} if given.full else TINY), **PRESETS[given.variant])  # type: ignore[arg-type]
    for width, height in ((given.size, given.size), *(SIZES if given.flops else ())):
        print(f"{given.variant} {width} x {height}: {count_flops(shape, width, height):.4g} TFLOP a window-step")
    if given.flops:
        return
    dtype = torch.bfloat16 if given.full else torch.float32
    net = fill_at_random(build_empty(lambda: MotionUNet(shape)), dtype)
    millions = sum(tensor.numel() for tensor in net.state_dict().values()) / 1e6
    print(f"{millions:,.1f} M numbers in {dtype}; {peak_gib():.1f} GiB with the weights")
    with tempfile.TemporaryDirectory() as folder:
        passed, used = measure_load(net, Path(folder))
        print(f"{passed:.2f} s from ready files to the UNet ({used:.2f} s of processor time)")
    seconds = measure_steps(net, given.size, given.size, given.rounds, dtype)
    print(
        f"{min(seconds):.2f} s for one half of a window-step (best of {len(seconds)}: "
        f"{', '.join(f'{one:.2f}' for one in seconds)}), {torch.get_num_threads()} threads"
    )
    print(f"{peak_gib():.1f} GiB at the most")


if __name__ == "__main__":
    main()
