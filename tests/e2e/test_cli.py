"""Every command as a person types it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli.main import app
from agent.jobs.parse import parse_job
from tests.share import EXAMPLES, ROOT, Share, face, until, voice

COMMANDS = ["init", "run", "submit", "status", "watch", "cancel", "retry", "devices", "drain", "resume", "unload"]
COMMANDS += ["wait", "logs", "open", "hooks", "trust-clock"]
COMMANDS += ["pause", "snapshot", "schema", "doctor", "demo", "models", "avatar", "service", "notify"]


def musedrop(*words: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent.cli.main", *words]
    wide = {**os.environ, "COLUMNS": "160", "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, env=wide)


def test_help_names_every_command() -> None:
    """`musedrop --help` and `musedrop` list all commands; --version prints the version."""
    shown = musedrop("--help").stdout
    assert all(command in shown for command in COMMANDS)
    assert "musedrop 0." in musedrop("--version").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command: str) -> None:
    """Each command explains itself and its options."""
    shown = CliRunner().invoke(app, [command, "--help"], prog_name="musedrop")
    assert shown.exit_code == 0
    assert f"musedrop {command}" in shown.stdout
    assert "--help" in shown.stdout


def test_init_lays_out_a_share_that_run_accepts(tmp_path: Path) -> None:
    """init creates the folders and the annotated settings; a second init changes nothing."""
    made = musedrop("init", str(tmp_path / "here"))
    assert made.returncode == 0
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"share", "state", "musedrop.toml"}
    assert {path.name for path in (tmp_path / "here" / "share").iterdir()} >= {"inbox", "outbox", "failed", "avatars"}
    text = (tmp_path / "here" / "musedrop.toml").read_text()
    assert "settle_s" in text
    again = musedrop("init", str(tmp_path / "here"))
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert (tmp_path / "here" / "musedrop.toml").read_text() == text


def test_settings_are_found_and_mistakes_in_them_said(tmp_path: Path) -> None:
    """Settings in the working directory are found; a typo exits with 78 and the nearest key."""
    musedrop("init", str(tmp_path))
    assert "no ledger" in musedrop("status", cwd=tmp_path).stderr
    (tmp_path / "musedrop.toml").write_text('share = "."\nstate = "./state"\n[inbox]\nsetle_s = 1\n')
    wrong = musedrop("status", cwd=tmp_path)
    assert wrong.returncode == 78
    assert "setle_s" in wrong.stderr
    assert "settle_s" in wrong.stderr.replace("setle_s", "")
    nowhere = musedrop("status", "--config", str(tmp_path / "none.toml"))
    assert nowhere.returncode == 78
    assert "Traceback" not in nowhere.stderr


def test_schema_is_json_and_fits_the_examples() -> None:
    """The printed schema is JSON Schema, and the example jobs are jobs."""
    schema = json.loads(musedrop("schema").stdout)
    assert schema["$schema"].endswith("2020-12/schema")
    for path in EXAMPLES.glob("*.json"):
        assert parse_job(path.read_bytes()).audio


def test_submit_and_wait(share: Share, tmp_path: Path) -> None:
    """submit copies the media, shows progress, waits, and prints the path; status agrees."""
    (tmp_path / "me.jpg").write_bytes(face())
    (tmp_path / "talk.wav").write_bytes(voice())
    words = ["submit", "--avatar", str(tmp_path / "me.jpg"), "--audio", str(tmp_path / "talk.wav"), "--wait"]
    done = share.musedrop(*words, "--option", "label=false", "--priority", "high", "--fps", "12.5")
    assert done.returncode == 0, done.stderr
    assert f"done: {share.outbox / 'talk' / 'result.mp4'}" in done.stdout
    result = share.result("talk")
    assert (result["label"], result["fps"], result["frames"]) == (False, "25/2", 12)
    listed = share.musedrop("status")
    assert "talk" in listed.stdout
    assert "done" in listed.stdout
    one = json.loads(share.musedrop("status", "talk", "--json").stdout)
    assert (one["state"], one["priority"]) == ("done", 10)
    assert "attempt 1" in share.musedrop("status", "talk").stdout
    assert (tmp_path / "me.jpg").exists()


def test_submit_says_what_went_wrong(share: Share, tmp_path: Path) -> None:
    """A failed job exits with 1, its message and hint, and error.json is there; a missing file exits with 2."""
    (tmp_path / "me.jpg").write_bytes(face())
    (tmp_path / "broken.wav").write_text("no sound")
    words = ["submit", "--avatar", str(tmp_path / "me.jpg"), "--audio", str(tmp_path / "broken.wav")]
    failed = share.musedrop(*words, "--wait")
    assert failed.returncode == 1
    assert "audio_unreadable: broken.wav" in failed.stderr
    assert list(share.failed.glob("*/error.json"))
    missing = share.musedrop("submit", "--avatar", "nobody.jpg", "--audio", str(tmp_path / "broken.wav"))
    assert missing.returncode == 2
    assert "nobody.jpg" in missing.stderr
    assert not [path for path in share.inbox.iterdir() if path.suffix == ".json"]


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_asking_for_a_job_that_isnt_there(share: Share, verb: str) -> None:
    """Nothing is left in the inbox for a name that nobody knows."""
    asked = share.musedrop(verb, "nobody")
    assert asked.returncode == 2
    assert "no job is called nobody" in asked.stderr
    assert not list(share.inbox.iterdir())


def test_devices_are_listed_drained_and_resumed(share: Share) -> None:
    """A drained device stays out of service, also after a restart, until it is resumed."""

    def state(device: str) -> str:
        [row] = share.rows("SELECT state FROM device_status WHERE device = ?", device) or [{"state": ""}]
        return str(row["state"])

    until(lambda: state("cpu:1") == "idle", 60, share.log)
    told = share.musedrop("drain", "cpu-1")
    assert told.returncode == 0, told.stderr
    assert "cpu:1 gets no more work" in told.stdout
    until(lambda: state("cpu:1") == "drained", 60, share.log)
    assert not list(share.inbox.iterdir())
    assert share.stop() == 0
    share.start()
    until(lambda: (state("cpu:0"), state("cpu:1")) == ("idle", "drained"), 60, share.log)
    listed = share.musedrop("devices").stdout
    assert "set aside by a person" in " ".join(listed.split())
    assert "cpu:0" in listed
    rows = json.loads(share.musedrop("devices", "--json").stdout)
    assert [(row["device"], row["state"]) for row in rows] == [("cpu:0", "idle"), ("cpu:1", "drained")]
    (share.inbox / "CPU-1.resume").touch()
    until(lambda: state("cpu:1") == "idle", 60, share.log)


def test_asking_for_a_device_that_isnt_there(share: Share) -> None:
    """The command lists the devices; a control file for no device is removed and logged."""
    until(lambda: len(share.rows("SELECT * FROM device_status")) == 2, 60, share.log)
    for verb in ("drain", "resume", "unload"):
        asked = share.musedrop(verb, "GPU-none")
        assert asked.returncode == 2
        assert "cpu:0, cpu:1" in asked.stderr
        (share.inbox / f"nobody.{verb}").touch()
    assert "several devices" in share.musedrop("drain", "cpu").stderr
    until(lambda: not list(share.inbox.iterdir()), 60, share.log)
    until(lambda: "nothing to drain: no device is called nobody" in share.log(), 60, share.log)


def test_doctor_looks_at_everything(share: Share) -> None:
    """doctor has lines for Python, torch, NVML, a worker, encoders, engines, folders, daemon."""
    told = share.musedrop("doctor")
    assert told.returncode == 0, told.stdout + told.stderr
    for word in (
        "Python",
        "torch",
        "worker",
        "encoder libx264",
        "engine auto",
        "inbox",
        "file system",
        "runs as process",
    ):
        assert word in told.stdout
    assert "GPU" in told.stdout or "NVML" in told.stdout
    assert "preview" in told.stdout


def test_doctor_finds_what_is_wrong(make_share: Callable[..., Share]) -> None:
    """Missing folders are bad news with advice, and the exit code says so."""
    share = make_share()
    told = share.musedrop("doctor")
    assert told.returncode == 1
    assert "musedrop init" in told.stdout


def test_watch_draws_jobs_and_devices(share: Share) -> None:
    """On a terminal the live view shows the job and the devices, and ends at Ctrl-C."""
    share.put("face.jpg", face())
    share.put("voice.wav", voice())
    share.drop("seen", avatar="face.jpg", audio="voice.wav")
    share.wait_for("seen", "done")
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "agent.cli.main", "watch", "--config", str(share.config)]
    with subprocess.Popen(command, cwd=ROOT, stdout=end, stderr=end, env={**os.environ, "COLUMNS": "160"}) as view:
        os.close(end)
        shown = b""

        def read() -> None:  # a terminal that nobody reads is full soon, and then the view waits
            nonlocal shown
            if select.select([terminal], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # the other end is closed
                    shown += os.read(terminal, 65536)

        def drawn() -> bool:
            read()
            return b"seen" in shown and b"cpu:0" in shown

        def ended() -> bool:
            read()
            return view.poll() is not None

        until(drawn, 60, lambda: shown.decode(errors="replace"))
        view.send_signal(2)
        until(ended, 60, lambda: shown.decode(errors="replace"))
        assert view.returncode == 130
    os.close(terminal)


def test_a_hostile_name_is_only_a_name(share: Share) -> None:
    """Markup and escape sequences in a file's name are shown as text."""
    name = "a[b] [red] :smile: \x1b[2J"
    share.put(f"{name}.json", b"no job")
    share.wait_for(name, "failed")
    shown = "a[b] [red] :smile: \\x1b[2J"
    for words in (["status"], ["status", name], ["retry", name]):
        said = share.musedrop(*words)
        assert (said.returncode, shown in said.stdout, "\x1b[2J" in said.stdout) == (0, True, False), said.stderr


@pytest.mark.slow
def test_the_demo_runs_every_example(tmp_path: Path) -> None:
    """`musedrop demo` makes and signs all videos, twice, and refuses a folder with other files."""
    for _ in range(2):
        played = musedrop("demo", str(tmp_path / "demo"))
        assert played.returncode == 0, played.stdout + played.stderr
        assert played.stdout.startswith("Rendering the jobs of")
        assert "missing" not in played.stdout
        assert "3 of 3 jobs done" in played.stdout
    for name in ("hello", "portrait", "video"):
        result = tmp_path / "demo" / "share" / "outbox" / name
        assert (result / "contact.jpg").is_file()
        verified = musedrop("verify", str(result))
        assert verified.returncode == 0, verified.stdout + verified.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("keep me")
    refused = musedrop("demo", str(tmp_path / "mine"))
    assert refused.returncode == 2
    assert (tmp_path / "mine" / "precious.txt").exists()
