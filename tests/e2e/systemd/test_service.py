"""The service on a real systemd: start, stop, kill, freeze, bad settings, missing share."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.e2e.systemd.machine import Machine, soon
from tests.e2e.systemd.service import PROGRAM, UNITS, Service
from tests.share import alive, face, until, voice

pytestmark = pytest.mark.systemd
MOST_EXPOSED = 2.0
LEASE = 1 << 28
JOB = {"avatar": "face.png", "audio": "voice.wav"}


@pytest.mark.usefixtures("service")
def test_the_units_are_clean_and_exposed_little(machine: Machine) -> None:
    """`systemd-analyze` has no complaint about any unit, and rates the exposure low."""
    folder = f"/{UNITS}"
    done = machine.run("systemd-analyze", "verify", f"{folder}/musedrop.service", f"{folder}/musedrop-nvidia.service")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    source = "/opt/musedrop-source/systemd"
    for name in (
        "musedrop-user.service",
        "musedrop-notify.service",
        "musedrop-page.service",
        "musedrop-page-user.service",
    ):
        done = machine.run("systemd-analyze", "verify", f"{source}/{name}")
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
    for name, most in (("musedrop.service", MOST_EXPOSED), ("musedrop-page.service", MOST_EXPOSED)):
        said = machine.check("systemd-analyze", "security", "--offline=true", f"{folder}/{name}")
        rated = re.search(rf"Overall exposure level for {name}: ([\d.]+)", said)
        assert rated
        assert float(rated[1]) <= most, said


def test_started_means_ready(service: Service, machine: Machine) -> None:
    """When `systemctl start` returns, files in the inbox have rows and devices have workers."""
    service.drop("early", **JOB)
    service.up()
    assert [row["name"] for row in service.rows()] == ["early"]
    assert service.status_text() == "0 running, 0 queued, 1 waiting"
    until(lambda: len(machine.processes()) == 3, 60, service.log)  # beside them, the first time, one makes the key
    assert machine.show("UnitFileState") == "disabled"
    machine.check("systemctl", "enable", "musedrop")
    assert machine.show("UnitFileState") == "enabled"


def test_a_video_under_the_shipped_unit(service: Service, machine: Machine) -> None:
    """Another user's media become a video; the process has one capability and no network."""
    (service.root / UNITS / "musedrop.service.d" / "test.conf").unlink()
    service.config.unlink()
    machine.check(PROGRAM, "service", "install", "--yes")
    service.up()
    service.put("face.jpg", face())
    service.put("voice.wav", voice())
    service.drop("hello", avatar="face.jpg", audio="voice.wav")
    assert service.wait_for("hello", "done", "failed")["state"] == "done", service.log()
    assert service.result("hello")["frames"] == 25
    main = machine.main_pid()
    video = (service.outbox / "hello" / "result.mp4").stat()
    for pid in machine.processes():
        facts = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert facts["Uid"].split() == [str(video.st_uid)] * 4 != ["0"] * 4
        devices = Path(f"/proc/{pid}/net/dev").read_text()
        capabilities = LEASE if pid == main else 0
        assert (int(facts["CapEff"], 16), facts["NoNewPrivs"], facts["Seccomp"]) == (capabilities, "1", "2")
        assert [line.split(":")[0].strip() for line in devices.splitlines()][2:] == ["lo"]
    for log in (machine.folder / "var/log/musedrop").glob("worker-*.log"):
        assert "can open every file" not in log.read_text(), "the unit keeps workers from raising their walls"
    assert video.st_mode & 0o777 == 0o660
    inside = Path(f"/proc/{main}/root")
    for place in ("etc", "opt/musedrop", "srv", "usr", "var/lib"):
        assert os.statvfs(inside / place).f_flag & os.ST_RDONLY, place
    for place in ("srv/musedrop", "var/lib/musedrop", "var/cache/musedrop", "var/log/musedrop", "tmp"):
        assert not os.statvfs(inside / place).f_flag & os.ST_RDONLY, place
    assert not list((inside / "root").iterdir()), "no homes"
    assert (service.root / "var/log/musedrop").stat().st_uid == video.st_uid
    assert list((service.root / "var/log/musedrop").iterdir()), "the workers' logs"
    told = [json.loads(line) for line in machine.run("journalctl", "-o", "json", "JOB=hello").stdout.splitlines()]
    assert [entry["MESSAGE"] for entry in told][::2] == ["hello accepted", "hello is done: outbox/hello"]
    assert {entry["PRIORITY"] for entry in told} == {"6"}
    assert {entry["JOB_UID"] for entry in told} == {service.job("hello")["uid"]}


def check_finished_once(service: Service, names: list[str]) -> None:
    """Every job has one result and one run that ended well."""
    service.wait_until_finished(len(names))
    assert {row["state"] for row in service.rows()} == {"done"}, service.rows()
    assert service.results() == sorted(names)


