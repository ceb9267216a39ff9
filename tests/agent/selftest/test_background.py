"""Self-tests of the daemon: once for a new card, while nothing else runs, and what becomes of the reports."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence

import pytest

from agent.ledger.ledger import Ledger
from agent.scheduler.devices import Devices
from agent.scheduler.tuning import write_tunings
from agent.selftest import report as reports_module
from agent.selftest.background import CHECK_S, IDLE_S, BackgroundTests
from agent.selftest.report import build_report, find_keys, write_reports
from agent.selftest.rows import Row
from agent.selftest.workers import Target
from agent.settings import CurrentSettings, Settings
from gpu_pool.pool import Pool
from gpu_pool.types import Device, DeviceChanged
from models.catalog import EngineChoice
from tests.agent.fake_clock import FakeClock
from tests.agent.scheduler.tunings import CHOICE, make_tuning
from tests.gpu_pool.fake import FakeBackend

A, B = "GPU-aaaa1111", "GPU-bbbb2222"
WRONG = Row("networks fp16", "bad", "wrong numbers", "update its driver", blames_card=True)
SOUND = Row("device", "ok", "fine")


def choose(form: str, *, card: str = "Card", networks: str = "installed") -> Row:
    """Return the row of a test that chose a form of the networks."""
    return Row("forms", "ok", "timed", "", {"card": card, "chosen": form, "networks": networks})


class Program:
    """A self-test that ends when the test says so."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.is_killed = False

    def kill(self) -> None:
        self.is_killed = True


class Bench:
    """Background tests over fake workers on two cards; `turn` passes time and takes one turn of the daemon."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.clock, self.driver = settings, FakeClock(), "580.1"
        self.started: list[tuple[list[str], Program]] = []
        self.fails = False
        self.open()

    def open(self) -> None:
        """Begin anew, as the next daemon does."""
        cards = [Device(name, "cuda", card=name.partition("/")[0]) for name in (A, f"{A}/2", B)]
        self.backend = FakeBackend([Device("cpu:0", "cpu"), *cards], self.clock)
        self.pool = Pool(self.backend, stall_s=1000.0, clock=self.clock, find_driver=lambda: self.driver)
        self.ledger = Ledger(self.settings.folders.ledger)
        self.devices = Devices(self.ledger, self.pool, self.clock)
        self.tests = BackgroundTests(
            CurrentSettings(self.settings), self.ledger, self.devices, self.clock, start=self.start
        )

    def close(self) -> None:
        self.tests.close()
        self.pool.close()
        self.ledger.close()

    def start(self, _settings: Settings, cards: Sequence[str]) -> Program:
        if self.fails:
            raise OSError(errno.EAGAIN, "no process")
        self.started.append((list(cards), Program()))
        return self.started[-1][1]

    def turn(self, pass_s: float = 0.0, *, is_busy: bool = False) -> None:
        self.clock.now += pass_s
        self.tests.step(is_busy=is_busy)
        for event in self.pool.poll(0.0):
            if isinstance(event, DeviceChanged):
                self.devices.record(event.device)

    def rest(self) -> None:
        """Pass the time after which an idle daemon tests its cards."""
        for _ in range(int(2 * IDLE_S / CHECK_S)):
            self.turn(CHECK_S)

    def write(self, card: str, row: Row) -> None:
        """Leave the report of a test that has just ended."""
        key = find_keys(self.settings, [card], self.driver)[card]
        target = Target(card, "cuda", "Card", self.driver)
        write_reports(self.settings.folders.selftest_file, [build_report(target, key, [row], self.clock.at_ms(), 9.0)])

    def states(self) -> dict[str, str]:
        return {device.id: device.state for device in self.pool.devices() if device.card}

    def events(self) -> list[dict[str, str]]:
        return self.ledger.rows("SELECT device, kind, detail FROM device_events")


@pytest.fixture
def bench(settings: Settings, touch_weights: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench with weights, on a machine where MuseTalk would run."""
    touch_weights()
    monkeypatch.setattr("agent.selftest.background.choose_engine", lambda *_: EngineChoice("musetalk", "cuda", "here"))
    made = Bench(settings)
    yield made
    made.close()


