"""What the driver says of the cards, heard from a process that may hang or crash in its place.

The daemon itself never calls the driver: a call may take ten seconds, never return, or end the process that made it.
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
from pathlib import Path

from gpu_pool.process import opened_log, python_path
from gpu_pool.types import Device
from gpu_pool.wire import Lines, WireError

LIBRARY = "libnvidia-ml.so.1"
STALE_S = 5.0
SILENT_S = 30.0
RESTART_S = 5.0
LOOK_AGAIN_S = 60.0
SILENT = "The NVIDIA driver doesn't answer."
NO_DRIVER = "No NVIDIA driver is installed."
UNLISTED = "The driver doesn't list the card any more."
_SYSTEM_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/lib/wsl/lib", "/usr/local/nvidia/lib64")


@dataclass(frozen=True, slots=True)
class Cards:
    """One reading.

    devices   GPUs, and MIG instances instead of the GPU they divide; one that stopped answering has state "lost"
    problems  a sentence for each thing that is wrong: no driver, a card that can't even be named
    driver    its version, "" without one
    held      card -> process -> bytes of the card that it holds; in a container the driver often tells nothing
    read_at_s   time.monotonic() when the reading began
    """

    devices: tuple[Device, ...] = ()
    problems: tuple[str, ...] = ()
    driver: str = ""
    held: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    read_at_s: float = 0.0

    def line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, line: bytes) -> Cards:
        """WireError if it is no reading."""
        try:
            body = json.loads(line)
            devices = tuple(Device(**device) for device in body.pop("devices"))
            return cls(devices, tuple(body.pop("problems")), **body)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise WireError(f"no reading of cards: {line[:80]!r}") from error


@dataclass(frozen=True, slots=True)
class CardRules:
    """Which cards are used, and by how many workers each. Cards are named by UUID or the beginning of it."""

    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    workers: int = 1

    def can_use(self, card: str) -> bool:
        return card.startswith(self.only or "") and not (self.exclude and card.startswith(self.exclude))


def seats(cards: Cards, rules: CardRules) -> list[Device]:
    """A device for each worker: the card's own id for the first, the card's id and "/2" for the second, and so on."""
    return [
        replace(card, id=card.id if number == 1 else f"{card.id}/{number}", card=card.id, read_at_s=cards.read_at_s)
        for card in cards.devices
        if rules.can_use(card.id)
        for number in range(1, rules.workers + 1)
    ]


def library_exists(env: Mapping[str, str]) -> bool:
    """Whether there is a driver to ask, without loading it."""
    folders = [*env.get("LD_LIBRARY_PATH", "").split(":"), *_SYSTEM_FOLDERS]
    if any(Path(folder, LIBRARY).exists() for folder in folders if folder):
        return True
    with contextlib.suppress(OSError):
        return LIBRARY.encode() in Path("/etc/ld.so.cache").read_bytes()
    return False


class CardWatch:
    """Listens to `python -m gpu_pool.nvml_watch`, and starts it again when it ends or falls silent.

    Use it from the main thread: the process ends with the thread that started it.
    """

    def __init__(
        self,
        log: Path,
        *,
        every_s: float = 1.0,
        env: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._every_s, self._clock = log, every_s, clock
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._lines = Lines()
        self._latest = Cards(problems=(NO_DRIVER,))
        self._heard_at = self._start_at = clock()
        self.serve()

    @property
    def fd(self) -> int | None:
        """Readable when there is something to serve; None while no process runs."""
        return self._process.stdout.fileno() if self._process and self._process.stdout else None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def deadline(self) -> float:
        """When serve() is next needed, whether anything is heard or not."""
        if self._process is None:
            return self._start_at
        return self._heard_at + (SILENT_S if self.silent else STALE_S)

    @property
    def silent(self) -> bool:
        """Whether figures are too old to place anything by."""
        return bool(self._latest.driver or self._process) and self._clock() - self._heard_at >= STALE_S

    def cards(self) -> Cards:
        """The last reading, however old."""
        return self._latest

    def await_first(self, timeout_s: float) -> Cards:
        """Wait for a reading where there is a driver to ask; without one, or after the time is up, go on."""
        until = self._clock() + timeout_s
        while self.fd is not None and not self._latest.read_at_s and (left := until - self._clock()) > 0:
            select.select([self.fd], [], [], left)
            self.serve()
        return self._latest

    def serve(self) -> None:
        """Take in what was said; start the process, or give it up, where that is due."""
        now = self._clock()
        if self._process is None:
            if now >= self._start_at:
                self._start(now)
        elif not self._listen(now) or now - self._heard_at >= SILENT_S:
            self._give_up(now)

    def close(self) -> None:
        if self._process:
            self._give_up(self._clock())
        self._start_at = float("inf")

    def _start(self, now: float) -> None:
        self._start_at = now + LOOK_AGAIN_S
        if not library_exists(self._env):
            return
        try:
            self._process = self._started()
        except OSError as error:
            self._latest = replace(self._latest, problems=(f"The NVIDIA driver can't be asked: {error}.",))
            return
        self._lines, self._heard_at = Lines(), now
        if not self._latest.read_at_s:
            self._latest = Cards(problems=(SILENT,))

    def _started(self) -> subprocess.Popen[bytes]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-X", "faulthandler", "-m", "gpu_pool.nvml_watch"]
        with opened_log(self._log, "the NVIDIA driver") as output:
            process = subprocess.Popen(  # noqa: S603  our own interpreter and module, no shell
                [*command, "--parent", str(os.getpid()), "--every", str(self._every_s)],
                env={**self._env, "PYTHONPATH": python_path(self._env)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                bufsize=0,
                start_new_session=True,
            )
        assert process.stdout  # noqa: S101  it is a pipe
        os.set_blocking(process.stdout.fileno(), False)
        return process

    def _listen(self, now: float) -> bool:
        """False if it has ended, or speaks nonsense."""
        assert self.fd is not None  # noqa: S101
        try:
            data = os.read(self.fd, 1 << 20)
            for line in self._lines.feed(data):
                self._latest, self._heard_at = Cards.parse(line), now
        except BlockingIOError:
            return True
        except WireError:
            return False
        return bool(data)

    def _give_up(self, now: float) -> None:
        """One that hangs in the driver may survive SIGKILL for a while: then it is left to the kernel."""
        process, self._process = self._process, None
        self._start_at = now + RESTART_S
        if process:
            process.kill()
            if process.stdout:
                process.stdout.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)


def read_cards(log: Path, timeout_s: float) -> Cards:
    """One reading, for people: a driver that hangs is a problem in it."""
    watch = CardWatch(log)
    try:
        return watch.await_first(timeout_s)
    finally:
        watch.close()
