"""Settings files for tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from agent.settings import Settings
from agent.settings_file import BadSettings, load_settings

ROOT = Path(__file__).parents[2]
SMALLEST = 'share = "share"\nstate = "state"\n'


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "musedrop.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def loaded(folder: Path, text: str | bytes) -> Settings:
    return load_settings(write(folder, text))


def refused(folder: Path, text: str | bytes) -> BadSettings:
    with pytest.raises(BadSettings) as caught:
        loaded(folder, text)
    assert str(folder / "musedrop.toml") in str(caught.value)
    return caught.value


def keys() -> list[str]:
    found = []
    for name, field in Settings.model_fields.items():
        model = field.annotation
        inner = model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else {}
        found += [f"{name}.{key}" for key in inner] or [name]
    return found
