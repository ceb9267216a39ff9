"""What goes into the networks and comes out of them, by the published program's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.musetalk.inpainting.modules import Encode, contiguous_layout, positional_encoding, to_bgr
from tests.models.musetalk import tiny_nets
from tests.models.musetalk.recipe import golden


@pytest.mark.parametrize("width", [64, 384])
def test_positional_table(width: int) -> None:
    """Rows of the table, the first and the last; added in half precision as in float32."""
    wanted = golden("02_positional_encoding")
    table = positional_encoding(5000, width)
    assert np.abs(table[:64].numpy() - wanted[f"table_{width}"]).max() <= 1e-6
    assert np.abs(table[-1].numpy() - wanted[f"table_{width}_last"]).max() <= 1e-6
    if width == 64:
        x = torch.from_numpy(wanted["x_64"])
        assert np.abs((x + table[:50]).numpy() - wanted["y_64"]).max() <= 1e-6
        assert np.array_equal((x.half() + table[:50].half()).numpy(), wanted["y_64_fp16"])


def test_what_the_encoder_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lower half hidden from row 128 on, RGB, -1..1."""
    wanted, seen = golden("03_vae_tiny"), []
    vae = tiny_nets.vae()
    encode = vae.encode

    def spy(pixels: Tensor) -> Any:
        seen.append(pixels.numpy())
        return encode(pixels)

    monkeypatch.setattr(vae, "encode", spy)
    Encode(vae, contiguous_layout)(torch.from_numpy(wanted["resized_lanczos4_bgr"])[None])
    ((hidden, whole),) = seen
    assert np.array_equal(hidden[:, 126:130], wanted["masked_tensor_row127_128"])
    assert np.array_equal(whole[:, ::64], wanted["ref_tensor_rows"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_grey_levels_are_rounded_as_the_reference_does(dtype: torch.dtype) -> None:
    """Bit for bit: clamped in the network's precision, scaled in float32, half to even."""
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    image[0, 0] = ((torch.arange(4096).reshape(64, 64) % 511 / 510) * 2 - 1).to(dtype)  # levels and halves of them
    unit = (image / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float().numpy()
    wanted = (unit * 255).round().astype("uint8")[..., ::-1]
    assert np.array_equal(to_bgr(image).numpy(), wanted)


def test_grey_levels_of_bf16_are_not_coarser_than_the_picture() -> None:
    """Clamped in bf16, the upper half of the range would have only every second level."""
    image = torch.linspace(-1, 1, 4096).reshape(1, 1, 64, 64).expand(1, 3, 64, 64).bfloat16()
    assert len(np.unique(to_bgr(image).numpy())) == len(np.unique((image.float().numpy() / 2 + 0.5) * 255 // 0.5 // 2))
