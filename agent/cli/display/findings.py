"""How findings of `doctor` are printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.cli.console import console, speak
from agent.text import escape_markup

if TYPE_CHECKING:
    from agent.cli.doctor import Finding

MARKS = {"ok": "[green]ok  [/]", "note": "[yellow]note[/]", "bad": "[red]bad [/]"}


def print_finding(finding: Finding) -> None:
    """Print a finding on a line, and what to do below it."""
    found, advice = (escape_markup(speak(text)) for text in (finding.found, finding.advice))
    console.print(f"{MARKS[finding.verdict]} [bold]{finding.what:<18}[/] {found}", soft_wrap=True)
    if advice:
        console.print(f"{'':23} -> {advice}", soft_wrap=True)
