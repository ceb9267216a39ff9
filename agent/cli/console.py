"""What all commands share: the consoles they print to, and how they find the settings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from agent.languages import speak as speak

if TYPE_CHECKING:
    from agent.settings import Settings

console = Console(emoji=False)
error_console = Console(stderr=True, emoji=False)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Settings file. Default: $MUSEDROP_CONFIG, ./musedrop.toml, the user's, /etc/musedrop.",
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(data: Any) -> None:
    """Print data for programs: rows have the keys of their view."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def load_settings(config: Path | None) -> Settings:
    from agent import settings_file

    return settings_file.load_settings(find_settings(config))


def find_settings(config: Path | None) -> Path:
    """Return the path of the settings file that applies here."""
    from agent.settings_file import find_settings_file

    return find_settings_file(config, os.environ, Path.cwd())
