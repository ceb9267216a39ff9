"""The job file: what is taken, what is refused and how, and that nothing else can happen."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.errors import ErrorCode
from agent.jobs.json_text import MAX_BYTES, BadJob, read_object
from agent.jobs.parse import ALIASES, EXTRAS, FIELDS, QUALITY, pair_media, parse_job
from agent.jobs.schema import build_schema
from agent.jobs.spec import (
    AUDIO_SUFFIXES,
    AVATAR_SUFFIXES,
    JobSpec,
    OutputSpec,
    is_library_name,
    media_suffix,
    normalise_fps,
)
from agent.jobs.states import MOVES, JobState, can_move
from models.preview.options import Options
from models.types import Output

CODES = {
    ErrorCode.TOO_BIG,
    ErrorCode.BAD_ENCODING,
    ErrorCode.NOT_JSON,
    ErrorCode.TRAILING_COMMA,
    ErrorCode.NOT_AN_OBJECT,
    ErrorCode.BAD_VERSION,
    ErrorCode.UNKNOWN_KEY,
    ErrorCode.DUPLICATE_KEY,
    ErrorCode.MISSING_KEY,
    ErrorCode.BAD_VALUE,
}
ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "job-file.md").read_text(encoding="utf-8")
SCHEMA_FILE = ROOT / "docs" / "job-file.schema.json"


def a_text(**keys: object) -> bytes:
    return json.dumps({"avatar": "face.jpg", "audio": "voice.wav", **keys}).encode()


def a_job(**keys: object) -> JobSpec:
    return parse_job(a_text(**keys))


def refused(text: bytes | str) -> BadJob:
    with pytest.raises(BadJob) as caught:
        parse_job(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    assert caught.value.code in CODES
    assert caught.value.message
    assert caught.value.hint
    return caught.value


def answer(read: Callable[..., JobSpec], *args: object) -> JobSpec | BadJob:
    try:
        return read(*args)
    except BadJob as bad:
        return bad


# what is taken -------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("given_fps", "exact"),
    [
        (25, "25"),
        (25.0, "25"),
        ("25", "25"),
        (29.97, "30000/1001"),
        ("29.97", "30000/1001"),
        (30000 / 1001, "30000/1001"),
        (23.976, "24000/1001"),
        (23.98, "24000/1001"),
        (59.94, "60000/1001"),
        (119.88, "120000/1001"),
        ("30000/1001", "30000/1001"),
        ("2997/100", "2997/100"),
        ("50/2", "25"),
        (12.5, "25/2"),
        (33.333, "33333/1000"),
        (120, "120"),
        (24, "24"),
        (30.0, "30"),
    ],
)
def test_frame_rates_are_exact(given_fps: object, exact: str) -> None:
    """Decimals of the NTSC family mean the true rate; what is exact stays as it is."""
    assert a_job(fps=given_fps).fps == exact


@pytest.mark.parametrize(
    "fps", [0, -25, 120.5, 1e9, 1e-9, "0/5", "5/0", "fast", "", " 25", "٢٥", True, [25], "1e3", "121"]
)
def test_frame_rates_out_of_range_are_refused(fps: object) -> None:
    """Nothing but a number above 0 and at most 120."""
    assert refused(a_text(fps=fps)).code == "bad_value"


@settings(deadline=None)
@given(st.one_of(st.floats(0.01, 120), st.integers(1, 120), st.fractions(Fraction(1, 100), 120, max_denominator=9999)))
def test_canonical_frame_rates_stay_themselves(rate: float | Fraction) -> None:
    """Reading the canonical form again changes nothing, and it is near what was asked."""
    canonical = normalise_fps(str(rate) if isinstance(rate, Fraction) else rate)
    assert normalise_fps(canonical) == canonical
    assert abs(Fraction(canonical) - Fraction(rate)) <= Fraction(1, 200)


@pytest.mark.parametrize(
    ("asked", "priority"), [("low", -10), ("Normal", 0), ("HIGH", 10), (-100, -100), (2, 2), ("-7", -7)]
)
def test_priorities_by_name_and_number(asked: object, priority: int) -> None:
    """Names in any letter case; an enum that was written as a number is that number."""
    assert a_job(priority=asked).priority == priority


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode(),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: ("\n\n " + text + " \r\n").encode("utf-16"),
    ],
    ids=["utf-8", "utf-8 with BOM", "utf-16 le", "utf-16 be", "CRLF", "utf-16 with white space"],
)
def test_encodings_that_dotnet_writes(encode: Any) -> None:
    """Byte order marks and line ends don't matter."""
    spec = parse_job(encode('{\n "avatar": "porträt 张 😀.jpg",\n "audio": "stimme.wav"\n}'))
    assert spec.avatar == "porträt 张 😀.jpg"


