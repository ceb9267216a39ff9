"""The keys of a job file: what is taken, what is refused and how, and that nothing else can happen."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.jobs.json_text import BadJob
from agent.jobs.parse import ALIASES, EXTRAS, FIELDS, QUALITY, find_id, find_media_names, pair_media, parse_job
from agent.jobs.spec import AUDIO_SUFFIXES, AVATAR_SUFFIXES, JobSpec, MotionSpec, OutputSpec, RaceSpec, VoiceSpec
from models.preview.options import Options
from tests.agent.jobs.texts import CODES, PAGE, ROOT, a_job, a_text, answer, refused

# what is taken --------------------------------------------------------------------------------------------------------


def test_the_smallest_job_has_the_documented_defaults() -> None:
    """A face and a voice are enough."""
    spec = parse_job(b'{"avatar": "face.jpg", "audio": "voice.wav"}')
    assert (spec.version, spec.avatar, spec.audio, spec.template) == (1, "face.jpg", "voice.wav", None)
    assert (spec.engine, spec.fps, spec.priority, spec.strategy) == ("auto", None, 0, "auto")
    assert (spec.options, spec.output, spec.id, spec.submitter) == ({}, OutputSpec(), None, None)
    assert (spec.max_attempts, spec.timeout_s, spec.notes) == (3, None, ())


def test_a_job_as_a_csharp_app_writes_it() -> None:
    """Every name that C# apps use reaches the key it stands for."""
    spec = parse_job(
        json.dumps(
            {
                "AvatarImagePath": "face.jpg",
                "TemplateId": None,
                "AudioPath": "voice.wav",
                "Fps": 29.97,
                "BatchSize": 8,
                "BboxShift": -3,
                "Quality": "Low",
                "Priority": "High",
                "CacheKey": "k-1",
                "EnableEmotion": True,
                "Engine": "Preview",
                "Strategy": "Split",
                "MaxAttempts": 5,
                "TimeoutSeconds": 60,
                "Output": {"Height": 721, "Crf": None, "Encoder": "LibX264"},
                "Options": {"ExtraMargin": 10, "Unset": None},
            }
        ).encode()
    )
    assert (spec.avatar, spec.audio, spec.fps, spec.id) == ("face.jpg", "voice.wav", "30000/1001", "k-1")
    assert (spec.engine, spec.strategy, spec.priority) == ("preview", "split", 10)
    assert spec.options == {"extra_margin": 10, "batch_size": 8, "bbox_shift": -3}
    assert spec.output == OutputSpec(crf=QUALITY["low"], encoder="libx264", height=720)
    assert (spec.max_attempts, spec.timeout_s) == (5, 60.0)
    assert len(spec.notes) == 1
    assert "EnableEmotion" in spec.notes[0]


def test_several_faces_each_with_its_voice() -> None:
    """Their keys may be written like all others, and their sounds have roles of their own."""
    voices = [{"face": 1, "audio": "a.wav"}, {"Face": 0, "AudioPath": "b.wav", "FromS": 4.0}]
    spec = parse_job(json.dumps({"avatar": "two.jpg", "Voices": voices}).encode())
    assert spec.audio is None
    assert [(v.face, v.audio, v.from_s) for v in spec.voices or ()] == [(1, "a.wav", None), (0, "b.wav", 4.0)]
    assert spec.media_names == {"audio": "a.wav", "audio-1": "b.wav"}


@pytest.mark.parametrize(
    ("given", "colour", "file"),
    [
        ("white", "#ffffff", None),
        ("Green", "#008000", None),
        ("#00B140", "#00b140", None),
        ("#0b4", "#00bb44", None),
        ("wall.jpg", "", "wall.jpg"),
        ("#1 wall.png", "", "#1 wall.png"),
        ("pictures/wall.tif", "", "pictures/wall.tif"),
    ],
)
def test_a_background_is_a_colour_or_a_picture(given: str, colour: str, file: str | None) -> None:
    """A picture is one of the media of the job, a colour isn't."""
    for key in ("background", "BackgroundPath"):
        spec = parse_job(f'{{"avatar": "a.png", "audio": "b.wav", "{key}": "{given}"}}'.encode())
        assert (spec.background_colour, spec.media_names.get("background")) == (colour, file)
    assert parse_job(spec.to_json_text().encode()).background == spec.background


