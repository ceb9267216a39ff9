"""Run the model loop by the code of this folder or of another one, for benchmarks.musetalk: names that 0.1.0 has, too.

Answers each line of its input with seconds of a frame on the clock and of CPU time, and a hash of the faces.
"""

from __future__ import annotations

import json
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, sys.argv[1])  # before an installed version

from benchmarks.musetalk import SIZES, loaded
from models.musetalk.inpainting.inpainter import Inpainter


def serve(size: str, folder: Path, device: torch.device, threads: int) -> None:
    """Open the networks in `folder` and paint the same faces for each line."""
    torch.set_num_threads(threads)
    nets, random = SIZES[size], np.random.default_rng(0)
    unet = loaded(nets.build_unet, folder / "unet.safetensors")
    inpainter = Inpainter(unet, loaded(nets.build_vae, folder / "vae.safetensors"), device)
    frames = inpainter.sizes.unet * (threads if device.type == "cpu" else 8)
    latents = random.normal(size=(frames, 8, 32, 32)).astype(np.float32)
    audio_windows = random.normal(size=(frames, 50, nets.features)).astype(np.float32)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        faces = inpainter.inpaint(latents, audio_windows)
        spent = [(time.perf_counter() - wall) / frames, (time.process_time() - cpu) / frames]
        print(json.dumps([*spent, sha256(faces.tobytes()).hexdigest()]), flush=True)


if __name__ == "__main__":
    serve(sys.argv[2], Path(sys.argv[3]), torch.device(sys.argv[4]), int(sys.argv[5]))
