"""The text of a job file: encodings, sizes, depth, and texts that are cut off."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.jobs.json_text import MAX_BYTES, BadJob, read_object
from agent.jobs.parse import parse_job
from tests.agent.jobs.texts import a_job, a_text, refused


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


@settings(deadline=None)
@given(st.integers(1, 200))
def test_a_job_file_that_is_still_growing_is_never_taken(length: int) -> None:
    """A proper prefix of a job file is no job: completeness can be read off the text."""
    good = a_text(fps=25, output={"crf": 20}, options={"label": False, "strength": 1.2}, id="x")
    with pytest.raises(BadJob):
        read_object(good[: min(length, len(good) - 1)])
