"""Two further machines of which anything ends, freezes, leaves and joins at random moments, from a seed."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest

from gpu_pool.types import grid
from tests.e2e.oracle import check
from tests.share import Share, alive, are_gone, until

SCHEDULES = int(os.environ.get("MUSEDROP_CLUSTER_SCHEDULES", "1"))
IS_SHORT = SCHEDULES == 1
KILLS, JOBS, BLOWS = (1, 2, 2) if IS_SHORT else (20, 6, 6)
FENCE_S, LOST_S = 2.0, 3.0
GRACE_NS = 500_000_000
"""How long a process may take to end on a busy machine."""
FRAMES = (20, 72, 120)
BLOWS_OF = ("kill worker", "kill agent", "freeze node", "freeze daemon", "kill daemon", "stop daemon", "leave", "join")


class Machines:
    """A share whose daemon has one worker and two further machines, and what is known of their processes."""

    def __init__(self, share: Share, dice: random.Random) -> None:
        self.share, self.dice = share, dice
        self.pause = Event()
        self.seen, self.woken = set[int](), set[int]()
        self.pending = [f"job{number}" for number in range(JOBS)]
        self.frames = {name: dice.choice(FRAMES) for name in self.pending} | {self.pending[-1]: FRAMES[-1]}
        nodes = {name: ["sh", "-c", self._build_command(name)] for name in ("box2", "box3")}
        values = {"fence_s": FENCE_S, "lost_s": LOST_S, "node_folder": str(share.root / "far"), "nodes": nodes}
        text = "".join(f"{name} = {render_toml(value)}\n" for name, value in values.items())
        share.config.write_text(f"{share.config.read_text()}\n[cluster]\n{text}")

    def _build_command(self, name: str) -> str:
        """A machine that isn't there has a file of its name; the end of the command doesn't end the agent."""
        return (
            f"test ! -e {self._locate_gone(name)} && exec setsid --wait {shlex.quote(sys.executable)} -m gpu_pool.agent"
        )

    def _locate_gone(self, name: str) -> Path:
        return self.share.root / f"{name}-is-gone"

    def drop_jobs(self, count: int, frame_s: float = 0.02) -> None:
        for name in [self.pending.pop() for _ in range(min(len(self.pending), count))]:
            for file in (f"{name}-a.png", f"{name}-b.wav"):  # no pair of one name, which would be a job of its own
                self.share.put(file, name.encode())
            options = {"frame_s": frame_s, "frames": self.frames[name], "notes_ticks": True}
            job = {"avatar": f"{name}-a.png", "audio": f"{name}-b.wav", "options": options, "strategy": "split"}
            self.share.drop(name, **job)

    def list_workers(self, node: str = "") -> list[int]:
        """Return the living workers, all or those of one machine."""
        rows = self.share.rows("SELECT device, worker_pid FROM device_status WHERE worker_pid IS NOT NULL")
        found = [row["worker_pid"] for row in rows if row["device"].startswith(node) and alive(row["worker_pid"])]
        self.seen.update(found)
        return found

    def strike(self, blow: str) -> None:
        name = self.dice.choice(("box2", "box3"))
        match blow.split():
            case "kill", "worker":
                send(signal.SIGKILL, self.list_workers()[:1])
            case "kill", "agent":
                send(signal.SIGKILL, find_parents(self.list_workers(f"{name}/")))
            case "freeze", "node":
                workers = self.list_workers(f"{name}/")
                self._freeze([*find_parents(workers), *workers], self.dice.choice((0.5, LOST_S + 1.0)))
            case "freeze", "daemon":
                assert self.share.daemon
                self._freeze([self.share.daemon.pid], self.dice.choice((0.5, FENCE_S + 1.0)))
            case ("kill" | "stop") as how, "daemon":
                (self.share.kill if how == "kill" else self.share.stop)()
                self.share.launch()
            case ["leave"]:
                self._locate_gone(name).touch()
                send(signal.SIGKILL, find_parents(self.list_workers(f"{name}/")))
            case ["join"]:
                self._locate_gone(name).unlink(missing_ok=True)

    def _freeze(self, pids: list[int], seconds: float) -> None:
        self.woken.update(pids)
        send(signal.SIGSTOP, pids)
        self.pause.wait(seconds)
        send(signal.SIGCONT, pids)

    def finish(self) -> None:
        """Wait for all jobs, stop the daemon, and compare what is there with what must be."""
        share = self.share
        names = list(self.frames)
        self.drop_jobs(JOBS)
        until(share.is_up, 60, share.log)
        share.wait_until_finished(JOBS)
        until(lambda: not list(share.inbox.iterdir()), 60, share.log)
        self.list_workers()
        assert share.stop() == 0
        until(lambda: are_gone([*self.seen]), 60, lambda: f"left: {list(filter(alive, self.seen))}")
        check(share, names)
        assert {row["state"] for row in share.rows()} == {"done"}, share.rows()
        for name in names:
            assert (share.outbox / name / "result.mp4").read_bytes() == build_result(name, self.frames[name])
        assert list_twice(share.root, self.woken) == []


def render_toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {json.dumps(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value)


def send(number: int, pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def find_parents(workers: list[int]) -> list[int]:
    """Return the agents that have started the workers."""
    found = []
    for pid in workers:
        with suppress(FileNotFoundError, ProcessLookupError):
            found.append(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]))
    return found


def build_result(name: str, frames: int) -> bytes:
    """Return what one machine makes of a job, which is cut by its length alone."""
    return "".join(f"{span.start}-{span.stop}\n" for span in grid(frames)).encode() + name.encode()


def list_twice(root: Path, woken: Iterable[int]) -> list[str]:
    """Return the spans that two workers were at at one time, but for those that were frozen."""
    runs = defaultdict[str, list[tuple[int, int, str]]](list)
    for path in root.rglob("ticks-*"):
        if int(path.name.removeprefix("ticks-")) in woken:
            continue
        times = defaultdict[str, list[int]](list)
        for span, at_ns in (line.rsplit(" ", 1) for line in path.read_text().splitlines()):
            times[span].append(int(at_ns))
        for span, found in times.items():
            runs[span].append((min(found), max(found), path.name))
    pairs = (
        (span, one, other) for span, at in runs.items() for one, other in zip(sorted(at), sorted(at)[1:], strict=False)
    )
    return [f"{span}: {one} {other}" for span, one, other in pairs if other[0] + GRACE_NS < one[1]]


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_a_schedule_of_mixed_faults(make_share: Callable[..., Share], seed: int) -> None:
    """Nothing is lost, nothing is done twice, and the bytes are those of one machine."""
    dice = random.Random(seed)
    machines = Machines(make_share(module="tests.e2e.noop", workers=1, settle_s=0.05), dice)
    machines.share.start()
    until(lambda: len(machines.list_workers("box")) == 2, 60, machines.share.log)
    for _ in range(BLOWS):
        machines.drop_jobs(dice.randint(1, 2))
        machines.pause.wait(dice.uniform(0.2, 1.5))
        machines.strike(dice.choice(BLOWS_OF))
    machines.finish()


@pytest.mark.slow
@pytest.mark.cluster
def test_the_daemon_freezes_and_is_killed_at_random_moments(make_share: Callable[..., Share]) -> None:
    """The other machines' workers end before it wakes, and with it; nothing is done twice, and the next one goes on."""
    dice = random.Random(19)
    machines = Machines(make_share(module="tests.e2e.noop", workers=1, settle_s=0.05), dice)
    share = machines.share
    share.start()
    until(lambda: len(machines.list_workers("box")) == 2, 60, share.log)
    machines.drop_jobs(1, frame_s=0.1)
    until(lambda: len(find_busy(share)) == 2, 60, share.log)
    assert share.daemon
    far = find_busy(share)
    share.daemon.send_signal(signal.SIGSTOP)
    until(lambda: are_gone(far), 60, lambda: "workers of other machines work on for a frozen daemon")
    share.daemon.send_signal(signal.SIGCONT)
    for _ in range(KILLS):
        machines.drop_jobs(dice.randint(0, 2))
        machines.pause.wait(dice.uniform(0.1, 3.0))
        workers = machines.list_workers()
        machines.strike("kill daemon")
        until(lambda workers=workers: are_gone(workers), 60, lambda: "workers outlive the daemon")  # type: ignore[misc]
    machines.finish()


def find_busy(share: Share) -> list[int]:
    """Return the workers of other machines that have a span."""
    sql = "SELECT worker_pid FROM device_status WHERE device LIKE '%/%' AND state = 'busy'"
    return [row["worker_pid"] for row in share.rows(sql)]
