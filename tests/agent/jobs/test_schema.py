"""The JSON Schema of the job file, as a validator reads it: it takes what `parse_job` takes, and refuses the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from agent.jobs.parse import ALIASES, EXTRAS, FIELDS, spell_like
from agent.jobs.schema import build_schema
from agent.jobs.spec import JobSpec
from tests.agent.jobs.test_parse import REFUSED
from tests.agent.jobs.texts import PAGE, ROOT, SPECS

SCHEMA_FILE = ROOT / "docs" / "job-file.schema.json"
VALIDATOR = Draft202012Validator(build_schema())
EXAMPLES = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
SMALLEST = {"avatar": "face.jpg", "audio": "voice.wav"}
FACES = ("avatar", "template", "avatar_image_path", "template_id", "video_url")
STYLES = ("snake_case", "camelCase", "PascalCase")
VALUES: dict[str, Any] = {
    "motion": {"seconds": 6, "seed": 1},
    "engine": "preview",
    "fps": 25,
    "priority": "high",
    "strategy": "race",
    "race": {"Seeds": 2},
    "options": {"batchSize": 4},
    "output": {"Crf": 20},
    "max_attempts": 2,
    "strict": True,
    "preview_first": True,
    "timeout_s": 5,
    "timeout_seconds": 5,
    "voices": [{"face": 0, "audio": "a.wav"}],
    "from_s": 1,
    "from_seconds": 1,
    "to_s": 2,
    "to_seconds": 2,
    "soundtrack_db": -6,
    "background": "wall.jpg",
    "background_path": "wall.jpg",
    "version": 1,
    "batch_size": 4,
    "bbox_shift": 1,
    "quality": "low",
    "enable_emotion": True,
}
"""A value that each key takes; a text for the others."""
UNTYPED = ("enable_emotion", "batch_size", "bbox_shift", "chaofen", "watermark_switch", "pn")
"""Keys of any value: the first is ignored, the others are options, which the engine checks."""
BEYOND = (
    '"race": {"seeds": 1}',
    '"race": {"engines": ["preview", "preview"]',
    '"Strategy": "queue"',
    '"engine": "preview"}',
    '"face": 1',
    '"from_s": 1}',
    '"from_s": 2',
    '"soundtrack_db": -6',
    '"alpha": true',
    '"id": " "',
    '"priority": "101"',
    '"../a"',
    "\\",
    '"x": "\U0001f600',
    '"x": [1',
    '"f.mp4"',
)
"""Parts of documents that are wrong in a way that the schema doesn't express: mostly characters in texts."""


def is_valid(document: object) -> bool:
    return bool(VALIDATOR.is_valid(document))


def test_the_published_schema_is_the_codes_schema() -> None:
    """docs/job-file.schema.json is what `musedrop schema` prints; write it anew when this fails."""
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == build_schema()


def test_the_schema_is_a_schema() -> None:
    """It is right by the rules of its own draft, and describes every key."""
    Draft202012Validator.check_schema(build_schema())
    properties = build_schema()["properties"]
    assert set(properties) == {"$schema", *FIELDS, *EXTRAS}
    assert all(properties[key]["description"] for key in (*FIELDS, *EXTRAS))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("key", [*FIELDS, *ALIASES, *EXTRAS])
def test_the_schema_knows_every_key_in_three_styles(key: str, style: str) -> None:
    """snake_case, camelCase and PascalCase, each with the rules of the key, and null for what is not set."""
    target = ALIASES.get(key, key)
    base = {
        name: value
        for name, value in SMALLEST.items()
        if name != {"template": "avatar", "voices": "audio"}.get(target, target)
    }
    written = spell_like(key, style)
    assert is_valid({**base, written: VALUES.get(key, "x")})
    assert is_valid({**SMALLEST, written: None} if written not in SMALLEST else SMALLEST)
    assert key in UNTYPED or not is_valid({**base, written: {"no": ["such", {"value": 1}]}})


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_example_of_the_docs_is_valid_with_one_face_and_one_voice(text: str) -> None:
    """Also where a serialiser writes null for the face that is not used; two faces, or none, are not valid."""
    document = json.loads(text)
    assert is_valid(document)
    faces = {spell_like(face, style) for face in FACES for style in STYLES}
    without = {key: value for key, value in document.items() if key not in faces}
    assert not is_valid(without)
    assert not is_valid({**without, "avatar": "a.jpg", "TemplateId": "anna"})
    assert is_valid({**without, "avatar": "a.jpg", "TemplateId": None})
    voices = {spell_like(voice, style) for voice in ("audio", "audio_path", "audio_url", "voices") for style in STYLES}
    assert not is_valid({key: value for key, value in document.items() if key not in voices})


def wrong_documents() -> Iterator[Any]:
    """The documents that `parse_job` refuses, but for texts that are no JSON and for what the schema can't express."""
    for code, text, says in REFUSED:
        twice = code == "duplicate_key" and says not in ("Avatar", "AvatarImagePath", "TemplateId")
        if code != "not_json" and not twice and not any(part in text for part in BEYOND):
            with suppress(ValueError, RecursionError):
                yield json.loads(text)


@pytest.mark.parametrize("document", list(wrong_documents()))
def test_the_schema_refuses_what_the_reader_refuses(document: object) -> None:
    """An editor marks the mistakes that the daemon would refuse."""
    assert not is_valid(document)


@settings(deadline=None)
@given(SPECS)
def test_every_job_that_is_written_is_valid(spec: JobSpec) -> None:
    """The job files that clients make of a spec."""
    assert is_valid(json.loads(spec.to_json_text()))
