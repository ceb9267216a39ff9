"""What `status`, `devices`, `avatar list` and `watch` draw: tables of rows of the views, and the dashboard."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from agent.cli.console import speak
from agent.cli.display.tables import Column, Row, RowTable
from agent.cli.display.times import format_since, format_span
from agent.text import escape

if TYPE_CHECKING:
    from agent.cli.avatars.library import Avatar

STATE_STYLE = {
    "done": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "queued": "white",
    "waiting": "magenta",
}
FPS_WINDOW_S = 5.0
JOB_COLUMNS = (
    Column("name", least=10),
    Column("state"),
    Column("done"),
    Column("engine", drop=1),
    Column("device", least=9),
    Column("since"),
    Column("what"),
)
DEVICE_COLUMNS = (
    Column("device", least=12),
    Column("state"),
    Column("job", least=8),
    Column("since"),
    Column("free MiB", drop=1),
    Column("held MiB", drop=2),
    Column("model", drop=3),
    Column("worker", drop=4),
)
GAUGES = Column("card", drop=5)
CARD_CHARS = 12
"""As much of the id of a card as people need to tell cards apart, and the commands to find it."""


def shorten_device(device: str) -> str:
    """Return a device as tables show it: the beginning of a card's UUID.

    >>> shorten_device("GPU-5e1f0d3c-1111-2222-3333-444444444444/2")
    'GPU-5e1f0d3c/2'
    """
    card, slash, worker = device.partition("/")
    return f"{card[:CARD_CHARS]}{slash}{worker}" if card.startswith(("GPU-", "MIG-")) else device


def speak_headings(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return columns with headings in the language of the terminal."""
    return tuple(replace(column, heading=speak(column.heading)) for column in columns)


# jobs ----------------------------------------------------------------------------------------------------------------


def build_job_table(
    rows: Sequence[Mapping[str, Any]], now: datetime, bars: Mapping[str, str] | None = None
) -> RowTable:
    """Return the table of jobs. `bars`: a line of progress for each running job, by its uid."""
    return RowTable(
        speak_headings(JOB_COLUMNS), [_make_job_row(row, now, (bars or {}).get(row["uid"], "")) for row in rows]
    )


def _make_job_row(row: Mapping[str, Any], now: datetime, bar: str) -> Row:
    cells = (
        escape(row["name"]),
        speak(row["state"]),
        f"{row['percent']:.0f} %",
        row["engine"] or row["engine_asked"],
        shorten_device(escape(row["device"] or "")),
        format_since(row["since"], now),
        _describe_stage(row),
    )
    advice = escape_lines(row.get("advice") or "") if row["state"] == "running" else ()
    details = [line for line in (bar, describe_reason_of_job(row), *advice) if line]
    return Row(cells, STATE_STYLE[row["state"]], tuple(details))


def escape_lines(text: str) -> tuple[str, ...]:
    """Return the lines of a text, safe for a terminal."""
    return tuple(map(escape, text.splitlines()))


def _describe_stage(row: Mapping[str, Any]) -> str:
    if row["state"] == "running":
        return speak(str(row["stage"]))
    return f"in {format_span(row['run_seconds'])}" if row["state"] == "done" and row["run_seconds"] is not None else ""


def describe_reason_of_job(row: Mapping[str, Any]) -> str:
    """Return what a job waits for, why it failed, or where its result is if that has another name."""
    if row["state"] == "done":
        return f"outbox/{escape(row['result'])}" if row["result"] != row["name"] else ""
    if row["state"] == "failed":
        return escape(f"{row['error_code']}: {speak(row['error_message'] or '')}")
    return escape(speak(row["waiting_for"] or ""))


# devices and avatars -------------------------------------------------------------------------------------------------


def build_device_table(rows: Sequence[Mapping[str, Any]], now: datetime) -> RowTable:
    """Return the table of devices; that of gauges is a column only where a card has some."""
    columns = (*DEVICE_COLUMNS, GAUGES) if any(map(describe_gauges, rows)) else DEVICE_COLUMNS
    return RowTable(speak_headings(columns), [_make_device_row(row, now, len(columns)) for row in rows])


def _make_device_row(row: Mapping[str, Any], now: datetime, columns: int) -> Row:
    held, free = (str(row[key]) if row["total_mib"] else "" for key in ("held_mib", "free_mib"))
    if row["kind"] == "cuda" and not row["total_mib"] and row["state"] != "lost":
        free = speak("shared")
    name = f"{shorten_device(row['device'])}  {row['name']}" if row["kind"] == "cuda" else row["device"]
    cells = (
        *(escape(name), speak(row["state"]), escape(row["job"] or ""), format_since(row["since"], now), free, held),
        *(escape(row["model"]), str(row["worker_pid"] or ""), describe_gauges(row)),
    )
    reason = describe_reason(row, now)
    return Row(cells[:columns], "", (reason,) if reason else ())


