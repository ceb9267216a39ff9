"""Imports of large libraries."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.heavy_imports import import_heavy

MODULE = """
import gc
collections = []
gc.callbacks.append(lambda phase, info: collections.append(phase))
cycles = [[] for _ in range(20_000)]
gc.callbacks.pop()
{end}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    gc.unfreeze()
    for name in ("heavy_module", "broken_module"):
        sys.modules.pop(name, None)


def test_nothing_is_collected_while_a_module_is_imported(folder: Path) -> None:
    """The collector rests, looks at nothing of it later, and goes on; a second import freezes nothing more."""
    (folder / "heavy_module.py").write_text(MODULE.format(end=""))
    gc.unfreeze()
    import_heavy("heavy_module")
    assert sys.modules["heavy_module"].collections == []
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    assert frozen > 20_000
    more = [[] for _ in range(1000)]  # type: list[list[int]]
    import_heavy("heavy_module")
    assert gc.get_freeze_count() <= frozen
    assert more


def test_the_collector_goes_on_after_a_failed_import(folder: Path) -> None:
    """A library that can't be imported leaves the process as it was."""
    (folder / "broken_module.py").write_text(MODULE.format(end="raise ImportError"))
    with pytest.raises(ImportError):
        import_heavy("broken_module")
    assert gc.isenabled()
