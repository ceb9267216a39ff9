"""The names and shapes of full-size networks, without their memory."""

from __future__ import annotations

import gzip
import json

import pytest
import torch

from models.musev.nets.unet import MotionUNet, ReferenceNet, Shape
from models.musev.weights.loader import PRESETS, build_base
from tests.models.musev.tiny import DATA


def read_keys(name: str) -> dict[str, list[int]]:
    keys: dict[str, dict[str, list[int]]] = json.loads(gzip.decompress((DATA / "keys.json.gz").read_bytes()))
    return keys[name]


def full_shape(variant: str) -> Shape:
    usual = Shape()
    return Shape(usual.channels, usual.words, usual.heads, **PRESETS[variant])


@pytest.mark.parametrize(("name", "count"), [("musev", 1557), ("musev_referencenet", 1625), ("referencenet", 298)])
def test_full_size_networks_have_the_published_tensors(name: str, count: int) -> None:
    """Each name and each shape, and none more."""
    with torch.device("meta"):
        net = ReferenceNet(Shape()) if name == "referencenet" else MotionUNet(full_shape(name))
    found = {key: list(tensor.shape) for key, tensor in net.state_dict().items()}
    assert found == read_keys(name)
    assert len(found) == count


def test_the_base_model_has_its_686_tensors_in_both_variants() -> None:
    """What a base model overwrites is in each UNet, under the same name and in the same shape."""
    base = {key: list(tensor.shape) for key, tensor in build_base(Shape()).state_dict().items()}
    assert len(base) == 686
    for variant in PRESETS:
        assert base.items() <= read_keys(variant).items()
