"""`musedrop doctor`: check this machine, and say what to do about each problem."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from agent import client
from agent.fs import find_filesystem_kind, has_change_events
from agent.ledger.damage import find_damage
from agent.scheduler.handlers import HANDLER
from agent.scheduler.tuning import card_rules
from agent.scheduler.worker_walls import build_walls
from agent.service.access import list_access
from agent.service.process import read_daemon_pid
from agent.settings import CurrentSettings, Settings
from gpu_pool.cards import Cards, find_trouble, read_cards
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import Device, Done, Event, Failed, Span, Task
from gpu_pool.walls import explain_kernel
from models import catalog
from models.motion import catalog as motion_catalog
from models.types import DeviceKind, EngineInfo

Verdict = Literal["ok", "note", "bad"]
LOW_SPACE_BYTES = 5 << 30
EXAMINE_S = 60.0
DRIVER_S = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was checked, what was found, and what to do if it is a problem."""

    verdict: Verdict
    what: str
    found: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        return {"verdict": self.verdict, "what": self.what, "found": self.found, "advice": self.advice}


def examine(settings: Settings) -> Iterator[Finding]:
    yield from check_ledger(settings)
    found = read_cards(settings.folders.nvml_log, DRIVER_S, had_cards=has_had_cards(settings))
    yield from check_python_and_torch()
    yield from check_cards(found, settings)
    yield from check_worker(settings)
    yield from check_walls(settings)
    yield from check_engines(settings, found)
    yield from check_speech(settings)
    yield from check_folders(settings)
    yield from check_access(settings)
    yield check_daemon(settings)
    yield from check_daemon_status(settings)


def check_ledger(settings: Settings) -> Iterator[Finding]:
    """Read the whole ledger, if there is one. Raises LedgerError where it is damaged: nothing can be said then."""
    path = settings.folders.ledger
    if path.exists():
        with closing(client.open_ledger(settings)) as db:
            if (damage := find_damage(db.conn, path)) is not None:
                raise damage
        yield Finding("ok", "ledger", f"{path} is whole")


def check_speech(settings: Settings) -> Iterator[Finding]:
    """Look for the program that speaks texts, if one is set."""
    if command := settings.speech.command:
        found = shutil.which(command[0])
        advice = "" if found else "install it, or give its whole path in [speech] of the settings"
        yield Finding("ok" if found else "bad", "speech", found or f"there is no program {command[0]}", advice)


def has_had_cards(settings: Settings) -> bool:
    """Whether the ledger knows a card that the settings admit."""
    if not settings.folders.ledger.exists():
        return False
    rows = client.list_devices(client.open_ledger(settings))
    return any(row["kind"] == "cuda" and card_rules(settings).can_use(row["card"]) for row in rows)


def check_python_and_torch() -> Iterator[Finding]:
    ok = sys.version_info >= (3, 11)
    yield Finding("ok" if ok else "bad", "Python", sys.version.split()[0], "" if ok else "install Python 3.11 or newer")
    if find_spec("torch") is None:
        advice = "the preview engine doesn't need it"
        yield Finding("note", "torch", "not installed", advice)
    else:
        yield Finding("ok", "torch", find_version("torch"))


def find_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown version"


def check_cards(found: Cards, settings: Settings) -> Iterator[Finding]:
    if found.driver:
        yield Finding("ok", "NVIDIA driver", found.driver)
    trouble = find_trouble(found, found.trouble, card_rules(settings))
    if trouble:
        yield Finding("bad", "NVIDIA driver", trouble, "jobs that MuseTalk would run stay queued until it works")
    for problem in found.problems:
        advice = "fine for the preview engine; for MuseTalk install the NVIDIA driver and check that nvidia-smi works"
        yield Finding("note", "NVML", problem, "" if trouble else advice)
    for gpu in found.devices:
        yield check_card(gpu, admitted=card_rules(settings).can_use(gpu.id))


