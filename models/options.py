"""Check the options of a job for an engine: names, types and ranges."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from models.types import EngineError

Model = TypeVar("Model", bound=BaseModel)
FaceBox = tuple[float, float, float, float]
"""x, y, width and height in pixels."""
Pixel = Annotated[float, Field(ge=0)]
GivenBox = Annotated[list[Pixel], Field(min_length=4, max_length=4)]
"""A box as a job file gives it."""
AudioTrack = Annotated[int, Field(ge=1, le=99)] | Annotated[str, Field(pattern="^[A-Za-z]{2,3}$")]
"""Number, counted from 1, or language of the sound track that is the voice."""
MIN_FACE = 16
"""The shortest side in pixels of a face that a job gives by its box."""


def parse_options(
    model: type[Model], given: Mapping[str, Any], engine: str, foreign: Mapping[str, str]
) -> tuple[Model, tuple[str, ...]]:
    """Return the options as `model`, and a note for each that only another engine has: `auto`
    allows both.

    `foreign` maps an option of another engine to that engine's name. Raises EngineError
    bad_option.
    """
    ignored = sorted((foreign.keys() - model.model_fields.keys()) & given.keys())
    own = {name: value for name, value in given.items() if name not in ignored}
    notes = (
        f'the option "{name}" is for the {foreign[name]} engine; the {engine} engine ignores it' for name in ignored
    )
    try:
        return model.model_validate(own), tuple(notes)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    name = str(problems[0]["loc"][0])
    if problems[0]["type"] == "extra_forbidden":
        raise unknown_option(name, engine, [*model.model_fields, *foreign], list(model.model_fields))
    same = [problem["msg"].removeprefix("Input ") for problem in problems if problem["loc"][0] == name]
    message = f'the option "{name}" can\'t be {given[name]!r}: it {", or ".join(dict.fromkeys(same))}'
    raise EngineError("bad_option", message, "docs/job-file.md lists the options and their ranges")


def scale_box(box: Sequence[float], option: str, shown: tuple[int, int], size: tuple[int, int]) -> FaceBox:
    """Return a box [x, y, width, height] of the picture as it is shown in pixels of the result.

    shown, size   width and height of the picture, and of the result

    Raises EngineError bad_option for a box that is not inside of the picture, or too small.
    """
    x, y, width, height = box
    if min(width, height) < MIN_FACE or x + width > shown[0] or y + height > shown[1]:
        message = (
            f'the option "{option}" is {list(box)}: the picture has {shown[0]} x {shown[1]} pixels, '
            f"and a face at least {MIN_FACE} x {MIN_FACE} of them"
        )
        raise EngineError("bad_option", message, "give [x, y, width, height] in pixels of the picture as it is shown")
    across, down = size[0] / shown[0], size[1] / shown[1]
    return x * across, y * down, width * across, height * down


def unknown_option(name: str, engine: str, known: list[str], own: list[str]) -> EngineError:
    """Return bad_option with the nearest of `known` as the hint, else all of `own`."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(own)}"
    return EngineError("bad_option", f'the {engine} engine has no option "{name}"', hint)
