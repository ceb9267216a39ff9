"""The job file: bytes of any origin become a `JobSpec`, or a `BadJob` is raised.

`json_text` makes one JSON object of the bytes, `spec` checks the values; here the keys are
recognised. Nothing in this package opens a file or reads a clock.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ValidationError

from agent.errors import ErrorCode
from agent.jobs.json_text import MAX_BYTES, UTF16, BadJob, format_value, read_object
from agent.jobs.spec import DRAFT, JobSpec, MotionSpec, OutputSpec, RaceSpec, VoiceSpec

QUALITY: Mapping[str, int] = {"low": 30, "medium": 23, "high": 18, "ultra": 14}
"""`Quality` of a C# app -> `output.crf`."""

# keys ----------------------------------------------------------------------------------------------------------------

FIELDS = tuple(name for name in JobSpec.model_fields if name not in ("notes", "batch"))
ALIASES: Mapping[str, str] = {
    "avatar_image_path": "avatar",
    "audio_path": "audio",
    "template_id": "template",
    "cache_key": "id",
    "timeout_seconds": "timeout_s",
    "from_seconds": "from_s",
    "to_seconds": "to_s",
    "soundtrack_path": "soundtrack",
    "background_path": "background",
    "code": "id",
    "video_url": "avatar",
    "audio_url": "audio",
}
"""Another name, of a C# app or of Duix.Avatar -> the key it stands for."""
EXTRAS: Mapping[str, str] = {
    "batch_size": "Stands for `options.batch_size`.",
    "bbox_shift": "Stands for `options.bbox_shift`.",
    "quality": "low, medium, high or ultra: `output.crf` 30, 23, 18 or 14. A `crf` in `output` wins.",
    "enable_emotion": "Accepted and ignored; the result says so.",
    "chaofen": "Of Duix.Avatar: accepted and ignored; the result says so unless it is 0.",
    "watermark_switch": "Of Duix.Avatar: accepted and ignored; the result says so unless it is 0.",
    "pn": "Of Duix.Avatar: accepted and ignored.",
}
"""Keys that C# apps and Duix.Avatar write and that are no fields of a job."""
MAX_OPTIONS_CHARS = 16_384
IGNORED: Mapping[str, str] = {
    "enable_emotion": "EnableEmotion was ignored: no engine changes the expression of the face.",
    "chaofen": "chaofen was ignored: no engine makes a face sharper than its network does.",
    "watermark_switch": "watermark_switch was ignored: there are no watermarks.",
    "pn": "",
}
"""What the result says of keys that are accepted and ignored."""

MAX_ID_CHARS = 128

Names = Mapping[str, tuple[str, str]]
"""Folded name -> (its words joined by _, the key that it stands for)."""


def _fold_key(key: str) -> str:
    return key.replace("_", "").replace("-", "").lower()


def _index_names(keys: Iterable[str], aliases: Mapping[str, str] | None = None) -> Names:
    return {_fold_key(name): (name, key) for name, key in {**{key: key for key in keys}, **(aliases or {})}.items()}


JOB_NAMES = _index_names((*FIELDS, *EXTRAS), ALIASES)
OUTPUT_NAMES = _index_names(OutputSpec.model_fields)
MOTION_NAMES = _index_names(MotionSpec.model_fields)
RACE_NAMES = _index_names(RaceSpec.model_fields)
VOICE_NAMES = _index_names(VoiceSpec.model_fields, {"audio_path": "audio", "from_seconds": "from_s"})


def spell_like(name: str, like: str) -> str:
    """Return `name` in the style of `like`: max_attempts, maxAttempts or MaxAttempts."""
    if "_" in like or like == like.lower():
        return name
    first, *rest = name.split("_")
    return "".join([first.capitalize() if like[0].isupper() else first, *(word.capitalize() for word in rest)])


def _to_snake_case(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).replace("-", "_").lower()


# reading -------------------------------------------------------------------------------------------------------------


