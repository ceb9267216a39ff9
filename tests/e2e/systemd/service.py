"""The installed service on a machine, with its share and its ledger."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from tests.e2e.systemd.machine import Machine, soon
from tests.share import Share

SETTINGS = """
share = "/srv/musedrop"
state = "/var/lib/musedrop"
inbox = {{ settle_s = 0.1, scan_s = 0.5, keep_media_s = 0 }}
devices = {{ cpu_workers = 2 }}
limits = {{ min_free_bytes = 0 }}
pool = {{ stall_s = {stall_s}, drain_s = {drain_s} }}
status = {{ write_s = 0.2 }}
cache.folder = "/var/cache/musedrop"
log.folder = "/var/log/musedrop"
"""
QUICK = """[Service]
Environment=MUSEDROP_MODULE={module}
RestartSec=100ms
{lines}
"""
"""A drop-in: the unit is the shipped one but for waits that would only be long."""
PROGRAM = "/opt/musedrop/bin/musedrop"
UNITS = "etc/systemd/system"


class Service(Share):
    """Installed when created, started by `up`. Root, not the service's user, drops the files."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.root = machine, machine.root
        self.folder, self.state = self.root / "srv/musedrop", machine.folder / "var/lib/musedrop"
        self.inbox, self.outbox, self.failed = (self.folder / name for name in ("inbox", "outbox", "failed"))
        self.config = self.root / "etc/musedrop/musedrop.toml"
        self.daemon = None
        machine.check(PROGRAM, "service", "install", "--yes")
        self.configure()
        self.drop_in()

    def configure(self, *, stall_s: float = 60, drain_s: float = 60, more: str = "") -> None:
        self.config.write_text(SETTINGS.format(stall_s=stall_s, drain_s=drain_s) + more)

    def drop_in(self, *lines: str, module: str = "tests.e2e.noop") -> None:
        target = self.root / UNITS / "musedrop.service.d" / "test.conf"
        target.write_text(QUICK.format(module=module, lines="\n".join(lines)))
        self.machine.check("systemctl", "daemon-reload")

    def up(self) -> None:
        started = self.machine.run("systemctl", "start", "musedrop")
        assert started.returncode == 0, f"{started.stderr}\n{self.log()}"

    def down(self) -> None:
        self.machine.check("systemctl", "stop", "musedrop")

    def clear(self) -> None:
        """As if nothing had ever been installed."""
        self.machine.run("systemctl", "kill", "-s", "KILL", "musedrop")
        self.machine.run("systemctl", "stop", "musedrop", "musedrop-nvidia")
        self.machine.run("umount", "/srv/musedrop")
        for place in ("srv/musedrop", "var/lib/musedrop", "var/cache/musedrop", "var/log/musedrop", "etc/musedrop"):
            shutil.rmtree(self.root / place, ignore_errors=True)
        for path in (self.root / UNITS).iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.machine.check("systemctl", "daemon-reload")
        self.machine.run("systemctl", "reset-failed")
        self.machine.check("journalctl", "--rotate", "--vacuum-time=1s")

    def jobs(self, count: int, frame_s: float) -> list[str]:
        """So many jobs that take 48 frames each."""
        names = [f"job{n}" for n in range(count)]
        self.put("face.png", b"face")
        self.put("voice.wav", b"voice")
        for name in names:
            self.drop(name, avatar="face.png", audio="voice.wav", options={"frame_s": frame_s})
        return names

    def wait_for_restart(self, count: int = 1) -> None:
        soon(
            lambda: self.machine.show("NRestarts") == str(count) and self.machine.show("ActiveState") == "active",
            60,
            self.log,
        )

    def check_alive(self) -> None:
        """What a service does when it dies is systemd's business."""

    def log(self) -> str:
        return self.machine.run("systemctl", "status", "--no-pager", "musedrop").stdout + self.machine.journal()

    def status_text(self) -> str:
        return self.machine.show("StatusText")

    def results(self) -> list[str]:
        return sorted(path.name for path in self.outbox.iterdir())

    def parts(self) -> list[Path]:
        """The spans that are on disk and not yet joined."""
        return [path for path in (self.state / "work").rglob("*") if re.fullmatch(r"parts", path.parent.name)]

    def attempts(self) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM job_attempts")
