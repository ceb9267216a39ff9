"""The options of jobs, and those that several commands share."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from agent.cli import completion
from agent.errors import UserError

EngineName = Annotated[str, typer.Option(help="auto, preview or musetalk.", autocompletion=completion.complete_engines)]
Face = Annotated[
    str,
    typer.Option(
        help="Image or video with the face, or the name of a library avatar.",
        autocompletion=completion.complete_avatars,
    ),
]
Encoder = Annotated[
    str | None, typer.Option(help="auto, libx264 or h264_nvenc.", autocompletion=completion.complete_encoders)
]
Priority = Annotated[
    str | None,
    typer.Option(help="low, normal, high, or a whole number.", autocompletion=completion.complete_priorities),
]
Strategy = Annotated[
    str, typer.Option(help="auto, queue, race or split.", autocompletion=completion.complete_strategies)
]
EngineOptions = Annotated[list[str] | None, typer.Option(help="An engine option, NAME=VALUE; repeatable.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show progress and wait for the result.")]


def parse_options(given: list[str] | None) -> dict[str, Any]:
    """Return the engine options of `NAME=VALUE` texts; a value that is not JSON is a string."""
    options: dict[str, Any] = {}
    for text in given or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f'--option takes NAME=VALUE, not "{text}"')
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options
