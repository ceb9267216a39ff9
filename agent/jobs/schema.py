"""The JSON Schema of the job file, for editors and for apps that write one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.jobs.parse import (
    EXTRAS,
    FIELDS,
    JOB_NAMES,
    MOTION_NAMES,
    OUTPUT_NAMES,
    QUALITY,
    RACE_NAMES,
    VOICE_NAMES,
    Names,
    spell_like,
)
from agent.jobs.spec import MAX_VOICES, JobSpec


def build_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a job file, with the keys in three styles."""
    made = JobSpec.model_json_schema()
    fields = {key: _make_nullable(made["properties"][key]) for key in FIELDS}
    fields["output"] = {
        "description": fields["output"]["description"],
        "type": ["object", "null"],
        "properties": {key: _make_nullable(prop) for key, prop in made["$defs"]["OutputSpec"]["properties"].items()},
        "patternProperties": _make_patterns(OUTPUT_NAMES, "#/properties/output/properties"),
        "additionalProperties": False,
    }
    fields["motion"] = {
        "description": fields["motion"]["description"],
        "anyOf": [{"type": "boolean"}, _make_object(made["$defs"]["MotionSpec"], "motion/anyOf/1", MOTION_NAMES), NULL],
    }
    fields["race"] = {
        "description": fields["race"]["description"],
        "anyOf": [_make_object(made["$defs"]["RaceSpec"], "race/anyOf/0", RACE_NAMES), NULL],
    }
    fields["voices"] = {
        "description": fields["voices"]["description"],
        "type": ["array", "null"],
        "minItems": 1,
        "maxItems": MAX_VOICES,
        "items": _make_voice(made["$defs"]["VoiceSpec"]),
    }
    extras: dict[str, Any] = {key: {"description": text} for key, text in EXTRAS.items()}
    extras["quality"] = _make_nullable(extras["quality"] | {"enum": list(QUALITY)})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:musedrop:job:1",
        "title": "musedrop job, version 1",
        "description": "A face and a voice that become a talking-head video. Keys may be written in any letter case;"
        " this schema knows max_attempts, maxAttempts and MaxAttempts. A key that is null is absent.",
        "type": "object",
        "properties": {"$schema": {"type": "string"}, **fields, **extras},
        "patternProperties": _make_patterns(JOB_NAMES, "#/properties"),
        "additionalProperties": False,
        "allOf": [{"oneOf": _make_required("avatar", "template")}, {"oneOf": _make_required("audio", "voices")}],
    }


def _make_object(made: Mapping[str, Any], where: str, names: Names) -> dict[str, Any]:
    """Return an object that is one of several values, with its keys in three styles.

    `where`: its place below the properties of the job
    """
    return {
        "type": "object",
        "properties": {name: _make_nullable(prop) for name, prop in made["properties"].items()},
        "patternProperties": _make_patterns(names, f"#/properties/{where}/properties"),
        "additionalProperties": False,
    }


def _make_voice(made: Mapping[str, Any]) -> dict[str, Any]:
    where = "#/properties/voices/items/properties"
    return {
        "type": "object",
        "properties": {key: _make_nullable(prop) for key, prop in made["properties"].items()},
        "patternProperties": _make_patterns(VOICE_NAMES, where),
        "additionalProperties": False,
        "allOf": [{"oneOf": _make_required(key, names=VOICE_NAMES)} for key in ("face", "audio")],
    }


NULL = {"type": "null"}


def _make_nullable(prop: Mapping[str, Any]) -> dict[str, Any]:
    """Return a property without pydantic's titles that may be null, as unset keys are written."""
    kept = {key: prop[key] for key in ("description", "default") if prop.get(key) is not None}
    bare = {key: value for key, value in prop.items() if key not in ("title", "description", "default")}
    branches = [_allow_capitalised(branch) for branch in bare.get("anyOf", [bare]) if branch != NULL]
    return {**kept, "anyOf": [*branches, NULL]}


def _allow_capitalised(branch: dict[str, Any]) -> dict[str, Any]:
    names = branch.get("enum")
    return {**branch, "enum": [*names, *(name.capitalize() for name in names)]} if names else branch


def _list_spellings(name: str) -> list[str]:
    return list(dict.fromkeys(spell_like(name, like) for like in ("snake_case", "camelCase", "PascalCase")))


def _make_patterns(names: Names, properties: str) -> dict[str, Any]:
    """Return a pattern for the other spellings of each property, with a reference to it."""
    found: dict[str, Any] = {}
    for name, target in names.values():
        pattern = f"^({'|'.join(word for word in _list_spellings(name) if word != target)})$"
        found[pattern] = {"$ref": f"{properties}/{target}"}
    return found


def _make_required(*targets: str, names: Names = JOB_NAMES) -> list[dict[str, Any]]:
    """Return one branch for each spelling: present, and not null."""
    known = [name for name, target in names.values() if target in targets]
    given = {"not": NULL}
    return [{"required": [word], "properties": {word: given}} for name in known for word in _list_spellings(name)]
