"""What the page shows of the ledger, status.json and the library."""

from __future__ import annotations

import os
import pwd
from datetime import UTC, datetime
from typing import Any

from agent.errors import ErrorCode
from agent.jobs.states import JobState
from agent.ledger.job import JobError
from agent.ledger.ledger import Ledger
from agent.ledger.reader import open_reader
from agent.page import facts
from agent.page.figures import DayFigures
from agent.settings import Settings
from tests.agent.samples import add_job

HOUR_MS = 3_600_000


def test_sections_show_each_job_in_its_place(settings: Settings, ledger: Ledger) -> None:
    """Running, waiting, done and failed jobs are in their own sections."""
    for state in JobState:
        add_job(ledger, f"u-{state}", state=state, name=str(state))
    sections = facts.read_sections(open_reader(settings.folders.ledger), {}, settings, datetime.now(UTC), DayFigures())

    def names(section: str) -> set[str]:
        return {row["name"] for row in sections[section] if isinstance(row, dict)}

    assert names("running") == {"running"}
    assert names("queue") == {"queued", "waiting"}
    assert names("done") == {"done"}
    assert names("failed") == {"failed", "cancelled"}
    assert sections["counts"] == dict.fromkeys(map(str, JobState), 1)


def test_sentences_are_there_in_chinese_too(settings: Settings, ledger: Ledger) -> None:
    """Errors, what jobs wait for, ignored files, and problems; an unknown one has what its code means."""
    error = JobError(ErrorCode.NO_FACE, "no face was found in <b>.jpg", "no such hint")
    ledger.transitions.fail(add_job(ledger, "u1"), error, at_ms=2000)
    stray = {"name": "x", "reason": "it is empty", "hint": "no such hint"}
    status = {"ignored": [stray]}
    sections = facts.read_sections(
        open_reader(settings.folders.ledger), status, settings, datetime.now(UTC), DayFigures()
    )
    failed, ignored = next(iter(sections["failed"])), next(iter(sections["ignored"]))
    assert isinstance(failed, dict)
    assert failed["error_message_zh"] == "在 <b>.jpg 中没有找到人脸"
    assert "error_hint_zh" not in failed
    assert ignored == {**stray, "reason_zh": "它是空的"}
    assert facts.add_chinese({"error_code": "timeout", "error_message": "?"})["error_message_zh"].startswith("任务超时")
    head = facts.make_head({"problems": ["status.db can't be written: No space left on device"]}, settings, "")
    assert head["problems_zh"] == ["无法写入 status.db：磁盘空间不足"]


def test_jobs_are_found_page_by_page(settings: Settings, ledger: Ledger) -> None:
    """Every done job is on exactly one page, the newest first."""
    for number in range(25):
        add_job(ledger, f"u{number}", state=JobState.DONE, at_ms=number * 1000, name=f"job {number}")
    db, seen = open_reader(settings.folders.ledger), list[str]()
    before = ""
    while rows := facts.list_jobs(db, {"limit": "10", "before": before}):
        seen += [row["name"] for row in rows]
        before = rows[-1]["finished_at"]
    assert seen == [f"job {number}" for number in reversed(range(25))]


def test_jobs_are_found_by_name_day_and_submitter(settings: Settings, ledger: Ledger) -> None:
    """A part of the name in any letter case, a day and a submitter each narrow the list; % and _ are characters."""
    add_job(ledger, "u1", state=JobState.DONE, at_ms=HOUR_MS, name="Anna 100%", submitter="anna")
    add_job(ledger, "u2", state=JobState.DONE, at_ms=30 * HOUR_MS, name="Bert", submitter="bert")
    db = open_reader(settings.folders.ledger)

    def find(**wanted: str) -> list[str]:
        return [row["uid"] for row in facts.list_jobs(db, wanted)]

    assert find() == ["u2", "u1"]
    assert find(q="ANNA") == find(q="0%") == find(submitter="anna") == find(day="1970-01-01") == ["u1"]
    assert find(q="_") == find(day="nonsense") == find(state="failed") == []
    assert find(state="' OR 1 --", limit="-5") == ["u2", "u1"]


def test_the_library_is_listed_without_strangers(settings: Settings) -> None:
    """Pictures, videos and folders of pictures are avatars; other files and hidden ones are not."""
    (settings.folders.avatars / "eva").mkdir()
    for name in ("anna.jpg", "bert.MP4", ".hidden.jpg", "notes.txt", "plain"):
        (settings.folders.avatars / name).touch()
    assert facts.list_library(settings) == [
        {"name": "anna", "kind": "image"},
        {"name": "bert", "kind": "video"},
        {"name": "eva", "kind": ""},
    ]


def test_a_status_file_that_is_none_is_empty(settings: Settings) -> None:
    """Rubbish, a list, a link or no file at all in the place of status.json is no status."""
    status = settings.folders.status_file
    for content in (b"{", b"[]", b"\xff", b"[" * 100_000):
        status.write_bytes(content)
        assert facts.read_status(settings) == {}
    status.unlink()
    assert facts.read_status(settings) == {}
    status.symlink_to("/etc/hostname")
    assert facts.read_status(settings) == {}


def test_drafts_are_shown_apart(settings: Settings, ledger: Ledger) -> None:
    """No list, no count and no figure has them but their own; each job is shown with the name of its submitter."""
    for number, state in enumerate(JobState):
        add_job(ledger, f"d{number}", state=state, submitter="draft")
        ledger.retention.note_draft(f"d{number}")
        add_job(ledger, f"j{number}", state=state, submitter=f"uid:{os.getuid()}", at_ms=1000)
    now = datetime.fromtimestamp(2, UTC)
    db = open_reader(settings.folders.ledger)
    sections: dict[str, Any] = facts.read_sections(db, {}, settings, now, DayFigures())
    lists = [row for name in ("running", "queue", "done", "failed") for row in sections[name]]
    assert {row["uid"][0] for row in lists} == {"j"}
    assert {row["who"] for row in lists} == {pwd.getpwuid(os.getuid()).pw_name}
    assert len(sections["drafts"]) == len(JobState)
    assert sections["counts"] == dict.fromkeys(map(str, JobState), 1)
    assert [(row["done"], row["failed"]) for row in sections["figures"]["hours"]] == [(1, 1)]
    assert [row["submitter"] for row in sections["submitters"]] == [f"uid:{os.getuid()}"]
    assert {row["uid"] for row in facts.list_jobs(db, {"state": "done,failed,cancelled"})} == {"j3", "j4", "j5"}