def describe_gauges(row: Mapping[str, Any]) -> str:
    """Return temperature, load and power of a card, as far as it tells them; a ledger of old has none."""
    units = {"temperature_c": "°C", "load_percent": "%", "power_w": "W"}
    return " ".join(f"{row[name]} {unit}" for name, unit in units.items() if row.get(name) is not None)


def describe_reason(row: Mapping[str, Any], now: datetime) -> str:
    """Say why a device is out of service, and when it is tried again."""
    again = f" (tried again at {format_since(row['until'], now)})" if row["until"] else ""
    return escape(f"{speak(row['reason'])}{again}")


def build_avatar_table(avatars: Sequence[Avatar]) -> RowTable:
    """Return the table that `musedrop avatar list` prints."""
    columns = (Column("name", least=10), Column("kind"), Column("file", least=10))
    rows = [
        Row(
            (escape(a.name), a.kind, escape(a.path.name)),
            "",
            (escape("; ".join(a.prepared) or speak("not prepared yet")),),
        )
        for a in avatars
    ]
    return RowTable(speak_headings(columns), rows)


# watch ---------------------------------------------------------------------------------------------------------------


class FrameRates:
    """The frames per second of running jobs over the last seconds."""

    def __init__(self) -> None:
        self._samples: dict[str, list[tuple[float, int]]] = {}

    def measure(self, row: Mapping[str, Any], now_s: float | None = None) -> float:
        """Return the rate of a job that renders, 0.0 while it is not known. `now_s`: monotonic seconds."""
        if row["state"] != "running" or row["stage"] != "render":
            self._samples.pop(row["uid"], None)
            return 0.0
        now_s = time.monotonic() if now_s is None else now_s
        samples = self._samples.setdefault(row["uid"], [])
        samples.append((now_s, row["units_done"]))
        while len(samples) > 2 and now_s - samples[0][0] > FPS_WINDOW_S:
            samples.pop(0)
        (since_s, first), (until_s, last) = samples[0], samples[-1]
        return (last - first) / (until_s - since_s) if until_s > since_s else 0.0


class Dashboard:
    """The screen of `musedrop watch`."""

    def __init__(
        self,
        headline: str,
        jobs: Sequence[Mapping[str, Any]],
        devices: Sequence[Mapping[str, Any]],
        *,
        counts: Mapping[str, int],
        alarms: Sequence[str],
        rates: Mapping[str, float],
        now: datetime,
    ) -> None:
        self.headline, self.jobs, self.devices = headline, jobs, devices
        self.counts, self.alarms, self.rates, self.now = counts, alarms, rates, now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bars = {
            row["uid"]: self._draw_bar(row, options.max_width - 2) for row in self.jobs if row["state"] == "running"
        }
        parts: list[RenderableType] = [Text(self.headline, style="bold", overflow="ellipsis", no_wrap=True)]
        parts.append(Text(describe_counts(self.counts)))
        parts += [Text(f"! {alarm}", style="yellow", overflow="fold") for alarm in map(speak, self.alarms)]
        parts += [Text(""), build_job_table(self.jobs, self.now, bars)] if self.jobs else []
        parts += [Text(""), build_device_table(self.devices, self.now)] if self.devices else []
        yield Group(*parts)

    def _draw_bar(self, row: Mapping[str, Any], width: int) -> str:
        """Return a bar and the figures of a running job: frames, frames per second, the time left."""
        words = []
        if row["stage"] == "render" and row["units_total"]:
            words.append(speak(f"{row['units_done']}/{row['units_total']} frames"))
            if fps := self.rates.get(row["uid"], 0.0):
                left_s = (row["units_total"] - row["units_done"]) / fps
                words.append(speak(f"{fps:.1f} fps, {format_span(left_s)} left"))
        text = ", ".join(words)
        room = max(10, min(40, width - len(text) - 2))
        filled = round(room * min(100.0, max(0.0, row["percent"])) / 100)
        return f"{'━' * filled}{'─' * (room - filled)}  {text}".rstrip()


def describe_counts(counts: Mapping[str, int]) -> str:
    """Return how many jobs are in each state that has any, the ones that still have to end first."""
    order = ("running", "queued", "waiting", "done", "failed", "cancelled")
    return ", ".join(f"{counts[state]} {speak(state)}" for state in order if counts.get(state)) or speak("no jobs yet")
