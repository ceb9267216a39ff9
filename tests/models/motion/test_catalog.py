"""Which engine makes the clip of a job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.motion import catalog
from models.motion.catalog import MOTION_ENGINES, choose_motion
from models.types import EngineError


@pytest.fixture
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one pipeline, and only the engine for it."""
    monkeypatch.setattr(catalog, "MOTION_ENGINES", {"diffusers": MOTION_ENGINES["diffusers"]})
    (tmp_path / "motion" / "wan").mkdir(parents=True)
    (tmp_path / "motion" / "wan" / "model_index.json").write_text("{}")
    return tmp_path


def test_auto_is_the_first_engine_with_weights(models_dir: Path) -> None:
    """A job without motion needs none; one on a machine without cards runs on the processor."""
    assert choose_motion(None, models_dir, ["cpu"]) is None
    choice = choose_motion("auto", models_dir, ["cpu"])
    assert choice is not None
    assert (choice.engine, choice.kind) == ("diffusers", "cpu")


def test_what_is_missing_is_named(models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and packages; the hint leads to the page that says where they come from."""
    with pytest.raises(EngineError, match=r"motion/wan2\.2-ti2v-5b/model_index\.json first") as caught:
        choose_motion("auto", tmp_path / "empty", ["cpu"])
    assert (caught.value.code, "docs/motion.md" in caught.value.hint) == ("engine_unavailable", True)
    lacking = replace(MOTION_ENGINES["diffusers"], packages=("no_such_package",))
    monkeypatch.setattr(catalog, "MOTION_ENGINES", {"diffusers": lacking})
    with pytest.raises(EngineError, match="no_such_package not installed"):
        choose_motion("diffusers", models_dir, ["cpu"])
