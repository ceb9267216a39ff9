"""The networks that come from a seed."""

from __future__ import annotations

import torch

from models.musetalk.selftest.tiny_networks import build_face_networks, build_unet, build_vae, build_whisper


def test_they_are_the_same_each_time_and_leave_the_seed_alone() -> None:
    """The random numbers of the program go on as if nothing had been built."""
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    for build in (build_unet, build_vae, build_whisper):
        one, other = (build().state_dict() for _ in range(2))
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert set(build_face_networks()) == {"s3fd", "pose", "bisenet"}
    assert torch.equal(torch.rand(1), expected)
