"""Check the options of a job for an engine: names, types and ranges."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from models.types import EngineError

Model = TypeVar("Model", bound=BaseModel)


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


def unknown_option(name: str, engine: str, known: list[str], own: list[str]) -> EngineError:
    """Return bad_option with the nearest of `known` as the hint, else all of `own`."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(own)}"
    return EngineError("bad_option", f'the {engine} engine has no option "{name}"', hint)
