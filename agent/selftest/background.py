"""The daemon's side of self-tests: it takes reports over, and has cards tested once while no job needs them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from agent.clock import Clock
from agent.ledger.ledger import Ledger
from agent.scheduler.device_names import match_devices
from agent.scheduler.devices import Devices
from agent.scheduler.tuning import find_tunings
from agent.selftest.report import DeviceReport, ReportKey, find_keys, read_reports
from agent.service.log import make_extra
from agent.settings import CurrentSettings, Settings
from gpu_pool.process import Program
from gpu_pool.types import Device
from models.catalog import choose_engine

log = logging.getLogger("musedrop")

CHECK_S = 10.0
IDLE_S = 30.0
"""How long no job must have run before a self-test starts."""
RECORDED, DISMISSED = "selftest", "selftest_dismissed"
"""Rows of `meta`, with ":" and the card: the end of the last test that is in the ledger, or that a person set aside."""
FORM = "selftest_form"
"""The same with the type of a card and what a test holds for: the form of the networks that jobs run there."""


class RunningProgram(Protocol):
    """A self-test that runs."""

    @property
    def exit_code(self) -> int | None: ...
    def kill(self) -> None: ...


Start = Callable[[Settings, Sequence[str]], RunningProgram]
"""Starts a self-test of these cards. Raises OSError."""


def start_program(settings: Settings, cards: Sequence[str]) -> RunningProgram:
    stdin = settings.model_dump_json().encode()
    return Program("agent.selftest.program", cards, stdin, settings.folders.selftest_logs / "selftest.log")


class BackgroundTests:
    """Reports in the ledger, cards at fault out of service, and a self-test for each card that is new.

    A card is new when itself, its driver, torch or the weights are others than at its last test.
    `start` takes the place of the real program in tests.
    """

    def __init__(
        self,
        settings: CurrentSettings,
        ledger: Ledger,
        devices: Devices,
        clock: Clock,
        start: Start = start_program,
    ) -> None:
        self.settings, self.ledger, self.devices, self.clock = settings, ledger, devices, clock
        self._start = start
        self._program: RunningProgram | None = None
        self._reports: dict[str, DeviceReport] = {}
        self._stamp: tuple[int, int] | None = None
        self._tried: set[ReportKey] = set()
        self._running: tuple[str, ...] = ()
        self._due_s, self._busy_s = 0.0, clock.now_s()

    @property
    def is_running(self) -> bool:
        return self._program is not None

    def step(self, *, is_busy: bool) -> None:
        """Look every few seconds for a report, the end of a test, and cards that are new. A job ends a test at once."""
        now_s = self.clock.now_s()
        if is_busy:
            self._busy_s = now_s
            self._stop("a job has come: it starts again later")
        if now_s < self._due_s:
            return
        self._due_s = now_s + CHECK_S
        self.take_over()
        if self._program is not None and self._program.exit_code is not None:
            self._end(self._program.exit_code)
        elif self._program is None and now_s - self._busy_s >= IDLE_S:
            self._begin(self._find_new())

    def close(self) -> None:
        self._stop("the daemon stops")

    def dismiss(self, name: str) -> None:
        """Set the last report of a card aside: a person has put it back into service."""
        for card in {device.card for device in match_devices(name, self.devices.pool.devices()) if device.card}:
            if report := self._reports.get(card):
                self.ledger.remember(f"{DISMISSED}:{card}", str(report.at_ms))

    # reports ---------------------------------------------------------------------------------------------------------

    def take_over(self) -> None:
        """Write what selftest.json says into the ledger, once, and take cards at fault out of service."""
        path = self.settings.current.folders.selftest_file
        if (stamp := _read_stamp(path)) != self._stamp:
            self._stamp, self._reports = stamp, read_reports(path)
            for report in self._reports.values():
                self._record(report)
        keys = self._find_keys()
        for card, key in keys.items():
            self._apply(card, key)
        self.devices.forms = self._find_forms(keys)
        self._take_over_tunings()

    def _take_over_tunings(self) -> None:
        """Let new jobs take what `musedrop tune` has found; say once what that is."""
        tuned = {card: one.choice for card, one in find_tunings(self.settings.current).items()}
        if tuned != self.devices.tuned:
            self.devices.tuned = tuned
            log.info("tuning: %s", "; ".join(f"{card}: {one.summary}" for card, one in tuned.items()) or "none holds")

    def _find_forms(self, keys: Mapping[str, ReportKey]) -> dict[str, str]:
        """Return the form for each type of card of which one has been tested as it is now.

        The first test decides for all cards of a type and all later tests, so that equal cards give the same bytes.
        """
        found = {}
        for card, key in keys.items():
            report = self._reports.get(card)
            if report and report.key == key and (choice := report.chosen_form):
                row = ":".join((FORM, choice.card, key.driver, key.torch, key.weights))
                if (form := self.ledger.recall(row)) is None:
                    self.ledger.remember(row, form := choice.chosen)
                found[choice.card] = form
        return found

    def _record(self, report: DeviceReport) -> None:
        key = f"{RECORDED}:{report.device}"
        if self.ledger.recall(key) == str(report.at_ms):
            return
        with self.ledger.together():
            self.ledger.record_event(None, "selftest", report.at_ms, report.summary, report.device)
            self.ledger.remember(key, str(report.at_ms))
        log.log(
            logging.WARNING if report.verdict == "bad" else logging.INFO,
            "self-test of %s: %s",
            report.device,
            report.summary,
            extra=make_extra(device=report.device),
        )

    def _apply(self, card: str, key: ReportKey) -> None:
        """Let a card be sick while its last report finds it at fault, holds for it, and no person has set it aside."""
        report = self._reports.get(card)
        holds = report is not None and report.key == key
        dismissed = self.ledger.recall(f"{DISMISSED}:{card}")
        fault = report.fault if report and holds and dismissed != str(report.at_ms) else ""
        self.devices.set_fault(card, fault)

    # tests -----------------------------------------------------------------------------------------------------------

    def _find_keys(self) -> dict[str, ReportKey]:
        """Return for each card on which workers run what a test of it would hold for now."""
        cards = sorted({device.card for device in self.devices.pool.devices() if device.card and not device.node})
        return find_keys(self.settings.current, cards, self.devices.pool.driver_version) if cards else {}

    def _find_new(self) -> list[str]:
        """Return the cards that must be tested and can be now: MuseTalk would run there, and all workers are idle."""
        settings = self.settings.current
        devices = [device for device in self.devices.pool.devices() if device.card and not device.node]
        if not (devices and settings.pool.selftest and _has_networks(settings) and _are_ready(devices)):
            return []
        idle = {device.card for device in devices if device.state == "idle"}
        return [card for card, key in self._find_keys().items() if card in idle and self._is_new(card, key)]

    def _is_new(self, card: str, key: ReportKey) -> bool:
        report = self._reports.get(card)
        return (report is None or report.key != key) and key not in self._tried

    def _begin(self, cards: list[str]) -> None:
        if not cards:
            return
        try:
            self._program = self._start(self.settings.current, cards)
        except OSError as error:
            log.warning("the self-test of %s can't be started: %s", ", ".join(cards), error)
            self._remember_tries(cards)
            return
        self._running = tuple(cards)
        log.info("the self-test of %s has started; jobs come first", ", ".join(cards))

    def _end(self, exit_code: int) -> None:
        """Note the end of a test; one that left no report is tried again by the next daemon only."""
        self._program = None
        self._remember_tries(self._running)
        if exit_code:
            place = self.settings.current.folders.selftest_logs
            log.warning("the self-test of %s ended with %d, see %s", ", ".join(self._running), exit_code, place)

    def _remember_tries(self, cards: Iterable[str]) -> None:
        self._tried |= {key for card, key in self._find_keys().items() if card in cards}

    def _stop(self, why: str) -> None:
        if self._program is not None:
            self._program.kill()
            self._program = None
            log.info("the self-test of %s was ended: %s", ", ".join(self._running), why)


def _has_networks(settings: Settings) -> bool:
    """Whether jobs run MuseTalk on a card: without its packages and weights nothing uses the cards."""
    return choose_engine("auto", settings.models_dir, {"cpu", "cuda"}).kind == "cuda"


def _are_ready(devices: Iterable[Device]) -> bool:
    """Whether no worker on a card works or starts."""
    return all(device.state not in ("busy", "starting") for device in devices)


def _read_stamp(path: Path) -> tuple[int, int] | None:
    """Return what is another when the file is, None where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns
