"""`musedrop selftest`: prove on this machine that cards, weights and encoders do what they should."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.cli.doctor import DRIVER_S, Finding, has_had_cards
from agent.scheduler.tuning import Tuning
from agent.selftest.report import DeviceReport, ReportRow
from agent.selftest.rows import Row
from agent.selftest.run import choose_targets, list_targets, run_selftest
from agent.selftest.tune import tune_devices
from agent.selftest.workers import Target
from agent.settings import Settings
from agent.text import escape
from gpu_pool.cards import read_cards

STYLE = {"ok": "green", "note": "yellow", "bad": "red"}


def check_devices(settings: Settings, device: str | None, console: Console | None) -> list[DeviceReport]:
    """Run the self-test; with a console show meanwhile what is done. Raises UserError."""
    cards = read_cards(settings.folders.nvml_log, DRIVER_S, had_cards=has_had_cards(settings))
    targets = choose_targets(settings, cards, device)
    if console is None:
        return run_selftest(settings, targets, lambda _target, _row: None)
    with console.status("the self-test takes some minutes ...") as status:

        def show(target: Target, row: Row) -> None:
            status.update(f"{target.id}: {row.check} is {row.verdict} ...", spinner_style=STYLE[row.verdict])

        return run_selftest(settings, targets, show)


def tune(settings: Settings, device: str | None, console: Console | None) -> list[Tuning]:
    """Run `musedrop tune`; with a console show meanwhile what is measured. Raises UserError."""
    cards = read_cards(settings.folders.nvml_log, DRIVER_S, had_cards=has_had_cards(settings))
    targets = choose_targets(settings, cards, device)
    number = len(list_targets(settings, cards)) if targets[0].kind == "cuda" else 1
    if console is None:
        return tune_devices(settings, targets, lambda _target, _step: None, number)
    with console.status("tuning takes some minutes ...") as status:
        return tune_devices(settings, targets, lambda target, step: status.update(f"{target.id}: {step} ..."), number)


def build_tuning_table(tuning: Tuning) -> Table:
    """Return what was measured on a device, with a mark at what was chosen."""
    choice, figures = tuning.choice, tuning.figures
    title = f"{tuning.name} {tuning.device}, {figures['networks']} networks, {tuning.seconds:.0f} s"
    table = Table("", "frames a second", "chosen", title=escape(title), title_justify="left")
    for size, rate in figures["batches"].items():
        table.add_row(f"batches of {size}", f"{rate:.2f}", "x" if int(size) == choice.batch_size else "")
    compiled = figures["compiled"]
    said = f"{compiled['fps']:.2f}" if "fps" in compiled else compiled["state"]
    table.add_row(f"compiled, batches of {choice.batch_size}", said, "x" if choice.compile else "")
    for pace in figures["paces"]:
        is_chosen = (pace["workers"], pace["encoder"]) == (choice.workers, choice.encoder)
        told = f"{pace['fps']:.2f}, {1000 * pace['cpu_s']:.1f} ms of CPU time each"
        table.add_row(f"workers {pace['workers']}, {pace['encoder']}, 720p", told, "x" if is_chosen else "")
    return table


def build_table(report: DeviceReport) -> Table:
    """Return the rows of a device as a table."""
    title = f"{report.name} {report.device}" if report.name.lower() != report.device else report.name
    table = Table("check", "", "found", title=f"{escape(title)}, {report.seconds:.0f} s", title_justify="left")
    for row in report.rows:
        advice = f"\n-> {escape(row.advice)}" if row.advice else ""
        verdict = Text(row.verdict, style=STYLE[row.verdict])
        table.add_row(Text(row.check), verdict, Text(escape(row.found) + advice))
    return table


def list_findings(report: DeviceReport) -> list[Finding]:
    """Return the rows of a device as `musedrop doctor` shows them."""

    def build(row: ReportRow) -> Finding:
        return Finding(row.verdict, f"{report.device[:12]} {row.check}", row.found, row.advice)

    return [build(row) for row in report.rows]
