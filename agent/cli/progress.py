"""Tables and progress bars for a terminal, drawn from rows of job_status and device_status."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.progress import Task as Bar
from rich.table import Table
from rich.text import Text

from agent.text import escape, escape_markup

if TYPE_CHECKING:
    from agent.cli.avatars import Avatar

STATE_STYLE = {
    "done": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "queued": "white",
    "waiting": "magenta",
}
FPS_WINDOW_S = 5.0


class RateColumn(ProgressColumn):
    """Frames per second and the time left, from the last seconds of rendering."""

    def render(self, task: Bar) -> Text:
        fps = task.fields.get("fps") or 0.0
        if not fps or task.total is None:
            return Text("")
        return Text(f"{fps:5.1f} fps  {max(0.0, task.total - task.completed) / fps:4.0f} s left")


class JobProgress:
    """One progress bar per job, drawn anew by each `show(rows)`."""

    def __init__(self, console: Console | None = None) -> None:
        self.progress = Progress(
            TextColumn("{task.fields[name]:<16.16}", markup=False),
            TextColumn("{task.fields[state]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[frames]:>11}"),
            RateColumn(),
            TextColumn("{task.fields[device]}", markup=False),
            console=console,
        )
        self._bars: dict[str, TaskID] = {}
        self._samples: dict[str, list[tuple[float, int]]] = {}

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
        return {
            "name": escape(row["name"]),
            "state": f"[{style}]{what:<9}[/]",
            "frames": frames if row["state"] != "done" else f"{row['frames']} frames",
            "fps": self._measure_fps(row),
            "device": escape((row["device"] or "") if row["state"] == "running" else describe_outcome(row)),
        }

    def _measure_fps(self, row: dict[str, Any]) -> float:
        if row["state"] != "running" or row["stage"] != "render":
            return 0.0
        now_s = time.monotonic()
        samples = self._samples.setdefault(row["uid"], [])
        samples.append((now_s, row["units_done"]))
        while len(samples) > 2 and now_s - samples[0][0] > FPS_WINDOW_S:
            samples.pop(0)
        (since_s, first), (until_s, last) = samples[0], samples[-1]
        return (last - first) / (until_s - since_s) if until_s > since_s else 0.0


def count_frames_done(row: dict[str, Any]) -> int:
    if row["stage"] in ("assemble", "publish"):
        return int(row["frames"] or 0)
    return int(row["units_done"]) if row["stage"] == "render" else 0


def describe_outcome(row: dict[str, Any]) -> str:
    if row["state"] == "done":
        return f"outbox/{row['result']}  {row['run_seconds']:.1f} s"
    return str(row["error_message"] or row["waiting_for"] or "")


def build_job_table(rows: list[dict[str, Any]]) -> Table:
    """Return the table of jobs that `musedrop status` prints."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "state", "stage", "done", "engine", "device", "since", "what"):
        made.add_column(heading, no_wrap=heading != "what")
    for row in rows:
        style = STATE_STYLE[row["state"]]
        made.add_row(
            escape_markup(row["name"]),
            f"[{style}]{row['state']}[/]",
            row["stage"] if row["state"] == "running" else "",
            f"{row['percent']:.0f} %",
            row["engine"] or row["engine_asked"],
            row["device"] or "",
            (row["since"] or "")[11:19],
            escape_markup(describe_outcome(row)),
        )
    return made


def build_avatar_table(avatars: list[Avatar]) -> Table:
    """Return the table that `musedrop avatar list` prints."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "kind", "file", "prepared"):
        made.add_column(heading, no_wrap=heading != "prepared")
    for avatar in avatars:
        words = (avatar.name, avatar.kind, avatar.path.name, "; ".join(avatar.prepared) or "not yet")
        made.add_row(*map(Text, words))
    return made


def build_device_table(rows: list[dict[str, Any]]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("device", "state", "job", "model", "held MiB", "free MiB", "worker", "since", "reason"):
        made.add_column(heading, no_wrap=heading != "reason")
    for row in rows:
        held, free = (str(row[key]) if row["total_mib"] else "" for key in ("held_mib", "free_mib"))
        if row["kind"] == "cuda" and not row["total_mib"] and row["state"] != "lost":
            free = "shared"
        worker, since = str(row["worker_pid"] or ""), row["since"][11:19]
        name = f"{row['device']}  {row['name']}" if row["kind"] == "cuda" else row["device"]
        job, reason = escape_markup(row["job"] or ""), escape_markup(describe_reason(row))
        made.add_row(escape_markup(name), row["state"], job, row["model"], held, free, worker, since, reason)
    return made


def describe_reason(row: dict[str, Any]) -> str:
    """Say why a device is out of service, and when it is tried again."""
    again = f" (tried again at {row['until'][11:19]} UTC)" if row["until"] else ""
    return f"{row['reason']}{again}"


def open_live_view(console: Console) -> Live:
    return Live(console=console, refresh_per_second=4, screen=False)


def build_dashboard(jobs: list[dict[str, Any]], pool: list[dict[str, Any]], headline: str) -> Group:
    return Group(Text(headline, style="bold"), build_job_table(jobs), Text(""), build_device_table(pool))
