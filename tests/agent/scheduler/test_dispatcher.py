"""The dispatcher: the order of jobs, how they share devices and memory, what a lost worker costs, why jobs wait."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.ledger.reader import open_reader
from agent.scheduler.attempt import FinishedAttempt
from agent.scheduler.dispatcher import PLAN, will_have_room
from agent.scheduler.tuning import Choice
from gpu_pool.types import Device, DeviceKind, Done, Exited, Failed, Progress, ProtocolError, RunSpan
from models.catalog import EngineChoice
from models.types import STAGES, Animation, EngineError, Inspection, Request
from tests.agent.simulation import GIB, Build, Simulation, a_card, cpus, fails
from tests.gpu_pool.fake import Message

# turns ---------------------------------------------------------------------------------------------------------------


def test_one_job_goes_through_all_stages(make_simulation: Build) -> None:
    """Each stage once, the render cut on the grid, and the row says it is done."""
    simulation = make_simulation(cpus(2))
    simulation.add("hello")
    simulation.finish(1)
    stages = [stage for _, _, _, stage in simulation.placed]
    assert stages == ["inspect", "prepare", *["render"] * 4, "assemble"]
    assert (simulation.row("hello")["state"], simulation.row("hello")["attempt"]) == ("done", 1)


def do_all(simulation: Simulation, order: RunSpan) -> list[tuple[float, Message]] | None:
    """Answer as a worker that does a short job at once."""
    if not order.payload.get("goes_on"):
        return None
    seconds = dict.fromkeys(("prepare", "render", "assemble"), 0.1)
    told = {"outline": simulation.inspection().to_dict(), "facts": {"notes": ["quick"]}, "stage_seconds": seconds}
    return [(0.4, Done(order.task, 0, 1, 0.4, json.loads(json.dumps(told))))]


def test_a_short_job_takes_one_exchange(make_simulation: Build) -> None:
    """Its worker does all stages at once; the row, its device and its times are those of four exchanges."""
    simulation = make_simulation(cpus(2), frames=10)
    simulation.story = lambda _device, _name, order: do_all(simulation, order)
    simulation.add("hello")
    finished = list[FinishedAttempt]()
    simulation.end = finished.append  # type: ignore[method-assign, assignment]
    simulation.run(lambda: bool(finished))
    [done] = finished
    assert [stage for _, _, _, stage in simulation.placed] == ["inspect"]
    assert (done.facts["notes"], done.attempt.devices) == (["quick"], ["cpu:0"])
    assert done.attempt.stage_seconds == pytest.approx({"inspect": 0.1, "prepare": 0.1, "render": 0.1, "assemble": 0.1})
    columns = done.attempt.take_columns()
    assert (columns["stage"], columns["frames"], columns["units_done"]) == ("assemble", 10, 1)


def test_a_job_that_lost_a_worker_goes_stage_by_stage(make_simulation: Build) -> None:
    """What a worker does at once is tried once; then each stage is told of, so that it is known which one kills."""
    simulation = make_simulation(cpus(1), frames=10)
    simulation.story = lambda _device, _name, order: (
        [(0.1, Exited(1, signal="SIGKILL"))] if order.payload.get("goes_on") else None
    )
    simulation.add("hello")
    simulation.finish(1)
    assert [stage for _, _, _, stage in simulation.placed] == ["inspect", "inspect", "prepare", "render", "assemble"]


def test_only_a_light_engine_does_all_at_once(make_simulation: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where weights are loaded, or a card renders, the stages are planned one by one."""
    simulation = make_simulation(cpus(1), frames=10)
    monkeypatch.setattr(
        simulation.dispatcher._engines, "choose", lambda *_: EngineChoice("musetalk", "cpu", "asked for")
    )
    asked = list[bool]()
    simulation.story = lambda _device, _name, order: asked.append(order.payload.get("goes_on", False))
    simulation.add("hello")
    simulation.finish(1)
    assert not any(asked)


def test_a_claim_is_committed_before_a_worker_hears_of_it(make_simulation: Build, tmp_path: Path) -> None:
    """When the first message of a job is sent its row says running to every reader, in a commit that several share."""
    simulation = make_simulation(cpus(3), frames=10)
    names = ("one", "two", "three")
    for name in names:
        simulation.add(name)
    told: dict[str, set[str]] = {}

    def look(_device: str, name: str, order: RunSpan) -> None:
        if order.payload["stage"] == "inspect":
            reader = open_reader(tmp_path / "state" / "jobs.db")
            told[name] = {row["name"] for row in reader.query("SELECT name FROM jobs WHERE state = 'running'")}
            reader.close()

    simulation.story = look
    simulation.dispatcher.dispatch()
    assert told == {name: set(names) for name in names}


def test_a_job_is_told_the_forms_that_the_self_tests_chose(make_simulation: Build) -> None:
    """Those of the time when it starts, in every stage."""
    simulation = make_simulation(cpus(2))
    simulation.dispatcher.devices.forms = {"Card": "norms"}
    told: list[dict[str, str]] = []
    simulation.story = lambda _device, _name, order: told.append(order.payload["request"]["forms"])
    simulation.add("hello")
    simulation.finish(1)
    assert told == [{"Card": "norms"}] * 7


@pytest.mark.parametrize(("encoder", "told"), [("libx264", "libx264"), ("h264_nvenc", "auto")])
def test_auto_is_what_tuning_found(make_simulation: Build, encoder: Any, told: str) -> None:
    """Batches and compiled code by the type of card, in every stage; x264 if that is faster than NVENC on the cards."""
    simulation = make_simulation(cpus(2))
    card = Choice(batch_size=8, compile=True, encoder=encoder, workers=1)
    simulation.dispatcher.devices.tuned = {"Card": card, "cpu": card.model_copy(update={"encoder": "libx264"})}
    requests: list[dict[str, Any]] = []
    simulation.story = lambda _device, _name, order: requests.append(order.payload["request"])
    simulation.add("hello")
    simulation.finish(1)
    tuned = {"batch_size": 8, "compile": True}
    assert {(json.dumps(request["tuned"]), request["output"]["encoder"]) for request in requests} == {
        (json.dumps({"Card": tuned, "cpu": tuned}), told)
    }


