"""What the figures of a result give cause to warn of. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agent.settings import QualitySettings

LOW: Mapping[str, tuple[str, str]] = {
    "sharpness": (
        "min_sharpness",
        "the mouth has {share} of the detail of the upper face: use an avatar whose face is smaller in pixels, or a"
        " smaller output.height",
    ),
    "drift": (
        "min_drift",
        "in its softest second the mouth has {share} of the detail of the first second: use a shorter or steadier video"
        " as the avatar",
    ),
    "sync": (
        "min_sync",
        "the mouth follows the voice badly (a correlation of {value:g}): use a recording of one clear voice without"
        " music",
    ),
}
"""Figure -> the setting below which it is low, and what is said then."""
HIGH: Mapping[str, tuple[str, str]] = {
    "jitter": ("max_jitter", "the mouth trembles by {value:g} % of the face: use a steadier or sharper avatar"),
    "seam": (
        "max_seam",
        "the tone steps by {value:g} levels where the painted mouth ends: use an evenly lit avatar",
    ),
    "no_face": (
        "max_no_face",
        "{share} of the frames show no face, and their mouth does not move: cut the avatar, or use another",
    ),
    "lag_ms": (
        "max_lag_ms",
        "the mouth comes {value:+g} ms after the voice: cut the audio so that it begins where its file says",
    ),
    "silent_motion": (
        "max_silent_motion",
        "the mouth moves in {share} of the silence: use a recording with less noise, or silence its pauses",
    ),
}
"""Figure -> the setting above which it is high, whatever its sign, and what is said then."""


def list_warnings(quality: Mapping[str, Any] | None, limits: QualitySettings) -> list[str]:
    """Return a sentence for each figure that is beyond its limit, with what to do. What is not known gives none."""
    return list(_find_warnings(quality or {}, limits.model_dump()))


def _find_warnings(quality: Mapping[str, Any], limits: Mapping[str, float]) -> Iterator[str]:
    is_heard = (quality.get("sync") or 0.0) >= limits["min_sync"]
    for name, (limit, text) in {**LOW, **HIGH}.items():
        value = quality.get(name)
        if value is None or (name == "lag_ms" and not is_heard):
            continue
        if value < limits[limit] if name in LOW else abs(value) > limits[limit]:
            yield text.format(value=value, share=f"{100 * value:.0f} %")
