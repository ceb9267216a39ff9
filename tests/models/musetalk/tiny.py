"""Weights small enough for a test, in the files that users have: six networks, of which three know one thing each.

UNet, VAE and Whisper are narrow and random. The face networks are narrow and built so that they see something:
the detector takes a bright spot for a face, the pose net says that its 68 points lie about the middle of the picture,
and the parser calls everything skin. Nothing in the engine knows of this: the files are read like any others.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from models.musetalk.nets import bisenet, dwpose, s3fd
from models.musetalk.weights.architectures import build_taesd
from models.musetalk.weights.published_configs import TAESD

DATA = Path(__file__).parents[2] / "data" / "musetalk"
WIDTH, HEIGHT = 160, 128
"""Size of the pictures that the pose net is made for."""
SPOT = (48, 24, 112, 96)
NARROW, NARROW_POSE = 8, 16


def lay_out(models_dir: Path) -> Path:
    """A complete models folder of version v15."""
    shutil.copytree(DATA / "weights", models_dir, dirs_exist_ok=True)
    for name, state in (
        ("s3fd/s3fd-619a316812.pth", spot_detector()),
        ("dwpose/dw-ll_ucoco_384.pth", {"state_dict": central_pose(), "meta": {"epoch": 1}}),
        ("face-parse-bisent/79999_iter.pth", all_skin()),
    ):
        (models_dir / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, models_dir / name)
    return models_dir


def blank(net: nn.Module) -> dict[str, torch.Tensor]:
    """Its state with all weights 0 and all normalisations doing nothing."""
    return {
        name: torch.ones_like(tensor) if name.endswith(("running_var", "bn.weight", ".g", "scale")) else 0 * tensor
        for name, tensor in net.state_dict().items()
    }


def spot_detector() -> dict[str, torch.Tensor]:
    """Brightness passes in the first channel; where 3 x 3 cells of 16 pixels have some, there is a face."""
    state = blank(s3fd.S3FD(NARROW))
    for name in state:
        if name.startswith("conv") and name.endswith(".weight") and name[4] in "12345" and "norm" not in name:
            state[name][0, 0, 1, 1] = 1
        if name.endswith("mbox_conf.bias"):
            state[name][-1] = -10
    state["conv1_1.weight"][0, :, 1, 1] = 1 / 3
    state["conv1_1.bias"][0] = -30
    state["conv5_3_norm.weight"][0] = 1
    state["conv5_3_norm_mbox_conf.weight"][1, 0] = 2
    state["conv5_3_norm_mbox_conf.bias"][1] = -15
    state["conv5_3_norm_mbox_loc.bias"][2:] = 1.5
    return state


def points() -> np.ndarray:
    """(68, 2): a face of 48 x 60 pixels about the middle, the same on both sides."""
    number = np.arange(68)
    partner = np.array(dwpose.MIRRORED)[23:91] - 23
    angle = np.pi * np.arange(17) / 16
    x, y = np.zeros(68), np.zeros(68)
    x[:17], y[:17] = -24 * np.cos(angle), -4 + 34 * np.sin(angle)
    left = (number > 16) & (number < partner)
    x[left] = -3.0 - 0.55 * np.arange(left.sum())
    x[partner[left]] = -x[left]
    y[17:] = -20 + 0.7 * np.arange(51)
    y[29] = -4
    return np.stack([WIDTH / 2 + x, HEIGHT / 2 + y], 1)


def central_pose() -> dict[str, torch.Tensor]:
    """Each point has a pattern of its own in the last features; the rows of its bins look for that pattern."""
    net = dwpose.DwPose(NARROW_POSE)
    state = blank(net)
    random = torch.Generator().manual_seed(5)
    state["backbone.stage4.2.final_conv.bn.bias"][0] = 1
    state["head.final_layer.weight"][:, 0] = torch.randn(133, 7, 7, generator=random)
    state["head.mlp.1.weight"] = torch.randn(state["head.mlp.1.weight"].shape, generator=random)
    state["head.gau.res_scale.scale"] = torch.ones_like(state["head.gau.res_scale.scale"])
    net.load_state_dict(state)
    net.eval()
    with torch.no_grad():
        features = net.backbone(torch.zeros(1, 3, dwpose.HEIGHT, dwpose.WIDTH))
        pattern = net.head.gau(net.head.mlp(net.head.final_layer(features).flatten(2)))[0, 23:91]
    probe = probes(pattern)
    across, down = bins()
    for point in range(68):
        state["head.cls_x.weight"][across[point]] = probe[point]
        state["head.cls_y.weight"][down[point]] = probe[point]
    return state


def probes(pattern: torch.Tensor) -> torch.Tensor:
    """(68, d) from (68, d): each answers strongly to its own pattern and hardly to the others."""
    u, s, v = torch.linalg.svd(pattern, full_matrices=False)
    kept = int((s > 1e-3 * s[0]).sum())
    u, s, v = u[:, :kept], s[:kept], v[:kept]
    probe: torch.Tensor = (u / u.norm(dim=1, keepdim=True) / s) @ v
    return probe


def bins() -> tuple[np.ndarray, np.ndarray]:
    """Of each point its column of 576 and its row of 768, in a picture of WIDTH x HEIGHT; none is shared."""
    wide, high = 1.25 * WIDTH, 1.25 * HEIGHT
    wide, high = max(wide, 0.75 * high), max(high, wide / 0.75)
    x, y = ((points() - (WIDTH / 2, HEIGHT / 2)) / (wide, high) + 0.5).T
    partner = np.array(dwpose.MIRRORED)[23:91] - 23
    across, down = np.round(x * 576 - 0.5).astype(int), np.round(y * 768).astype(int)
    columns: set[int] = set()
    for point in np.flatnonzero((across <= 287) | (partner == np.arange(68))):
        across[point] = min(287, across[point])
        while across[point] in columns:
            across[point] -= 1
        if partner[point] != point:
            across[partner[point]] = 575 - across[point]
        columns |= {across[point], 575 - across[point]}
    rows: set[int] = set()
    for number in range(68):
        while down[number] in rows:
            down[number] += 1
        rows.add(down[number])
    return across, down


def all_skin() -> dict[str, torch.Tensor]:
    state = blank(bisenet.BiSeNet(NARROW))
    state["conv_out.conv.bn.bias"][0] = 1
    state["conv_out.conv_out.weight"][1, 0] = 5
    return state


# pictures that these networks see ------------------------------------------------------------------------------------


def picture(*, face: bool = True, seed: int = 0) -> np.ndarray:
    """(128, 160, 3) BGR: dark, with a bright spot in the middle where the face is."""
    frame = np.random.default_rng(seed).integers(0, 40, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    frame = cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    if face:
        x1, y1, x2, y2 = SPOT
        shade = np.linspace(170, 250, x2 - x1)[None, :, None] - np.linspace(0, 20, y2 - y1)[:, None, None]
        frame[y1:y2, x1:x2] = (shade * [0.8, 0.9, 1.0]).astype(np.uint8)
    return frame


def add_taesd(models_dir: Path) -> Path:
    """A small TAESD of random weights, in the files that its publisher has; returns its weights."""
    torch.manual_seed(1)
    narrow = {f"{one}coder_block_out_channels": [8, 8, 8, 8] for one in ("en", "de")}
    config: dict[str, Any] = {**TAESD.values, **narrow, "num_encoder_blocks": [1] * 4, "num_decoder_blocks": [1] * 4}
    folder = models_dir / "taesd"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderTiny", **config}))
    file = folder / "diffusion_pytorch_model.safetensors"
    save_file(build_taesd(config, {}).state_dict(), file, metadata={"format": "pt"})
    return file
