"""Another user, a member of the share's group: real processes with a user and a group of their own.

Neither id has to be in /etc/passwd. Only root can start them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

UID, GID = 60_901, 60_900
"""The member, and the group of the share."""
BECOME = f"""
import errno, os, shutil, socket, stat, sys, time
os.umask(0o007)
os.setgroups([{GID}])
os.setgid({UID})
os.setuid({UID})
args = sys.argv[2:]
exec(compile(sys.argv[1], "member", "exec"))
"""
SWAP = """
# keep the folder args[0] in turns a folder and a link to args[1], until killed
here, there, kept = args[0], args[1], args[0] + ".kept"
os.symlink(there, here + ".link")
print("ready", flush=True)
while True:
    os.rename(here, kept)
    os.rename(here + ".link", here)
    os.rename(here, here + ".link")
    os.rename(kept, here)
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of other users")


def run_as_member(code: str, *args: object) -> str:
    """Run Python code as the member; return what it printed. Fails the test where the code fails."""
    done = subprocess.run(_command(code, args), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def running_as_member(code: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    """Keep Python code running as the member, from the line that it prints on, until the end."""
    with subprocess.Popen(_command(code, args), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def _command(code: str, args: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-c", BECOME, code, *map(str, args)]


@contextmanager
def make_shared_folder() -> Iterator[Path]:
    """Yield a folder with the modes of `musedrop service install`, which the member can reach and write to."""
    root = Path(tempfile.mkdtemp(prefix="musedrop-"))
    try:
        root.chmod(0o755)
        share = root / "share"
        share.mkdir()
        os.chown(share, -1, GID)
        share.chmod(0o2770)
        yield share
    finally:
        shutil.rmtree(root)