def test_null_is_absent() -> None:
    """A serialiser that writes every property says nothing by null."""
    keys = {**dict.fromkeys(FIELDS), **dict.fromkeys(ALIASES), **dict.fromkeys(EXTRAS)}
    given_keys = {**keys, "avatar": "face.jpg", "audio": "voice.wav"}
    assert parse_job(json.dumps(given_keys).encode()) == a_job()


def test_a_schema_reference_for_editors_is_no_key_of_the_job() -> None:
    """`$schema` is what makes an editor complete the keys."""
    assert a_job(**{"$schema": "job-file.schema.json"}) == a_job()


@pytest.mark.parametrize(
    ("avatar", "library"),
    [
        ("anna", "anna"),
        ("anna.v2", "anna.v2"),
        ("Anna Müller", "Anna Müller"),
        ("anna.jpg", None),
        ("anna.MP4", None),
        ("anna.wav", None),
        ("in/anna", None),
        ("in\\anna", None),
        ("..", None),
        (".hidden", None),
        ("a\nb", None),
    ],
)
def test_library_names_and_files(avatar: str, library: str | None) -> None:
    """A bare name without a media suffix is looked up in the library, and nothing that could be a path."""
    assert is_library_name(avatar) is (library is not None)
    assert a_job(avatar=avatar).library_name == library


def test_a_template_is_a_library_name() -> None:
    """TemplateId takes the place of the avatar."""
    spec = parse_job(b'{"TemplateId": "anna", "audio": "voice.wav"}')
    assert (spec.avatar, spec.template, spec.library_name) == (None, "anna", "anna")


def test_the_jobs_encoding_over_the_settings() -> None:
    """What the job leaves open comes from the settings."""
    default = Output(crf=20, encoder="libx264")
    assert a_job().resolve_output(default) == default
    assert a_job(output={"crf": 0, "height": 480}).resolve_output(default) == Output(
        crf=0, encoder="libx264", height=480
    )


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


# what is refused -----------------------------------------------------------------------------------------------------

FACE = '{"avatar": "f.jpg", "audio": "v.wav"'

REFUSED = [
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
    ("data", "says"),
    [
        ('{"avatar": "porträt.jpg"}'.encode("cp1252"), "line 1, column 18: byte 0xE4"),
        ('{\r\n"avatar": "ü.jpg"}'.encode("cp1252"), "line 2, column 12"),
        ('{"avatar": "ä'.encode()[:-1], "middle of a character"),
        ('{"avatar": "f.jpg"}'.encode("utf-16")[:-1], "middle of a character"),
        ('{"avatar": "f.jpg"}'.encode("utf-16-le"), "zero bytes"),
        (b"\0" * 300, "zero bytes"),
        (b'{"avatar": "f.jpg", "aud' + b"\0" * 30, "zero bytes"),
        ('{"avatar": "f.jpg"}'.encode("utf-32"), "UTF-32"),
        (b"\xff\xfe\x00\xd8a\x00", "UTF-16"),
    ],
)
def test_encodings_that_are_refused(data: bytes, says: str) -> None:
    """Other encodings and half-copied files say so, and where."""
    bad = refused(data)
    assert bad.code == "bad_encoding"
    assert says in bad.message


