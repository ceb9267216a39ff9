"""What a manifest says of a result. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LABEL = "org.musedrop.result"
"""The label of our own assertion."""
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""Pictures of a person, parts of which a program has made."""
MOTION_KEYS = ("engine", "weights", "pipeline", "scheduler", "seed")
"""What is told of the clip that was made of a photo; what it was to show is not."""
FORMATS = {"result.mp4": "video/mp4", "result.mov": "video/quicktime"}


def make_manifest(record: Mapping[str, Any], version: str, *, names: bool) -> dict[str, Any]:
    """Return the manifest of a result, from its result.json.

    names   whether the names of job, inputs and machines are told, too
    """
    agent = {"name": "musedrop", "version": version}
    action = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, "softwareAgent": agent}
    return {
        "claim_generator_info": [agent],
        "title": _replace_odd(record["name"]) if names else "musedrop result",
        "format": FORMATS[record["video"]],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [action]}, "created": True},
            {"label": LABEL, "data": describe_result(record, version, names=names), "created": True},
        ],
    }


def describe_result(record: Mapping[str, Any], version: str, *, names: bool) -> dict[str, Any]:
    """Return what we assert: engine and weights, inputs, how the mouth was edited, and where it was made."""
    keys = (
        *("uid", "engine", "frames", "fps", "width", "height", "duration_s", "encoder", "audio_codec", "painted"),
        *("kind", "spans", "label"),
    )
    said = {key: record[key] for key in keys if record.get(key) is not None}
    clip = record.get("motion") or {}
    motion = {key: clip[key] for key in MOTION_KEYS if clip.get(key) is not None}
    devices = [device if names else device.rpartition("/")[2] for device in record.get("devices") or ()]
    return {
        **said,
        **({"motion": motion} if motion else {}),
        "devices": list(dict.fromkeys(devices)),
        "version": version,
        "generated_by_ai": True,
        "edited": f"the mouth follows the given voice{', in a clip that was made of a photo' if motion else ''}",
        "weights_sha256": record.get("weights_sha256") or {},
        "inputs": {role: _describe_input(medium, names=names) for role, medium in list_inputs(record).items()},
    }


def list_inputs(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the media of a result by their roles, with `given` and `sha256`."""
    found = {role: record.get(role) for role in ("avatar", "audio", "soundtrack", "background")}
    voices = {f"voice-{number}": voice for number, voice in enumerate(record.get("voices") or ())}
    return {role: medium for role, medium in {**found, **voices}.items() if isinstance(medium, Mapping)}


def _describe_input(medium: Mapping[str, Any], *, names: bool) -> dict[str, Any]:
    named = {"name": _replace_odd(medium.get("given"))} if names else {}
    return {"sha256": medium.get("sha256"), **named}


def _replace_odd(name: Any) -> str:
    """Return a name whose bytes are text: a manifest can't have others."""
    return str(name).encode("utf-8", "replace").decode()
