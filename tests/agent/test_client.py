"""Job files and control files in the inbox, and rows of the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import client
from agent.client import ClientError
from agent.jobs.parse import parse_job
from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from agent.settings import Settings
from tests.agent.samples import add_job


def test_a_submitted_job_has_copies_of_its_media(settings: Settings, tmp_path: Path) -> None:
    """The job file names copies in the inbox, which no other job can replace."""
    (tmp_path / "me.JPG").write_bytes(b"face")
    (tmp_path / "talk.wav").write_bytes(b"voice")
    job = {"priority": "high", "fps": None}
    ticket = client.submit(settings, str(tmp_path / "me.JPG"), tmp_path / "talk.wav", job, None)
    inbox = settings.folders.inbox
    spec = parse_job((inbox / "talk.json").read_bytes())
    assert (ticket.name, ticket.id, spec.priority) == ("talk", spec.id, 10)
    assert (inbox / str(spec.avatar)).read_bytes() == b"face"
    assert (inbox / str(spec.audio)).read_bytes() == b"voice"
    assert len(list(inbox.iterdir())) == 3


def test_media_in_the_inbox_are_not_copied(settings: Settings) -> None:
    """The job file names them as they are; a name without a file is a library avatar."""
    voice = settings.folders.inbox / "talk.wav"
    voice.write_bytes(b"voice")
    (settings.folders.avatars / "Anna.jpg").write_bytes(b"face")
    client.submit(settings, "anna", voice, {}, "hello")
    assert sorted(path.name for path in settings.folders.inbox.iterdir()) == ["hello.json", "talk.wav"]


def test_missing_files_are_refused(settings: Settings, tmp_path: Path) -> None:
    """No job file is written for media that don't exist."""
    with pytest.raises(ClientError, match=r"no file nowhere\.jpg"):
        client.submit(settings, "nowhere.jpg", tmp_path / "talk.wav", {}, None)
    (settings.folders.avatars / "anna.jpg").write_bytes(b"face")
    with pytest.raises(ClientError, match="sound file"):
        client.submit(settings, "anna", tmp_path / "talk.wav", {}, None)
    assert not list(settings.folders.inbox.iterdir())


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_a_control_file_stays_in_the_inbox(settings: Settings, name: str) -> None:
    """A text that would name another folder is refused."""
    with pytest.raises(ClientError, match="is not a name"):
        client.write_control_file(settings, name, "cancel")
    client.write_control_file(settings, "hello", "cancel")
    client.control_queue(settings, "pause")
    assert sorted(path.name for path in settings.folders.inbox.iterdir()) == ["hello.cancel", "pause"]


def test_unfinished_jobs_are_listed_first(settings: Settings) -> None:
    """They are listed in their order, then the finished ones from the newest; a job is found by name, id or uid."""
    ledger = Ledger(settings.folders.ledger)
    for at_ms, (uid, state) in enumerate({"a": JobState.DONE, "b": JobState.QUEUED, "c": JobState.DONE}.items(), 1000):
        add_job(ledger, uid, name=f"job-{uid}", id=f"order-{uid}", state=state, at_ms=at_ms)
    db = client.open_ledger(settings)
    assert [row["uid"] for row in client.list_jobs(db)] == ["b", "c", "a"]
    assert [(client.find_job(db, name) or {})["uid"] for name in ("job-a", "order-a", "a")] == ["a", "a", "a"]
    assert client.find_job(db, "nothing") is None
    assert client.list_events(db, "a")
    db.close()
    ledger.close()


def test_a_job_file_that_still_waits_is_not_replaced(settings: Settings, tmp_path: Path) -> None:
    """Two jobs of one name, before the daemon takes the first, are two job files; the ticket names each."""
    (tmp_path / "me.jpg").write_bytes(b"face")
    (tmp_path / "talk.wav").write_bytes(b"voice")
    tickets = [client.submit(settings, str(tmp_path / "me.jpg"), tmp_path / "talk.wav", {}, None) for _ in range(2)]
    assert [ticket.name for ticket in tickets] == ["talk", "talk-2"]
    ids = [parse_job((settings.folders.inbox / f"{ticket.name}.json").read_bytes()).id for ticket in tickets]
    assert ids == [ticket.id for ticket in tickets]