def test_a_job_of_duix_avatar() -> None:
    """Its names are understood; what it asks for that is not there gets a note."""
    text = {
        "code": "7f",
        "video_url": "face.mp4",
        "audio_url": "voice.wav",
        "chaofen": 0,
        "watermark_switch": 1,
        "pn": 1,
    }
    spec = parse_job(json.dumps(text).encode())
    assert (spec.id, spec.avatar, spec.audio) == ("7f", "face.mp4", "voice.wav")
    assert [note.partition(" ")[0] for note in spec.notes] == ["watermark_switch"]


@pytest.mark.parametrize(
    "key", ["max_attempts", "MaxAttempts", "maxAttempts", "MAXATTEMPTS", "maxattempts", "max-attempts", "Max_Attempts"]
)
def test_keys_in_any_letter_case(key: str) -> None:
    """However a serialiser spells a key, it is the same key."""
    assert a_job(**{key: 7}).max_attempts == 7


@pytest.mark.parametrize("alias", [*ALIASES, *EXTRAS])
def test_every_alias_is_taken_in_three_styles(alias: str) -> None:
    """snake_case, camelCase and PascalCase of each further name."""
    values: dict[str, Any] = {"quality": "high", "timeout_seconds": 3, "batch_size": 3, "bbox_shift": 3}
    values |= {"from_seconds": 3, "to_seconds": 3, "background_path": "wall.jpg"}
    first, *rest = alias.split("_")
    camel = first + "".join(word.capitalize() for word in rest)
    for key in (alias, camel, camel[0].upper() + camel[1:]):
        base: dict[str, Any] = {"avatar": "face.jpg", "audio": "voice.wav"}
        base = {
            k: v for k, v in base.items() if k != {"template": "avatar"}.get(ALIASES.get(alias, ""), ALIASES.get(alias))
        }
        spec = parse_job(json.dumps({**base, key: values.get(alias, "x")}).encode())
        target = ALIASES.get(alias)
        assert target is None or getattr(spec, target) == values.get(alias, "x")


@pytest.mark.parametrize(("name", "crf"), QUALITY.items())
def test_quality_is_a_preset_and_an_explicit_crf_wins(name: str, crf: int) -> None:
    """Quality fills in the crf only where the job doesn't say one."""
    assert a_job(Quality=name.upper()).output.crf == crf
    assert a_job(Quality=name, output={"height": 480}).output == OutputSpec(crf=crf, height=480)
    assert a_job(Quality=name, output={"crf": 1}).output.crf == 1
    assert a_job(Quality=name, output={"crf": None}).output.crf == crf


def test_null_is_absent() -> None:
    """A serialiser that writes every property says nothing by null."""
    keys = {**dict.fromkeys(FIELDS), **dict.fromkeys(ALIASES), **dict.fromkeys(EXTRAS)}
    given_keys = {**keys, "avatar": "face.jpg", "audio": "voice.wav"}
    assert parse_job(json.dumps(given_keys).encode()) == a_job()


def test_a_schema_reference_for_editors_is_no_key_of_the_job() -> None:
    """`$schema` is what makes an editor complete the keys."""
    assert a_job(**{"$schema": "job-file.schema.json"}) == a_job()


def test_a_pair_is_a_job_with_all_defaults() -> None:
    """Two media of one stem need no job file, and the result says that there was none."""
    spec = pair_media("hello", "hello.jpg", "hello.wav")
    assert spec.model_copy(update={"notes": ()}) == parse_job(b'{"avatar": "hello.jpg", "audio": "hello.wav"}')
    assert "hello.json" in spec.notes[0]