def parse_job(text: bytes, max_bytes: int = MAX_BYTES) -> JobSpec:
    """Return the job that a job file asks for.

    Raises BadJob and nothing else, whatever the bytes are.
    """
    data = read_object(text, max_bytes)
    _check_version(data)
    values, spelled = _match_keys(data, JOB_NAMES)
    _check_present(values, spelled)
    notes = _take_ignored(values)
    if "voices" in values:
        values["voices"] = _read_voices(values["voices"], spelled)
    if not isinstance(values.get("motion", True), bool):
        values["motion"] = _read_motion(_take_object(values, "motion", spelled), spelled)
    if "race" in values:
        values["race"] = _read_race(values, spelled)
    values["output"] = _take_output(values, spelled)
    values["options"] = _take_options(values, spelled)
    if values["options"].get(DRAFT) is True:
        values |= {"engine": "preview", **dict.fromkeys(OF_WHOLE_RESULTS)}
        values["output"].pop("alpha", None)
    return _validate({**values, "notes": notes}, spelled)


def pair_media(stem: str, avatar_name: str, audio_name: str) -> JobSpec:
    """Return the job that two media of one stem stand for, with all defaults.

    Raises BadJob for a name that can't be used.
    """
    note = f"There is no job file {format_value(stem + '.json')}: the pair was rendered with the defaults."
    return _validate({"avatar": avatar_name, "audio": audio_name, "notes": (note,)}, {})


OF_WHOLE_RESULTS = ("from_s", "to_s", "soundtrack", "soundtrack_db", "race")
"""Keys that have no effect on a draft, which is one frame of the preview engine."""
NAMED_VALUE = re.compile(rb'"([A-Za-z_-]{2,20})"\s*:\s*("(?:[^"\\]|\\.){1,1024}")')


def find_media_names(text: bytes) -> dict[str, str]:
    """Return the `avatar` and `audio` that the text of a refused job names, also where it is no JSON."""
    found = _find_texts(text)
    return {key: found[key] for key in ("avatar", "audio") if key in found}


def find_id(text: bytes) -> str | None:
    """Return the `id` of a refused job, by which its sender waits for it, also where it is no JSON."""
    found = _find_texts(text).get("id")
    return found if found and len(found) <= MAX_ID_CHARS and found.isprintable() else None


def _find_texts(text: bytes) -> dict[str, str]:
    """Return the texts in what may be JSON, by the keys of a job that they stand for."""
    if text.startswith(UTF16):
        text = text.decode("utf-16", "replace").encode("utf-8", "replace")
    found: dict[str, str] = {}
    for key, value in NAMED_VALUE.findall(text[:MAX_BYTES]):
        with suppress(ValueError):
            found[JOB_NAMES.get(_fold_key(key.decode()), ("", ""))[1]] = str(json.loads(value))
    return found


def voice_for(avatar: str, audio_name: str) -> JobSpec:
    """Return the job that a voice in a folder with the name of a library avatar stands for."""
    note = f"There is no job file: the voice was in the folder of the avatar {format_value(avatar)}."
    return _validate({"template": avatar, "audio": audio_name, "notes": (note,)}, {})


# checking ------------------------------------------------------------------------------------------------------------

Spelling = dict[str, str]
"""Key -> its spelling in the file."""


def _check_version(data: Mapping[str, Any]) -> None:
    """Check the version before the keys, since a later version may have other keys."""
    given = [data[key] for key in data if _fold_key(key) == "version" and data[key] is not None]
    if given and (given[0] != 1 or isinstance(given[0], bool)):
        message = f"version {format_value(given[0])} of the job file is not known here"
        raise BadJob(ErrorCode.BAD_VERSION, message)


def _match_keys(data: Mapping[str, Any], names: Names, where: str = "") -> tuple[dict[str, Any], Spelling]:
    """Return the values that are not null by their keys, and the spelling of each key."""
    written = [key for key in data if key != "$schema"]
    unknown = [key for key in written if _fold_key(key) not in names]
    if unknown:
        raise _make_unknown_error(unknown[:3], names, where)
    spelled: Spelling = {}
    for key in (key for key in written if data[key] is not None):
        target = names[_fold_key(key)][1]
        if target in spelled:
            raise _make_duplicate_error(where + spelled[target], where + key)
        spelled[target] = key
    return {target: data[key] for target, key in spelled.items()}, {t: where + key for t, key in spelled.items()}