def test_new_cards_are_tested_once(bench: Bench) -> None:
    """After a while without jobs, in one program, and not again when the reports are there."""
    bench.turn()
    assert bench.started == []
    bench.rest()
    [(cards, program)] = bench.started
    assert cards == [A, B]
    for card in (A, B):
        bench.write(card, SOUND)
    program.exit_code = 0
    bench.rest()
    assert len(bench.started) == 1
    assert [(event["device"], event["kind"]) for event in bench.events()] == [(A, "selftest"), (B, "selftest")]
    assert bench.events()[0]["detail"] == "ok: 1 checks in 9 s, all as it should be"
    bench.close()
    bench.open()
    bench.rest()
    assert (len(bench.started), len(bench.events())) == (1, 2)


@pytest.mark.parametrize("what", ["driver", "torch", "weights"])
def test_a_change_needs_a_new_test(bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Another driver, another torch or other weights; the report of before doesn't hold any more."""
    bench.write(A, WRONG)
    bench.write(B, SOUND)
    bench.rest()
    assert (bench.started, bench.states()[A]) == ([], "sick")
    if what == "driver":
        bench.driver = "590.2"
    elif what == "torch":
        monkeypatch.setattr(reports_module, "find_torch_version", lambda: "99.0")
    else:
        next(path for path in bench.settings.models_dir.rglob("*.pth")).write_bytes(b"other")
    bench.rest()
    assert bench.states()[A] == "idle"
    assert [cards for cards, _ in bench.started] == [[A, B]]


def test_a_job_ends_a_test_at_once(bench: Bench) -> None:
    """It starts again when there was no job for a while."""
    bench.rest()
    bench.turn(0.01, is_busy=True)
    assert [program.is_killed for _, program in bench.started] == [True]
    assert not bench.tests.is_running
    bench.turn(CHECK_S, is_busy=True)
    bench.turn(CHECK_S)
    assert len(bench.started) == 1
    bench.rest()
    assert len(bench.started) == 2


def test_a_test_that_leaves_no_report_is_not_repeated(bench: Bench) -> None:
    """By this daemon: whatever ended it would end it again."""
    bench.rest()
    bench.started[0][1].exit_code = -11
    bench.rest()
    assert len(bench.started) == 1
    bench.fails = True
    bench.driver = "590.2"
    bench.rest()
    bench.fails = False
    bench.rest()
    assert len(bench.started) == 1


@pytest.mark.parametrize("why", ["setting", "no weights", "busy", "no card"])
def test_nothing_is_tested(bench: Bench, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Where the setting forbids it, MuseTalk isn't installed, a worker works, or there is no card."""
    if why == "setting":
        pool = bench.settings.pool.model_copy(update={"selftest": False})
        bench.tests.settings.replace(bench.settings.model_copy(update={"pool": pool}))
    elif why == "no weights":
        monkeypatch.setattr("agent.selftest.background.choose_engine", lambda *_: EngineChoice("preview", "cpu", ""))
    elif why == "busy":
        cards = [Device(A, "cuda", card=A, state="idle"), Device(B, "cuda", card=B, state="busy")]
        monkeypatch.setattr(bench.pool, "devices", lambda: cards)
    else:
        monkeypatch.setattr(bench.pool, "devices", lambda: [Device("cpu:0", "cpu", state="idle")])
    bench.rest()
    assert bench.started == []


def test_a_card_at_fault_is_sick_with_the_sentence(bench: Bench) -> None:
    """All its workers are, the other card works; the ledger has the line, and it is sick at the next start, too."""
    bench.turn()
    bench.write(A, WRONG)
    bench.turn(CHECK_S)
    bench.turn(1.0)
    bench.turn(1.0)
    assert bench.states() == {A: "sick", f"{A}/2": "sick", B: "idle"}
    [row] = bench.ledger.rows("SELECT reason, until FROM device_status WHERE device = ?", [A])
    assert row == {"reason": "networks fp16: wrong numbers; update its driver", "until": None}
    assert bench.events()[0]["detail"].startswith("bad: ")
    bench.close()
    bench.open()
    bench.turn()
    bench.turn(1.0)
    bench.turn(1.0)
    assert bench.states() == {A: "sick", f"{A}/2": "sick", B: "idle"}
    assert len(bench.events()) == 1


def test_a_person_may_put_it_back(bench: Bench) -> None:
    """It stays in service, also after a restart, until a later test finds it at fault again."""
    bench.write(A, WRONG)
    bench.rest()
    assert bench.states()[A] == "sick"
    bench.tests.dismiss(A)
    bench.devices.resume(A)
    bench.rest()
    assert bench.states()[A] == "idle"
    bench.close()
    bench.open()
    bench.rest()
    assert bench.states()[A] == "idle"
    bench.write(A, WRONG)
    bench.rest()
    assert bench.states()[A] == "sick"


def test_a_test_that_a_person_ran_heals_a_card(bench: Bench) -> None:
    """`musedrop selftest` writes the same file."""
    bench.write(A, WRONG)
    bench.rest()
    bench.write(A, SOUND)
    bench.rest()
    assert (bench.states()[A], len(bench.events())) == ("idle", 2)


def test_a_test_of_the_processor_has_its_line(bench: Bench) -> None:
    """It takes nothing out of service."""
    bench.write("cpu", WRONG)
    bench.rest()
    assert [event["device"] for event in bench.events()] == ["cpu"]
    assert set(bench.states().values()) == {"idle"}


def test_the_end_of_the_daemon_ends_its_test(bench: Bench) -> None:
    """No program is left behind."""
    bench.rest()
    bench.tests.close()
    assert bench.started[0][1].is_killed


def test_the_first_test_of_a_type_chooses_the_form_of_all_its_cards(bench: Bench) -> None:
    """Later tests of it and of its twin change nothing, so that equal cards and later days give the same bytes."""
    bench.write(A, choose("norms"))
    bench.rest()
    assert bench.devices.forms == {"Card": "norms"}
    bench.write(B, choose("shuffled"))
    bench.write(A, choose("usual"))
    bench.rest()
    assert bench.devices.forms == {"Card": "norms"}
    bench.close()
    bench.open()
    bench.rest()
    assert bench.devices.forms == {"Card": "norms"}


def test_a_form_holds_for_what_was_tested(bench: Bench) -> None:
    """After a new driver jobs run the usual form until the next test, which may choose another."""
    bench.write(A, choose("norms"))
    bench.rest()
    bench.driver = "590.2"
    bench.rest()
    assert bench.devices.forms == {}
    bench.write(A, choose("contiguous"))
    bench.rest()
    assert bench.devices.forms == {"Card": "contiguous"}


@pytest.mark.parametrize("row", [choose("norms", networks="tiny"), Row("forms", "note", "memory ran out"), SOUND])
def test_without_a_choice_jobs_run_the_usual_form(bench: Bench, row: Row) -> None:
    """Tiny networks choose nothing for the real ones, and a check that failed chooses nothing at all."""
    bench.write(A, row)
    bench.rest()
    assert bench.devices.forms == {}


def test_new_jobs_take_what_tuning_found(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Within seconds, said once in the log; with other weights or without the file they run as usual."""
    caplog.set_level("INFO", "musedrop")
    write_tunings(bench.settings.folders.tuning_file, [make_tuning(bench.settings)])
    bench.rest()
    assert bench.devices.tuned == {"Card": CHOICE}
    bench.rest()
    said = [record.message for record in caplog.records if record.message.startswith("tuning: ")]
    assert said == ["tuning: Card: batches of 8, compiled, videos by h264_nvenc, 2 workers a card"]
    bench.settings.folders.tuning_file.unlink()
    bench.rest()
    assert bench.devices.tuned == {}