@settings(deadline=None)
@given(st.text(), st.text(), st.text())
@example("a", "a\udcff.jpg", "a.wav")
@example("a\udcff", "a\nb.jpg", "a.wav")
def test_a_pair_of_any_names_is_a_job_or_refused(stem: str, avatar: str, audio: str) -> None:
    """File names are hostile too."""
    got = answer(pair_media, stem, avatar, audio)
    if isinstance(got, BadJob):
        assert got.code == "bad_value"
    else:
        assert (got.avatar, got.audio) == (avatar, audio)
        assert JobSpec.model_validate_json(got.model_dump_json()) == got


def test_a_photo_that_moves_is_described_in_any_style() -> None:
    """True takes the defaults, false and null are absent; names are spelled in any way, a prompt may have lines."""
    assert a_job(motion=True) == a_job(motion={})
    assert a_job(motion=False) == a_job(motion=None) == a_job()
    motion = a_job(Motion={"NegativePrompt": "a\r\n\tb", "Seed": 4294967295, "Options": {"MotionSpeed": 2}}).motion
    assert motion is not None
    assert (motion.negative_prompt, motion.prompt, motion.seed) == ("a b", None, 4294967295)
    assert motion.options == {"motion_speed": 2}


# what is refused ------------------------------------------------------------------------------------------------------

FACE = '{"avatar": "f.jpg", "audio": "v.wav"'
SEVERAL = '{"avatar": "f.jpg", "voices": '
TWO_OF_ONE = SEVERAL + '[{"face": 1, "audio": "a.wav"}, {"face": 1, "audio": "b.wav"}'

