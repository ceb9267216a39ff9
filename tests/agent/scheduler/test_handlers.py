"""What every worker opens."""

from __future__ import annotations

from pathlib import Path

from agent.scheduler.handlers import choose_preload
from models.catalog import ENGINES, is_installed
from tests.agent.settings_texts import SMALLEST, loaded


def test_only_the_engine_of_auto_is_preloaded(tmp_path: Path) -> None:
    """Without weights nothing; with them MuseTalk, unless the settings say no."""
    settings = loaded(tmp_path, SMALLEST)
    assert choose_preload(settings) == ""
    for file in ENGINES["musetalk"].weights:
        path = settings.models_dir / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    expected = "musetalk" if is_installed(ENGINES["musetalk"]) else ""
    assert choose_preload(settings) == expected
    assert choose_preload(loaded(tmp_path, f"{SMALLEST}[devices]\npreload = false\n")) == ""
