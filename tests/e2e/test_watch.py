"""The recording of `watch` in the docs, made anew beside a real daemon."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.share import ROOT

FRAME = re.compile(r"\n([^\n`]+)\n\n```text\n(.*?)\n```", re.DOTALL)


@pytest.mark.timeout(400)
def test_the_recording_is_made_by_its_program(tmp_path: Path) -> None:
    """It has the frames of the page, each with what its sentence says, and no line is too long."""
    out = tmp_path / "watch.md"
    words = [sys.executable, "-m", "benchmarks.record_watch", "--out", str(out)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    made, kept = (FRAME.findall(page.read_text()) for page in (out, ROOT / "docs" / "watch.md"))
    assert [said for said, _ in made] == [said for said, _ in kept]
    for frames in (made, kept):
        screens = [screen for _, screen in frames]
        assert all(len(line) <= 80 for screen in screens for line in screen.splitlines())
        signs = ("no jobs yet", "has not arrived", " fps, ", "100 %", "the queue is paused", "no daemon is running")
        for sign, screen in zip(signs, screens, strict=True):
            assert sign in screen