REFUSED = [
    ("bad_value", FACE + ', "race": {"seeds": 1}}', "two or more seeds"),
    ("bad_value", FACE + ', "race": {"engines": ["preview", "preview"]}}', "two or more seeds"),
    ("bad_value", FACE + ', "race": {"seeds": 9}}', "race.seeds is 9: should be at most 8"),
    ("bad_value", FACE + ', "race": {"seeds": 2}, "Strategy": "queue"}', "Strategy is 'queue': with race"),
    ("bad_value", FACE + ', "race": {"engines": ["preview", "musetalk"]}, "engine": "preview"}', "race.engines says"),
    ("bad_value", FACE + ', "race": 2}', "race is 2, not an object"),
    ("bad_value", FACE + ', "race": {"engines": "preview"}}', "race.engines is 'preview': should be a list, in"),
    ("bad_value", FACE + ', "race": {"engines": []}}', "race.engines is []: should have at least 1 item"),
    ("bad_value", FACE + ', "race": {"engines": ["x"]}}', "race.engines.0 is 'x': should be 'preview' or 'musetalk'"),
    ("bad_value", FACE + ', "Motion": [1]}', "Motion is [1], not an object"),
    ("bad_value", FACE + ', "motion": "yes"}', "motion is 'yes', not an object"),
    ("unknown_key", FACE + ', "motion": {"fps": 25}}', "motion.fps"),
    ("bad_value", FACE + ', "motion": {"Seconds": 31}}', "motion.Seconds is 31: should be at most 30"),
    ("bad_value", FACE + ', "motion": {"seconds": "6"}}', "should be a number, without quotes"),
    ("bad_value", FACE + ', "motion": {"seed": 4294967296}}', "motion.seed is 4294967296"),
    ("bad_value", FACE + ', "motion": {"seed": -1}}', "motion.seed is -1"),
    ("bad_value", FACE + ', "motion": {"seed": 1.5}}', "motion.seed is 1.5"),
    ("bad_value", FACE + ', "motion": {"size": 300}}', "should be a multiple of 64"),
    ("bad_value", FACE + ', "motion": {"size": 192}}', "should be at least 256"),
    ("bad_value", FACE + ', "motion": {"steps": 101}}', "motion.steps is 101"),
    ("bad_value", FACE + ', "motion": {"guidance": 0.5}}', "motion.guidance is 0.5"),
    ("bad_value", FACE + ', "motion": {"engine": "svd"}}', "'musev' or 'diffusers'"),
    ("bad_value", FACE + ', "motion": {"interpolation": "rife"}}', "motion.interpolation is 'rife'"),
    ("bad_value", FACE + ', "motion": {"prompt": 5}}', "motion.prompt is 5"),
    ("bad_value", FACE + ', "motion": {"prompt": "a\\u0007"}}', "can't be printed"),
    ("bad_value", FACE + ', "motion": {"negative_prompt": "' + "x" * 2001 + '"}}', "at most 2000 characters"),
    ("bad_value", FACE + ', "motion": {"variant": "../x"}}', "motion.variant is '../x'"),
    ("bad_value", FACE + ', "motion": {"base": "../../etc"}}', "motion.base is '../../etc'"),
    ("bad_value", FACE + ', "motion": {"options": {"window": {"a": 1}}}}', "motion.options.window"),
    ("bad_value", '{"avatar": "f.mp4", "audio": "v.wav", "motion": true}', "moves already"),
    ("bad_value", FACE + ', "motion": true, "from_s": 1}', "with motion"),
    ("bad_value", FACE + ', "motion": true, "output": {"alpha": true}}', "no transparency"),
    ("unknown_key", FACE + ', "race": {"seed": 2}}', "race.seed"),
    ("not_json", "", "empty"),
    ("not_json", " \r\n", "empty"),
    ("not_json", FACE, "too early, at line 1, column 37"),
    ("not_json", '{"avatar": "f.jp', "line 1, column 12: Unterminated"),
    ("not_json", FACE + "} x", "line 1, column 39"),
    ("not_json", '{\n  "avatar": "f.jpg",\n  audio: "v.wav"}', "line 3, column 3"),
    ("not_json", "{'avatar': 'f.jpg'}", "line 1, column 2"),
    ("not_json", FACE + ' // why\n, "fps": 25}', "column 38"),
    ("not_json", '{"avatar": "C:\\in\\f.jpg"}', "escape"),
    ("not_json", '{"avatar": "f\n.jpg"}', "control character"),
    ("not_json", FACE + ', "id": "NaN", "fps": NaN}', "line 1, column 59: NaN"),
    ("not_json", FACE + ', "fps": -Infinity}', "column 46: -Infinity"),
    ("trailing_comma", FACE + ",}", "line 1, column 37"),
    ("trailing_comma", FACE + ', "options": {"mouth": [1,\n 2,\n ]}}', "line 2, column 3"),
    ("not_an_object", "[]", "[]"),
    ("not_an_object", '"hello"', "hello"),
    ("not_an_object", "null", "null"),
    ("not_an_object", "3", "3"),
    ("bad_version", FACE + ', "version": 2, "new_key": 1}', "version 2"),
    ("bad_version", FACE + ', "Version": "1"}', "'1'"),
    ("bad_version", FACE + ', "version": true}', "true"),
    ("unknown_key", FACE + ', "Avtar": 1}', "Avtar"),
    ("unknown_key", FACE + ', "notes": []}', "notes"),
    ("unknown_key", FACE + ', "colour": null}', "colour"),
    ("unknown_key", FACE + ', "output": {"crff": 1}}', "output.crff"),
    ("unknown_key", FACE + ', "\\ud800": 1}', "ud800"),
    ("duplicate_key", FACE + ', "avatar": "x"}', "avatar"),
    ("duplicate_key", FACE + ', "Avatar": "x"}', "Avatar"),
    ("duplicate_key", FACE + ', "AvatarImagePath": "f.jpg"}', "AvatarImagePath"),
    ("duplicate_key", FACE + ', "TemplateId": "anna"}', "TemplateId"),
    ("duplicate_key", FACE + ', "id": "1", "CacheKey": "1"}', "CacheKey"),
    ("duplicate_key", FACE + ', "BatchSize": 4, "options": {"batch_size": 8}}', "options.batch_size"),
    ("duplicate_key", FACE + ', "options": {"batchSize": 4, "BatchSize": 8}}', "options.BatchSize"),
    ("duplicate_key", FACE + ', "output": {"crf": 4, "Crf": 8}}', "output.Crf"),
    ("missing_key", "{}", "avatar and audio"),
    ("missing_key", '{"AvatarImagePath": "f.jpg", "audio": null}', "Audio"),
    ("missing_key", '{"audio": "v.wav"}', "avatar"),
    ("bad_value", FACE + ', "engine": "muse"}', "'preview'"),
    ("bad_value", FACE + ', "options": {"x": "' + "\U0001f600" * 2000 + '"}}', "more than 16384 characters"),
    ("bad_value", FACE + ', "options": {"x": [' + "1, " * 20_000 + "1]}}", "more than 16384 characters"),
    ("bad_value", FACE + ', "engine": 2}', "engine is 2"),
    ("bad_value", FACE + ', "priority": "urgent"}', "urgent"),
    ("bad_value", FACE + ', "priority": 101}', "101"),
    ("bad_value", FACE + ', "priority": "101"}', "101"),
    ("bad_value", FACE + ', "priority": true}', "true"),
    ("bad_value", FACE + ', "priority": 1.5}', "1.5"),
    ("bad_value", FACE + ', "strategy": "all"}', "strategy"),
    ("bad_value", FACE + ', "Output": {"Crf": 52}}', "Output.Crf is 52"),
    ("bad_value", FACE + ', "output": {"height": 63}}', "output.height"),
    ("bad_value", FACE + ', "output": "small"}', "output"),
    ("bad_value", FACE + ', "output": {"encoder": "av1"}}', "av1"),
    ("bad_value", FACE + ', "options": [1]}', "options"),
    ("bad_value", FACE + ', "options": {"a": {"b": 1}}}', "options.a"),
    ("bad_value", FACE + ', "options": {"a": [[1]]}}', "options.a"),
    ("bad_value", FACE + ', "options": {"a": [null]}}', "options.a"),
    ("bad_value", FACE + ', "options": {"a": "\\ud800"}}', "options.a"),
    ("bad_value", FACE + ', "options": {"../a": 1}}', "options.../a"),
    ("bad_value", FACE + ', "id": ""}', "id"),
    ("bad_value", FACE + ', "id": " "}', "id"),
    ("bad_value", FACE + ', "id": "a\\u202eb"}', "id"),
    ("bad_value", FACE + f', "id": "{"x" * 129}"' + "}", "id"),
    ("bad_value", FACE + ', "id": 4711}', "id is 4711"),
    ("bad_value", FACE + ', "max_attempts": 0}', "max_attempts"),
    ("bad_value", FACE + ', "max_attempts": 11}', "max_attempts"),
    ("bad_value", FACE + ', "timeout_s": 0}', "timeout_s"),
    ("bad_value", FACE + ', "timeout_s": "00:10:00"}', "timeout_s"),
    ("bad_value", FACE + ', "submitter": "a\\nb"}', "submitter"),
    ("duplicate_key", FACE + ', "Voices": [{"face": 0, "audio": "a.wav"}]}', "Voices"),
    ("bad_value", SEVERAL + "[]}", "voices is []"),
    ("bad_value", SEVERAL + '{"face": 0, "audio": "a.wav"}}', "should be a list"),
    ("bad_value", SEVERAL + '["a.wav"]}', "should be a list of objects"),
    ("bad_value", SEVERAL + '[{"audio": "a.wav"}]}', "voices.0.face"),
    ("bad_value", SEVERAL + '[{"face": 0, "Audio": null}]}', "voices.0.audio"),
    ("bad_value", SEVERAL + '[{"face": -1, "audio": "a.wav"}]}', "voices.0.face is -1"),
    ("bad_value", SEVERAL + '[{"face": 16, "audio": "a.wav"}]}', "voices.0.face is 16"),
    ("bad_value", SEVERAL + '[{"Face": "left", "audio": "a.wav"}]}', "voices.0.Face is 'left'"),
    ("bad_value", SEVERAL + '[{"face": 0, "audio": "a.wav", "FromSeconds": -1}]}', "voices.0.FromSeconds is -1"),
    ("unknown_key", SEVERAL + '[{"face": 0, "audio": "a.wav", "until": 1}]}', "voices.0.until"),
    ("bad_value", TWO_OF_ONE + "]}", "each face has one voice"),
    ("bad_value", SEVERAL + '[{"face": 0, "audio": "a.wav"}], "from_s": 1}', "its own from_s"),
    ("bad_value", SEVERAL + '[{"face": 0, "audio": "a.wav"}], "options": {"face": 1}}', "its own face"),
    ("bad_value", FACE + ', "from_s": -1}', "from_s is -1"),
    ("bad_value", FACE + ', "from_s": "1"}', "from_s"),
    ("bad_value", FACE + ', "FromSeconds": 1e9}', "FromSeconds"),
    ("bad_value", FACE + ', "to_s": 0}', "to_s is 0"),
    ("bad_value", FACE + ', "from_s": 2, "ToS": 2}', "ToS is 2.0: should be greater than from_s"),
    ("bad_value", FACE + ', "soundtrack": 1}', "soundtrack is 1"),
    ("bad_value", FACE + ', "soundtrack": "m.mp3", "soundtrack_db": 13}', "soundtrack_db is 13"),
    ("bad_value", FACE + ', "soundtrack_db": -6}', "there is no soundtrack"),
    ("bad_value", FACE + ', "background": "#00b14"}', "a colour is"),
    ("bad_value", FACE + ', "background": "mauve"}', "none of the colours white"),
    ("bad_value", FACE + ', "background": "white", "output": {"alpha": true}}', "nothing is behind"),
    ("bad_value", FACE + ', "output": {"alpha": "yes"}}', "alpha"),
    ("bad_value", FACE + ', "Quality": 2}', "Quality is 2"),
    ("bad_value", FACE + ', "Quality": ["high"]}', "Quality"),
    ("bad_value", '{"avatar": "", "audio": "v.wav"}', "avatar"),
    ("bad_value", '{"avatar": "\\ud800.jpg", "audio": "v.wav"}', "avatar"),
    ("bad_value", '{"avatar": "C:\\new.jpg", "audio": "v.wav"}', "backslash"),
    ("bad_value", '{"avatar": "in\\face.jpg", "audio": "v.wav"}', "backslash"),
    ("bad_value", '{"avatar": "a\\u0000", "audio": "v.wav"}', "avatar"),
    ("bad_value", '{"avatar": "f.jpg", "audio": ["v.wav"]}', "audio"),
    ("bad_value", '{"TemplateId": "../anna", "audio": "v.wav"}', "TemplateId"),
    ("bad_value", '{"TemplateId": 7, "audio": "v.wav"}', "TemplateId"),
    ("bad_value", FACE + ', "fps": 1e999}', "1e999"),
    ("bad_value", FACE + ', "priority": ' + "9" * 5000 + "}", "5002"),
    ("bad_value", "[" * 200_000, "nested"),
    ("bad_value", FACE + ', "options": {"a": ' + "[" * 400 + "]" * 400 + "}}", "nested"),
]


