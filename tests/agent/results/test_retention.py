"""What grows old goes, oldest first; what is unfinished, or needed by something unfinished, never does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from agent.fs.folders import make_folders, move
from agent.jobs.states import LIVE, JobState
from agent.ledger.ledger import Ledger
from agent.results.retention import BATCH, DAY_MS, EVERY_S, ROWS, Entry, Retention, list_dropped, select_surplus
from agent.service.problems import Problems
from agent.settings_file import load_settings
from gpu_pool.types import Device
from tests.agent.fake_clock import FakeClock
from tests.agent.samples import add_job

NOW = 2_000_000_000_000
ENDED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


# the decision --------------------------------------------------------------------------------------------------------


def entries(*pairs: tuple[float, int]) -> list[Entry]:
    """(age in days, size) each."""
    return [Entry(Path(f"/{n}"), NOW - round(age * DAY_MS), size) for n, (age, size) in enumerate(pairs)]


def gone(found: list[Entry], days: float, max_bytes: int) -> list[str]:
    return [entry.path.name for entry in select_surplus(found, NOW, days, max_bytes)]


@pytest.mark.parametrize(
    ("days", "max_bytes", "expected"),
    [
        (0, 0, []),
        (30, 0, ["3"]),
        (1, 0, ["3", "2", "1"]),
        (0, 30, ["3", "2"]),
        (0, 25, ["3", "2"]),
        (0, 1, ["3", "2", "1"]),
        (3, 30, ["3", "2"]),
        (31, 1000, ["3"]),
    ],
)
def test_age_and_size_decide(days: float, max_bytes: int, expected: list[str]) -> None:
    """The oldest go first; 0 is no limit; size alone leaves the newest, however large."""
    found = entries((0.5, 10), (2, 15), (10, 50), (40, 1))
    assert gone(found, days, max_bytes) == expected
    assert gone(found[::-1], days, max_bytes) == expected


@given(
    st.lists(st.tuples(st.integers(0, 100 * DAY_MS), st.integers(0, 1000)), max_size=20),
    st.integers(0, 100),
    st.integers(0, 5000),
)
def test_what_stays_is_newer_and_fits(found: list[tuple[int, int]], days: int, max_bytes: int) -> None:
    """Nothing that stays is too old; the newest that stay fit; nothing goes that is newer than something that stays."""
    made = [Entry(Path(f"/{n}"), NOW - age, size) for n, (age, size) in enumerate(found)]
    going = select_surplus(made, NOW, days, max_bytes)
    staying = [entry for entry in made if entry not in going]
    if days:
        assert all(NOW - entry.at_ms <= days * DAY_MS for entry in staying)
    if max_bytes and len(staying) > 1:
        assert sum(entry.bytes for entry in staying) <= max_bytes
    if going and staying:
        assert max(entry.at_ms for entry in going) <= min(entry.at_ms for entry in staying)
    if not days and made:
        assert max(entry.at_ms for entry in made) in {entry.at_ms for entry in staying}
    if not days and not max_bytes:
        assert going == []


# the round -----------------------------------------------------------------------------------------------------------


class Setup:
    """A share and a state folder with things of a known age."""

    def __init__(self, root: Path, extra: str = "") -> None:
        (root / "share").mkdir(parents=True)
        (root / "musedrop.toml").write_text(f'share = "share"\nstate = "state"\n[retention]\n{extra}')
        self.settings = load_settings(root / "musedrop.toml")
        self.folders = self.settings.folders
        make_folders((*self.folders.of_share, *self.folders.of_state))
        self.ledger, self.problems = Ledger(self.folders.ledger), Problems()
        self.in_use: set[Path] = set()
        self.clock = FakeClock()
        self.retention = Retention(self.settings, self.ledger, self.problems, self.clock, lambda: self.in_use)

    def pass_s(self, seconds: float) -> None:
        """Let the monotonic clock go on, and not the calendar."""
        self.clock.now += seconds
        self.clock.start_ms = NOW - round(1000 * self.clock.now)

    def round(self) -> int:
        """One whole round; how many turns it took."""
        turns = 1
        self.pass_s(EVERY_S)
        while self.retention.step():
            turns += 1
        return turns

    def job(self, uid: str, state: JobState, *, days: float, tidied: bool = True) -> None:
        at = NOW - round(days * DAY_MS)
        add_job(self.ledger, uid, state=state, at_ms=at)
        self.ledger.update(uid, tidied=int(tidied), swept=int(tidied))

    def uids(self) -> set[str]:
        return {row["uid"] for row in self.ledger.rows("SELECT uid FROM job_status")}


def aged(path: Path, days: float) -> Path:
    """A file, or a folder with one in it, last changed so many days ago."""
    if path.suffix:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    else:
        path.mkdir(parents=True)
        (path / "job.json").write_text("{}")
    at_s = (NOW - days * DAY_MS) / 1000
    os.utime(path, (at_s, at_s))
    return path


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def test_old_folders_go_and_results_stay(setup: Setup) -> None:
    """Archive and failed are cleared by age; the outbox, the library, loose files and links are left alone."""
    folders = setup.folders
    old = [aged(folders.failed / "old", 31), aged(folders.archive / "2033-04-01" / "old", 40)]
    stay = [aged(folders.failed / "new", 29), aged(folders.archive / "2033-05-10" / "claimed-long-ago", 300)]
    stay += [aged(folders.outbox / "result", 5000), aged(folders.avatars / "face.jpg", 5000)]
    stay += [aged(folders.failed / "note.txt", 5000), aged(folders.archive / "mine" / "things", 5000)]
    (folders.failed / "link").symlink_to(stay[4])
    setup.round()
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in [*stay, folders.failed / "link"])
    assert not (folders.archive / "2033-04-01").exists(), "an empty day goes too"
    assert not list(folders.trash.iterdir())


def test_too_much_goes_oldest_first(tmp_path: Path) -> None:
    """A limit in GiB counts everything below a folder."""
    setup = Setup(tmp_path, f"failed_days = 0\nfailed_gib = {1500 / 2**30}\n")
    for n, name in enumerate(("new", "older", "oldest")):
        folder = setup.folders.failed / name
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "voice.wav").write_bytes(bytes(700))
        os.utime(folder, (NOW / 1000 - 60 * n,) * 2)
    setup.round()
    assert sorted(path.name for path in setup.folders.failed.iterdir()) == ["new", "older"]


def test_logs_and_leftovers_and_work_folders_that_are_not_needed(setup: Setup) -> None:
    """A log that a worker has open stays; a work folder goes unless its job is unfinished."""
    folders = setup.folders
    folders.selftest_logs.mkdir()
    names = ("worker-cpu-0.log", "worker-GPU-gone.log", "selftest/worker-GPU-gone.log")
    logs = [aged(folders.logs / name, 90) for name in names]
    setup.in_use = {logs[0]}
    leftovers = [aged(folders.share / name, 2) for name in (".status.json.77.tmp", ".status.db.77.tmp", ".mine.tmp")]
    for uid, state in (("live", JobState.QUEUED), ("ended", JobState.FAILED)):
        setup.job(uid, state, days=0)
        aged(folders.work / uid, 0)
    aged(folders.work / "orphan", 0)
    setup.round()
    assert [path.exists() for path in logs] == [True, False, False]
    assert [path.exists() for path in leftovers] == [False, False, True]
    assert [path.name for path in folders.work.iterdir()] == ["live"]


def test_old_rows_go_with_their_attempts_and_events(setup: Setup) -> None:
    """A year after its end a job is forgotten; one that a device still shows, or that isn't filed away, is not."""
    for uid, days, tidied in (
        ("old", 366.0, True),
        ("shown", 366.0, True),
        ("untidy", 366.0, False),
        ("new", 364, True),
    ):
        setup.job(uid, JobState.DONE, days=days, tidied=tidied)
    setup.ledger.devices.record(Device("cpu:0", "cpu"), at_ms=1, job="shown")
    setup.ledger.record_event(None, "start", NOW - 400 * DAY_MS)
    setup.round()
    assert setup.uids() == {"shown", "untidy", "new"}
    assert {row["uid"] for row in setup.ledger.rows("SELECT uid FROM job_attempts")} == setup.uids()
    assert setup.ledger.rows("SELECT count(*) AS n FROM events WHERE job_id IS NULL OR job_id = 1") == [{"n": 0}]
    assert setup.ledger.rows("PRAGMA foreign_key_check") == []


