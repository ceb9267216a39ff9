"""A machine with a real systemd, booted in namespaces by boot.sh, for tests of the service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.needs import missing, need
from tests.share import ROOT, until

soon = partial(until, pause_s=0.2)
"""For conditions that cost several processes each."""
BOOT = Path(__file__).with_name("boot.sh")
PID1 = Path("/usr/lib/systemd/systemd")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UNIT_PATH = "/run/machine-units:/etc/systemd/system:/run/systemd/system"


class Machine:
    """Booted when it is made; `root` is its file system, seen from here."""

    def __init__(self) -> None:
        for program, package in (("unshare", "util-linux"), ("nsenter", "util-linux"), ("systemctl", "systemd")):
            need(program, package)
        if not PID1.exists():
            missing("there is no systemd: Debian package systemd")
        if os.geteuid() != 0:
            missing("booting a systemd in namespaces needs root")
        self.folder = Path(tempfile.mkdtemp(prefix="machine."))
        places = {"SOURCE": str(ROOT), "VENV": sys.prefix, "PYTHON": sys.base_prefix}
        self._env = {**os.environ, "FOLDER": str(self.folder), "LEAF": f"machine.{os.getpid()}", **places}
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", str(BOOT), "up"]
        with (self.folder / "boot.log").open("wb") as log:
            self.parent = subprocess.Popen(command, env=self._env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            until(self._has_init, 60, self._said)
            until(lambda: self.systemctl("is-system-running").strip() in ("running", "degraded"), 60, self._said)
        except AssertionError as error:
            self.end()
            missing(f"systemd can't be booted here: {error}")

    def _said(self) -> str:
        return (self.folder / "boot.log").read_text(errors="replace")

    def _has_init(self) -> bool:
        if self.parent.poll() is not None:
            raise AssertionError(self._said())
        children = Path(f"/proc/{self.parent.pid}/task/{self.parent.pid}/children").read_text().split()
        self.init = int(children[0]) if children else 0
        return bool(self.init) and Path(f"/proc/{self.init}/comm").read_text().strip() == "systemd"

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self.init}/root")

    def run(self, *command: str, user: str = "", timeout_s: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        """A command inside; as root, or as another user."""
        enter = ["nsenter", "-t", str(self.init), "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--net"]
        enter += [f"--root={self.root}", f"--wd={self.root}"]
        become = ["runuser", "-u", user, "--"] if user else []
        inside = {"PATH": PATH, "SYSTEMD_UNIT_PATH": UNIT_PATH, "HOME": "/root", "COLUMNS": "200", **env}
        # `env -i` sets the environment after nsenter was found with ours
        words = [*enter, "env", "-i", *(f"{key}={value}" for key, value in inside.items()), *become, *command]
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout_s)

    def check(self, *command: str) -> str:
        """What a command says that has to succeed."""
        done = self.run(*command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def systemctl(self, *words: str) -> str:
        return self.run("systemctl", *words).stdout

    def show(self, name: str, unit: str = "musedrop.service") -> str:
        """A property of a unit, such as ActiveState."""
        return self.systemctl("show", "-P", name, unit).strip()

    def main_pid(self) -> int:
        """The service's main process, by the number that it has out here; 0 for none."""
        return self.outside(int(self.show("MainPID") or 0))

    def outside(self, inner: int) -> int:
        for status in Path("/proc").glob("[0-9]*/status") if inner else ():
            try:
                text = status.read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            numbers = next((line.split()[1:] for line in text.splitlines() if line.startswith("NSpid:")), [])
            if len(numbers) > 1 and numbers[-1] == str(inner) and self._is_inside(status.parent):
                return int(numbers[0])
        return 0

    def _is_inside(self, process: Path) -> bool:
        try:
            return (process / "ns/pid").readlink() == Path(f"/proc/{self.init}/ns/pid").readlink()
        except OSError:
            return False

    def processes(self) -> set[int]:
        """All processes of the service, by their outer numbers."""
        group = self.root / "sys/fs/cgroup" / self.show("ControlGroup").lstrip("/") / "cgroup.procs"
        try:
            return {int(word) for word in group.read_text().split()}
        except OSError:
            return set()

    def journal(self, *words: str) -> str:
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", "musedrop", *words).stdout

    def end(self) -> None:
        if getattr(self, "init", 0) and self.parent.poll() is None:
            os.kill(self.init, 9)
        elif self.parent.poll() is None:
            self.parent.kill()
        self.parent.wait(20)
        subprocess.run(["unshare", "--mount", str(BOOT), "clean"], env=self._env, check=True)
        shutil.rmtree(self.folder)