@pytest.mark.parametrize(("code", "text", "says"), REFUSED, ids=[f"{code}-{says}"[:40] for code, _, says in REFUSED])
def test_what_is_refused(code: str, text: str, says: str) -> None:
    """Each with its code, and a message that shows the place or the value."""
    bad = refused(text)
    assert (bad.code, says in bad.message) == (code, True), bad.message
    assert len(bad.message) < 400
    assert bad.message.isprintable()


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("Avtar", "Avatar"),
        ("maxAttemps", "maxAttempts"),
        ("max_attempt", "max_attempts"),
        ("MaxAttempt", "MaxAttempts"),
        ("ImagePath", "AvatarImagePath"),
        ("crf", "output.crf"),
        ("Height", "Output.Height"),
        ("prio", "priority"),
    ],
)
def test_the_nearest_key_in_the_writers_style(key: str, near: str) -> None:
    """A misspelt key comes back as its writer would have spelt the right one."""
    assert refused(a_text(**{key: 1})).hint == f"Did you mean {near}?"


def test_a_key_that_is_near_nothing_gets_the_list() -> None:
    """Who is far off sees all keys."""
    hint = refused(a_text(zzzzzz=1)).hint
    assert all(field in hint for field in FIELDS)


# any bytes, any job ---------------------------------------------------------------------------------------------------


