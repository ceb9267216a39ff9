"""What result.json and error.json say of a job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.jobs.states import JobState
from agent.results.records import format_time, indent_json, make_error_record, make_result_record, write_json
from tests.agent.samples import a_ledger, add_job

MEDIA = {role: {"given": f"my {role}", "path": role} for role in ("avatar", "audio")}


def test_json_is_for_people_and_programs(tmp_path: Path) -> None:
    """UTF-8 without escapes, replaced whole."""
    write_json(tmp_path / "status.json", {"name": "grüße"})
    assert "grüße" in (tmp_path / "status.json").read_text(encoding="utf-8")


def test_a_result_says_what_was_asked_and_made(tmp_path: Path) -> None:
    """The names as the job gave them, the notes of job, inspection and worker in that order, and the worker's facts."""
    ledger = a_ledger(tmp_path)
    add_job(ledger, "u1", name="hello", state=JobState.RUNNING, media=MEDIA, id="order-1", enableEmotion=True)
    facts = {"notes": ["of the worker"], "kind": "cpu"}
    job = ledger.update_and_read("u1", outline={"frames": 25, "notes": ["of the media"]}, facts=facts)
    record = make_result_record(job, "hello-2", 5000)
    assert (record["name"], record["result"], record["id"], record["frames"]) == ("hello", "hello-2", "order-1", 25)
    assert record["avatar"]["given"] == "my avatar"
    assert record["notes"][1:] == ["of the media", "of the worker"]
    assert "EnableEmotion" in record["notes"][0]
    assert (record["kind"], record["from_cache"]) == ("cpu", False)
    assert record["finished_at"] == "1970-01-01T00:00:05.000Z"


def test_a_result_says_what_is_behind_the_avatar(tmp_path: Path) -> None:
    """A colour, a picture with its hash, or nothing; the video with transparency is a mov."""
    ledger, wall = a_ledger(tmp_path), {"background": {"given": "wall.jpg", "path": "x"}}
    add_job(ledger, "u1", state=JobState.RUNNING, media=MEDIA, background="#0b4")
    add_job(ledger, "u2", state=JobState.RUNNING, media=MEDIA | wall, background="wall.jpg")
    add_job(ledger, "u3", state=JobState.RUNNING, media=MEDIA, output={"alpha": True})
    records = [
        make_result_record(ledger.update_and_read(uid, outline={"media_sha256": hashes}), "hello", 5000)
        for uid, hashes in (("u1", {}), ("u2", {"background": "ab"}), ("u3", {}))
    ]
    shown = [record["background"] for record in records]
    assert shown == ["#00bb44", {"given": "wall.jpg", "sha256": "ab"}, None]
    assert [record["video"] for record in records] == ["result.mp4", "result.mp4", "result.mov"]


@pytest.mark.parametrize(
    ("state", "code", "retry"), [(JobState.FAILED, "no_face", False), (JobState.CANCELLED, "cancelled", True)]
)
def test_an_error_says_what_to_do(tmp_path: Path, state: JobState, code: str, *, retry: bool) -> None:
    """A failed job has its own error; a cancelled one may be retried as it is."""
    record = make_error_record(add_job(a_ledger(tmp_path), "u1", name="hello", state=state))
    assert (record["state"], record["code"], record["retry"]) == (state, code, retry)
    assert record["message"]
    assert record["hint"]
    if state is JobState.CANCELLED:
        assert (record["message_zh"], record["hint_zh"]) == ("任务已被取消", "`musedrop retry hello` 可再次运行")
    else:
        assert record["message_zh"].endswith(f"（{record['message']}）"), "a sentence of no code of ours"


def test_times_are_iso_8601() -> None:
    """UTC with milliseconds; nothing where there is no time."""
    assert format_time(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
    assert format_time(None) is None


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, "b": [1, {"c": None}, [], {}], "d": "grüße\n", "e": (0.5, True), "7": {"f": {"g": "h"}}},
        {},
        [[[]]],
        "x",
    ],
)
def test_indented_json_is_that_of_the_library(value: object) -> None:
    """Records look as they always did."""
    assert indent_json(value, 2) == json.dumps(value, ensure_ascii=False, indent=2)
