"""One progress bar per job, drawn from rows of job_status."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.progress import Task as Bar
from rich.table import Column
from rich.text import Text

from agent.cli.console import speak
from agent.cli.display.tables import cut_middle
from agent.cli.display.views import STATE_STYLE, FrameRates, shorten_device
from agent.text import escape

NAME_CELLS, STATE_CELLS, WIDTH = 16, 9, 20


class RateColumn(ProgressColumn):
    """Frames per second and the time left, from the last seconds of rendering."""

    def render(self, task: Bar) -> Text:
        fps = task.fields.get("fps") or 0.0
        if not fps or task.total is None:
            return Text("")
        left_s = max(0.0, task.total - task.completed) / fps
        return Text(speak(f"{fps:.1f} fps, {left_s:.0f} s left").rjust(WIDTH))


class JobProgress:
    """One progress bar per job, drawn anew by each `show(rows)`."""

    def __init__(self, console: Console | None = None) -> None:
        self.progress = Progress(
            TextColumn("{task.fields[name]}", markup=False, table_column=Column(min_width=NAME_CELLS, no_wrap=True)),
            TextColumn("{task.fields[state]}", table_column=Column(min_width=STATE_CELLS, no_wrap=True)),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[frames]:>11}"),
            RateColumn(),
            TextColumn("{task.fields[device]}", markup=False, table_column=Column()),
            console=console,
        )
        self._bars: dict[str, TaskID] = {}
        self._rates = FrameRates()

    def __enter__(self) -> JobProgress:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            uid = row["uid"]
            if uid not in self._bars:
                self._bars[uid] = self.progress.add_task("", total=None, **self._describe(row))
            frames = row["frames"]
            done = frames if row["state"] == "done" else count_frames_done(row)
            self.progress.update(self._bars[uid], total=frames or 100, completed=done or 0, **self._describe(row))

    def _describe(self, row: dict[str, Any]) -> dict[str, Any]:
        style = STATE_STYLE[row["state"]]
        what = row["stage"] if row["state"] == "running" else row["state"]
        frames = f"{count_frames_done(row)}/{row['frames']}" if row["frames"] else ""
        device = shorten_device(row["device"] or "") if row["state"] == "running" else describe_outcome(row)
        return {
            "name": cut_middle(escape(row["name"]), NAME_CELLS),
            "state": f"[{style}]{speak(what)}[/]",
            "frames": frames if row["state"] != "done" else speak(f"{row['frames']} frames"),
            "fps": self._rates.measure(row),
            "device": escape(device),
        }


def count_frames_done(row: dict[str, Any]) -> int:
    if row["stage"] in ("assemble", "publish"):
        return int(row["frames"] or 0)
    return int(row["units_done"]) if row["stage"] == "render" else 0


def describe_outcome(row: dict[str, Any]) -> str:
    if row["state"] == "done":
        return speak(f"in {row['run_seconds']:.1f} s")
    return str(row["error_code"] or speak(row["waiting_for"] or ""))
