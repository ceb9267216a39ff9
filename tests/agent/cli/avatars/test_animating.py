"""`musedrop avatar animate` before there is a daemon: what it refuses, and the jobs that it hands in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from agent.cli.avatars import commands, library
from agent.cli.avatars.animating import Wish, find_clips, make_wish, parse_seeds, submit_clips
from agent.client import ClientError
from agent.jobs.parse import parse_job
from agent.settings import Settings


@pytest.fixture
def anna(settings: Settings, tmp_path: Path) -> Settings:
    """A library with a photo and a video."""
    for name in ("anna.jpg", "bert.mp4"):
        (tmp_path / name).write_bytes(b"picture")
        library.add_avatar(settings, Path(name).stem, tmp_path / name)
    return settings


@pytest.mark.parametrize("text", ["", "x", "-1", "4..1", "1..99", "1..", "1,,2", "1..10,20..30"])
def test_seeds_that_are_none(text: str) -> None:
    """A text that names no seeds is refused, and so are more than a sheet shows."""
    with pytest.raises(ClientError, match="seed"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("name", "keep", "target", "told"),
    [
        ("none", None, "new", "avatar add none FILE"),
        ("bert", None, "new", "moves already"),
        ("anna", 9, "new", "none of the seeds"),
        ("anna", None, "bert", "--replace"),
        ("anna", None, "anna", "--as NAME"),
        ("anna", None, "a/b", "can't name"),
    ],
)
def test_what_could_not_be_kept_is_not_made(
    anna: Settings, name: str, keep: int | None, target: str, told: str
) -> None:
    """The command says so before it hands in jobs."""
    with pytest.raises(ClientError, match=told):
        make_wish(anna, name, "1..4", keep, target, replace=False)


def test_each_seed_is_a_job(anna: Settings) -> None:
    """Its motion is what was asked for, its result has the clip; a seed that is to be kept is made alone."""
    wish = make_wish(anna, "anna", "1..3", None, "moving", replace=False)
    tickets = submit_clips(anna, wish, {"prompt": "a nod", "seconds": 2, "options": {"motion_speed": 6}})
    specs = [parse_job((anna.folders.inbox / f"{one.name}.json").read_bytes()) for one in tickets.values()]
    motions = [spec.motion for spec in specs if spec.motion]
    assert [motion.seed for motion in motions] == [1, 2, 3]
    assert {(motion.prompt, motion.seconds, motion.clip) for motion in motions} == {("a nod", 2, True)}
    assert make_wish(anna, "anna", "1..3", 2, "moving", replace=False) == Wish("anna", (2,), "moving")


def test_only_clips_of_done_jobs_are_shown(anna: Settings) -> None:
    """Those of jobs that failed are left out."""
    rows: dict[int, dict[str, Any]] = {1: {"state": "done", "result": "a"}, 2: {"state": "failed", "result": None}}
    assert find_clips(anna, rows) == {1: anna.folders.outbox / "a" / "clip.mkv"}


@pytest.mark.parametrize(("answer", "chosen"), [("7\n2\n", 2), ("\n", None)])
def test_a_user_is_asked_which_to_keep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, chosen: int | None
) -> None:
    """An answer that is no seed is asked again, and none is kept by default."""
    monkeypatch.setattr("agent.cli.avatars.animating.draw_clips", lambda *_: None)
    monkeypatch.setattr(commands, "can_ask", lambda: True)
    app, found = typer.Typer(), []
    app.command()(lambda: found.append(commands.choose_clip({1: tmp_path, 2: tmp_path}, tmp_path / "sheet.jpg")))
    assert CliRunner().invoke(app, input=answer).exit_code == 0
    assert found == [chosen]
