"""`musedrop setup` on a terminal: from nothing to a video and a doctor without complaints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av

from tests.e2e.terminal import Terminal
from tests.share import ROOT

COMMAND = [sys.executable, "-m", "agent.cli.main", "setup"]


def test_setup_leads_to_a_first_video_and_keeps_it(tmp_path: Path) -> None:
    """Questions are answered by the return key; a second run, in Chinese and without questions, changes nothing."""
    env = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "COLUMNS": "120"}
    for name in ("MUSEDROP_CONFIG", "DISPLAY", "WAYLAND_DISPLAY"):
        env.pop(name, None)
    place = tmp_path / "studio"
    terminal = Terminal([*COMMAND, str(place)], env, tmp_path)
    terminal.wait_for("which is not in the share", "[musedrop]", "about 4.4 GB", "Download them now?")
    terminal.type("\r")
    terminal.wait_for("Make the demo clip now?")
    terminal.type("\r")
    assert terminal.wait_for_end() == 0, terminal.shown
    assert "All is well" in terminal.shown
    with av.open(str(place / "share" / "outbox" / "hello" / "result.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 107
    assert not (place / "state" / "models" / "musetalkV15").exists(), "nothing is downloaded unasked"
    before = {path: path.read_bytes() for path in (place / "musedrop.toml", *place.glob("share/outbox/*/result.json"))}
    words = [*COMMAND, "--yes", "-c", str(place / "musedrop.toml")]
    again = subprocess.run(words, env=env | {"LC_ALL": "zh_CN.UTF-8"}, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "一切正常" in again.stdout
    assert before == {path: path.read_bytes() for path in before}
    assert len(list((place / "share" / "outbox").iterdir())) == 1
