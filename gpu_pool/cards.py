"""Readings of the cards, made by a process that may hang or crash instead of the daemon.

The daemon itself never calls the driver: a call may take ten seconds, never return, or end the
process that made it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path

from gpu_pool.process import build_python_path, open_log
from gpu_pool.types import Device
from gpu_pool.visible import VARIABLE, hides_all
from gpu_pool.wire import LineSplitter, WireError

DEVICE_FOLDER = "/dev"
LIBRARY = "libnvidia-ml.so.1"
STALE_S = 5.0
SILENT_S = 30.0
RESTART_S = 5.0
RETRY_S = 60.0
SILENT = "The NVIDIA driver doesn't answer."
NO_DRIVER = "No NVIDIA driver is installed."
SILENT_TROUBLE = f"{SILENT} See `dmesg` for Xid errors, and reboot if it goes on."
NO_DRIVER_TROUBLE = (
    "The library of the NVIDIA driver isn't found; "
    "install the driver again, or give the container its GPUs (`--gpus all`)."
)
UNLISTED = "The driver doesn't list the card any more."
_SYSTEM_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/lib/wsl/lib", "/usr/local/nvidia/lib64")


@dataclass(frozen=True, slots=True)
class Cards:
    """One reading of all cards.

    devices    GPUs, and MIG instances instead of the GPU they divide; one that stopped answering
               has state "lost"
    problems   a sentence for each fault: no driver, a card whose name can't be read
    driver     its version, "" without one
    held       card -> pid -> bytes of the card that the process holds; in a container the driver
               often lists none
    read_at_s  time.monotonic() when the reading began
    trouble    why no card can be used, and what to do; "" if one can, or CUDA_VISIBLE_DEVICES
               admits none
    is_absent  whether a machine that never had a card would answer the same
    """

    devices: tuple[Device, ...] = ()
    problems: tuple[str, ...] = ()
    driver: str = ""
    held: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    read_at_s: float = 0.0
    trouble: str = ""
    is_absent: bool = False

    def to_json(self) -> str:
        """Return the reading as a line, without a newline."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, line: bytes) -> Cards:
        """Return the reading of a line. WireError if it is no reading."""
        try:
            body = json.loads(line)
            devices = tuple(Device(**device) for device in body.pop("devices"))
            return cls(devices, tuple(body.pop("problems")), **body)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise WireError(f"no reading of cards: {line[:80]!r}") from error


@dataclass(frozen=True, slots=True)
class CardRules:
    """Which cards are used, and by how many workers each.

    Cards are named by UUID or the beginning of it.

    workers     on each card whose type is not in `workers_of`
    workers_of  by the name of a type of card
    """

    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    workers: int = 1
    workers_of: Mapping[str, int] = field(default_factory=dict)

    @property
    def excludes_all(self) -> bool:
        """Whether every card is excluded, whatever its UUID."""
        return all(kind.startswith(self.exclude or "-") for kind in ("GPU-", "MIG-"))

    def can_use(self, card: str) -> bool:
        """Whether workers may run on the card with this UUID."""
        return card.startswith(self.only or "") and not (self.exclude and card.startswith(self.exclude))


def list_devices(cards: Cards, rules: CardRules) -> list[Device]:
    """Return a device for each worker.

    The first has the id of the card, the second this id and "/2", and so on.
    """
    return [
        replace(card, id=card.id if number == 1 else f"{card.id}/{number}", card=card.id, read_at_s=cards.read_at_s)
        for card in cards.devices
        if rules.can_use(card.id)
        for number in range(1, rules.workers_of.get(card.name, rules.workers) + 1)
    ]


def has_driver_library(env: Mapping[str, str]) -> bool:
    """Whether the driver's library is installed; it isn't loaded."""
    folders = [*env.get("LD_LIBRARY_PATH", "").split(":"), *_SYSTEM_FOLDERS]
    if any(Path(folder, LIBRARY).exists() for folder in folders if folder):
        return True
    with contextlib.suppress(OSError):
        return LIBRARY.encode() in Path("/etc/ld.so.cache").read_bytes()
    return False


def has_device_files(driver: str) -> bool:
    """Whether the driver has made files for cards; one that runs makes others without a card."""
    return any(Path(DEVICE_FOLDER).glob("nvidia[0-9]*" if driver else "nvidia*"))


def find_trouble(cards: Cards, trouble: str, rules: CardRules) -> str:
    """Return why none of the cards that the rules admit can be used, "" if one can or none is wanted.

    `trouble` is that of the driver.
    """
    if rules.excludes_all:
        return ""
    if trouble or not rules.only or not cards.devices:
        return trouble
    wanted = [card for card in cards.devices if rules.can_use(card.id)]
    if not wanted and not any(card.id.startswith(rules.only) for card in cards.devices):
        names = ", ".join(card.id for card in cards.devices)
        return f"`only` in [devices] of the settings names no card of this machine, which has {names}."
    return ""