def check_card(gpu: Device, *, admitted: bool) -> Finding:
    what = f"{gpu.name} {gpu.id}"
    if gpu.state == "lost":
        return Finding("bad", "GPU", f"{what}: {gpu.reason}", "see `dmesg` for Xid errors; a reboot may restore it")
    memory = f"{gpu.free_bytes / 2**30:.1f} of {gpu.total_bytes / 2**30:.1f} GiB free"
    if not gpu.total_bytes:
        memory = "shares the memory of this machine"
    if not admitted:
        return Finding(
            "note", "GPU", f"{what}: {memory}, not used", "see only and exclude in [devices] of the settings"
        )
    return Finding("ok", "GPU", f"{what}: {memory}")


def check_worker(settings: Settings) -> Iterator[Finding]:
    """Start one real worker and ask it for its codecs."""
    walls = partial(build_walls, CurrentSettings(settings))
    log_dir = settings.folders.logs
    backend = LocalBackend(cpu_devices(1), handler=HANDLER, handler_options={}, log_dir=log_dir, choose_walls=walls)
    pool = Pool(backend, stall_s=EXAMINE_S)
    try:
        answer = ask_worker(pool)
    finally:
        pool.close()
    if isinstance(answer, Failed):
        yield Finding("bad", "worker", answer.message, f"see the log in {log_dir}")
        return
    facts: dict[str, Any] = dict(answer.result)
    yield Finding("ok", "worker", f"starts and answers (PyAV {facts['pyav']}, OpenCV {facts['opencv']})")
    for encoder, state in facts["encoders"].items():
        usable = state == "usable"
        needed = encoder == "libx264"
        advice = "reinstall the package av" if needed else "libx264 is used instead"
        yield Finding(
            "ok" if usable else "bad" if needed else "note", f"encoder {encoder}", state, "" if usable else advice
        )


def check_walls(settings: Settings) -> Iterator[Finding]:
    """Say what keeps a worker that a hostile file has taken over from the rest of this machine."""
    if not settings.pool.walls:
        yield Finding("note", "walls", "workers have all rights of the daemon", "set walls = true in [pool]")
        return
    missing = explain_kernel()
    for reason in missing:
        yield Finding("note", "walls", reason, "a newer kernel, or a container that allows it, keeps workers in")
    if not missing:
        found = "workers open only their folders; those on the processor start no programs and open no sockets"
        yield Finding("ok", "walls", found)


def ask_worker(pool: Pool) -> Done | Failed:
    task = Task(id="doctor", kind="cpu", todo=(Span(0, 1),), strategy="queue", payload={"stage": "examine"})
    for _ in range(int(EXAMINE_S / 0.5)):
        plan = pool.plan(task, 0) if not pool.running_spans(task.id) else None
        if plan is not None:
            pool.start(plan)
        for event in pool.poll(0.5):
            if isinstance(event, Event) and isinstance(event.message, Done | Failed):
                return event.message
            if not isinstance(event, Event) and event.device.state == "sick":
                return Failed("doctor", 0, 1, "worker_died", event.device.reason)
    return Failed("doctor", 0, 1, "worker_stalled", f"no worker answered within {EXAMINE_S:.0f} s")


def check_engines(settings: Settings, found: Cards) -> Iterator[Finding]:
    for card in catalog.ENGINES.values():
        yield check_engine(card, settings)
    for mover in motion_catalog.MOTION_ENGINES.values():
        yield check_motion_engine(mover, settings)
    rules = card_rules(settings)
    trouble = find_trouble(found, found.trouble, rules)
    kinds: set[DeviceKind] = {"cuda"} if trouble or any(rules.can_use(gpu.id) for gpu in found.devices) else set()
    can_use_cards = bool(trouble) or catalog.has_cuda_torch()
    choice = catalog.choose_engine("auto", settings.models_dir, {"cpu", *kinds}, None, can_use_cards)
    if trouble and choice.kind == "cuda":
        yield Finding("bad", "engine auto", f"its jobs wait: {trouble}", 'ask for "preview" by name meanwhile')
        return
    yield Finding("ok", "engine auto", f"runs on {choice.engine} ({choice.reason})")


