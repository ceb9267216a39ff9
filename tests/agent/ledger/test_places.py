"""Paths in rows are relative to folders that may move."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from agent.ledger.places import NOWHERE, Places
from tests.agent.samples import add_job, read_job, set_columns


def places(*roots: str, share: str = "/srv/share", state: str = "/srv/share/state") -> Places:
    return Places(Path(share), Path(state), lambda: [Path(root) for root in roots])


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("/srv/share/inbox/face.jpg", "share:inbox/face.jpg"),
        ("/srv/share/state/work/a", "state:work/a"),
        ("/srv/share/inbox/a:b//c", "share:inbox/a:b//c"),
        ("/mnt/a/clips/x.wav", "root0:/mnt/a//clips/x.wav"),
        ("/mnt/b/x.wav", "root1:/mnt/b//x.wav"),
        ("/srv/share2/x", "/srv/share2/x"),
        ("/etc/passwd", "/etc/passwd"),
    ],
)
def test_a_path_is_kept_relative_and_comes_back(path: str, short: str) -> None:
    """The innermost folder counts; what is below none stays as it is."""
    here = places("/mnt/a", "/mnt/b")
    assert here.shorten(path) == short
    assert here.expand(short) == path
    assert short.startswith("root") or NOWHERE.expand(short) == short


def test_folders_that_moved() -> None:
    """Share and state by their names; a root by its path while it is one, else by its place among them."""
    short = places("/mnt/a", "/mnt/b")
    moved = places("/new/a", "/mnt/b", share="/elsewhere", state="/var/state")
    assert moved.expand(short.shorten("/srv/share/inbox/face.jpg")) == "/elsewhere/inbox/face.jpg"
    assert moved.expand(short.shorten("/srv/share/state/x")) == "/var/state/x"
    assert moved.expand(short.shorten("/mnt/a/x.wav")) == "/new/a/x.wav"
    swapped = places("/mnt/b", "/mnt/a")
    assert swapped.expand(short.shorten("/mnt/a/x.wav")) == "/mnt/a/x.wav"
    assert places().expand(short.shorten("/mnt/a/x.wav")) == "/mnt/a/x.wav"


def test_a_share_is_known_by_its_link_and_by_what_it_means(tmp_path: Path) -> None:
    """Media are recorded with links followed, inputs as the settings spell the share."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    here = Places(tmp_path / "link")
    assert here.shorten(str(tmp_path / "link" / "x")) == here.shorten(str(tmp_path / "real" / "x")) == "share:x"
    assert here.expand("share:x") == str(tmp_path / "real" / "x")


def test_rows_hold_relative_paths_and_jobs_absolute_ones(tmp_path: Path) -> None:
    """Those of an earlier schema are changed when it is migrated."""
    medium = {"given": "a.jpg", "path": "/srv/share/inbox/a.jpg", "inode": 1, "size": 1, "mtime_ns": 1}
    path = tmp_path / "jobs.db"
    ledger = Ledger(path)
    add_job(ledger, "old", media={"avatar": medium})
    add_job(ledger, "done", state=JobState.DONE)
    set_columns(ledger, "done", inputs="/srv/share/archive/x", tidied=1, swept=1)
    ledger.close()
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript("PRAGMA user_version = 1; DELETE FROM _sqlite_migrations WHERE id >= 2;")
        conn.executescript("DROP TABLE state_counts; DROP TABLE finished_hours; DROP TABLE engine_totals;")
        for kind in ("trigger", "index"):
            sql = "SELECT name FROM sqlite_schema WHERE type = ? AND name NOT LIKE 'sqlite%'"
            for [name] in conn.execute(sql, [kind]).fetchall():
                if name not in ("events_by_job", "submitters_by_turn", "jobs_untidy") and "migrations" not in name:
                    conn.execute(f"DROP {kind} {name}")
        for [view] in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'view'").fetchall():
            conn.execute(f"DROP VIEW {view}")
        for column in ("temperature_c", "load_percent", "power_w"):
            conn.execute(f"ALTER TABLE devices DROP COLUMN {column}")
        for column in ("animated", "first_part"):
            conn.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        conn.commit()
    moved = Ledger(path, places())
    kept = moved.rows("SELECT uid, inputs, json_extract(media, '$.avatar.path') AS path FROM jobs ORDER BY uid DESC")
    assert [row["path"] for row in kept] == ["share:inbox/a.jpg", None]
    assert kept[1]["inputs"] == "share:archive/x"
    assert read_job(moved, "old").media["avatar"]["path"] == "/srv/share/inbox/a.jpg"
    assert read_job(moved, "done").inputs == "/srv/share/archive/x"
    moved.update("old", inputs="/srv/share/failed/old")
    assert moved.rows("SELECT inputs FROM jobs WHERE uid = 'old'") == [{"inputs": "share:failed/old"}]
    assert "/srv/share/failed/old" in moved.retention.find_needed().paths
    moved.close()
