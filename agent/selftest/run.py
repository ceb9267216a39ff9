"""A whole self-test: which devices, the checks of each, and the file that keeps what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from agent.clock import Clock
from agent.errors import UserError
from agent.scheduler.device_names import file_safe
from agent.scheduler.tuning import card_rules
from agent.selftest.examine import examine_device
from agent.selftest.report import DeviceReport, build_report, find_key, write_reports
from agent.selftest.rows import Row
from agent.selftest.workers import Target, open_workers
from agent.settings import Settings
from gpu_pool.cards import Cards, find_trouble
from models import catalog

BUDGETS_S = {"cuda": 290.0, "cpu": 1800.0}
"""The time of one device: what has not run by then is left out. A processor takes seconds a frame."""
DRIVER_S = 10.0
CPU = Target("cpu", "cpu", "CPU")

Tell = Callable[[Target, Row], None]


def list_targets(settings: Settings, cards: Cards) -> list[Target]:
    """Return the cards that the settings admit, or where there are none the processor. Raises UserError where the
    driver is in trouble."""
    rules = card_rules(settings)
    found = [
        Target(card.id, "cuda", card.name, cards.driver)
        for card in cards.devices
        if rules.can_use(card.id) and card.state != "lost"
    ]
    if trouble := "" if found else find_trouble(cards, cards.trouble, rules):
        raise UserError(f"no card can be tested: {trouble} `musedrop selftest --device cpu` tests the processor")
    return found or [CPU]


def choose_targets(settings: Settings, cards: Cards, asked: str | None) -> list[Target]:
    """Return what `--device` asks for: "cpu", a card or the beginning of its UUID; without it all cards. Raises
    UserError."""
    if asked is None:
        return list_targets(settings, cards)
    if asked == "cpu" or asked.startswith("cpu:"):
        return [CPU]
    listed = [target for target in list_targets(settings, cards) if target.kind == "cuda"]
    card = file_safe(asked.partition("/")[0])
    found = [target for target in listed if file_safe(target.id).startswith(card)]
    if len(found) != 1 or not card:
        names = ", ".join(target.id for target in (found or [*listed, CPU]))
        raise UserError(f'{"several devices are" if found else "no device is"} called "{asked}"; there are {names}')
    return found


def run_selftest(settings: Settings, targets: list[Target], tell: Tell) -> list[DeviceReport]:
    """Test the devices one after the other, so that they don't disturb each other; write selftest.json after each.

    `tell` gets each row as soon as it is known. Raises UserError where the file can't be written.
    """
    reports = []
    for target in targets:
        key, began_s = find_key(settings, target), time.monotonic()
        rows = []
        for row in examine_target(settings, target):
            rows.append(row)
            tell(target, row)
        reports.append(build_report(target, key, rows, Clock().at_ms(), time.monotonic() - began_s))
        try:
            write_reports(settings.folders.selftest_file, reports)
        except OSError as error:
            raise UserError(f"{settings.folders.selftest_file} can't be written: {error.strerror}") from error
    return reports


def examine_target(settings: Settings, target: Target) -> Iterator[Row]:
    """Yield the rows of one device; without the packages of MuseTalk there is nothing that could be tested."""
    engine = catalog.ENGINES["musetalk"]
    if packages := catalog.find_missing_packages(engine):
        advice = f"run `{catalog.suggest_command(engine, settings.models_dir)}`; the preview engine needs no card"
        yield Row("networks", "note", f"left out: {', '.join(packages)} not installed", advice)
        return
    folders = {"models_dir": str(settings.models_dir), "cache": str(settings.folders.cache)}
    with open_workers(settings, target, BUDGETS_S[target.kind]) as workers:
        yield from examine_device(workers, target, folders)
    if missing := catalog.find_missing_weights(engine, settings.models_dir):
        found = f"{len(missing)} weight files are missing, so tiny networks took their place"
        yield Row("weights files", "note", found, f"run `{catalog.suggest_command(engine, settings.models_dir)}`")