def check_answer(data: bytes) -> None:
    got = answer(parse_job, data)
    if isinstance(got, BadJob):
        assert got.code in CODES
        assert f"{got.message}{got.hint}".encode()
    else:
        assert JobSpec.model_validate_json(got.model_dump_json()) == got
        assert parse_job(got.to_json_text().encode()) == got.model_copy(update={"notes": ()})


@settings(deadline=None)
@given(st.binary(max_size=300))
@example(b"\xef\xbb\xbf" * 3)
@example(b"\xff\xfe")
@example(b"-")
def test_any_bytes_are_a_job_or_refused(data: bytes) -> None:
    """No other exception, whatever lies in the inbox."""
    check_answer(data)


NAMES = (
    st.sampled_from([*FIELDS, *ALIASES, *EXTRAS, "Avatar", "OUTPUT", "crf", "Label", "$schema", "mouth"]) | st.text()
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["auto", "high", "30000/1001"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=5), st.booleans())
def test_any_json_object_is_a_job_or_refused(data: dict[str, Any], complete: bool) -> None:
    """Also with the right keys, wrong values, and surrogates in odd places."""
    base = {"avatar": "face.jpg", "audio": "voice.wav"} if complete else {}
    check_answer(json.dumps({**data, **base}).encode())


@settings(deadline=None)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_a_damaged_job_file_is_a_job_or_refused(at: int, damage: bytes) -> None:
    """A good file with a few bytes changed."""
    good = a_text(fps="30000/1001", options={"mouth": [1, 2, 3, 4]}, output={"crf": 20}, id="ä")
    check_answer(good[: at % len(good)] + damage + good[at % len(good) + len(damage) :])