def test_a_killed_daemon_is_started_again(service: Service, machine: Machine) -> None:
    """kill -9 with jobs in flight: no worker survives, every job ends exactly once."""
    service.up()
    names = service.jobs(6, frame_s=0.01)
    service.wait_for("job0", "running", "done")
    before = machine.processes()
    os.kill(machine.main_pid(), signal.SIGKILL)
    service.wait_for_restart()
    check_finished_once(service, names)
    assert not [pid for pid in before if alive(pid)]


def test_a_frozen_daemon_is_started_again(service: Service, machine: Machine) -> None:
    """After SIGSTOP the watchdog aborts it, the journal has a stack, every job ends once."""
    service.drop_in("WatchdogSec=2")
    service.up()
    names = service.jobs(4, frame_s=0.05)
    service.wait_for("job0", "running", "done")
    before = machine.processes()
    os.kill(machine.main_pid(), signal.SIGSTOP)
    service.wait_for_restart()
    check_finished_once(service, names)
    assert not [pid for pid in before if alive(pid)]
    assert "Fatal Python error: Aborted" in machine.journal()
    assert "watchdog" in machine.journal().lower()


def test_a_frozen_worker_is_replaced(service: Service, machine: Machine) -> None:
    """A busy worker gets SIGSTOP: the pool kills it and repeats its span; the daemon goes on."""
    service.configure(stall_s=1)
    service.up()
    main = machine.main_pid()
    service.jobs(1, frame_s=0.1)
    until(lambda: any(row["stage"] == "render" for row in service.rows()), 60, service.log)
    busy = "SELECT * FROM device_status WHERE state = 'busy' AND worker_pid IS NOT NULL"
    until(lambda: bool(service.rows(busy)), 60, service.log)
    row = service.rows(busy)[0]
    frozen = machine.outside(row["worker_pid"])
    os.kill(frozen, signal.SIGSTOP)
    assert service.wait_for("job0", "done", "failed")["state"] == "done"
    assert not alive(frozen)
    assert (machine.main_pid(), machine.show("NRestarts")) == (main, "0")
    lost = machine.run("journalctl", "-o", "cat", "-p", "warning", f"DEVICE={row['device']}", "JOB=job0").stdout
    assert "span" in lost


def test_a_stop_lets_running_spans_finish(service: Service, machine: Machine) -> None:
    """A drain may exceed TimeoutStopSec while frames advance; the next start uses the parts."""
    service.drop_in("TimeoutStopSec=1")
    service.up()
    service.jobs(1, frame_s=0.1)
    until(lambda: any(row["stage"] == "render" for row in service.rows()), 60, service.log)
    assert (service.root / "run/musedrop").is_dir()
    service.down()
    assert machine.show("Result") == "success", service.log()
    assert (service.job("job0")["state"], service.job("job0")["interruptions"]) == ("queued", 0)
    kept = service.parts()
    assert kept
    for path in kept:
        path.write_bytes(b"of the first start\n")
    assert not (service.root / "run/musedrop").exists()
    service.up()
    service.wait_for("job0", "done")
    assert (service.outbox / "job0" / "result.mp4").read_bytes().count(b"of the first start") == len(kept)
    spans = [row for row in service.rows("SELECT * FROM job_events") if row["kind"] == "running"]
    assert len(spans) == 2


@pytest.mark.parametrize("end", ["second", "limit"])
def test_a_stop_that_takes_too_long_is_cut_short(service: Service, machine: Machine, end: str) -> None:
    """A second SIGTERM or pool.drain_s interrupts the job, which is queued again without blame."""
    service.configure(drain_s=0.5 if end == "limit" else 60)
    service.up()
    service.jobs(1, frame_s=1)
    until(lambda: any(row["stage"] == "render" for row in service.rows()), 60, service.log)
    machine.check("systemctl", "stop", "--no-block", "musedrop")
    if end == "second":
        soon(lambda: "draining" in service.status_text(), 30, service.log)
        machine.check("systemctl", "kill", "-s", "TERM", "--kill-who=main", "musedrop")
    soon(lambda: machine.show("ActiveState") == "inactive", 15, service.log)
    assert machine.show("Result") == "success"
    row = service.job("job0")
    assert (row["state"], row["interruptions"]) == ("queued", 0)
    assert "interrupted" in machine.journal()


def test_a_crash_loop_ends(service: Service, machine: Machine) -> None:
    """After five starts systemd gives up and says so."""
    service.drop_in(module="tests.no_such_module")
    assert machine.run("systemctl", "start", "musedrop").returncode != 0
    soon(lambda: machine.show("ActiveState") == "failed", 30, service.log)
    soon(lambda: "Start request repeated too quickly" in machine.journal(), 30, service.log)
    assert machine.show("NRestarts") == "5"
    assert machine.journal().count("No module named") == 5


