"""The job file: from bytes of anybody's making to a `JobSpec` or a `BadJob`; and the states a job walks through.

Three rooms: `job_text` (bytes -> one JSON object), `job_spec` (what a job asks for), and here the keys in between.
Nothing here opens a file or asks a clock.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from agent.jobs.json_text import CODES, MAX_BYTES, BadJob, read_object, shown
from agent.jobs.spec import (
    AUDIO_SUFFIXES,
    AVATAR_SUFFIXES,
    IMAGE_SUFFIXES,
    PRIORITY,
    VIDEO_SUFFIXES,
    JobSpec,
    OutputSpec,
    canonical_fps,
    is_library_name,
    media_suffix,
)

__all__ = [
    "ALIASES",
    "AUDIO_SUFFIXES",
    "AVATAR_SUFFIXES",
    "CODES",
    "EXTRAS",
    "FIELDS",
    "IMAGE_SUFFIXES",
    "MAX_BYTES",
    "MOVES",
    "PRIORITY",
    "QUALITY",
    "VIDEO_SUFFIXES",
    "BadJob",
    "JobSpec",
    "JobState",
    "OutputSpec",
    "can_move",
    "canonical_fps",
    "is_library_name",
    "media_suffix",
    "pair",
    "parse",
    "read_object",
    "schema",
]

QUALITY: Mapping[str, int] = {"low": 30, "medium": 23, "high": 18, "ultra": 14}
"""`Quality` of a C# app -> `output.crf`."""

# states --------------------------------------------------------------------------------------------------------------


class JobState(StrEnum):
    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


MOVES: Mapping[JobState, frozenset[JobState]] = {
    JobState.WAITING: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}),
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED}),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset({JobState.WAITING}),
    JobState.CANCELLED: frozenset({JobState.WAITING}),
}


def can_move(old: JobState, new: JobState) -> bool:
    return new in MOVES[old]


# keys ----------------------------------------------------------------------------------------------------------------

FIELDS = tuple(name for name in JobSpec.model_fields if name != "notes")
ALIASES: Mapping[str, str] = {
    "avatar_image_path": "avatar",
    "audio_path": "audio",
    "template_id": "template",
    "cache_key": "id",
    "timeout_seconds": "timeout_s",
}
"""Another name -> the key it stands for."""
EXTRAS: Mapping[str, str] = {
    "batch_size": "Stands for `options.batch_size`.",
    "bbox_shift": "Stands for `options.bbox_shift`.",
    "quality": "low, medium, high or ultra: `output.crf` 30, 23, 18 or 14. A `crf` in `output` wins.",
    "enable_emotion": "Accepted and ignored; the result says so.",
}
"""Keys that C# apps write and that are no fields of a job."""
IGNORED_EMOTION = "EnableEmotion was ignored: no engine changes the expression of the face."

Names = Mapping[str, tuple[str, str]]
"""Folded name -> (its words joined by _, the key it stands for)."""


def _folded(key: str) -> str:
    return key.replace("_", "").replace("-", "").lower()


def _names(keys: Iterable[str], aliases: Mapping[str, str] | None = None) -> Names:
    return {_folded(name): (name, key) for name, key in {**{key: key for key in keys}, **(aliases or {})}.items()}


JOB_NAMES = _names((*FIELDS, *EXTRAS), ALIASES)
OUTPUT_NAMES = _names(OutputSpec.model_fields)


def in_style(name: str, like: str) -> str:
    """`max_attempts` as the writer of `like` would spell it: max_attempts, maxAttempts or MaxAttempts."""
    if "_" in like or like == like.lower():
        return name
    first, *rest = name.split("_")
    return "".join([first.capitalize() if like[0].isupper() else first, *(word.capitalize() for word in rest)])


def _snake(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).replace("-", "_").lower()


# reading -------------------------------------------------------------------------------------------------------------


def parse(text: bytes, max_bytes: int = MAX_BYTES) -> JobSpec:
    """Read a job file. Raises BadJob and nothing else, whatever the bytes are."""
    data = read_object(text, max_bytes)
    _check_version(data)
    values, spelled = _recognise(data, JOB_NAMES)
    _check_present(values, spelled)
    notes = () if values.pop("enable_emotion", None) is None else (IGNORED_EMOTION,)
    values["output"] = _output(values, spelled)
    values["options"] = _options(values, spelled)
    return _checked({**values, "notes": notes}, spelled)