class CardWatch:
    """Reads the cards with `python -m gpu_pool.nvml_watch`, which it restarts when necessary.

    log         takes what the process prints to stderr
    interval_s  seconds between two readings
    env         is added to this process's environment
    had_cards   whether this machine is known to have a card
    clock       returns seconds

    Use it from the main thread: the process ends with the thread that started it.
    """

    def __init__(
        self,
        log: Path,
        *,
        interval_s: float = 1.0,
        env: Mapping[str, str] | None = None,
        had_cards: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._had_cards = self._has_signs = had_cards
        self._log, self._interval_s, self._clock = log, interval_s, clock
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._lines = LineSplitter()
        self._latest = Cards(problems=(NO_DRIVER,), trouble=NO_DRIVER_TROUBLE, is_absent=True)
        self._received_at_s = self._start_at_s = clock()
        self.serve()

    @property
    def trouble(self) -> str:
        """Why no card can be used though this machine has one, and what to do; "" without trouble.

        A machine has a card if the driver has made its files in /dev, or it had one before.
        """
        if hides_all(self._env.get(VARIABLE)) or (self._latest.is_absent and not self._has_signs):
            return ""
        return SILENT_TROUBLE if self.is_silent else self._latest.trouble

    @property
    def fd(self) -> int | None:
        """Readable when there is something to serve; None while no process runs."""
        return self._process.stdout.fileno() if self._process and self._process.stdout else None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def deadline_s(self) -> float:
        """When serve() is next needed, even if `fd` isn't readable."""
        if self._process is None:
            return self._start_at_s
        return self._received_at_s + (SILENT_S if self.is_silent else STALE_S)

    @property
    def is_silent(self) -> bool:
        """Whether the latest reading is too old to place spans by."""
        return bool(self._latest.driver or self._process) and self._clock() - self._received_at_s >= STALE_S

    @property
    def latest(self) -> Cards:
        """The last reading, however old."""
        return self._latest

    def wait_for_first(self, timeout_s: float) -> Cards:
        """Wait for a reading; without one, return the problem as a reading."""
        until_s = self._clock() + timeout_s
        while self.fd is not None and not self._latest.read_at_s and (left_s := until_s - self._clock()) > 0:
            select.select([self.fd], [], [], left_s)
            self.serve()
        return self._latest

    def serve(self) -> None:
        """Read what the process has sent; start or kill it where that is due."""
        now_s = self._clock()
        if self._process is None:
            if now_s >= self._start_at_s:
                self._start(now_s)
        elif not self._receive(now_s) or now_s - self._received_at_s >= SILENT_S:
            self._kill(now_s)

    def close(self) -> None:
        if self._process:
            self._kill(self._clock())
        self._start_at_s = inf

    def _start(self, now_s: float) -> None:
        self._start_at_s = now_s + RETRY_S
        self._look_for_signs()
        if not has_driver_library(self._env):
            return
        try:
            self._process = self._start_process()
        except OSError as error:
            problem = f"The NVIDIA driver can't be asked: {error}."
            self._latest = replace(self._latest, problems=(problem,), trouble=problem, is_absent=False)
            return
        self._lines, self._received_at_s = LineSplitter(), now_s
        if not self._latest.read_at_s:
            self._latest = Cards(problems=(SILENT,), trouble=SILENT_TROUBLE)

    def _look_for_signs(self) -> None:
        if self._latest.is_absent:
            self._has_signs = self._had_cards or has_device_files(self._latest.driver)

    def _start_process(self) -> subprocess.Popen[bytes]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-X", "faulthandler", "-m", "gpu_pool.nvml_watch"]
        with open_log(self._log, "the NVIDIA driver") as output:
            process = subprocess.Popen(  # noqa: S603  our own interpreter and module, no shell
                [*command, "--parent", str(os.getpid()), "--interval", str(self._interval_s)],
                env={**self._env, "PYTHONPATH": build_python_path(self._env)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                bufsize=0,
                start_new_session=True,
            )
        assert process.stdout  # noqa: S101  it is a pipe
        os.set_blocking(process.stdout.fileno(), False)
        return process

    def _receive(self, now_s: float) -> bool:
        """Take the readings that have arrived; False if the process has ended or sent others."""
        assert self.fd is not None  # noqa: S101
        try:
            data = os.read(self.fd, 1 << 20)
            for line in self._lines.feed(data):
                self._latest, self._received_at_s = Cards.parse(line), now_s
                self._look_for_signs()
        except BlockingIOError:
            return True
        except WireError:
            return False
        return bool(data)

    def _kill(self, now_s: float) -> None:
        """End the process.

        One that hangs in the driver may survive SIGKILL for a while; it isn't waited for.
        """
        process, self._process = self._process, None
        self._start_at_s = now_s + RESTART_S
        if process:
            process.kill()
            if process.stdout:
                process.stdout.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)


def read_cards(log: Path, timeout_s: float, *, had_cards: bool = False) -> Cards:
    """Return one reading; a driver that doesn't answer within the time is a problem in it.

    Its `trouble` is that of a CardWatch, for a machine that may be known to have a card.
    """
    watch = CardWatch(log, had_cards=had_cards)
    try:
        found = watch.wait_for_first(timeout_s)
        return replace(found, trouble=watch.trouble)
    finally:
        watch.close()