def check_engine(card: EngineInfo, settings: Settings) -> Finding:
    """Check if an engine can run here; if not, name what is missing and how to install it."""
    what, folder = f"engine {card.name}", settings.models_dir
    if not catalog.is_installed(card):
        return Finding("note", what, "not part of this installation", "")
    advice = f"run `{catalog.suggest_command(card, folder)}`"
    if packages := catalog.find_missing_packages(card):
        return Finding("note", what, f"not installed: {', '.join(packages)}", advice)
    if files := catalog.find_missing_weights(card, folder):
        return Finding("note", what, f"missing in {folder}: {', '.join(files)}", advice)
    return Finding("ok", what, card.summary)


def check_motion_engine(engine: EngineInfo, settings: Settings) -> Finding:
    """Check if an engine of clips can run here; if not, name what is missing and how to get it."""
    what, command = f"motion {engine.name}", motion_catalog.suggest_command(engine)
    if why := motion_catalog.explain_unavailable(engine, settings.models_dir):
        return Finding("note", what, why, f"run `{command}`" if command else motion_catalog.MISSING)
    return Finding("ok", what, engine.summary)


def check_folders(settings: Settings) -> Iterator[Finding]:
    places = {"inbox": settings.folders.inbox, "outbox": settings.folders.outbox, "state": settings.state}
    for what, path in places.items():
        if not path.is_dir():
            yield Finding("bad", what, f"{path} does not exist", "run `musedrop init`, or mount the share")
        elif not os.access(path, os.W_OK | os.X_OK):
            yield Finding("bad", what, f"{path} is not writable for this user", "give it to the daemon's user")
        else:
            yield check_disk(what, path)
    if settings.folders.inbox.is_dir():
        yield check_inbox_filesystem(settings.folders.inbox)


def check_access(settings: Settings) -> Iterator[Finding]:
    """Say what is open to whom, and what is more open than it should be."""
    for access in list_access(settings.folders):
        yield Finding("note" if access.advice else "ok", f"access to {access.what}", access.found, access.advice)


def check_disk(what: str, path: Path) -> Finding:
    free = shutil.disk_usage(path).free
    found = f"{path} is writable, {free / 2**30:.1f} GiB free"
    if free < LOW_SPACE_BYTES:
        return Finding("note", what, found, "free space")
    return Finding("ok", what, found)


def check_inbox_filesystem(inbox: Path) -> Finding:
    kind = find_filesystem_kind(inbox)
    if has_change_events(kind):
        return Finding("ok", "inbox file system", f"{kind}: reports changes at once")
    return Finding("note", "inbox file system", f"{kind}: polled", "run the daemon where the share is served")


def check_daemon(settings: Settings) -> Finding:
    pid = read_daemon_pid(settings.folders.lock)
    if pid is None:
        return Finding("note", "daemon", "is not running", "start it with `musedrop run`")
    return Finding("ok", "daemon", f"runs as process {pid}")


def check_daemon_status(settings: Settings) -> Iterator[Finding]:
    """Report the problems and the pause that the running daemon has written into status.json."""
    problems, paused = read_status(settings)
    for problem in problems:
        yield Finding("bad", "daemon's problem", problem, "remove the cause; the daemon retries until it works")
    if paused:
        advice = "run `musedrop resume`, or create an empty file named resume in the inbox"
        yield Finding("note", "queue", "is paused: no more jobs are started", advice)


def read_status(settings: Settings) -> tuple[list[str], bool]:
    """Return `problems` and `paused` of status.json.

    ([], False) if no daemon runs or another process wrote the file: users can write to the share.
    """
    pid = read_daemon_pid(settings.folders.lock)
    try:
        status = json.loads(settings.folders.status_file.read_bytes())
        if pid is not None and status["daemon"]["pid"] == pid:
            return [str(problem) for problem in status["problems"]], bool(status["paused"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return [], False