def test_a_job_file_has_a_largest_size() -> None:
    """One byte more is refused before it is decoded; the limit is the caller's."""
    text = a_text()
    assert parse_job(text.ljust(MAX_BYTES)) == a_job()
    assert refused(text.ljust(MAX_BYTES + 1)).code == "too_big"
    assert parse_job(text, max_bytes=len(text)) == a_job()
    with pytest.raises(BadJob, match="too_big"):
        parse_job(text, max_bytes=len(text) - 1)


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


def test_huge_hostile_texts_are_answered_at_once() -> None:
    """A megabyte of quotes, keys or brackets costs no more than reading it, and messages stay short."""
    for text in (
        '{"' + '\\"' * 500_000 + " NaN",
        '{"a": NaN' + '"\\' * 500_000,
        "{" + ",".join(f'"k{n}": 1' for n in range(60_000)) + "}",
        '{"' + "k" * 1_000_000 + '": 1}',
        "[" + "{}," * 300_000,
    ):
        assert len(refused(text).message) < 400


def test_a_spec_made_by_hand_is_checked_too() -> None:
    """The model itself holds what parse promises."""
    with pytest.raises(ValidationError, match="either"):
        JobSpec(avatar="f.jpg", template="anna", audio="v.wav")
    with pytest.raises(ValidationError, match="either"):
        JobSpec(audio="v.wav")
    spec = a_job()
    with pytest.raises(ValidationError, match="frozen"):
        spec.audio = "other.wav"


# any bytes, any job --------------------------------------------------------------------------------------------------


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


@settings(deadline=None)
@given(st.integers(1, 200))
def test_a_job_file_that_is_still_growing_is_never_taken(length: int) -> None:
    """A proper prefix of a job file is no job: completeness can be read off the text."""
    good = a_text(fps=25, output={"crf": 20}, options={"label": False, "strength": 1.2}, id="x")
    with pytest.raises(BadJob):
        read_object(good[: min(length, len(good) - 1)])


TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
LABELS = TEXTS.filter(lambda text: text.isprintable() and not text.isspace())
PLAIN = (
    st.booleans() | st.integers(-(10**15) + 1, 10**15 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
)
SPECS = st.builds(
    JobSpec,
    avatar=TEXTS,
    audio=TEXTS,
    engine=st.sampled_from(["auto", "preview", "musetalk"]),
    fps=st.none() | st.integers(1, 120).map(str) | st.sampled_from(["30000/1001", "25/2"]),
    priority=st.integers(-100, 100),
    strategy=st.sampled_from(["auto", "queue", "race", "split"]),
    options=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True), PLAIN | st.lists(PLAIN, max_size=4)
    ),
    output=st.builds(
        OutputSpec,
        crf=st.none() | st.integers(0, 51),
        encoder=st.none() | st.sampled_from(["auto", "libx264", "h264_nvenc"]),
        height=st.none() | st.integers(64, 4320),
    ),
    id=st.none() | LABELS,
    max_attempts=st.integers(1, 10),
    timeout_s=st.none() | st.floats(min_value=1e-3, max_value=1e9),
    submitter=st.none() | LABELS,
    notes=st.lists(TEXTS, max_size=2).map(tuple),
)


@settings(deadline=None)
@given(SPECS)
def test_any_job_comes_back_from_the_ledger_and_from_a_job_file(spec: JobSpec) -> None:
    """Written as JSON and read again, a job is the same job."""
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec
    assert parse_job(spec.to_json_text().encode()) == spec.model_copy(update={"notes": ()})


# states and names ----------------------------------------------------------------------------------------------------


def test_every_state_has_its_moves() -> None:
    """Done is the end; what failed or was cancelled may be tried again; nothing moves to itself."""
    assert set(MOVES) == set(JobState)
    assert MOVES[JobState.DONE] == frozenset()
    assert all(state not in targets for state, targets in MOVES.items())
    assert {state for state in JobState if can_move(state, JobState.DONE)} == {JobState.RUNNING}
    assert {state for state in JobState if can_move(state, JobState.RUNNING)} == {JobState.QUEUED}