def _make_unknown_error(keys: list[str], names: Names, where: str) -> BadJob:
    nearest = [near for key in keys if (near := _find_nearest(key, names))]
    known = ", ".join(name for name, target in names.values() if name == target)
    hint = f"Did you mean {', '.join(where + near for near in nearest)}?" if nearest else f"The keys are: {known}."
    return BadJob(ErrorCode.UNKNOWN_KEY, f"unknown key {', '.join(format_value(where + key) for key in keys)}", hint)


def _find_nearest(key: str, names: Names) -> str:
    if _fold_key(key) in OUTPUT_NAMES:
        return f"{spell_like('output', key)}.{key}"
    close = difflib.get_close_matches(_fold_key(key)[:64], names, n=1)
    return spell_like(names[close[0]][0], key) if close else ""


def _make_duplicate_error(first: str, second: str) -> BadJob:
    return BadJob(ErrorCode.DUPLICATE_KEY, f"{format_value(first)} and {format_value(second)} say the same thing")


def _check_present(values: Mapping[str, Any], spelled: Spelling) -> None:
    if "avatar" in values and "template" in values:
        raise _make_duplicate_error(spelled["avatar"], spelled["template"])
    if "audio" in values and "voices" in values:
        raise _make_duplicate_error(spelled["audio"], spelled["voices"])
    face = {"avatar": "face.jpg"} if not {"avatar", "template"} & values.keys() else {}
    voice = {"audio": "voice.wav"} if not {"audio", "voices"} & values.keys() else {}
    missing = {spell_like(key, next(iter(spelled.values()), "")): value for key, value in (face | voice).items()}
    if missing:
        hint = "Add " + ", ".join(f'"{key}": "{value}"' for key, value in missing.items()) + "."
        raise BadJob(ErrorCode.MISSING_KEY, f"the job doesn't say {' and '.join(missing)}", hint)


def _take_object(values: dict[str, Any], key: str, spelled: Spelling) -> dict[str, Any]:
    value = values.pop(key, {})
    if isinstance(value, dict):
        return value
    raise BadJob(
        ErrorCode.BAD_VALUE, f"{spelled[key]} is {format_value(value)}, not an object", f"{key}: {_describe((key,))}"
    )


def _read_voices(value: object, spelled: Spelling) -> tuple[dict[str, Any], ...]:
    """Return the voices with the keys of `VoiceSpec`."""
    voices = []
    for number, given in enumerate(value if isinstance(value, list) else [value]):
        if not isinstance(given, dict) or not isinstance(value, list):
            message = f"{spelled['voices']} is {format_value(value)}: should be a list of objects"
            raise BadJob(ErrorCode.BAD_VALUE, message, f"voices: {_describe(('voices',))}")
        voice, inner = _match_keys(given, VOICE_NAMES, f"{spelled['voices']}.{number}.")
        spelled.update({f"voices.{number}.{key}": name for key, name in inner.items()})
        voices.append(voice)
    return tuple(voices)


def _read_motion(given: dict[str, Any], spelled: Spelling) -> dict[str, Any]:
    """Return the values with the keys of `MotionSpec`; those of its options are in snake_case."""
    motion, inner = _match_keys(given, MOTION_NAMES, f"{spelled['motion']}.")
    spelled.update({f"motion.{key}": name for key, name in inner.items()})
    if isinstance(motion.get("options"), dict):
        motion["options"] = {
            _to_snake_case(key): value for key, value in motion["options"].items() if value is not None
        }
        _check_size(motion["options"], f"{spelled['motion']}.options")
    return motion


def _read_race(values: dict[str, Any], spelled: Spelling) -> dict[str, Any]:
    """Return the race with the keys of `RaceSpec`."""
    race, inner = _match_keys(_take_object(values, "race", spelled), RACE_NAMES, f"{spelled['race']}.")
    spelled.update({f"race.{key}": name for key, name in inner.items()})
    return {key: tuple(value) if isinstance(value, list) else value for key, value in race.items()}


def _take_ignored(values: dict[str, Any]) -> tuple[str, ...]:
    """Take out of the values what is accepted and ignored; return a note on each that asks for something."""
    given = {key: values.pop(key) for key in IGNORED if key in values}
    return tuple(IGNORED[key] for key, value in given.items() if IGNORED[key] and (key == "enable_emotion" or value))


