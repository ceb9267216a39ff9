"""The options of the preview engine."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.types import EngineError

# fmt: off
MUSETALK = frozenset({
    "version", "bbox_shift", "extra_margin", "parsing_mode", "cheek_width", "batch_size", "precision", "smooth_box",
    "no_face", "silence", "compile", "reference",
})
# fmt: on
"""Options of the musetalk engine: a job for `auto` may give them, and the preview has no use for them."""

Pixels = Annotated[float, Field(ge=0)]
Size = Annotated[float, Field(gt=0)]


class Options(BaseModel):
    """What `options` of a job may hold, and what is assumed."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    label: bool = True
    face: Literal["largest"] | Annotated[int, Field(ge=0)] = "largest"
    mouth: Annotated[list[Pixels], Field(min_length=4, max_length=4)] | None = None
    blink: bool | None = None
    sway: bool = True
    strength: Annotated[float, Field(ge=0, le=1.5)] = 1.0
    cycle: Literal["pingpong", "loop", "hold"] = "pingpong"


def read_options(given: dict[str, Any]) -> tuple[Options, tuple[str, ...]]:
    """The options, and a note for each that belongs to another engine. Raises EngineError bad_option."""
    ignored = sorted(MUSETALK & given.keys())
    own = {name: value for name, value in given.items() if name not in MUSETALK}
    notes = tuple(f'the option "{name}" is for the musetalk engine; the preview engine ignores it' for name in ignored)
    try:
        return Options.model_validate(own), notes
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, [*Options.model_fields, *MUSETALK], n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(Options.model_fields)}"
        raise EngineError("bad_option", f'the preview engine has no option "{name}"', hint)
    message = f'the option "{name}" can\'t be {problem["input"]!r}: {problem["msg"]}'
    raise EngineError("bad_option", message, "docs/job-file.md lists the options and their ranges")