def test_submitters_take_turns(make_simulation: Build) -> None:
    """A flood of one submitter and two jobs of another: the two are not last."""
    simulation = make_simulation(cpus(1), frames=10)
    for n in range(6):
        simulation.add(f"flood{n}", submitter="anna")
    simulation.clock.now += 5
    for n in range(2):
        simulation.add(f"guest{n}", submitter="bert")
    simulation.finish(8)
    assert simulation.done == ["flood0", "guest0", "flood1", "guest1", "flood2", "flood3", "flood4", "flood5"]


def test_an_urgent_job_overtakes_and_an_old_one_is_not_starved(make_simulation: Build) -> None:
    """High before normal; but one that waited ten minutes for each level has its turn among the urgent ones."""
    simulation = make_simulation(cpus(1), frames=24, frame_s=2.5)
    simulation.add("patient", priority=-2)
    simulation.clock.now += 1
    for n in range(30):
        simulation.add(f"urgent{n:02}")
    simulation.run(lambda: "patient" in simulation.done, within_s=3600)
    started = min(at for at, _, name, _ in simulation.placed if name == "patient")
    assert 1200 <= started < 1300
    assert simulation.done[:2] == ["urgent00", "urgent01"]


def test_a_running_job_that_is_not_urgent_still_gets_on(make_simulation: Build) -> None:
    """Urgent jobs that stream in take the device at each span's end, until the slow one has waited its ten minutes."""
    simulation = make_simulation(cpus(1), frames=480, frame_s=0.1)
    simulation.add("slow")
    simulation.run(lambda: len(simulation.renders("slow")) == 2)
    for n in range(40):
        simulation.add(f"urgent{n:02}", priority=1)
    simulation.run(lambda: len(simulation.renders("slow")) == 3, within_s=3600)
    waited = simulation.renders("slow")[2][0] - simulation.renders("slow")[1][0]
    assert 600 <= waited < 700


def test_a_job_that_was_alone_gives_devices_back(make_simulation: Build) -> None:
    """`auto` spreads one job over four devices; when three come, each has a device at the next end of a span."""
    simulation = make_simulation(cpus(4), frames=960, frame_s=0.1)
    simulation.add("first")
    simulation.run(lambda: len(simulation.renders("first")) == 4)
    assert len({device for _, device in simulation.renders("first")}) == 4
    for n in range(3):
        simulation.add(f"later{n}")
    simulation.run(lambda: all(simulation.renders(f"later{n}") for n in range(3)))
    boundary = max(simulation.renders(f"later{n}")[0][0] for n in range(3))
    first_span_ends = simulation.renders("first")[0][0] + 6.0
    assert first_span_ends <= boundary <= first_span_ends + 0.5
    assert len([at for at, _ in simulation.renders("first") if first_span_ends <= at <= boundary]) <= 1
    simulation.finish(4)


def test_two_running_jobs_share_the_devices(make_simulation: Build) -> None:
    """A job that is rendered on all devices leaves one to another that has none, though nothing is in the queue."""
    simulation = make_simulation(cpus(2), frames=960, frame_s=0.1)
    simulation.add("long")
    simulation.run(lambda: len(simulation.renders("long")) == 2)
    simulation.add("short")
    simulation.run(lambda: bool(simulation.renders("short")))
    ends = min(at for at, _ in simulation.renders("long")) + 6.0
    assert simulation.renders("short")[0][0] <= ends + 0.5


def test_a_preparation_of_many_units_is_shared_out_and_then_joined(make_simulation: Build) -> None:
    """`split` is for the preparation too: spans on the grid on several devices, one more that joins, once."""
    simulation = make_simulation(cpus(3))
    simulation.prepare_units = 60
    spans: list[tuple[int, int, float]] = []

    def story(_device: str, _name: str, order: RunSpan) -> None:
        if order.payload["stage"] == "prepare":
            spans.append((order.start, order.stop, simulation.clock()))

    simulation.story = story
    simulation.add("hello", strategy="split")
    simulation.finish(1)
    assert [(start, stop) for start, stop, _ in spans] == [(0, 20), (20, 40), (40, 60), (60, 61)]
    assert spans[0][2] == spans[2][2] < spans[3][2]


# memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("on_cards")
def test_what_fits_nowhere_waits_and_says_so_and_stops_no_other_job(make_simulation: Build) -> None:
    """A job too large for the card waits with the reason in its row; smaller ones, also later ones, go on."""
    simulation = make_simulation([a_card("GPU-1", free_gib=8), *cpus(2)])
    sizes = {"big": 40 * GIB}

    def story(_device: str, name: str, _order: RunSpan) -> None:
        simulation.memory_bytes = sizes.get(name, GIB)

    simulation.story = story
    for n in range(5):
        simulation.add(f"big{n}")
        sizes[f"big{n}"] = 40 * GIB
    simulation.run(
        lambda: sum(row["stage"] == "prepare" for row in simulation.rows()) >= 0 and len(simulation.placed) >= 2
    )
    for n in range(3):
        simulation.add(f"small{n}")

    def told() -> bool:
        simulation.dispatcher.explain_waits()
        return len(simulation.done) == 3

    simulation.run(told)
    assert sorted(simulation.done) == ["small0", "small1", "small2"]
    for n in range(5):
        row = simulation.row(f"big{n}")
        assert row["state"] == "running"
        assert "40960 MiB" in row["waiting_for"]


