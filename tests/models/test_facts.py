"""What must be equal on two machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import facts
from models.catalog import ENGINES
from models.facts import describe_installation, find_version, hash_motion_weights, hash_sources, hash_weights


def test_versions_of_what_computes_pixels_are_named() -> None:
    """Without importing them; what isn't installed has no entry."""
    found = describe_installation({})
    assert found["numpy"] == find_version("numpy") != ""
    assert "weights" not in found
    assert find_version("no-such-package") == ""


def test_another_line_of_code_is_another_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or another name of a module."""
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(facts, "__file__", str(tmp_path / "models" / "facts.py"))
    module = tmp_path / "models" / "a.py"
    module.write_text("x = 1\n")
    first = hash_sources()
    module.write_text("x = 2\n")
    second = hash_sources()
    module.rename(tmp_path / "models" / "b.py")
    assert len({first, second, hash_sources()}) == 3


def test_weights_count_by_their_names_and_sizes(tmp_path: Path) -> None:
    """None where some are missing."""
    assert hash_weights(tmp_path) == ""
    for name in ENGINES["musetalk"].weights:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    first = hash_weights(tmp_path)
    (tmp_path / ENGINES["musetalk"].weights[0]).write_bytes(b"xy")
    assert first != "" != hash_weights(tmp_path) != first


def test_weights_of_motion_count_too(tmp_path: Path) -> None:
    """Those of a pipeline, as soon as there is one."""
    assert hash_motion_weights(tmp_path) == ""
    folder = tmp_path / "motion" / "wan"
    (folder / "transformer").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    weights = folder / "transformer" / "model.safetensors"
    weights.write_bytes(b"x")
    first = hash_motion_weights(tmp_path)
    weights.write_bytes(b"xy")
    assert first != "" != hash_motion_weights(tmp_path) != first
    assert describe_installation({"models_dir": str(tmp_path)})["motion weights"] == hash_motion_weights(tmp_path)
