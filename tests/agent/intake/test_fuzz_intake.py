"""The intake as a state machine: any entries at any moments, and the daemon's rules hold after each turn.

MUSEDROP_FUZZ_S sets for how long it runs; without it, it is short.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent import fs
from agent.daemon import ARCHIVE_S, MAX_WAIT_S
from tests.agent.test_daemon import SETTINGS, Setup
from tests.odd_entries import KINDS, NAMES, dropping_powers, put_kind, remove, set_immutable

BUDGET_S = float(os.environ.get("MUSEDROP_FUZZ_S", "0"))
SUFFIXES = (".json", ".jpg", ".wav", ".cancel", ".retry", ".txt", ".json.txt", ".heic", ".part", "")
STEMS = ["good", "Good", "hello", *(os.fsdecode(raw) for raw in NAMES.values())]
OURS = (".musedrop/claimed", ".musedrop/staging", ".musedrop/trash")
PLACES = ("inbox", "outbox", "failed", "archive", "avatars", *OURS)
JOBS = [b'{"avatar": "good.jpg", "audio": "good.wav"}', b'{"avatar": "anna", "audio": "hello.wav"}']
TEXTS = [b"", b"{", b"{}", b"[]", *JOBS]
SETTLED_S = 40.0

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes files of other users")


class IntakeMachine(RuleBasedStateMachine):
    """Users change the share between turns; the daemon is restarted, and its clock is set."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(mkdtemp(prefix="fuzz-"))
        fs._thread_pool.cache_clear()
        self.setup = Setup(self.root, SETTINGS + "\n[status]\nwrite_s = 3600\n")
        self.dropped = 0

    @initialize()
    def begin(self) -> None:
        self.turn(0.0)

    def turn(self, pass_s: float) -> None:
        with dropping_powers():
            self.setup.turn(pass_s=pass_s)

    # what users do ---------------------------------------------------------------------------------------------------

    @rule(place=st.sampled_from(PLACES), kind=st.sampled_from(list(KINDS)), suffix=st.sampled_from(SUFFIXES))
    def put_odd(self, place: str, kind: str, suffix: str) -> None:
        (self.setup.share / place).mkdir(exist_ok=True)
        with suppress(OSError):
            put_kind(self.setup.share / place, kind, suffix)

    @rule(stem=st.sampled_from(STEMS), suffix=st.sampled_from(SUFFIXES), text=st.sampled_from(TEXTS))
    def write(self, stem: str, suffix: str, text: bytes) -> None:
        path = self.setup.folders.inbox / (stem + suffix)
        with suppress(OSError):  # some names are too long with a suffix
            if not path.is_symlink():
                path.write_bytes(text)

    @rule(index=st.integers(0, 50))
    def remove_one(self, index: int) -> None:
        if paths := sorted(self.setup.folders.inbox.iterdir()):
            remove(paths[index % len(paths)])

    @rule(index=st.integers(0, 50))
    def freeze_one(self, index: int) -> None:
        paths = sorted(self.setup.folders.inbox.iterdir())
        files = [path for path in paths if path.is_file() and not path.is_symlink()]
        if files:
            with suppress(OSError):
                set_immutable(files[index % len(files)])

    @rule(place=st.sampled_from(PLACES[:5]), mode=st.sampled_from([0, 0o300, 0o500, 0o755]))
    def change_rights(self, place: str, mode: int) -> None:
        (self.setup.share / place).chmod(mode)

    # what happens ----------------------------------------------------------------------------------------------------

    @rule(pass_s=st.sampled_from([0.0, 0.5, 1.0, MAX_WAIT_S, 30.0]))
    def pass_time(self, pass_s: float) -> None:
        self.turn(pass_s)

    @rule()
    def restart(self) -> None:
        with dropping_powers():
            self.setup.daemon.abandon()
            self.setup.start()
        self.turn(0.0)

    @rule(by_s=st.sampled_from([-86_400.0, -10.0, 10.0, 40 * 86_400.0]))
    def set_clock(self, by_s: float) -> None:
        self.setup.clock.set_calendar(by_s)

    @precondition(lambda self: self.dropped < 3)
    @rule()
    def see_a_good_job_through(self) -> None:
        """With the rights as they should be, a new job is done in its usual time, whatever else is there."""
        for place in PLACES:
            with suppress(FileNotFoundError):
                (self.setup.share / place).chmod(0o755)
        self.dropped += 1
        name = f"fuzz-{self.dropped}"
        for file in (f"{name}.png", f"{name}.mp3"):
            (self.setup.folders.inbox / file).write_bytes(b"medium")
        self.setup.put(f"{name}.json", f'{{"avatar": "{name}.png", "audio": "{name}.mp3"}}'.encode())
        if self.setup.daemon.intake.is_paused:
            self.setup.put("resume", b"")
        with dropping_powers():
            self.setup.run(name, "done", within_s=SETTLED_S)
            self.setup.turn(pass_s=ARCHIVE_S)

    @invariant()
    def is_consistent(self) -> None:
        """Each claim has at most one row, and each done job one result."""
        ledger = self.setup.daemon.ledger
        assert not ledger.rows("SELECT uid FROM jobs GROUP BY uid HAVING count(*) > 1")
        for row in ledger.rows("SELECT name, uid, result FROM jobs WHERE state = 'done'"):
            assert (self.setup.folders.outbox / row["result"] / "result.mp4").exists()

    def teardown(self) -> None:
        self.setup.daemon.abandon()  # each descriptor that is left counts: an hour has thousands of runs
        for place in PLACES:
            with suppress(OSError):
                (self.setup.share / place).chmod(0o755)
        remove(self.root)
        shutil.rmtree(self.root, ignore_errors=True)


@pytest.mark.timeout(2 * BUDGET_S + 120)  # the runs that have begun take minutes on a busy machine
def test_any_share_at_any_moment() -> None:
    """No order of events ends the daemon, loses a good job, or makes one twice."""
    end_s = time.monotonic() + BUDGET_S
    few = settings(
        phases=[Phase.generate],
        max_examples=8,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    run_state_machine_as_test(IntakeMachine, settings=few)
    while time.monotonic() < end_s:
        run_state_machine_as_test(IntakeMachine, settings=settings(few, max_examples=50, stateful_step_count=50))
