"""Job files for tests: one that is right, one that is refused, and any that could be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st

from agent.errors import ErrorCode
from agent.jobs.json_text import BadJob
from agent.jobs.parse import parse_job
from agent.jobs.spec import JobSpec, OutputSpec

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "job-file.md").read_text(encoding="utf-8")

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
"""What `parse_job` may answer."""


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


TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
LABELS = TEXTS.filter(lambda text: text.isprintable() and not text.isspace())
PLAIN = (
    st.booleans() | st.integers(-(10**15) + 1, 10**15 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
)
SPECS = st.builds(
    JobSpec,
    avatar=TEXTS,
    audio=TEXTS,
    from_s=st.none() | st.floats(0, 100),
    to_s=st.none() | st.floats(101, 200),
    soundtrack=TEXTS,
    soundtrack_db=st.none() | st.floats(-60, 12),
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
