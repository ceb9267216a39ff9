"""A real SMB server on loopback, run by whoever runs the tests, and two clients of it."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.needs import need
from tests.share import until

CONFIG = """
[global]
server role = standalone server
interfaces = 127.0.0.1
bind interfaces only = yes
smb ports = {port}
disable netbios = yes
server min protocol = SMB2_10
map to guest = Bad User
guest account = {user}
load printers = no
printing = bsd
printcap name = /dev/null
private dir = {state}
lock directory = {state}
state directory = {state}
cache directory = {state}
pid directory = {state}
ncalrpc dir = {state}/ncalrpc
log file = {state}/smbd.log
unix charset = UTF-8

[share]
path = {folder}
read only = no
guest ok = yes
"""
UTF8 = {**os.environ, "LC_ALL": "C.UTF-8"}


class SmbServer:
    """Serves `folder` as //127.0.0.1/share to anybody on this machine, until `end`."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.smbd, self.smbclient = need("smbd", "samba"), need("smbclient", "smbclient")
        self.state, self.config, self.port = root / "smb", root / "smb.conf", free_port()
        (self.state / "ncalrpc").mkdir(parents=True)
        user = pwd.getpwuid(os.getuid()).pw_name
        self.config.write_text(CONFIG.format(port=self.port, user=user, state=self.state, folder=folder))
        with (self.state / "out").open("wb") as out:
            self.process = subprocess.Popen(
                [self.smbd, "-F", "--no-process-group", "-s", self.config],
                stdin=subprocess.PIPE,  # smbd ends when it closes: even a killed test leaves none behind
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def wait_until_up(self) -> None:
        until(lambda: self.try_commands("ls").returncode == 0, 60, self.said)

    def said(self) -> str:
        logs = [path for path in (self.state / "out", self.state / "smbd.log") if path.exists()]
        return "".join(path.read_text(errors="replace") for path in logs)

    def end(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        assert self.process.stdin
        self.process.stdin.close()

    # smbclient -------------------------------------------------------------------------------------------------------

    def command(self, *commands: str) -> list[str | Path]:
        address = ["//127.0.0.1/share", "-p", str(self.port), "-N", "-s", str(self.config)]
        return [self.smbclient, *address, "-c", "; ".join(commands)]

    def try_commands(self, *commands: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*commands), capture_output=True, text=True, env=UTF8, timeout=60)

    def run(self, *commands: str) -> str:
        """Commands of smbclient, one after the other in one session."""
        done = self.try_commands(*commands)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "NT_STATUS" not in done.stdout + done.stderr, done.stdout + done.stderr
        return done.stdout

    def get(self, remote: str, local: Path) -> bytes:
        self.run(f'get "{remote}" "{local}"')
        return local.read_bytes()

    # libsmbclient ----------------------------------------------------------------------------------------------------

    def open(self, path: str) -> SmbFile:
        return SmbFile(f"smb://127.0.0.1:{self.port}/share/{path}", self.state)


class SmbFile:
    """A file that another process holds open through SMB, and writes on command."""

    def __init__(self, url: str, home: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name("slow_writer.py")), url]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**UTF8, "HOME": str(home)}
        )

    def resize(self, size: int) -> None:
        """Set the end of the file, as Explorer does before it sends anything."""
        self._tell(f"size {size}".encode())

    def write(self, data: bytes) -> None:
        self._tell(b"data " + data.hex().encode())

    def close(self) -> None:
        self._tell(b"close")

    def __enter__(self) -> SmbFile:
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        """The process ends with its input, whatever became of the test."""
        self._process.communicate(timeout=30)

    def _tell(self, words: bytes) -> None:
        assert self._process.stdin
        self._process.stdin.write(words + b"\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> None:
        assert self._process.stdout
        assert self._process.stdout.readline() == b"ok\n", self._process.stdout.read()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
