"""Clips side by side."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.media.numbered import write_ffv1
from models.motion import sheet
from models.motion.stage import FPS


def write_clip(path: Path, width: int, height: int) -> Path:
    """Write a clip that becomes lighter from frame to frame."""
    write_ffv1((np.full((height, width, 3), 20 * n, np.uint8) for n in range(11)), path, FPS)
    return path


def test_each_clip_is_a_row(tmp_path: Path) -> None:
    """Six frames of each, from the first to the last, also where clips have several widths."""
    clips = [("seed 1", write_clip(tmp_path / "a.mkv", 64, 96)), ("seed 2", write_clip(tmp_path / "b.mkv", 32, 96))]
    drawn = sheet.draw_sheet(clips)
    assert drawn.shape == (2 * (96 + 26), 6 * 68, 3)
    assert drawn[40, 34::68, 0].tolist() == [0, 40, 80, 120, 160, 200]
    assert drawn[96 + 4 : 96 + 26, :68].max() > 100, "no label"


def test_what_is_no_clip_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program writes the sheet, or a line and no sheet."""
    clip = write_clip(tmp_path / "a.mkv", 64, 96)
    monkeypatch.setattr(sys, "argv", ["sheet", str(tmp_path / "s.jpg"), "seed 1", str(clip)])
    assert sheet.main() == 0
    assert cv2.imread(str(tmp_path / "s.jpg")) is not None
    clip.write_bytes(b"")
    assert sheet.main() == 2
    assert "a.mkv" in capsys.readouterr().err