def _take_output(values: dict[str, Any], spelled: Spelling) -> dict[str, Any]:
    """Take `output` out of the values; `quality` sets its crf where it has none."""
    given = _take_object(values, "output", spelled)
    output, inner = _match_keys(given, OUTPUT_NAMES, spelled.get("output", "output") + ".")
    spelled.update({f"output.{key}": name for key, name in inner.items()})
    quality = values.pop("quality", None)
    if quality is None:
        return output
    if not isinstance(quality, str) or quality.lower() not in QUALITY:
        message = f"{spelled['quality']} is {format_value(quality)}: should be {', '.join(QUALITY)}"
        raise BadJob(ErrorCode.BAD_VALUE, message, "In C#, write enums by name: JsonStringEnumConverter.")
    return {"crf": QUALITY[quality.lower()], **output}


def _take_options(values: dict[str, Any], spelled: Spelling) -> dict[str, Any]:
    """Take the options out of the values, in snake_case, with those beside `options` (C# apps)."""
    where = spelled.get("options", "options") + "."
    options: dict[str, Any] = {}
    given = {
        where + key: (_to_snake_case(key), value) for key, value in _take_object(values, "options", spelled).items()
    }
    above = {spelled[key]: (key, values.pop(key)) for key in ("batch_size", "bbox_shift") if key in values}
    for written, (name, value) in {**given, **above}.items():
        if value is None:
            continue
        if name in options:
            raise _make_duplicate_error(spelled[f"options.{name}"], written)
        options[name] = value
        spelled[f"options.{name}"] = written
    _check_size(options, spelled.get("options", "options"))
    return options


def _check_size(options: Mapping[str, Any], where: str) -> None:
    """Refuse options that no engine has; they go to workers again and again, and into result.json."""
    if len(json.dumps(options)) > MAX_OPTIONS_CHARS:
        message = f"{where} has more than {MAX_OPTIONS_CHARS} characters"
        raise BadJob(ErrorCode.BAD_VALUE, message, "Leave out what is no option of an engine.")


def _validate(values: dict[str, Any], spelled: Spelling) -> JobSpec:
    try:
        return JobSpec.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
    inner = {problem["loc"][:-1] for problem in found}  # a list lacks what was wrong in it
    problems = [problem for problem in found if problem["loc"] not in inner][:3]
    keys = [".".join(str(part) for part in problem["loc"] if part != "[key]") for problem in problems]
    sentences = [
        _format_problem(spelled.get(key, key), p["msg"], p["input"]) for key, p in zip(keys, problems, strict=True)
    ]
    hint = f"{keys[0]}: {_describe(problems[0]['loc'])}"
    raise BadJob(ErrorCode.BAD_VALUE, "; ".join(sentences), hint)


PLAIN_WORDS: Mapping[str, str] = {
    "should be less than or equal to": "should be at most",
    "should be greater than or equal to": "should be at least",
    "should be greater than 0": "should be above 0",
    "should be a valid integer": "should be a whole number, without quotes",
    "should be a valid number": "should be a number, without quotes",
    "should be a valid string": "should be a text",
    "should be a valid boolean": "should be true or false",
    "should be a valid tuple": "should be a list, in [ ]",
    "should have at least 1 character": "should not be empty",
    "should match pattern '^[a-z][a-z0-9_]*$'": "should be small letters, digits and _",
}
"""What pydantic says -> what it means for people who write a job file."""


def _format_problem(key: str, problem: str, value: object) -> str:
    for start in ("Value error, ", "Input ", "String ", "Tuple "):
        problem = problem.removeprefix(start)
    for words, plain in PLAIN_WORDS.items():
        problem = problem.partition(" after validation")[0].replace(words, plain)
    return f"{format_value(key)[1:-1]} is {format_value(value)}: {problem}"


def _describe(loc: tuple[int | str, ...]) -> str:
    inner: Mapping[int | str, type[BaseModel]]
    inner = {"motion": MotionSpec, "output": OutputSpec, "race": RaceSpec, "voices": VoiceSpec}
    model = inner.get(loc[0], JobSpec) if len(loc) > 1 else JobSpec
    field = model.model_fields.get(str(loc[0 if model is JobSpec else 1 if model in (MotionSpec, RaceSpec) else -1]))
    return (field and field.description) or "See docs/job-file.md."
