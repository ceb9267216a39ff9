"""selftest.json in the state folder: the last self-test of each device, and for what it holds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from agent.fs import atomic_write_bytes
from agent.scheduler.tuning import Strict, find_torch_version
from agent.selftest.rows import FORMS, Row, Verdict, find_fault, worst_verdict
from agent.selftest.workers import Target
from agent.settings import Settings
from models.catalog import stamp_weights

FORMAT = 1


class ReportKey(Strict):
    """What a result holds for: as soon as one of these is another, the device is tested again.

    weights   a hash of names, sizes and times of the installed files, "" without weights
    """

    card: str
    driver: str
    torch: str
    weights: str


class ReportRow(Strict):
    check: str
    verdict: Verdict
    found: str
    advice: str = ""
    figures: dict[str, Any] = Field(default_factory=dict)


class FormChoice(Strict):
    """Which form of the networks a test of the installed weights chose for this type of card."""

    card: str
    chosen: str
    networks: Literal["installed"]


class DeviceReport(Strict):
    """The last self-test of one device.

    at_ms    when it ended, milliseconds since 1970
    verdict  the worst of the rows
    fault    why the card can't be used and what to do, "" if it can
    """

    device: str
    name: str
    key: ReportKey
    at_ms: int
    seconds: float
    verdict: Verdict
    fault: str = ""
    rows: tuple[ReportRow, ...] = ()

    @property
    def summary(self) -> str:
        """One line for the ledger."""
        poor = [f"{row.check}: {row.found}" for row in self.rows if row.verdict != "ok"]
        found = "; ".join(poor) or "all as it should be"
        return f"{self.verdict}: {len(self.rows)} checks in {self.seconds:.0f} s, {found}"

    @property
    def chosen_form(self) -> FormChoice | None:
        """None where no form was chosen: on a processor, without weights, or where the check failed."""
        try:
            return next((FormChoice(**row.figures) for row in self.rows if row.check == FORMS), None)
        except (TypeError, ValidationError):
            return None


class Report(Strict):
    version: int = FORMAT
    devices: tuple[DeviceReport, ...] = ()


def find_key(settings: Settings, target: Target) -> ReportKey:
    """Return what a self-test of this device would hold for now."""
    return find_keys(settings, [target.id], target.driver)[target.id]


def find_keys(settings: Settings, devices: Iterable[str], driver: str) -> dict[str, ReportKey]:
    """Return the same for several devices of one driver."""
    torch, weights = find_torch_version(), stamp_weights(settings.models_dir)
    return {device: ReportKey(card=device, driver=driver, torch=torch, weights=weights) for device in devices}


def build_report(target: Target, key: ReportKey, rows: list[Row], at_ms: int, seconds: float) -> DeviceReport:
    return DeviceReport(
        device=target.id,
        name=target.name,
        key=key,
        at_ms=at_ms,
        seconds=round(seconds, 1),
        verdict=worst_verdict(rows),
        fault=find_fault(rows),
        rows=tuple(
            ReportRow(
                check=row.check, verdict=row.verdict, found=row.found, advice=row.advice, figures=dict(row.figures)
            )
            for row in rows
        ),
    )


def read_reports(path: Path) -> dict[str, DeviceReport]:
    """Return the report of each device; none where the file is missing or is no report."""
    try:
        report = Report.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return {}
    return {one.device: one for one in report.devices} if report.version == FORMAT else {}


def write_reports(path: Path, reports: Iterable[DeviceReport]) -> None:
    """Write the file anew, whole; a device that isn't among the reports keeps its own. Raises OSError."""
    kept = {**read_reports(path), **{report.device: report for report in reports}}
    report = Report(devices=tuple(kept.values())).model_dump(mode="json")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")
