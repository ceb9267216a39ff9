"""The face detector: the numbers of the published program."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.musetalk.nets import s3fd
from models.musetalk.nets.s3fd import S3FD
from tests.models.musetalk.recipe import fill, golden, relative_error


def crafted() -> s3fd.Levels:
    """Two heads that overlap, one that doesn't, one half outside: what the golden boxes were made from."""
    told = golden("11_s3fd_recipe")
    return [(torch.from_numpy(told[f"crafted_cls{n}"]), torch.from_numpy(told[f"crafted_reg{n}"])) for n in range(6)]


def test_detector_gives_the_golden_boxes() -> None:
    """Raw outputs of all six levels, and the boxes after suppression."""
    told = golden("11_s3fd_recipe")
    net = fill(S3FD(), "s3fd", {"mbox_conf": 2.0})
    levels = net(s3fd.network_input(torch.from_numpy(told["frame_bgr"])[None]))
    for number, (scores, offsets) in enumerate(levels):
        assert relative_error(scores.numpy(), told[f"cls{number}"]) < 1e-4
        assert relative_error(offsets.numpy(), told[f"reg{number}"]) < 1e-4
    found = s3fd.suppress_overlaps(s3fd.find_candidates(levels, 0.5)[0])
    assert found.shape == told["final_boxes"].shape
    assert np.abs(found - told["final_boxes"]).max() < 1e-3


def test_unlikely_candidates_change_nothing() -> None:
    """Suppression from 0.05 up, cut at 0.5 afterwards, and suppression from 0.5 up are the same."""
    levels = crafted()
    late = s3fd.suppress_overlaps(s3fd.find_candidates(levels, 0.05)[0])
    early = s3fd.suppress_overlaps(s3fd.find_candidates(levels, 0.5)[0])
    assert np.array_equal(late[late[:, 4] > 0.5], early)
    assert np.abs(early - golden("11_s3fd_recipe")["crafted_final"]).max() < 1e-3


def test_pictures_of_a_batch_keep_their_own_boxes() -> None:
    """In a batch each picture gets what it gets alone, the empty one nothing."""
    levels = crafted()
    none = [(torch.cat([torch.zeros_like(s[:, :1]) + 9, torch.zeros_like(s[:, :1])], 1), o) for s, o in levels]
    both = [(torch.cat([a, b]), torch.cat([c, d])) for (a, c), (b, d) in zip(none, levels, strict=True)]
    first, second = s3fd.find_candidates(both, 0.5)
    assert first.shape == (0, 5)
    assert s3fd.suppress_overlaps(first).shape == (0, 5)
    assert np.array_equal(second, s3fd.find_candidates(levels, 0.5)[0])


def test_detector_work_as_published() -> None:
    """582 GFLOP for a frame of 1280x720: the network is the one that was measured."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        S3FD()(torch.empty(1, 3, 720, 1280))
    assert round(counter.get_total_flops() / 1e9) == 582
