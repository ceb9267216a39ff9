"""Which engine runs a job here, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import catalog
from models.catalog import ENGINES, choose, missing_weights
from models.types import Card, DeviceKind, EngineError


@pytest.fixture
def musetalk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine where a musetalk engine is installed with all its weights."""
    card = Card("musetalk", "models.handler:Handler", ("cuda", "cpu"), ENGINES["musetalk"].weights)
    monkeypatch.setitem(catalog.ENGINES, "musetalk", card)
    for file in card.weights:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    return tmp_path


@pytest.mark.parametrize(("kinds", "engine"), [({"cpu"}, "preview"), ({"cpu", "cuda"}, "musetalk")])
def test_auto_takes_musetalk_where_it_can_run(musetalk: Path, kinds: set[DeviceKind], engine: str) -> None:
    """With weights and a GPU it is musetalk, without a GPU the preview, and the reason is said."""
    choice = choose("auto", musetalk, kinds)
    assert choice.engine == engine
    assert "GPU" in choice.reason


def test_auto_names_the_missing_weights(musetalk: Path) -> None:
    """One file less, and auto says which."""
    (musetalk / "sd-vae" / "config.json").unlink()
    choice = choose("auto", musetalk, {"cpu", "cuda"})
    assert choice.engine == "preview"
    assert "sd-vae/config.json" in choice.reason
    assert missing_weights(ENGINES["musetalk"], musetalk) == ["sd-vae/config.json"]


def test_an_engine_asked_by_name_is_that_engine_or_an_error(musetalk: Path) -> None:
    """What is asked for is never replaced silently."""
    assert choose("musetalk", musetalk, {"cpu"}).kind == "cpu"
    assert choose("musetalk", musetalk, {"cuda", "cpu"}).kind == "cuda"
    assert choose("preview", musetalk, {"cuda", "cpu"}).engine == "preview"
    (musetalk / "whisper" / "config.json").unlink()
    with pytest.raises(EngineError, match="engine_unavailable"):
        choose("musetalk", musetalk, {"cuda", "cpu"})


def test_this_version_says_that_it_has_no_musetalk(tmp_path: Path) -> None:
    """An engine whose code is not here is not promised."""
    with pytest.raises(EngineError, match="not part of this installation"):
        choose("musetalk", tmp_path, {"cpu", "cuda"})
