"""`musedrop cluster check`: whether the machines of the settings can be used, and how fast the way there is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from agent.scheduler.nodes import find_facts, make_start, open_link
from agent.settings import Settings
from agent.text import escape
from gpu_pool.cluster.messages import Figures
from gpu_pool.cluster.node import explain_difference
from gpu_pool.cluster.probe import NodeProbe, NodeReport

TIMEOUT_S = 60.0
MOST_CLOCK_S = 2.0
"""Apart more than that, times in logs mislead."""
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class NodeFinding:
    """What was found of a node, and why it will not be used, "" if it will."""

    name: str
    report: NodeReport
    trouble: str

    @property
    def cards(self) -> list[Figures]:
        return [device for device in self.report.devices if device.card]

    def to_json(self) -> dict[str, Any]:
        report = self.report
        return {
            "node": self.name,
            "trouble": self.trouble or None,
            "versions": dict(report.facts),
            "devices": [device.id for device in report.devices],
            "round_trip_ms": round(1000 * report.round_trip_s, 2),
            "clock_s": round(report.clock_s, 3),
            "down_mib_s": round(report.down_bytes_s / MIB, 1),
            "up_mib_s": round(report.up_bytes_s / MIB, 1),
        }


def examine_nodes(settings: Settings) -> list[NodeFinding]:
    """Look at all machines of the settings at once."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(lambda name: examine_node(settings, name), settings.cluster.nodes))


def examine_node(settings: Settings, name: str) -> NodeFinding:
    """Reach a node as the daemon would, and measure the way there."""
    try:
        start, link = make_start(settings, name), open_link(settings, name)
    except OSError as error:
        return NodeFinding(name, NodeReport(), f"can't be reached: {error}")
    report = NodeProbe(link, start, TIMEOUT_S).run()
    trouble = report.trouble
    if not trouble and settings.cluster.shared_state and not report.sees_state:
        trouble = f"does not see {settings.state}: mount it there, at the same path"
    return NodeFinding(name, report, trouble or explain_difference(name, find_facts(settings), report.facts))


def list_troubles(findings: list[NodeFinding]) -> list[str]:
    """Return a line for each node that can't be used."""
    bad = [(finding.name, escape(finding.trouble)) for finding in findings if finding.trouble]
    return [trouble if trouble.startswith(f"{name} ") else f"{name}: {trouble}" for name, trouble in bad]


def build_table(findings: list[NodeFinding]) -> Table:
    """Return a row for each node; why one can't be used has more room in `list_troubles`."""
    table = Table("machine", "", "cards", "there and back", "clock", "to it", "from it", title_justify="left")
    for finding in findings:
        report = finding.report
        if finding.trouble:
            table.add_row(Text(finding.name), Text("bad", style="red"))
            continue
        clock = f"{report.clock_s:+.1f} s" if abs(report.clock_s) >= MOST_CLOCK_S else "right"
        cards = ", ".join(f"{device.name} {device.id[:12]}" for device in finding.cards) or "processor alone"
        table.add_row(
            Text(finding.name),
            Text("ok", style="green"),
            Text(escape(cards)),
            Text(f"{1000 * report.round_trip_s:.1f} ms"),
            Text(clock),
            Text(f"{report.down_bytes_s / MIB:.0f} MiB/s"),
            Text(f"{report.up_bytes_s / MIB:.0f} MiB/s"),
        )
    return table