def pair(stem: str, avatar_name: str, audio_name: str) -> JobSpec:
    """The job that two media of one stem stand for, with all defaults. Raises BadJob for a name that can't be used."""
    note = f"There is no job file {shown(stem + '.json')}: the pair was rendered with the defaults."
    return _checked({"avatar": avatar_name, "audio": audio_name, "notes": (note,)}, {})


# checking ------------------------------------------------------------------------------------------------------------

Spelled = dict[str, str]
"""Key -> how the file spells it."""


def _check_version(data: Mapping[str, Any]) -> None:
    """First of all: a later version may have other keys, and must not be told that they are unknown."""
    given = [data[key] for key in data if _folded(key) == "version" and data[key] is not None]
    if given and (given[0] != 1 or isinstance(given[0], bool)):
        message = f"version {shown(given[0])} of the job file is not known here"
        raise BadJob("bad_version", message, 'Write "version": 1, or leave it out.')


def _recognise(data: Mapping[str, Any], names: Names, where: str = "") -> tuple[dict[str, Any], Spelled]:
    """The values by their keys, without those that are null, and how each key is spelled."""
    written = [key for key in data if key != "$schema"]
    unknown = [key for key in written if _folded(key) not in names]
    if unknown:
        raise _unknown(unknown[:3], names, where)
    spelled: Spelled = {}
    for key in (key for key in written if data[key] is not None):
        target = names[_folded(key)][1]
        if target in spelled:
            raise _twice(where + spelled[target], where + key)
        spelled[target] = key
    return {target: data[key] for target, key in spelled.items()}, {t: where + key for t, key in spelled.items()}


def _unknown(keys: list[str], names: Names, where: str) -> BadJob:
    nearest = [near for key in keys if (near := _nearest(key, names))]
    known = ", ".join(name for name, target in names.values() if name == target)
    hint = f"Did you mean {', '.join(where + near for near in nearest)}?" if nearest else f"The keys are: {known}."
    return BadJob("unknown_key", f"unknown key {', '.join(shown(where + key) for key in keys)}", hint)


def _nearest(key: str, names: Names) -> str:
    if _folded(key) in OUTPUT_NAMES:
        return f"{in_style('output', key)}.{key}"
    close = difflib.get_close_matches(_folded(key)[:64], names, n=1)
    return in_style(names[close[0]][0], key) if close else ""


def _twice(first: str, second: str) -> BadJob:
    return BadJob("duplicate_key", f"{shown(first)} and {shown(second)} say the same thing", "Keep one of them.")


def _check_present(values: Mapping[str, Any], spelled: Spelled) -> None:
    if "avatar" in values and "template" in values:
        raise _twice(spelled["avatar"], spelled["template"])
    face = {"avatar": "face.jpg"} if not {"avatar", "template"} & values.keys() else {}
    voice = {"audio": "voice.wav"} if "audio" not in values else {}
    missing = {in_style(key, next(iter(spelled.values()), "")): value for key, value in (face | voice).items()}
    if missing:
        hint = "Add " + ", ".join(f'"{key}": "{value}"' for key, value in missing.items()) + "."
        raise BadJob("missing_key", f"the job doesn't say {' and '.join(missing)}", hint)


def _mapping(values: dict[str, Any], key: str, spelled: Spelled) -> dict[str, Any]:
    value = values.pop(key, {})
    if isinstance(value, dict):
        return value
    raise BadJob("bad_value", f"{spelled[key]} is {shown(value)}, not an object", f"{key}: {_description((key,))}")


def _output(values: dict[str, Any], spelled: Spelled) -> dict[str, Any]:
    """What `output` says; `quality` fills in the crf."""
    given = _mapping(values, "output", spelled)
    output, inner = _recognise(given, OUTPUT_NAMES, spelled.get("output", "output") + ".")
    spelled.update({f"output.{key}": name for key, name in inner.items()})
    quality = values.pop("quality", None)
    if quality is None:
        return output
    if not isinstance(quality, str) or quality.lower() not in QUALITY:
        message = f"{spelled['quality']} is {shown(quality)}: should be {', '.join(QUALITY)}"
        raise BadJob("bad_value", message, "In C#, write enums by name: JsonStringEnumConverter.")
    return {"crf": QUALITY[quality.lower()], **output}


