"""What every command shares: where it prints, and how it finds the settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from agent.settings import Settings

console = Console(emoji=False)
errors = Console(stderr=True, emoji=False)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Settings file. Default: $MUSEDROP_CONFIG, ./musedrop.toml, the user's, /etc/musedrop.",
    ),
]


def settings_of(config: Path | None) -> Settings:
    from agent.settings_file import load_settings

    return load_settings(found(config))


def found(config: Path | None) -> Path:
    """The settings file that counts here."""
    from agent.settings_file import find_settings_file

    return find_settings_file(config, os.environ, Path.cwd())