def test_a_large_round_takes_many_small_turns(setup: Setup) -> None:
    """Workers don't wait for a round: each turn deletes a handful, and the next round is an hour away."""
    for n in range(3 * BATCH):
        aged(setup.folders.failed / f"job-{n}", 60)
    with setup.ledger.together():
        for n in range(2 * ROWS + 1):
            setup.job(f"u{n}", JobState.DONE, days=400)
    assert setup.round() == 3 + 3
    assert setup.uids() == set()
    assert not list(setup.folders.failed.iterdir())
    aged(setup.folders.failed / "late", 60)
    setup.pass_s(EVERY_S - 1)
    assert setup.retention.step() is False
    assert (setup.folders.failed / "late").exists()


def test_what_is_needed_meanwhile_stays(setup: Setup) -> None:
    """A job that has come to need a folder between two turns keeps it, also through a link to the share."""
    for n in range(BATCH):
        aged(setup.folders.failed / f"a-{n}", 60)
    held = aged(setup.folders.failed / "z", 50)
    near = aged(setup.folders.failed / "z-2", 40)
    setup.pass_s(EVERY_S)
    setup.retention.step()
    setup.job("u1", JobState.QUEUED, days=0)
    setup.ledger.update("u1", media={"audio": {"path": str(held.resolve() / "voice.wav")}})
    while setup.retention.step():
        pass
    assert (held.exists(), near.exists()) == (True, False)