def _options(values: dict[str, Any], spelled: Spelled) -> dict[str, Any]:
    """The options with names as the engines spell them, and those that C# apps write at the top."""
    where = spelled.get("options", "options") + "."
    options: dict[str, Any] = {}
    given = {where + key: (_snake(key), value) for key, value in _mapping(values, "options", spelled).items()}
    above = {spelled[key]: (key, values.pop(key)) for key in ("batch_size", "bbox_shift") if key in values}
    for written, (name, value) in {**given, **above}.items():
        if value is None:
            continue
        if name in options:
            raise _twice(spelled[f"options.{name}"], written)
        options[name] = value
        spelled[f"options.{name}"] = written
    return options


def _checked(values: dict[str, Any], spelled: Spelled) -> JobSpec:
    try:
        return JobSpec.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)[:3]
    keys = [".".join(str(part) for part in problem["loc"] if part != "[key]") for problem in problems]
    sentences = [_sentence(spelled.get(key, key), p["msg"], p["input"]) for key, p in zip(keys, problems, strict=True)]
    hint = f"{keys[0]}: {_description(problems[0]['loc'])}"
    raise BadJob("bad_value", "; ".join(sentences), hint)


def _sentence(key: str, problem: str, value: object) -> str:
    for start in ("Value error, ", "Input ", "String "):
        problem = problem.removeprefix(start)
    return f"{shown(key)[1:-1]} is {shown(value)}: {problem}"


def _description(loc: tuple[int | str, ...]) -> str:
    model = OutputSpec if len(loc) > 1 and loc[0] == "output" else JobSpec
    field = model.model_fields.get(str(loc[1 if model is OutputSpec else 0]))
    return (field and field.description) or "See docs/job-file.md."


# schema --------------------------------------------------------------------------------------------------------------


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a job file: keys in snake_case, and as C# apps write them."""
    made = JobSpec.model_json_schema()
    fields = {key: _nullable(made["properties"][key]) for key in FIELDS}
    fields["output"] = {
        "description": fields["output"]["description"],
        "type": ["object", "null"],
        "properties": {key: _nullable(prop) for key, prop in made["$defs"]["OutputSpec"]["properties"].items()},
        "patternProperties": _other_spellings(OUTPUT_NAMES, "#/properties/output/properties"),
        "additionalProperties": False,
    }
    extras: dict[str, Any] = {key: {"description": text} for key, text in EXTRAS.items()}
    extras["quality"] = _nullable(extras["quality"] | {"enum": list(QUALITY)})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:musedrop:job:1",
        "title": "musedrop job, version 1",
        "description": "A face and a voice that become a talking-head video. Keys may be written in any letter case;"
        " this schema knows max_attempts, maxAttempts and MaxAttempts. A key that is null is absent.",
        "type": "object",
        "properties": {"$schema": {"type": "string"}, **fields, **extras},
        "patternProperties": _other_spellings(JOB_NAMES, "#/properties"),
        "additionalProperties": False,
        "allOf": [{"oneOf": _required("avatar", "template")}, {"oneOf": _required("audio")}],
    }


NULL = {"type": "null"}


def _nullable(prop: Mapping[str, Any]) -> dict[str, Any]:
    """A property without pydantic's titles; null allowed, because serialisers write it for what is not set."""
    kept = {key: prop[key] for key in ("description", "default") if prop.get(key) is not None}
    bare = {key: value for key, value in prop.items() if key not in ("title", "description", "default")}
    branches = [_any_case(branch) for branch in bare.get("anyOf", [bare]) if branch != NULL]
    return {**kept, "anyOf": [*branches, NULL]}


def _any_case(branch: dict[str, Any]) -> dict[str, Any]:
    names = branch.get("enum")
    return {**branch, "enum": [*names, *(name.capitalize() for name in names)]} if names else branch


def _spellings(name: str) -> list[str]:
    return list(dict.fromkeys(in_style(name, like) for like in ("snake_case", "camelCase", "PascalCase")))


def _other_spellings(names: Names, properties: str) -> dict[str, Any]:
    """Patterns of the keys that are not a property's own name, each leading to its property."""
    found: dict[str, Any] = {}
    for name, target in names.values():
        pattern = f"^({'|'.join(word for word in _spellings(name) if word != target)})$"
        found[pattern] = {"$ref": f"{properties}/{target}"}
    return found


def _required(*targets: str) -> list[dict[str, Any]]:
    """One branch for each spelling: there, and not null."""
    names = [name for name, target in JOB_NAMES.values() if target in targets]
    given = {"not": NULL}
    return [{"required": [word], "properties": {word: given}} for name in names for word in _spellings(name)]
