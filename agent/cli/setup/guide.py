"""The steps of `musedrop setup`: what is there is shown, what is missing is offered."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agent.cli import service as systemd_service
from agent.cli import systemctl
from agent.cli.console import speak
from agent.cli.desktop import open_path
from agent.cli.display.findings import print_finding
from agent.cli.doctor import DRIVER_S, check_cards, examine, has_had_cards
from agent.cli.presence import find_presence
from agent.cli.setup.demo import make_demo
from agent.errors import UserError
from agent.results.video_file import find_video
from agent.settings_file import load_settings
from agent.setup import steps
from agent.text import escape_markup
from gpu_pool.cards import read_cards
from models import catalog

if TYPE_CHECKING:
    from rich.console import Console

    from agent.settings import Settings

TITLES = {
    "share": "The shared folder",
    "access": "Who may drop files",
    "cards": "Cards",
    "weights": "Weights of MuseTalk",
    "service": "The service",
    "demo": "A first video",
    "check": "Check",
}


class Guide:
    """Leads through the steps on a terminal. With `yes` it asks nothing."""

    def __init__(self, console: Console, *, yes: bool) -> None:
        self.console, self.yes = console, yes
        self._number = 0

    def lead(self, source: Path, *, weights: bool | None, service: bool | None, demo: bool | None) -> int:
        """Go through all steps of a set-up. Return 1 if the check finds something bad, else 0."""
        settings = load_settings(source)
        place = steps.Place(settings.folders, source, settings.models_dir)
        self.show(steps.check_share(place))
        self.show(steps.check_access(place.folders), pasted=True)
        self.show_cards(settings)
        self.offer_weights(place, weights)
        self.offer_service(place, service)
        self.offer_demo(place, settings, demo)
        return self.check(settings)

    # asking ----------------------------------------------------------------------------------------------------------

    def confirm(self, question: str, *, given: bool | None, proposal: bool) -> bool:
        """Return what a flag says, with --yes the proposal, else what the person says."""
        if given is not None:
            return given
        return proposal if self.yes else typer.confirm(question, default=proposal)

    def ask_path(self, question: str, proposal: Path) -> Path:
        return proposal if self.yes else Path(typer.prompt(speak(question), default=str(proposal))).expanduser()

    # the steps -------------------------------------------------------------------------------------------------------

    def head(self, name: str) -> None:
        self._number += 1
        self.console.print(f"\n[bold]{self._number}. {speak(TITLES[name])}[/]")

    def show(self, step: steps.Step, *, pasted: bool = False) -> None:
        """Print a step; with `pasted` also what is to be pasted, which is always so where it is not done."""
        self.head(step.name)
        mark = "[green]ok[/]  " if step.is_done else "[yellow]-[/]   "
        for sentence in step.told:
            self.console.print(f"{mark}{escape_markup(speak(sentence))}", soft_wrap=True, highlight=False)
        for command in step.commands if pasted or not step.is_done else ():
            self.console.print(f"      {escape_markup(command)}", soft_wrap=True, highlight=False)
        if step.text:
            self.console.print(speak("For Windows and Macs, add this to /etc/samba/smb.conf:"))
            self.console.print(step.text, soft_wrap=True, highlight=False, markup=False)

    def show_cards(self, settings: Settings) -> None:
        self.head("cards")
        found = read_cards(settings.folders.nvml_log, DRIVER_S, had_cards=has_had_cards(settings))
        for finding in check_cards(found, settings):
            print_finding(finding)

    def offer_weights(self, place: steps.Place, given: bool | None) -> None:
        step = steps.check_weights(place)
        self.show(step)
        if step.is_done or catalog.find_missing_packages(catalog.ENGINES["musetalk"]):
            return
        if self.confirm(speak("Download them now?"), given=given, proposal=False):
            command = [sys.executable, "-m", "models.musetalk", "--models-dir", str(place.models_dir), "fetch"]
            sys.stdout.flush()
            if os.spawnv(os.P_WAIT, sys.executable, command):  # noqa: S606  our own interpreter and module; no shell
                self.console.print(speak("The download did not finish: run it again, it goes on where it stopped."))

    def offer_service(self, place: steps.Place, given: bool | None) -> None:
        """Install and start the service where this user may, else show the commands."""
        step = steps.check_service(place)
        self.show(step)
        is_root = os.geteuid() == 0
        can_install = len(step.commands) > 1 and step.commands[0].startswith("sudo") == is_root
        if step.is_done or not can_install or not systemctl.BOOTED.is_dir():
            return
        if self.confirm(speak("Install it as a service and start it?"), given=given, proposal=False):
            systemd_service.install(user=not is_root, yes=True)
            systemctl.Systemd(user=not is_root).start()

    def offer_demo(self, place: steps.Place, settings: Settings, given: bool | None) -> None:
        step = steps.check_demo(place)
        self.head("demo")
        for sentence in step.told:
            self.console.print(escape_markup(speak(sentence)), soft_wrap=True, highlight=False)
        example = steps.find_example()
        if step.is_done or example is None:
            return
        if not find_presence(settings).is_alive and settings.state.stat().st_uid != os.geteuid():
            self.console.print(speak("Another user runs the daemon here: start it first."))
            return
        if not self.confirm(speak("Make the demo clip now?"), given=given, proposal=True):
            return
        row = make_demo(settings, place.source, example, self.console)
        if row["state"] != "done":
            raise UserError(f"{row['name']}: {row['error_message']}")
        video = find_video(settings.folders.outbox / row["result"])
        self.console.print(f"[green]{speak('done')}[/]: {escape_markup(video)}", soft_wrap=True)
        has_screen = bool(os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY"))
        if has_screen and not self.yes and typer.confirm(speak("Play it?"), default=True):
            open_path(video)

    def check(self, settings: Settings) -> int:
        """Run `doctor`, and say whether all is well."""
        self.head("check")
        verdicts = list[str]()
        for finding in examine(settings):
            verdicts.append(finding.verdict)
            print_finding(finding)
        if "bad" in verdicts:
            self.console.print(f"[red]{speak('Not all is well yet: see above what to do.')}[/]")
            return 1
        told = f"All is well. Drop a face and a voice of one name into {settings.folders.inbox}."
        self.console.print(f"[green]{escape_markup(speak(told))}[/]", soft_wrap=True, highlight=False)
        return 0