def test_what_cannot_be_deleted_is_a_trouble(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, stops nothing else, and is over when the next round succeeds."""
    stuck, other = aged(setup.folders.failed / "a", 60), aged(setup.folders.failed / "b", 50)
    with monkeypatch.context() as patch:
        patch.setattr("agent.results.retention.move", refusing(move, stuck))
        setup.round()
        assert "can't be deleted" in setup.problems["retention"]
        assert (stuck.exists(), other.exists()) == (True, False)
        setup.round()
    assert caplog.text.count("can't be deleted") == 1
    setup.round()
    assert setup.problems["retention"] == ""
    assert not stuck.exists()


def refusing(rename: Callable[[Path, Path], None], which: Path) -> Callable[[Path, Path], None]:
    def renamed(path: Path, target: Path) -> None:
        if path == which:
            raise PermissionError(13, "Permission denied", str(path))
        rename(path, target)

    return renamed


def test_a_deletion_that_was_cut_off_goes_on(setup: Setup) -> None:
    """What a crash left in the trash goes with the next round, and was never seen half in failed."""
    aged(setup.folders.trash / "1234", 0)
    setup.round()
    assert not list(setup.folders.trash.iterdir())


@hypothesis(max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from(list(JobState)), st.floats(0, 800), st.floats(0, 800), st.booleans()), max_size=8
    ),
    st.sampled_from([0, 0.5, 30, 400]),
    st.sampled_from([0, 1 / 2**30]),
)
def test_nothing_unfinished_is_ever_deleted(
    jobs: list[tuple[JobState, float, float, bool]], days: float, gib: float
) -> None:
    """Whatever ages, states and settings: rows, work folders and inputs of unfinished jobs stay, and all results."""
    extra = (
        f"archive_days = {days}\nfailed_days = {days}\nrows_days = {days}\narchive_gib = {gib}\nfailed_gib = {gib}\n"
    )
    with TemporaryDirectory() as folder:
        setup = Setup(Path(folder), extra)
        kept: set[Path] = set()
        unfinished: set[str] = set()
        with setup.ledger.together():
            for n, (state, row_days, folder_days, tidied) in enumerate(jobs):
                uid = f"u{n}"
                setup.job(uid, state, days=row_days, tidied=tidied and state in ENDED)
                kept.add(aged(setup.folders.outbox / uid, folder_days))
                inputs = aged(setup.folders.failed / uid, folder_days)
                media = aged(setup.folders.archive / "2033-01-01" / uid, folder_days)
                setup.ledger.update(uid, inputs=str(inputs), media={"avatar": {"path": str(media / "face.jpg")}})
                work = aged(setup.folders.work / uid, folder_days)
                if state in LIVE or not tidied:
                    kept |= {inputs, media, work}
                    unfinished.add(uid)
        setup.round()
        assert all(path.is_dir() for path in kept)
        assert unfinished <= setup.uids()
        if days == 0 and gib == 0:
            assert setup.uids() == {f"u{n}" for n in range(len(jobs))}
        setup.ledger.close()


# the inbox -----------------------------------------------------------------------------------------------------------


def test_copies_of_a_client_whose_job_never_came_go(setup: Setup) -> None:
    """They belong to no job and never will; people's own files stay, and so does what a job still needs."""
    inbox = setup.folders.inbox
    names = ["hello-0123abcd.avatar.jpg", "hello-0123abcd.audio.wav", f".{'a' * 32}.tmp", "face.jpg", "notes.txt"]
    for name in [*names, "needed-0123abcd.audio.wav"]:
        (inbox / name).write_bytes(b"x")
    medium = {"path": str(inbox / "needed-0123abcd.audio.wav"), "inode": 1, "size": 1, "mtime_ns": 1}
    add_job(setup.ledger, "u1", media={"audio": medium})
    setup.round()
    assert sorted(path.name for path in inbox.iterdir()) == ["face.jpg", "needed-0123abcd.audio.wav", "notes.txt"]


def test_a_file_is_as_old_as_its_copy_in_the_inbox(tmp_path: Path) -> None:
    """A copy that keeps the time of its original was dropped today."""
    (tmp_path / "old.jpg").write_bytes(b"x")
    os.utime(tmp_path / "old.jpg", (1, 1))
    [entry] = list_dropped(tmp_path)
    assert entry.at_ms > 1_700_000_000_000
