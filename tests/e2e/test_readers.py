"""Readers of the ledger and status.json: read-only users, copies, other tools."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlite_utils

from agent.cli.doctor import check_daemon_status
from agent.service.process import InstanceLock
from agent.settings_file import load_settings
from tests.share import ROOT, Share, until

PAGE = (ROOT / "docs" / "status-queries.md").read_text()
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
PROMISED = json.loads((ROOT / "tests" / "data" / "views-3.json").read_text())
"""View -> the columns that version 2 of the views has promised."""
ASK = """
import os, sqlite3, sys
os.setgroups([]), os.setgid(65534), os.setuid(65534)
conn = sqlite3.connect(sys.argv[1], uri=True)
for query in sys.argv[2:]:
    conn.execute(query).fetchall()
try:
    conn.execute("DELETE FROM jobs")
except sqlite3.OperationalError as refused:
    print(conn.execute("SELECT name, state FROM job_status").fetchall(), refused)
"""


def drop(share: Share, name: str, **job: Any) -> None:
    """A job with media of its own."""
    share.put(f"{name}-face.jpg", b"face")
    share.put(f"{name}-voice.wav", b"voice")
    share.drop(name, avatar=f"{name}-face.jpg", audio=f"{name}-voice.wav", **job)


def finish_job(share: Share, name: str = "hello") -> None:
    drop(share, name)
    share.wait_for(name, "done")


def add_settings(share: Share, section: str, *lines: str) -> None:
    """More settings in a section, before the daemon starts."""
    text = share.config.read_text()
    head = f"[{section}]\n"
    added = head + "".join(f"{line}\n" for line in lines)
    share.config.write_text(text.replace(head, added) if head in text else text + added)


# users with few rights -----------------------------------------------------------------------------------------------


@pytest.fixture
def open_share() -> Iterator[Share]:
    """A share whose folders, the state of the ledger too, everybody may enter and read."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        share = Share(Path(folder), module="tests.e2e.noop")
        share.state.mkdir(exist_ok=True)
        share.state.chmod(0o755)
        yield share
        share.end()


def ask_as_nobody(uri: str) -> str:
    """Run all documented queries as a read-only user. Return the jobs, and the refused delete."""
    run = subprocess.run([sys.executable, "-c", ASK, uri, *QUERIES], capture_output=True, text=True)
    assert not run.stderr, run.stderr
    return run.stdout


def test_a_user_who_may_only_read(open_share: Share) -> None:
    """The documented URIs work while the daemon runs, after a kill and after a stop."""
    ledger = open_share.state / "jobs.db"
    expected = "[('hello', 'done')] attempt to write a readonly database\n"
    open_share.start()
    finish_job(open_share)
    assert ask_as_nobody(f"file:{ledger}?mode=ro") == expected
    open_share.kill()
    assert ask_as_nobody(f"file:{ledger}?mode=ro") == expected
    open_share.start()
    assert open_share.stop() == 0
    assert ask_as_nobody(f"file:{ledger}?immutable=1") == expected
    assert sorted(path.name for path in ledger.parent.glob("jobs.db*")) == ["jobs.db"]


# the copy on the share -----------------------------------------------------------------------------------------------


def query_copy(path: Path, sql: str = "SELECT name, state FROM job_status") -> list[tuple[Any, ...]]:
    conn = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        return conn.execute(sql).fetchall()
    finally:
        conn.close()


def test_the_daemon_leaves_a_copy_on_the_share(make_share: Callable[..., Share]) -> None:
    """With status.snapshot_s, status.db follows the ledger, and documented queries run on it."""
    share = make_share(module="tests.e2e.noop")
    add_settings(share, "status", "snapshot_s = 0.2")
    share.start()
    copy = share.folder / "status.db"
    finish_job(share)
    until(lambda: copy.exists() and query_copy(copy) == [("hello", "done")], 60, share.log)
    for query in QUERIES:
        query_copy(copy, query)
    finish_job(share, "again")
    assert share.stop() == 0
    assert sorted(query_copy(copy)) == [("again", "done"), ("hello", "done")]
    assert not list(share.folder.glob(".status*"))


def test_a_copy_that_fails_stops_nothing(make_share: Callable[..., Share]) -> None:
    """A folder named status.db is a problem in status.json and doctor; jobs continue."""
    share = make_share(module="tests.e2e.noop")
    add_settings(share, "status", "snapshot_s = 0.2")
    (share.folder / "status.db").mkdir()
    share.start()
    finish_job(share)

    def problems() -> list[str]:
        return list((share.status_file() or {})["problems"])

    until(lambda: any("status.db can't be written" in problem for problem in problems()), 60, share.log)
    (share.inbox / "pause").touch()
    until(lambda: bool((share.status_file() or {})["paused"]), 60, share.log)
    told = share.musedrop("doctor").stdout
    assert "daemon's problem   status.db can't be written" in told
    assert "is paused: no more jobs are started" in told
    (share.folder / "status.db").rmdir()
    until(lambda: (share.folder / "status.db").is_file() and not problems(), 60, share.log)