@pytest.mark.parametrize(
    ("need_gib", "devices", "comes"),
    [
        (40, [("a", "busy", 10, 20), ("a", "busy", 10, 15)], True),
        (40, [("a", "busy", 10, 20), ("a", "busy", 10, 5)], False),
        (40, [("a", "idle", 10, 20), ("a", "idle", 10, 15)], False),
        (40, [("a", "busy", 10, 20), ("b", "idle", 48, 0)], False),
        (30, [("a", "busy", 10, 20), ("b", "idle", 20, 0)], True),
        (40, [], False),
    ],
)
def test_whether_room_is_coming(need_gib: int, devices: list[tuple[str, Any, int, int]], *, comes: bool) -> None:
    """Only what our own busy workers hold on a card counts as memory that will get free."""
    there = [
        Device(f"{on}/{n}", "cuda", card=on, state=state, free_bytes=free * GIB, held_bytes=held * GIB)
        for n, (on, state, free, held) in enumerate(devices)
    ]
    assert will_have_room(need_gib * GIB, there) is comes


@pytest.mark.usefixtures("on_cards")
def test_a_big_job_is_not_starved_by_small_ones_on_a_shared_card(make_simulation: Build) -> None:
    """Two workers share a card; small spans that stream in keep half of it taken, until the big job is waited for."""
    simulation = make_simulation([a_card("GPU-1"), a_card("GPU-1", worker="/2"), *cpus(4)], frames=200, frame_s=0.1)
    sizes = {"big": 40 * GIB}

    def story(_device: str, name: str, _order: RunSpan) -> None:
        simulation.memory_bytes = sizes.get(name, 20 * GIB)

    simulation.story = story
    simulation.slowness["GPU-1/2"] = 1.37  # so that the two are never free at the same time by chance
    simulation.add("small0", strategy="queue")
    simulation.add("small1", strategy="queue")
    simulation.run(lambda: bool(simulation.renders("small0") and simulation.renders("small1")))
    simulation.add("big", strategy="queue", priority=5)
    for n in range(2, 12):
        simulation.add(f"small{n}", strategy="queue")
    simulation.run(lambda: "big" in simulation.done, within_s=600)
    assert simulation.renders("big")[0][0] < 60
    assert len(simulation.done) < 12


# faults --------------------------------------------------------------------------------------------------------------


def ends_with(simulation: Simulation, times: int, **how: Any) -> None:
    """The worker of the first `times` render spans dies."""
    left = [times]

    def story(device: str, _name: str, order: RunSpan) -> list[tuple[float, Any]] | None:
        if order.payload["stage"] != "render" or not left[0]:
            return None
        left[0] -= 1
        pid = next(device_.worker_pid for device_ in simulation.pool.devices() if device_.id == device)
        return [(0.1, Exited(pid or 0, **how))]

    simulation.story = story


@pytest.mark.parametrize("how", [{"signal": "SIGSEGV"}, {"signal": "SIGABRT"}, {"code": 3}])
def test_a_job_that_crashes_its_worker_twice_is_poison(make_simulation: Build, how: dict[str, Any]) -> None:
    """The third worker doesn't get it; the row and the events say what the two died of."""
    simulation = make_simulation(cpus(2))
    ends_with(simulation, 99, log="last words", **how)
    simulation.add("bad", strategy="queue")
    simulation.run(lambda: simulation.row("bad")["state"] == "failed")
    row = simulation.row("bad")
    assert (row["error_code"], row["interruptions"], row["attempt"]) == ("poison", 2, 1)
    assert len(simulation.renders("bad")) == 2
    events = simulation.ledger.rows("SELECT kind, device, detail FROM job_events WHERE kind = 'worker_died'")
    assert len(events) == 2
    assert all(event["device"] and "last words" in event["detail"] for event in events)
    word = how.get("signal") or "exit code 3"
    assert word in row["error_message"]
    [attempt] = simulation.ledger.rows("SELECT * FROM job_attempts")
    assert (attempt["interruptions"], attempt["outcome"]) == (2, "failed")
    assert word in attempt["cause"]
    assert "last words" in attempt["cause"]


@pytest.mark.parametrize(
    "how",
    [{"signal": "SIGKILL"}, {"signal": "SIGTERM"}, {"signal": "SIGBUS"}, {"signal": "SIGKILL", "out_of_memory": 1}],
)
def test_a_worker_that_was_killed_costs_a_span_and_no_attempt(make_simulation: Build, how: dict[str, Any]) -> None:
    """Killed from outside, or once by the kernel for want of memory: the span is done again, on the same attempt."""
    simulation = make_simulation(cpus(2))
    ends_with(simulation, 1, **how)
    simulation.add("hurt", strategy="queue")
    simulation.finish(1)
    row = simulation.row("hurt")
    assert (row["state"], row["attempt"], row["interruptions"]) == ("done", 1, 1)
    [attempt] = simulation.ledger.rows("SELECT outcome, interruptions, cause FROM job_attempts")
    assert (attempt["outcome"], attempt["interruptions"]) == ("done", 1)
    assert how["signal"] in attempt["cause"]


def test_killed_workers_have_a_cap_of_their_own(make_simulation: Build) -> None:
    """Not poison, however often: after max_interruptions the job fails as interrupted, and may be retried."""
    simulation = make_simulation(cpus(1))
    ends_with(simulation, 99, signal="SIGKILL")
    simulation.add("unlucky")
    simulation.run(lambda: simulation.row("unlucky")["state"] == "failed")
    row = simulation.row("unlucky")
    cap = simulation.settings.pool.max_interruptions
    assert (row["error_code"], row["interruptions"], row["attempt"]) == ("interrupted", cap + 1, 1)


def test_a_host_out_of_memory_twice_is_poison(make_simulation: Build) -> None:
    """A job for which this machine is too small takes two workers with it, and no more."""
    simulation = make_simulation(cpus(2))
    ends_with(simulation, 99, signal="SIGKILL", out_of_memory=True)
    simulation.add("huge")
    simulation.run(lambda: simulation.row("huge")["state"] == "failed")
    assert (simulation.row("huge")["error_code"], simulation.row("huge")["interruptions"]) == ("poison", 2)


