"""The benchmark of faces: its table, its judge, and its sheets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2

from benchmarks.faces import draw_folder, find_judge, format_table
from tests.models.preview.portraits import make_smaller, portrait


def test_the_table_counts_each_verdict_on_each_kind() -> None:
    """What the judge can't see is beside the count, not in it."""
    portraits = Counter({"good": 3, "refused": 1, "artefact": 2, "no face": 1, "not judged": 1})
    counts = {"portraits": portraits, "videos of people": Counter({"mouth in the wrong place": 2})}
    table = format_table(counts, Counter({"clean": 4, "open": 1}))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert rows[0][:2] == ["material", "n"]
    assert rows[2] == ["portraits", "6", "3", "1", "0", "2", "0", "2"]
    assert rows[3] == ["videos of people", "2", "0", "0", "2", "0", "0", "0"]
    assert rows[4][:3] == ["blinks that shut cleanly", "5", "4"]


def test_an_installed_judge_is_used_by_itself(tmp_path: Path) -> None:
    """Without the option, the environment in the root is the judge where it is there."""
    usual = tmp_path / "python"
    assert find_judge(None, usual) is None
    usual.touch()
    assert find_judge(None, usual) == str(usual)
    assert find_judge("/other/python", usual) == "/other/python"


def test_sheets_are_drawn_without_a_judge(tmp_path: Path) -> None:
    """A picture has a row of six mouths and lids beside itself, and nothing is counted."""
    cv2.imwrite(str(tmp_path / "one.png"), make_smaller(portrait()))
    counts, blinks = draw_folder(tmp_path, None, tmp_path / "sheets")
    assert not any(map(bool, counts.values()))
    assert not blinks
    sheet = cv2.imread(str(tmp_path / "sheets" / "portraits-00.png"))
    assert sheet is not None
    assert sheet.shape == (220, 7 * 220, 3)
