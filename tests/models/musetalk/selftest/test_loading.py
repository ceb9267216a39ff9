"""Which networks the self-test runs."""

from __future__ import annotations

from pathlib import Path

import torch

from models.musetalk.selftest.loading import choose_kind, open_networks, paint_faces


def test_installed_weights_are_taken_where_all_are_there(root: Path) -> None:
    """A folder that lacks one file has the tiny networks run."""
    assert choose_kind(root) == "installed"
    (root / "whisper" / "config.json").unlink()
    assert choose_kind(root) == "tiny"
    assert choose_kind(root / "nowhere") == "tiny"


def test_installed_weights_paint_the_built_in_face(root: Path) -> None:
    """Their files are opened in the form that is there, and every network of a job is at hand."""
    networks = open_networks(root, torch.device("cpu"), "fp32")
    assert networks.kind == "installed"
    assert set(networks.faces) == {"detect", "landmarks", "parse"}
    faces = paint_faces(networks, 2)
    assert (faces.shape, faces.std() > 1) == ((2, 256, 256, 3), True)