def test_a_mistake_in_the_settings(service: Service, machine: Machine) -> None:
    """It is not restarted; `systemctl status` names the file, the key and the nearest key."""
    service.configure(more="[outptu]\ncrf = 20\n")
    service.drop_in(module="agent.cli.main")
    assert machine.run("systemctl", "start", "musedrop").returncode != 0
    assert (machine.show("ExecMainStatus"), machine.show("NRestarts")) == ("78", "0")
    said = "/etc/musedrop/musedrop.toml: outptu is not a key of the settings. Did you mean output?"
    status = machine.run("systemctl", "status", "--no-pager", "-l", "musedrop").stdout
    assert status.count(said) == 2, "as Status, and as the last line of the journal"


def test_a_share_that_is_not_there_yet(service: Service, machine: Machine) -> None:
    """The service starts, says what it waits for, and goes on when the share is mounted."""
    machine.check("mkdir", "/srv/disk")
    machine.check("sh", "-c", "cp -a /srv/musedrop/. /srv/disk/ && chown musedrop: /srv/disk && rm -r /srv/musedrop/*")
    machine.check("mount", "--bind", "/srv/disk", "/srv/musedrop")
    service.up()
    service.down()
    machine.check("umount", "/srv/musedrop")
    machine.check("sh", "-c", "rm -rf /srv/musedrop/* /srv/musedrop/.musedrop")
    service.up()
    assert "the share /srv/musedrop is not the one that this state folder knows: mount it" in service.status_text()
    machine.check("mount", "--bind", "/srv/disk", "/srv/musedrop")
    names = service.jobs(1, frame_s=0)
    check_finished_once(service, names)
    soon(lambda: "share" not in service.status_text(), 30, service.log)
    machine.check("systemctl", "stop", "musedrop")


def test_settings_are_read_again(service: Service, machine: Machine) -> None:
    """`systemctl reload` applies live settings, names the others, and refuses a bad file."""
    service.up()
    main = machine.main_pid()
    service.configure(more="[output]\ncrf = 30\n")
    text = service.config.read_text().replace("cpu_workers = 2", "cpu_workers = 1").replace("0.1", "0.2")
    service.config.write_text(text)
    machine.check("systemctl", "reload", "musedrop")
    soon(lambda: "a restart is needed for devices.cpu_workers" in service.status_text(), 30, service.log)
    assert "settings taken over: inbox.settle_s, output.crf" in machine.journal()
    service.config.write_text(text + "[x]\n")
    machine.check("systemctl", "reload", "musedrop")
    soon(lambda: "x is not a key" in service.status_text(), 30, service.log)
    check_finished_once(service, service.jobs(1, frame_s=0))
    assert (machine.main_pid(), machine.show("ActiveState")) == (main, "active")


ASK = """
import json, sys, urllib.request
def ask(path, body=None):
    headers = {"origin": "http://localhost:8765", "x-musedrop": "1"}
    request = urllib.request.Request(f"http://localhost:8765{path}", body, headers)
    return urllib.request.urlopen(request, timeout=60).read()
face, voice = (json.loads(ask(f"/uploads?name={name}", b"media")) for name in ("a.jpg", "a.wav"))
print(ask("/jobs", json.dumps({"jobs": [{"name": "hello", "avatar": face, "audio": voice}]}).encode()).decode())
"""


def test_the_page_starts_with_its_first_viewer_and_ends_after_the_last(service: Service, machine: Machine) -> None:
    """Nothing runs until a browser comes; a job that is handed in there is done; the page writes to the inbox alone."""
    service.configure(more="page = { idle_s = 2 }\n")
    service.up()
    machine.check("systemctl", "start", "musedrop-page.socket")
    assert machine.show("ActiveState", "musedrop-page.service") == "inactive"
    made = machine.run("/opt/musedrop/bin/python", "-c", ASK)
    assert '"hello"' in made.stdout, made.stderr + machine.journal()
    assert service.wait_for("hello", "done")["submitter"]
    pid = machine.show("MainPID", "musedrop-page.service")
    if pid != "0":
        writes = machine.run("nsenter", "-t", pid, "--mount", "touch", "/srv/musedrop/outbox/x", "/var/lib/musedrop/x")
        assert writes.returncode != 0
    soon(lambda: machine.show("ActiveState", "musedrop-page.service") == "inactive", 60, machine.journal)
    assert machine.show("Result", "musedrop-page.service") == "success"
    assert '"hello"' in machine.check("/opt/musedrop/bin/python", "-c", ASK)
    machine.check("systemctl", "stop", "musedrop-page.socket", "musedrop-page.service")