BROKEN: dict[str, Callable[[RunSpan], Any]] = {
    "empty": lambda run: done(run, {}),
    "no units": lambda run: done(run, outline_without("units")),
    "an unknown key": lambda run: done(run, {**an_outline(), "more": 1}),
    "frames": lambda run: done(run, an_outline(frames=10**12, units=units(10**12))),
    "other units": lambda run: done(run, an_outline(units={"inspect": 1})),
    "NaN": lambda run: done(run, an_outline(duration_s=float("nan"))),
    "code": lambda run: fails(run, "no such code"),
    "poison": lambda run: fails(run, "poison"),
    "text": lambda run: fails(run, "no_face", hint="x" * 100_000),
    "another span": lambda run: Done(run.task, 5, 6, 0.1, {}),
    "progress": lambda run: Progress(run.task, run.start, run.stop, 10**15),
    "nonsense": lambda _: ProtocolError("not JSON"),
}


def units(render: int) -> dict[str, int]:
    return {"inspect": 1, "prepare": 1, "render": render, "assemble": 1}


def an_outline(**keys: Any) -> dict[str, Any]:
    inspection = Inspection(96, "25", 64, 64, 3.84, units(96), avatar_sha256="a" * 64, audio_sha256="b" * 64)
    return {"outline": {**inspection.to_dict(), "notes": [], **keys}}


def outline_without(key: str) -> dict[str, Any]:
    return {"outline": {name: value for name, value in an_outline()["outline"].items() if name != key}}


def done(run: RunSpan, result: dict[str, Any]) -> Done:
    return Done(run.task, run.start, run.stop, 0.1, result)


@pytest.mark.parametrize("how", BROKEN)
def test_a_worker_that_says_what_does_not_fit_is_killed_and_the_job_is_poison(make_simulation: Build, how: str) -> None:
    """The second time; each time there is an event, and a job behind it is done as usual."""
    simulation = make_simulation(cpus(1))
    simulation.story = lambda _, name, run: [(0.1, BROKEN[how](run))] if name == "bad" else None
    simulation.add("bad")
    simulation.clock.now += 1
    simulation.add("good")
    simulation.finish(1)
    simulation.run(lambda: simulation.row("bad")["state"] == "failed")
    assert (simulation.row("bad")["error_code"], simulation.row("bad")["interruptions"]) == ("poison", 2)
    assert simulation.backend.killed == ["cpu:0", "cpu:0"]
    events = simulation.ledger.rows("SELECT detail FROM job_events WHERE kind = 'worker_nonsense'")
    assert len(events) == 2


@pytest.mark.parametrize("how", ["stall", "crash"])
def test_media_that_break_their_worker_wait_behind_all_others(make_simulation: Build, how: str) -> None:
    """Two jobs whose inspection never ends, and five good ones: these are done before the second try of those."""
    simulation = make_simulation(cpus(2))

    def story(device: str, name: str, _run: RunSpan) -> list[tuple[float, Any]] | None:
        if not name.startswith("gif"):
            return None
        pid = next(device_.worker_pid for device_ in simulation.pool.devices() if device_.id == device)
        return [] if how == "stall" else [(0.1, Exited(pid or 0, signal="SIGSEGV"))]

    simulation.story = story
    for n in range(2):
        simulation.add(f"gif{n}")
    simulation.clock.now += 1
    for n in range(5):
        simulation.add(f"good{n}")
    simulation.finish(5)
    inspected = [name for _, _, name, stage in simulation.placed if stage == "inspect"]
    assert inspected[:2] == ["gif0", "gif1"]
    assert set(inspected[2:7]) == {f"good{n}" for n in range(5)}
    simulation.run(lambda: all(simulation.row(f"gif{n}")["state"] == "failed" for n in range(2)))
    assert [simulation.row(f"gif{n}")["error_code"] for n in range(2)] == ["poison", "poison"]


def test_a_card_out_of_memory_is_no_poison(make_simulation: Build) -> None:
    """A worker that says so itself is not the job's fault: it may try until its interruptions are used up."""
    simulation = make_simulation(cpus(2))
    left = [3]

    def story(_device: str, _name: str, order: RunSpan) -> list[tuple[float, Any]] | None:
        if order.payload["stage"] == "render" and left[0]:
            left[0] -= 1
            return [(0.1, fails(order, "out_of_memory", fault="worker", retry=True))]
        return None

    simulation.story = story
    simulation.add("large")
    simulation.finish(1)
    assert (simulation.row("large")["state"], simulation.row("large")["interruptions"]) == ("done", 3)


# devices -------------------------------------------------------------------------------------------------------------


TROUBLE = "The NVIDIA driver doesn't work (NVML error 18: mismatch); reboot: the driver's library was upgraded."


def set_musetalk_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """MuseTalk runs a job wherever there is a card, as with its weights."""

    def choose(asked: str, _: Path, kinds: Iterable[DeviceKind], *__: object) -> EngineChoice:
        kind: DeviceKind = "cuda" if asked != "preview" and "cuda" in kinds else "cpu"
        return EngineChoice("preview" if kind == "cpu" and asked == "auto" else asked, kind, "a test")

    monkeypatch.setattr("agent.scheduler.engines.choose_engine", choose)