def test_every_state_can_be_reached_from_waiting() -> None:
    """A job starts as waiting and can get everywhere, and everywhere but done it can end or go on."""
    reached, edge = {JobState.WAITING}, {JobState.WAITING}
    while edge:
        edge = {target for state in edge for target in MOVES[state]} - reached
        reached |= edge
    assert reached == set(JobState)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.JPG", ".jpg"),
        ("a.b.Mp4", ".mp4"),
        (r"C:\x.d\voice.WAV", ".wav"),
        ("noext", ""),
        (".jpg", ""),
        (r"a.b\c", ""),
    ],
)
def test_suffixes_of_any_path(name: str, suffix: str) -> None:
    """Windows paths have suffixes too."""
    assert media_suffix(name) == suffix


def test_no_suffix_is_both_a_face_and_a_voice() -> None:
    """A pair can't be made of one file."""
    assert not AVATAR_SUFFIXES & AUDIO_SUFFIXES


# docs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
def test_every_json_example_of_the_docs_is_a_job(text: str) -> None:
    """What people copy from the page is taken."""
    assert parse_job(text.encode()).audio


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
    keys |= {f"output.{key}": field.description for key, field in OutputSpec.model_fields.items()}
    assert rows("Keys") == keys
    assert rows("What is refused") == {code: code.explanation for code in CODES}
    names = {name.replace("_", "").lower() for name in (*ALIASES, *EXTRAS)}
    assert {name.lower() for name in rows("Names that C# apps use")} == names
    assert ", ".join(f"{name.capitalize()} {crf}" for name, crf in QUALITY.items()) in PAGE
    suffixes = set(re.findall(r"\.\w+", "".join(re.findall(r"^\| the (?:face|voice) \| (.*) \|$", PAGE, re.MULTILINE))))
    assert suffixes == AVATAR_SUFFIXES | AUDIO_SUFFIXES


def test_the_docs_list_the_options_of_the_preview_engine() -> None:
    """Every option, and none that there isn't."""
    assert set(rows("Options of the preview engine")) == set(Options.model_fields)


def test_the_published_schema_is_the_codes_schema() -> None:
    """docs/job-file.schema.json is what `musedrop schema` prints; write it anew when this fails."""
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == build_schema()


def test_the_schema_knows_every_key_in_three_styles() -> None:
    """Properties by their own name, further spellings by pattern, each leading to a property that exists."""
    made = build_schema()
    assert set(made["properties"]) == {"$schema", *FIELDS, *EXTRAS}
    assert all(made["properties"][key]["description"] for key in (*FIELDS, *EXTRAS))
    for key in ("AvatarImagePath", "maxAttempts", "MaxAttempts", "templateId", "TimeoutSeconds", "batchSize", "Fps"):
        places = [ref["$ref"] for pattern, ref in made["patternProperties"].items() if re.search(pattern, key)]
        assert len(places) == 1
        assert places[0].rpartition("/")[2] in made["properties"]


@pytest.mark.parametrize("text", re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
def test_the_schema_finds_one_face_and_one_voice_in_every_example(text: str) -> None:
    """Also where a serialiser writes null for the face that is not used."""
    made, data = build_schema(), json.loads(text)
    for rule in made["allOf"]:
        words = [branch["required"][0] for branch in rule["oneOf"]]
        assert sum(data.get(word) is not None for word in words) == 1
        assert all(
            branch["properties"] == {branch["required"][0]: {"not": {"type": "null"}}} for branch in rule["oneOf"]
        )
    for key in data:
        assert key in made["properties"] or any(re.search(pattern, key) for pattern in made["patternProperties"])


# imports -------------------------------------------------------------------------------------------------------------


def test_the_rooms_of_the_job_import_nothing_heavy() -> None:
    """The job file and the settings stand on pydantic and the standard library."""
    code = "import sys, agent.jobs.parse, agent.settings; print(' '.join(name.split('.')[0] for name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    foreign = {name for name in run.stdout.split() if name not in sys.stdlib_module_names}
    assert {"pydantic", "agent", "models"} <= foreign
    assert foreign.isdisjoint({"numpy", "torch", "cv2", "av", "typer", "rich", "watchdog", "sqlite_utils", "gpu_pool"})
