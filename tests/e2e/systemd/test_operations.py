"""The commands of docs/service.md: backup, restore, upgrade, logs, uninstall, a user's service."""

from __future__ import annotations

import re

import pytest

from tests.e2e.systemd.machine import Machine, soon
from tests.e2e.systemd.service import PROGRAM, UNITS, Service
from tests.needs import need
from tests.share import ROOT

pytestmark = pytest.mark.systemd
PAGE = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")


def commands(section: str) -> list[list[str]]:
    """The blocks of commands below a heading, without `sudo`: on the machine we are root."""
    text = PAGE.partition(f"# {section}\n")[2]
    text = re.split(r"^##", text, maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [[line.removeprefix("sudo ") for line in block.splitlines()] for block in blocks]


def follow(machine: Machine, lines: list[str]) -> str:
    """Run the commands of the page, with yes as the answer, and without following logs."""
    said = ""
    for line in lines:
        command = re.sub(r"(service (un)?install)$", r"\1 --yes", line).replace(" -f", "")
        said += machine.check("sh", "-euc", f"PATH=/opt/musedrop/bin:$PATH; {command}")
    return said


def test_backup_and_restore(service: Service, machine: Machine) -> None:
    """After backup and restore, finished jobs are there and unfinished ones finish."""
    need("sqlite3", "sqlite3")
    whole, ledger, restore = commands("Backup and restore")
    service.up()
    service.jobs(1, frame_s=0)
    service.wait_for("job0", "done")
    service.put("pause", b"")
    soon(lambda: "paused" in service.status_text(), 30, service.log)
    service.put("late.png", b"face")
    service.put("late.wav", b"voice")
    service.wait_for("late", "queued")
    before = service.rows()
    follow(machine, whole)
    follow(machine, ledger)
    assert machine.check("sqlite3", "/var/backups/jobs.db", "SELECT count(*) FROM job_status") == "2\n"
    service.put("resume", b"")
    service.wait_for("late", "done")
    follow(machine, restore)
    assert service.rows("SELECT uid, created_at FROM job_status ORDER BY created_at") == [
        {"uid": row["uid"], "created_at": row["created_at"]} for row in before
    ]
    assert service.results() == ["job0"]
    service.put("resume", b"")
    service.wait_for("late", "done")
    assert service.results() == ["job0", "late"]
    machine.check("rm", "/var/backups/jobs.db", "/var/backups/musedrop.tar")


def test_upgrade_every_day_and_uninstall(service: Service, machine: Machine) -> None:
    """Old units are found and replaced, jobs survive a restart, and uninstalling works."""
    service.up()
    unit = service.root / UNITS / "musedrop.service"
    shipped = unit.read_text()
    unit.write_text(shipped.replace("WatchdogSec=30", "WatchdogSec=20"))
    assert "musedrop.service is not of this version" in machine.check(PROGRAM, "service", "status")
    service.jobs(1, frame_s=0.02)
    service.wait_for("job0", "running")
    [[_pip, *upgrade]] = commands("Upgrade")
    said = follow(machine, upgrade)
    assert "/etc/systemd/system/musedrop.service (changed)" in said
    assert "/etc/musedrop/musedrop.toml (there, and kept as it is)" in said
    assert "Now: systemctl restart musedrop" in said
    assert unit.read_text() == shipped
    service.wait_for("job0", "done")
    assert "job0 is done" in follow(machine, commands("Logs")[0])
    soon(lambda: "0 running, 0 queued, 0 waiting" in machine.show("StatusText"), 30, service.log)
    assert "StatusText     0 running, 0 queued, 0 waiting" in follow(machine, commands("Every day")[0][:3])
    follow(machine, commands("Every day")[0][4:])
    soon(lambda: machine.show("ActiveState") == "inactive", 30, service.log)
    machine.check("systemctl", "enable", "musedrop")
    follow(machine, commands("Uninstall")[0])
    assert [path.name for path in (service.root / UNITS / "musedrop.service.d").iterdir()] == ["test.conf"]
    assert not unit.exists()
    assert not list((service.root / UNITS).glob("*.wants/musedrop*"))
    assert service.config.exists()
    assert service.results() == ["job0"]


@pytest.mark.usefixtures("service")
def test_install_asks_and_refuses(machine: Machine) -> None:
    """No file is written without yes, without root, or for another share than the settings'."""
    assert "this needs root" in machine.run(PROGRAM, "service", "install", "--yes", user="nobody").stderr
    assert "nothing was changed" in machine.run("sh", "-c", f"echo n | {PROGRAM} service uninstall").stderr
    other = machine.run(PROGRAM, "service", "install", "--yes", "--share", "/srv/other")
    assert "/etc/musedrop/musedrop.toml names the share /srv/musedrop" in other.stderr
    assert machine.show("LoadState") == "loaded"


USER_MANAGER = """[Service]
User=anna
Type=notify
Delegate=yes
KillSignal=SIGKILL
RuntimeDirectory=anna
Environment=XDG_RUNTIME_DIR=/run/anna HOME=/home/anna SYSTEMD_UNIT_PATH=/home/anna/.config/systemd/user:/run/anna-units
ExecStart=/usr/lib/systemd/systemd --user --unit=default.target
"""


def test_a_service_of_one_user(machine: Machine) -> None:
    """Without root, in the user's manager: installed, started, a job, uninstalled."""
    machine.check("useradd", "--create-home", "anna")
    units = machine.root / "run/anna-units"
    units.mkdir()
    for name in ("default", "basic", "shutdown", "sockets", "timers", "paths"):
        (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    (machine.root / UNITS / "anna.service").write_text(USER_MANAGER)
    machine.check("systemctl", "daemon-reload")
    machine.check("systemctl", "start", "anna")

    def anna(line: str) -> str:
        script = f"PATH=/opt/musedrop/bin:$PATH; {line}"
        home = "/home/anna"
        done = machine.run("sh", "-euc", script, user="anna", XDG_RUNTIME_DIR="/run/anna", HOME=home)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    install, start = commands("For one user, without root")[0]
    assert "sudo loginctl enable-linger anna" in anna(f"{install} --yes")
    anna(start)
    share = machine.root / "home/anna/musedrop"
    (share / "inbox" / "bad.json").write_text("{}")
    soon((share / "failed" / "bad" / "error.json").exists, 30, lambda: machine.run("journalctl", "-n", "30").stdout)
    assert "ActiveState    active" in anna("musedrop service status --user")
    anna("musedrop service uninstall --user --yes")
    assert not list((machine.root / "home/anna/.config/systemd/user").glob("musedrop*"))
    machine.check("systemctl", "stop", "anna")
