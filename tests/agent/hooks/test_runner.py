"""The hooks of a whole ledger: what is told, tried again, and given up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.errors import UserError
from agent.hooks.runner import HookRunner, check_hooks, read_secret
from agent.jobs.states import JobState
from agent.settings import HooksSettings, Settings
from tests.agent.samples import a_ledger, add_job

APPEND = "import json, sys; open(sys.argv[1], 'a').write(sys.argv[2] + ' ' + json.load(sys.stdin)['state'] + chr(10))"


def make_settings(tmp_path: Path, **hooks: Any) -> Settings:
    found = {"share": str(tmp_path / "share"), "state": str(tmp_path / "state"), "hooks": hooks}
    return Settings.model_validate(found)


def test_done_and_failed_jobs_run_their_commands(tmp_path: Path) -> None:
    """Each gets the path of its result or of its error; a cancelled one runs none."""
    out = tmp_path / "told"
    command = [sys.executable, "-c", APPEND, str(out), "{path}"]
    settings = make_settings(tmp_path, done=command, failed=command)
    ledger, runner = a_ledger(tmp_path), HookRunner(settings, tmp_path / "hooks.json")
    runner.step(ledger.db)
    for at_ms, state in enumerate((JobState.DONE, JobState.FAILED, JobState.CANCELLED), 2000):
        add_job(ledger, f"u-{state}", name=f"job-{state}", state=state, at_ms=at_ms)
    runner.step(ledger.db)
    runner.step(ledger.db)
    share = settings.folders.share
    assert out.read_text().splitlines() == [f"{share}/outbox/job-done done", f"{share}/failed/job-failed failed"]
    ledger.close()


def test_a_hook_gets_the_folder_of_the_job_itself(tmp_path: Path) -> None:
    """Where failed/NAME was taken, it is the NAME-2 that the row says."""
    out = tmp_path / "told"
    settings = make_settings(tmp_path, failed=[sys.executable, "-c", APPEND, str(out), "{path}"])
    ledger, runner = a_ledger(tmp_path), HookRunner(settings, tmp_path / "hooks.json")
    runner.step(ledger.db)
    add_job(ledger, "u1", name="job", state=JobState.FAILED, at_ms=2000)
    ledger.update("u1", inputs="share:failed/job-2")
    runner.step(ledger.db)
    assert out.read_text().splitlines() == [f"{settings.folders.share}/failed/job-2 failed"]
    ledger.close()


def test_a_hook_that_fails_is_tried_again_and_given_up(tmp_path: Path) -> None:
    """With pauses that the clock measures; the file keeps it over a restart."""
    now = [1000.0]
    settings = make_settings(tmp_path, done=[sys.executable, "-c", "raise SystemExit(1)"], attempts=2)
    ledger = a_ledger(tmp_path)
    runner = HookRunner(settings, tmp_path / "hooks.json", lambda: now[0])
    runner.step(ledger.db)
    add_job(ledger, "u1", state=JobState.DONE, at_ms=2000)
    runner.step(ledger.db)
    assert [one.attempts for one in runner.queue.pending] == [1]
    runner = HookRunner(settings, tmp_path / "hooks.json", lambda: now[0])
    runner.step(ledger.db)
    assert [one.attempts for one in runner.queue.pending] == [1]
    now[0] += 2.0
    runner.step(ledger.db)
    assert runner.queue.pending == []
    ledger.close()


def test_a_job_that_was_deleted_or_runs_again_is_not_told(tmp_path: Path) -> None:
    """Its row is what counts at the time of the telling."""
    settings = make_settings(tmp_path, done=["/nowhere"])
    ledger, runner = a_ledger(tmp_path), HookRunner(settings, tmp_path / "hooks.json")
    runner.step(ledger.db)
    add_job(ledger, "u1", state=JobState.DONE, at_ms=2000)
    runner.queue.read_ends(ledger.db, runner.states)
    ledger.db.execute("DELETE FROM attempts")
    ledger.db.execute("DELETE FROM events")
    ledger.db.execute("DELETE FROM jobs")
    runner.step(ledger.db)
    assert runner.queue.pending == []
    ledger.close()


def test_mistakes_in_the_settings_are_said(tmp_path: Path) -> None:
    """No hook, a URL without a secret, a secret that is not there or too short."""
    with pytest.raises(UserError, match="no hook is set"):
        check_hooks(HooksSettings())
    url: dict[str, Any] = {"url": "https://hooks.example/", "hosts": ("hooks.example",)}
    with pytest.raises(UserError, match="secret_file: requests are signed"):
        read_secret(HooksSettings(**url))
    secret = tmp_path / "secret"
    with pytest.raises(UserError, match="can't be read"):
        read_secret(HooksSettings(**url, secret_file=str(secret)))
    secret.write_text("short")
    with pytest.raises(UserError, match="16 characters"):
        read_secret(HooksSettings(**url, secret_file=str(secret)))
    secret.write_text("x" * 16 + "\n")
    assert read_secret(HooksSettings(**url, secret_file=str(secret))) == b"x" * 16
    assert json.dumps(sorted(check_hooks(HooksSettings(**url)))) == '["url"]'