def test_musedrop_snapshot(share: Share, tmp_path: Path) -> None:
    """`snapshot` copies to the share or a given file, with or without a daemon."""
    made = share.musedrop("snapshot")
    assert (made.returncode, made.stdout) == (0, f"{share.folder / 'status.db'}\n"), made.stderr
    assert share.stop() == 0
    elsewhere = share.musedrop("snapshot", str(tmp_path / "copy.db"))
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert query_copy(tmp_path / "copy.db") == query_copy(share.folder / "status.db") == []
    for wrong in (tmp_path / "no" / "copy.db", tmp_path, share.state / "jobs.db"):
        refused = share.musedrop("snapshot", str(wrong))
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr
    assert share.state.joinpath("jobs.db").exists()


# status.json ---------------------------------------------------------------------------------------------------------


def documented_keys() -> dict[str, str]:
    """Key of status.json -> what the table says it holds."""
    table = PAGE[PAGE.index("## status.json") :]
    return dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.M))


def test_status_json_is_what_the_docs_say(make_share: Callable[..., Share]) -> None:
    """Its keys are documented, its rows are those of the views, and running jobs have an ETA."""
    share = make_share(module="tests.e2e.noop")
    share.start()
    finish_job(share)
    drop(share, "long", options={"frame_s": 0.1})
    share.drop("late", avatar="face.jpg", audio="never.wav")

    def told() -> dict[str, Any]:
        return share.status_file() or {}

    until(lambda: any(row["eta_s"] for row in told()["running"]) and bool(told()["queue"]), 60, share.log)
    status, keys = told(), documented_keys()
    assert list(status) == list(keys)
    assert status["version"] == 1
    assert set(status["daemon"]) == set(re.findall(r"`(\w+)`", keys["daemon"]))
    assert set(status["counts"]) == set(re.findall(r"`(\w+)`", keys["counts"]))
    columns = {view: set(promised) for view, promised in PROMISED.items()}
    assert set(status["running"][0]) == columns["job_status"] | {"eta_s"}
    assert 0 < status["running"][0]["eta_s"] < 60
    assert set(status["recent"][0]) == columns["job_status"]
    assert set(status["queue"][0]) == columns["queue"]
    assert [set(row) for row in status["devices"]] == 2 * [columns["device_status"]]
    assert (status["paused"], status["problems"], status["daemon"]["running"]) == (False, [], True)
    assert isinstance(status["engine"], str)
    assert share.stop() == 0
    assert told()["daemon"]["running"] is False


def test_the_example_of_the_docs_has_every_key() -> None:
    """In their order, and its rows have columns that there are."""
    example = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
    assert list(example) == list(documented_keys())
    for key, view in (("running", "job_status"), ("queue", "queue"), ("devices", "device_status")):
        assert set(example[key][0]) <= {*PROMISED[view], "eta_s"}


@pytest.mark.parametrize("text", [b"", b"[]", b'{"daemon": 1}', b"[" * 100_000, b'{"daemon": {"pid": %d}}', None])
def test_doctor_trusts_no_status_file(tmp_path: Path, text: bytes | None) -> None:
    """A status.json that the running daemon has not written is ignored."""
    (tmp_path / "share").mkdir()
    (tmp_path / "musedrop.toml").write_text('share = "share"\nstate = "state"\n')
    settings = load_settings(tmp_path / "musedrop.toml")
    lock = InstanceLock(settings.folders.lock)
    if text is not None:
        settings.folders.status_file.write_bytes(text.replace(b"%d", str(os.getpid()).encode()))
    assert list(check_daemon_status(settings)) == []
    lock.release()


# other people's tools ------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(make_share: Callable[..., Share]) -> Path:
    """A ledger that a real daemon has left."""
    share = make_share(module="tests.e2e.noop")
    share.start()
    finish_job(share)
    assert share.stop() == 0
    return share.state / "jobs.db"


def test_sqlite_utils_opens_the_ledger(ledger: Path) -> None:
    """Library and command list the views and their rows."""
    db = sqlite_utils.Database(ledger)
    assert sorted(db.view_names()) == sorted(PROMISED)
    assert [row["state"] for row in db["job_status"].rows] == ["done"]
    db.close()
    command = [sys.executable, "-m", "sqlite_utils", "rows", str(ledger), "job_status"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert [row["name"] for row in json.loads(run.stdout)] == ["hello"], run.stderr


def test_datasette_serves_the_ledger(ledger: Path) -> None:
    """Every view is a page and an API of its own."""
    for view in PROMISED:
        path = f"/jobs/{view}.json?_shape=array"
        command = [sys.executable, "-m", "datasette", "-i", str(ledger), "--get", path]
        run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
        assert run.returncode == 0, run.stderr
        assert isinstance(json.loads(run.stdout), list)
        assert view in ("queue", "device_events") or json.loads(run.stdout), view