def test_a_driver_in_trouble_is_no_machine_without_a_card(
    make_simulation: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that MuseTalk would run on a card stay queued and say why; others pass them; all run when it works."""
    set_musetalk_ready(monkeypatch)
    simulation, trouble = make_simulation(cpus(1)), [TROUBLE]
    simulation.pool._find_trouble = lambda: trouble[0]
    for n in range(4):
        simulation.add(f"auto{n}")
    simulation.add("by name", engine="musetalk")
    simulation.add("preview", engine="preview")
    simulation.finish(1)
    simulation.dispatcher.explain_waits()
    rows = {row["name"]: row for row in simulation.rows()}
    assert rows.pop("preview")["state"] == "done"
    assert {(row["state"], row["waiting_for"], row["engine"]) for row in rows.values()} == {("queued", TROUBLE, None)}
    assert {row["waiting_for"] for row in simulation.ledger.rows("SELECT waiting_for FROM queue")} == {TROUBLE}
    trouble[0] = ""
    simulation.dispatcher.explain_waits()
    assert {row["waiting_for"] for row in simulation.rows()} == {None}
    simulation.finish(6)


def test_a_driver_in_trouble_holds_nothing_that_needs_no_card(make_simulation: Build) -> None:
    """Without the weights of MuseTalk `auto` is the preview engine, whatever the driver does."""
    simulation = make_simulation(cpus(1))
    simulation.pool._find_trouble = lambda: TROUBLE
    simulation.add("hello")
    simulation.finish(1)
    assert simulation.row("hello")["engine"] == "preview"


def test_a_queue_without_devices_says_what_it_waits_for(make_simulation: Build) -> None:
    """With every worker set aside, each queued job says so, and no longer when one is back."""
    simulation = make_simulation(cpus(1))
    simulation.devices.drain("cpu:0")
    simulation.run(lambda: simulation.pool.devices()[0].state == "drained", within_s=10)
    simulation.add("hello")
    simulation.dispatcher.explain_waits()
    assert "cpu:0 is drained" in simulation.row("hello")["waiting_for"]
    [row] = simulation.ledger.rows("SELECT waiting_for FROM queue")
    assert row["waiting_for"] == simulation.row("hello")["waiting_for"]
    simulation.devices.resume("cpu:0")
    simulation.settle()
    simulation.dispatcher.explain_waits()
    assert simulation.row("hello")["waiting_for"] is None
    simulation.finish(1)


def test_messages_of_a_cancelled_attempt_are_ignored(make_simulation: Build) -> None:
    """What its worker still reports changes nothing."""
    simulation = make_simulation(cpus(1), frames=240)
    job = simulation.add("gone")
    simulation.run(lambda: bool(simulation.renders("gone")))
    simulation.dispatcher.cancel(job)
    simulation.run(lambda: simulation.pool.devices()[0].state == "idle", within_s=60)
    assert simulation.row("gone")["state"] == "cancelled"
    assert simulation.dispatcher.attempts == {}


def test_the_same_id_with_other_content_is_refused(make_simulation: Build) -> None:
    """The second job fails; one that asks for the same is rendered where the first result is gone."""
    simulation = make_simulation(cpus(1), frames=10)
    simulation.add("first", id="order-1")
    simulation.finish(1)
    simulation.add("other", id="order-1", fps=30)
    simulation.run(lambda: simulation.row("other")["state"] == "failed")
    assert simulation.row("other")["error_code"] == "id_conflict"
    assert simulation.dispatcher.attempts == {}
    simulation.add("same", id="order-1")
    simulation.finish(2)
    assert simulation.done == ["first", "same"]


def test_a_failure_while_the_share_is_away_is_not_the_jobs(make_simulation: Build) -> None:
    """The job goes back into the queue and is tried again, without a failure counted."""
    simulation = make_simulation(cpus(1), frames=10)
    simulation.settings.folders.share_id_file.unlink()
    failures = [1]

    def story(_device: str, _name: str, order: RunSpan) -> list[tuple[float, Any]] | None:
        return [(0.1, fails(order, "internal"))] if failures and failures.pop() else None

    simulation.story = story
    simulation.add("hello")
    simulation.finish(1)
    attempts = simulation.ledger.rows("SELECT outcome, error_message FROM job_attempts")
    assert [attempt["outcome"] for attempt in attempts] == ["interrupted", "done"]
    assert "share went away" in attempts[0]["error_message"]
    assert simulation.ledger.rows("SELECT failures FROM jobs") == [{"failures": 0}]


def test_a_failure_that_may_pass_is_tried_again_later(make_simulation: Build) -> None:
    """The row says when and after what; in the end the job fails with the last error."""
    simulation = make_simulation(cpus(1), frames=10)
    simulation.story = lambda _device, _name, order: [(0.1, fails(order, "internal", retry=True))]
    simulation.add("hello", max_attempts=2)
    simulation.run(lambda: simulation.row("hello")["state"] == "queued" and simulation.row("hello")["attempt"] == 1)
    assert simulation.row("hello")["waiting_for"] == "a second try in 2 s, after: internal"
    simulation.clock.now += 2
    simulation.run(lambda: simulation.row("hello")["state"] == "failed", within_s=60)
    row = simulation.row("hello")
    assert (row["error_code"], row["attempt"], row["waiting_for"]) == ("internal", 2, None)


def test_a_job_that_takes_too_long_fails(make_simulation: Build) -> None:
    """After its own timeout_s, whatever its workers do."""
    simulation = make_simulation(cpus(1), frames=480, frame_s=10.0)
    simulation.add("slow", timeout_s=30)
    simulation.run(lambda: bool(simulation.renders("slow")))
    simulation.dispatcher.fail_overdue()
    assert simulation.row("slow")["state"] == "running"
    simulation.clock.now += 31
    simulation.dispatcher.fail_overdue()
    assert (simulation.row("slow")["error_code"], simulation.dispatcher.attempts) == ("timeout", {})


def test_running_jobs_go_back_into_the_queue_when_the_daemon_stops(make_simulation: Build) -> None:
    """In the stage that they had reached, and with no device."""
    simulation = make_simulation(cpus(1), frames=480)
    simulation.add("hello")
    simulation.run(lambda: bool(simulation.renders("hello")))
    simulation.pool.close()
    simulation.dispatcher.save_progress()
    simulation.dispatcher.requeue_all("the daemon was stopped")
    row = simulation.row("hello")
    assert (row["state"], row["stage"], row["device"]) == ("queued", "render", None)


def test_a_traceback_is_in_the_log_and_not_in_the_events(
    make_simulation: Build, caplog: pytest.LogCaptureFixture
) -> None:
    """People who read the events see one sentence; only a defect of musedrop has its traceback in the log."""
    simulation = make_simulation(cpus(1))
    codes = ["no_face", "internal"]
    detail = "Traceback (most recent call last):\n  a line of it"
    simulation.story = lambda _device, _name, order: [(0.1, fails(order, codes[-1], detail=detail))]
    for name in ("defect", "media"):
        simulation.add(name)
        simulation.run(lambda name=name: simulation.row(name)["state"] == "failed")  # type: ignore[misc]
        codes.pop() if len(codes) > 1 else None
    events = simulation.ledger.rows("SELECT kind, detail FROM job_events WHERE kind IN ('internal', 'no_face')")
    assert [event["detail"] for event in events] == ["internal", "no_face"]
    assert caplog.text.count("a line of it") == 1


# first parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [600, 7500], ids=["24 s", "5 min"])
def test_the_first_part_comes_before_the_others(make_simulation: Build, frames: int) -> None:
    """On one device it is made when the first span has ended, and the daemon hears of it once."""
    simulation = make_simulation(cpus(1), frames=frames)
    simulation.add("hello")
    simulation.run(lambda: len(simulation.placed) == 6)
    begun_s, first_s, second_s = (simulation.placed[number][0] for number in (2, 4, 5))
    assert first_s - begun_s < second_s - first_s + 1, "the first part is there within the time of a span and its own"
    stages = [stage for _, _, _, stage in simulation.placed]
    assert stages[:5] == ["inspect", "prepare", "render", "first", "render"]
    [(job, folder)] = simulation.dispatcher.take_first_parts()
    assert (job.name, folder.name.endswith(".first")) == ("hello", True)
    assert simulation.dispatcher.take_first_parts() == []
    simulation.finish(1)
    assert [stage for _, _, _, stage in simulation.placed].count("first") == 1


@pytest.mark.parametrize(
    ("frames", "keys"), [(600, {"preview_first": False}), (500, {}), (48, {})], ids=["not wanted", "20 s", "2 s"]
)
def test_no_first_part_where_none_is_wanted(make_simulation: Build, frames: int, keys: dict[str, Any]) -> None:
    """By itself only videos longer than the setting have one."""
    simulation = make_simulation(cpus(2), frames=frames)
    simulation.add("hello", **keys)
    simulation.finish(1)
    assert "first" not in {stage for _, _, _, stage in simulation.placed}


def test_a_short_video_has_a_first_part_if_it_is_asked_for(make_simulation: Build) -> None:
    """`preview_first` counts for any video of several spans."""
    simulation = make_simulation(cpus(2), frames=48)
    simulation.add("hello", preview_first=True, strategy="queue")
    simulation.finish(1)
    assert "first" in {stage for _, _, _, stage in simulation.placed}


@pytest.mark.parametrize("end", ["fails", "dies"])
def test_a_first_part_that_cannot_be_made_costs_the_job_nothing(make_simulation: Build, end: str) -> None:
    """It is not tried again, and the job ends as ever, without an interruption."""
    simulation = make_simulation(cpus(2), frames=600)

    def refuse(_device: str, _name: str, order: RunSpan) -> list[tuple[float, Message]] | None:
        if order.payload["stage"] != "first":
            return None
        return [(0.1, fails(order, "part_damaged") if end == "fails" else Exited(1, signal="SIGSEGV"))]

    simulation.story = refuse
    simulation.add("hello")
    simulation.finish(1)
    assert [stage for _, _, _, stage in simulation.placed].count("first") == 1
    assert (simulation.row("hello")["state"], simulation.row("hello")["interruptions"]) == ("done", 0)
    assert simulation.dispatcher.take_first_parts() == []


def test_the_end_of_a_job_ends_its_first_part(make_simulation: Build) -> None:
    """A job that is cancelled meanwhile shows nothing, and the device is free again."""
    simulation = make_simulation(cpus(2), frames=600)
    simulation.story = lambda _device, _name, order: [] if order.payload["stage"] == "first" else None
    simulation.add("hello")
    simulation.run(lambda: "first" in {stage for _, _, _, stage in simulation.placed})
    [attempt] = simulation.dispatcher.attempts.values()
    simulation.dispatcher.cancel(attempt.job)
    simulation.run(lambda: not simulation.pool.running_spans(attempt.first_task_id))
    assert simulation.dispatcher.take_first_parts() == []


# races ---------------------------------------------------------------------------------------------------------------


def make_videos(simulation: Simulation, *sharpness: float | str) -> list[dict[str, Any]]:
    """Have each video of a race end with that sharpness, or fail with that code; return what is asked for them."""
    asked = list[dict[str, Any]]()

    def answer(_device: str, _name: str, order: RunSpan) -> list[tuple[float, Message]] | None:
        request, stage = order.payload["request"], order.payload["stage"]
        if stage == "inspect":
            asked.append(request)
        if stage != "assemble":
            return None
        found = sharpness[len(asked) - 1]
        if isinstance(found, str):
            return [(0.1, fails(order, found))]
        out = Path(request["out"])
        out.mkdir(parents=True)
        (out / "result.mp4").write_text(f"{found}")
        figures = {**QUALITY, "sharpness": found}
        return [(0.1, Done(order.task, order.start, order.stop, 0.1, {"quality": figures}))]

    simulation.story = answer
    return asked


QUALITY = {"frames_measured": 96, "drift": 0.9, "jitter": 0.1, "seam": 1.0, "no_face": 0.0} | {
    "sync": 0.8,
    "lag_ms": 0.0,
    "silent_motion": None,
}


def end_race(simulation: Simulation, **keys: Any) -> FinishedAttempt:
    """Run a job to its end and return what the publisher gets."""
    finished = list[FinishedAttempt]()
    simulation.end = finished.append  # type: ignore[method-assign, assignment]
    simulation.add("hello", strategy="race", **keys)
    simulation.run(lambda: bool(finished))
    return finished[0]


@pytest.mark.parametrize(("sharpness", "best"), [((0.4, 0.9), 1), ((0.9, 0.4), 0), ((0.7, 0.7), 0)])
def test_a_race_keeps_the_better_video(make_simulation: Build, sharpness: tuple[float, float], best: int) -> None:
    """Its facts, at the place of a result without a race; the other is gone, and both scores are told."""
    simulation = make_simulation(cpus(2))
    asked = make_videos(simulation, *sharpness)
    ended = end_race(simulation, race={"seeds": 2})
    assert [request["options"] for request in asked] == [{}, {"seed": 1}]
    assert len({request["work"] for request in asked}) == len({request["out"] for request in asked}) == 2
    assert ended.facts["quality"]["sharpness"] == max(sharpness)
    told = ended.facts["race"]
    assert [one["kept"] for one in told] == [number == best for number in range(2)]
    assert (told[best]["score"] > told[1 - best]["score"]) == (sharpness[0] != sharpness[1])
    staging = simulation.settings.folders.staging
    job = ended.attempt.job
    assert [path.name for path in staging.iterdir()] == [f"{job.uid}-{job.run_token}"]
    assert Path(ended.attempt.request.out, "result.mp4").read_text() == f"{max(sharpness)}"
    assert sum(stage == "render" for *_, stage in simulation.placed) == 8, "each span once, not on two devices"
    assert ended.attempt.stage_seconds["assemble"] == pytest.approx(0.2)


@pytest.mark.parametrize("results", [("no_face", 0.5), (0.5, "no_face")], ids=["first", "last"])
def test_a_race_goes_on_without_a_video_that_fails(make_simulation: Build, results: tuple[float | str, ...]) -> None:
    """The other is kept, and what is told says why there is one."""
    simulation = make_simulation(cpus(1))
    make_videos(simulation, *results)
    ended = end_race(simulation, race={"seeds": 2})
    told = {one["seed"]: one.get("error") for one in ended.facts["race"]}
    assert told == {results.index("no_face"): "no_face: no_face", results.index(0.5): None}


def test_a_race_of_which_all_videos_fail_fails(make_simulation: Build) -> None:
    """With what was wrong with the last."""
    simulation = make_simulation(cpus(1))
    make_videos(simulation, "no_face", "no_face")
    simulation.add("both", race={"seeds": 2})
    simulation.run(lambda: simulation.row("both")["state"] == "failed")
    assert simulation.row("both")["error_code"] == "no_face"


def test_a_cancelled_race_leaves_nothing(make_simulation: Build) -> None:
    """The video that was made before goes, too."""
    simulation = make_simulation(cpus(1))
    asked = make_videos(simulation, 0.5, 0.5)
    job = simulation.add("hello", race={"seeds": 2})
    simulation.run(lambda: len(asked) == 2)
    assert Path(asked[0]["out"]).exists()
    simulation.dispatcher.cancel(job)
    assert list(simulation.settings.folders.staging.iterdir()) == []


def test_a_race_begins_again_after_a_stop_with_the_parts_that_are_there(make_simulation: Build) -> None:
    """Its videos are in folders of their own."""
    simulation = make_simulation(cpus(1))
    asked = make_videos(simulation, 0.5, 0.5, 0.5, 0.5)
    simulation.add("hello", race={"seeds": 2})
    simulation.run(lambda: len(asked) == 2)
    simulation.dispatcher.requeue_all("the daemon stops")
    simulation.dispatcher.attempts.clear()
    ended = list[FinishedAttempt]()
    simulation.end = ended.append  # type: ignore[method-assign, assignment]
    simulation.run(lambda: bool(ended))
    assert [Path(request["work"]).name for request in asked[:2]] == [Path(one["work"]).name for one in asked[2:]]
    assert len(ended[0].facts["race"]) == 2


def run_part(request: dict[str, Any]) -> Path:
    """Leave the copies of the media and a part in the work folder of a video, as workers do; return the part."""
    files = Request.from_dict(request).files
    part = files.part_path(0, 24)
    for path in (files.medium_path("avatar"), files.medium_path("audio"), part):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return part


def test_a_race_goes_on_as_it_was_planned(make_simulation: Build) -> None:
    """What was tuned since a video was begun is not for it: its parts would not be alike. Without its plan they go."""
    simulation = make_simulation(cpus(1))
    asked = make_videos(simulation, 0.5, 0.5, 0.5)
    simulation.add("hello", race={"seeds": 2})
    simulation.run(lambda: bool(simulation.renders("hello")))
    part = run_part(asked[0])
    stop_and_start(simulation)
    simulation.dispatcher.devices.tuned = {"cpu": Choice(batch_size=8, compile=True, encoder="libx264", workers=1)}
    simulation.run(lambda: len(simulation.renders("hello")) > 1)
    assert len(asked) == 1, "it was not inspected again"
    assert part.exists()
    stop_and_start(simulation)
    (Path(asked[0]["work"]) / PLAN).write_text("{")
    simulation.run(lambda: len(asked) == 2)
    assert not part.exists()


def test_a_job_goes_on_with_the_settings_it_was_begun_with(make_simulation: Build) -> None:
    """One video has one quality; without its plan what was made of it goes, and all is made as the settings are now."""
    simulation = make_simulation(cpus(1))
    asked = list[tuple[str, dict[str, Any]]]()
    simulation.story = lambda _device, _name, order: asked.append((order.payload["stage"], order.payload["request"]))
    simulation.add("hello")
    simulation.run(lambda: bool(simulation.renders("hello")))
    part = run_part(asked[0][1])
    stop_and_start(simulation)
    simulation.ledger.db.execute("UPDATE jobs SET outline = NULL, frames = NULL")  # killed before it wrote them
    output = simulation.settings.output.model_copy(update={"crf": 40})
    simulation.dispatcher.settings.replace(simulation.settings.model_copy(update={"output": output}))
    simulation.run(lambda: len(simulation.renders("hello")) > 1)
    assert part.exists()
    simulation.dispatcher.save_progress()
    found = simulation.ledger.find("hello")
    assert found is not None
    assert found.outline is not None
    stop_and_start(simulation)
    (Path(asked[0][1]["work"]) / PLAN).unlink()
    simulation.run(lambda: asked[-1][0] == "inspect")
    assert not part.exists()
    simulation.finish(1)
    made = dict.fromkeys((stage, request["output"]["crf"]) for stage, request in asked)
    assert list(made) == [
        ("inspect", 18),
        ("prepare", 18),
        ("render", 18),
        *((s, 40) for s in STAGES if s != "animate"),
    ]


def test_a_clip_of_another_motion_engine_is_planned_anew(
    make_simulation: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first engine left of it, and what was rendered of it, is of no use; the same engine goes on, unless its
    weights are others now."""
    simulation = make_simulation(cpus(1))
    simulation.frame_s = 5.0
    engines, asked = ["musev"], list[dict[str, Any]]()

    def choose(*_: object) -> EngineChoice:
        return EngineChoice(engines[0], "cpu", "")

    def answer(_device: str, _name: str, order: RunSpan) -> list[tuple[float, Message]] | None:
        request, stage = order.payload["request"], order.payload["stage"]
        if stage != "inspect":
            return None
        asked.append(request)
        planned = replace(simulation.inspection(), animation=Animation(request["motion"]["engine"], "c" * 64, (1,)))
        outline = json.loads(json.dumps(planned.to_dict()))
        return [(0.1, Done(order.task, order.start, order.stop, 0.1, {"outline": outline}))]

    monkeypatch.setattr("agent.scheduler.dispatcher.choose_motion", choose)
    simulation.story = answer
    simulation.add("hello", motion=True)
    simulation.run(lambda: any(stage == "animate" for *_, stage in simulation.placed))
    [attempt] = simulation.dispatcher.attempts.values()
    simulation.ledger.update("hello", **attempt.take_columns())
    part, animation = run_part(asked[0]), Request.from_dict(asked[0]).files.animation
    animation.mkdir()
    before = len(simulation.placed)
    stop_and_start(simulation)
    simulation.run(lambda: len(simulation.placed) > before)
    assert (len(asked), part.exists(), animation.exists()) == (1, True, True)
    stop_and_start(simulation)
    monkeypatch.setattr("agent.scheduler.dispatcher.stamp_motion", lambda *_: "of other weights")
    simulation.run(lambda: len(asked) == 2)
    assert (part.exists(), animation.exists()) == (False, False)
    animation.mkdir()
    stop_and_start(simulation)
    engines[0] = "diffusers"
    simulation.run(lambda: len(asked) == 3)
    assert asked[2]["motion"]["engine"] == "diffusers"
    assert not animation.exists()


def run_only(simulation: Simulation, monkeypatch: pytest.MonkeyPatch, *engines: str) -> None:
    """Let these engines run on processors, and no others; "auto" is the first."""

    def choose(asked: str, *_: object) -> EngineChoice:
        if asked not in ("auto", *engines):
            raise EngineError("engine_unavailable", f"{asked} is gone", "install it")
        return EngineChoice(engines[0] if asked == "auto" else asked, "cpu", "asked for")

    monkeypatch.setattr(simulation.dispatcher._engines, "choose", choose)


def stop_and_start(simulation: Simulation) -> None:
    simulation.dispatcher.requeue_all("the daemon stops")
    simulation.dispatcher.attempts.clear()


def test_a_race_keeps_what_was_made_when_the_tries_are_used_up(make_simulation: Build) -> None:
    """A fault that might pass costs the race a video, too, and not the job: the other was made and verified."""
    simulation = make_simulation(cpus(1))
    make_videos(simulation, 0.5, "no_face")
    answer = simulation.story

    def pass_by(device: str, name: str, order: RunSpan) -> list[tuple[float, Message]] | None:
        told = answer(device, name, order)
        return told and [(at_s, replace(one, retry=True) if isinstance(one, Failed) else one) for at_s, one in told]

    simulation.story = pass_by
    ended = end_race(simulation, race={"seeds": 2}, max_attempts=1)
    assert [one.get("error") for one in ended.facts["race"]] == [None, "no_face: no_face"]


def test_a_race_whose_first_video_fails_is_told_from_an_earlier_job(make_simulation: Build) -> None:
    """The id of another content is refused by the first video whose media are known, whichever it is."""
    simulation = make_simulation(cpus(1), frames=10)
    simulation.add("first", id="order-1")
    simulation.finish(1)

    def refuse(_device: str, _name: str, order: RunSpan) -> list[tuple[float, Message]] | None:
        is_first = order.payload["stage"] == "inspect" and not order.payload["request"]["options"]
        return [(0.1, fails(order, "no_face"))] if is_first else None

    simulation.story = refuse
    simulation.add("other", id="order-1", race={"seeds": 2})
    simulation.run(lambda: simulation.row("other")["state"] in ("failed", "done"))
    assert simulation.row("other")["error_code"] == "id_conflict"


def test_a_race_takes_no_parts_of_another_engine(make_simulation: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one engine can't run any more after a stop, the other is not given its folder."""
    simulation = make_simulation(cpus(1))
    asked = make_videos(simulation, 0.5, 0.5, 0.5)
    run_only(simulation, monkeypatch, "musetalk", "preview")
    simulation.add("hello", race={"engines": ["musetalk", "preview"]})
    simulation.run(lambda: len(simulation.renders("hello")) > 1)
    stop_and_start(simulation)
    run_only(simulation, monkeypatch, "preview")
    simulation.run(lambda: len(asked) == 2)
    assert [Path(request["work"]).name for request in asked] == ["race-musetalk", "race-preview-0"]


def test_another_engine_begins_anew(make_simulation: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """No part that was rendered by one engine gets into a video of another; of the same one they are kept."""
    simulation = make_simulation(cpus(1))
    run_only(simulation, monkeypatch, "musetalk", "preview")
    uid = simulation.add("hello").uid
    simulation.run(lambda: bool(simulation.renders("hello")))
    part = simulation.settings.folders.work / uid / "parts" / "0000000-0000024.mp4"
    part.parent.mkdir()
    part.touch()
    for engines, is_kept in ((("musetalk",), True), (("preview",), False)):
        stop_and_start(simulation)
        run_only(simulation, monkeypatch, *engines)
        simulation.run(lambda: bool(simulation.dispatcher.attempts))
        assert part.exists() == is_kept