def test_a_race_names_seeds_or_engines() -> None:
    """In any spelling; a draft has nothing to compare."""
    spec = parse_job(a_text(Race={"Seeds": 2, "Engines": ["MuseTalk", "preview"]}, strategy="race"))
    assert spec.race == RaceSpec(seeds=2, engines=("musetalk", "preview"))
    assert parse_job(spec.to_json_text().encode()) == spec
    assert parse_job(a_text(race={"seeds": 2}, options={"draft": True})).race is None


# docs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
def test_every_json_example_of_the_docs_is_a_job(text: str) -> None:
    """What people copy from the page is taken."""
    assert all(parse_job(text.encode()).media_names.values())


@pytest.mark.parametrize(("code", "text"), re.findall(r"^([a-z_]+)  +([{[].*)$", PAGE, re.MULTILINE))
def test_every_refused_example_of_the_docs_is_refused(code: str, text: str) -> None:
    """And each with the code that stands beside it."""
    assert refused(text).code == code


def rows(heading: str) -> dict[str, str]:
    part = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    section = next(text for text in part if text.startswith(heading))
    return dict(re.findall(r"^\| `([^`]+)` \| (.+?) \|", section, re.MULTILINE))


def test_the_tables_of_the_docs_say_what_the_code_says() -> None:
    """Keys with their descriptions, codes, C# names, presets and suffixes: the page and the code can't drift apart."""
    keys = {key: JobSpec.model_fields[key].description for key in FIELDS}
    keys |= {f"voices.{key}": field.description for key, field in VoiceSpec.model_fields.items()}
    keys |= {f"output.{key}": field.description for key, field in OutputSpec.model_fields.items()}
    keys |= {f"motion.{key}": field.description for key, field in MotionSpec.model_fields.items()}
    keys |= {f"race.{key}": field.description for key, field in RaceSpec.model_fields.items()}
    assert rows("Keys") == keys
    assert rows("What is refused") == {code: code.explanation for code in CODES}
    names = {name.replace("_", "").lower() for name in (*ALIASES, *EXTRAS)}
    known = rows("Names that C# apps use") | rows("Names that Duix.Avatar uses")
    assert {name.replace("_", "").lower() for name in known} == names
    assert ", ".join(f"{name.capitalize()} {crf}" for name, crf in QUALITY.items()) in PAGE
    suffixes = set(re.findall(r"\.\w+", "".join(re.findall(r"^\| the (?:face|voice) \| (.*) \|$", PAGE, re.MULTILINE))))
    assert suffixes == AVATAR_SUFFIXES | AUDIO_SUFFIXES


