"""The options of the preview engine."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.options import AudioTrack, GivenBox, parse_options

# fmt: off
MUSETALK = frozenset({
    "version", "bbox_shift", "extra_margin", "parsing_mode", "cheek_width", "audio_padding_length_left",
    "audio_padding_length_right", "batch_size", "precision", "quality", "smooth_box", "smooth_mask", "match_colour",
    "antialias", "no_face", "silence", "compile", "reference",
})
# fmt: on
"""Options of the musetalk engine: a job for `auto` may give them, and the preview ignores them."""


class Options(BaseModel):
    """The `options` of a job for this engine, with their defaults."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    draft: bool = False
    label: bool | Literal["AI"] = True
    face: Literal["largest"] | Annotated[int, Field(ge=0)] = "largest"
    face_box: GivenBox | None = None
    audio_track: AudioTrack | None = None
    mouth: GivenBox | None = None
    blink: bool | None = None
    sway: bool = True
    strength: Annotated[float, Field(ge=0, le=1.5)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    cycle: Literal["pingpong", "loop", "hold"] = "pingpong"


def read_options(given: dict[str, Any]) -> tuple[Options, tuple[str, ...]]:
    """Return the options, and notes on those of other engines. Raises EngineError bad_option."""
    return parse_options(Options, given, "preview", dict.fromkeys(MUSETALK, "musetalk"))
