"""Speed and memory of the tiny networks on a processor."""

from __future__ import annotations

from pathlib import Path

import torch

from models.musetalk.selftest import performance
from models.musetalk.selftest.performance import hold_networks, measure_speed, paint_and_hash

CPU, NOWHERE = torch.device("cpu"), Path("/nowhere")


def test_each_stage_has_a_speed_and_memory_is_read() -> None:
    """Frames a second of the stages of a job, and bytes before, at the peak and after."""
    told: list[int] = []
    found = measure_speed(CPU, NOWHERE, lambda: told.append(1))
    assert set(found["fps"]) == {"whisper", "detect", "landmarks", "parse", "encode", "paint"}
    assert min(found["fps"].values()) > 0
    assert found["memory_bytes"]["peak"] >= found["memory_bytes"]["before"] > 0
    assert len(told) == len(found["fps"])


def test_the_same_frames_have_one_hash() -> None:
    """However often they are painted."""
    first, second = (paint_and_hash(CPU, NOWHERE, lambda: None) for _ in range(2))
    assert first["hashes"] == second["hashes"]
    assert len(first["hashes"]) == 1


def test_networks_are_held_until_the_worker_is_killed() -> None:
    """They stay loaded after the check."""
    try:
        assert hold_networks(CPU, NOWHERE)["held_bytes"] > 0
        assert [networks.kind for networks in performance._held] == ["tiny"]
    finally:
        performance._held.clear()
