"""What a job asks for: frame rates, priorities, names of media and of the library, the encoding."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.jobs.parse import parse_job
from agent.jobs.spec import (
    AUDIO_SUFFIXES,
    AVATAR_SUFFIXES,
    JobSpec,
    is_library_name,
    media_suffix,
    normalise_fps,
)
from models.types import Output
from tests.agent.jobs.texts import SPECS, a_job, a_text, refused


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


def test_a_spec_made_by_hand_is_checked_too() -> None:
    """The model itself holds what parse promises."""
    with pytest.raises(ValidationError, match="either"):
        JobSpec(avatar="f.jpg", template="anna", audio="v.wav")
    with pytest.raises(ValidationError, match="either"):
        JobSpec(audio="v.wav")
    spec = a_job()
    with pytest.raises(ValidationError, match="frozen"):
        spec.audio = "other.wav"


@settings(deadline=None)
@given(SPECS)
def test_any_job_comes_back_from_the_ledger_and_from_a_job_file(spec: JobSpec) -> None:
    """Written as JSON and read again, a job is the same job."""
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec
    assert parse_job(spec.to_json_text().encode()) == spec.model_copy(update={"notes": ()})


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