def test_the_docs_list_the_options_of_the_preview_engine() -> None:
    """Every option, and none that there isn't."""
    assert set(rows("Options of the preview engine")) == set(Options.model_fields)


def test_the_rooms_of_the_job_import_nothing_heavy() -> None:
    """The job file and the settings stand on pydantic and the standard library."""
    code = "import sys, agent.jobs.parse, agent.settings; print(' '.join(name.split('.')[0] for name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    foreign = {name for name in run.stdout.split() if name not in sys.stdlib_module_names}
    assert {"pydantic", "agent", "models"} <= foreign
    assert foreign.isdisjoint({"numpy", "torch", "cv2", "av", "typer", "rich", "sqlite_utils", "gpu_pool"})


# media of refused jobs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b'{"avatar": "a.jpg", "audio": "b.wav", "x": 1}', {"avatar": "a.jpg", "audio": "b.wav"}),
        (b'{"AvatarImagePath":"a.jpg", "audio_path": "b\\u00e9.wav"', {"avatar": "a.jpg", "audio": "b\u00e9.wav"}),
        (b'{"avatar": "a.jpg', {}),
        (b'{"avatar": 5, "audio": ["b.wav"], "engine": "auto"}', {}),
        (b'{"avatar": "\\q.jpg"}', {}),
        (b"\xff\xfe\x00", {}),
    ],
)
def test_the_media_that_a_broken_text_names(text: bytes, names: dict[str, str]) -> None:
    """Whole strings after a known key are found, also where the text is no JSON."""
    assert find_media_names(text) == names


@given(st.binary(max_size=200))
def test_looking_for_media_never_fails(text: bytes) -> None:
    """Any bytes have some names, or none."""
    assert set(find_media_names(text)) <= {"avatar", "audio"}
    assert len(find_id(text) or "") <= 128


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b'{"id": "order-1", "audio": "v.wav",}', "order-1"),
        ('{"CacheKey": "你好", "engine": "muse"}'.encode("utf-16"), "你好"),
        (b'{"code": "a"', "a"),
        (b'{"id": 7}', None),
        (b'{"id": "a\\nb"}', None),
        (b'{"id": "%s"}' % (b"x" * 129), None),
        (b"no JSON", None),
    ],
)
def test_the_id_of_a_refused_job_is_found(text: bytes, found: str | None) -> None:
    """Whoever sent it waits for it by this id."""
    assert find_id(text) == found


# in people's words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quote", list("\u201c\u201d\u201e\u2018\u2019\u00ab\u300c\uff02`'"))
def test_a_quote_that_json_does_not_know_is_named(quote: str) -> None:
    """Editors and chats write them; the message shows the character and where it is."""
    for text in (f'{{"avatar": {quote}a.jpg{quote}}}', f'{{{quote}avatar{quote}: "a.jpg"}}'):
        bad = refused(text.encode())
        assert f": {quote} is a" in bad.message
        assert "quote" in bad.message
        assert "straight double quotes" in bad.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"output": {"crf": 70}', "output.crf is 70: should be at most 51"),
        ('"output": {"height": 3}', "output.height is 3: should be at least 64"),
        ('"max_attempts": "3"', "max_attempts is '3': should be a whole number, without quotes"),
        ('"timeout_s": 0', "timeout_s is 0: should be above 0"),
        ('"id": ""', "id is '': should not be empty"),
        ('"id": ["x"]', 'id is ["x"]: should be a text'),
    ],
)
def test_a_value_out_of_range_is_said_in_plain_words(text: str, message: str) -> None:
    """The value, what it should be, and in the hint the range."""
    bad = refused(f'{{"avatar": "a.jpg", "audio": "b.wav", {text}}}'.encode())
    assert bad.message == message
    assert bad.hint
