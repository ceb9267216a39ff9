"""Strategies as tables: task, idle devices, how much waits -> what starts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_pool.strategy import STRATEGIES, rank_devices
from gpu_pool.types import Device, Span, Task

A, B, C, D = (Span(i, i + 1) for i in range(4))
CARDS = {name: Device(name, "cuda", free_bytes=100 - i) for i, name in enumerate("wxyz")}


def list_assignments(
    strategy: str, todo: list[Span], running: list[Span], idle: str, waiting: int
) -> list[tuple[Span, str]]:
    task = Task("t", "cuda", tuple(todo), tuple(running), strategy=strategy)
    plan = STRATEGIES[strategy](task, [CARDS[name] for name in idle], waiting)
    return [(assignment.span, assignment.device) for assignment in plan.assignments] if plan else []


@pytest.mark.parametrize(
    ("strategy", "todo", "running", "idle", "waiting", "starts"),
    [
        ("queue", [A, B], [], "wx", 0, [(A, "w")]),
        ("queue", [B], [A], "x", 0, []),
        ("queue", [], [], "wx", 0, []),
        ("queue", [A], [], "", 0, []),
        ("split", [A, B, C], [], "wx", 0, [(A, "w"), (B, "x")]),
        ("split", [C, D], [A, B], "y", 5, [(C, "y")]),
        ("split", [A], [], "wxyz", 0, [(A, "w")]),
        ("split", [], [A], "wx", 0, []),
        ("race", [A, B], [], "wxy", 0, [(A, "w"), (A, "x"), (A, "y")]),
        ("race", [A, B], [], "wxyz", 3, [(A, "w"), (A, "x")]),
        ("race", [A, B], [], "w", 0, [(A, "w")]),
        ("race", [B], [A], "xy", 0, [(A, "x")]),
        ("race", [B], [A, A], "yz", 0, []),
        ("auto", [A, B, C, D], [], "wxyz", 0, [(A, "w"), (B, "x"), (C, "y"), (D, "z")]),
        ("auto", [A, B, C, D], [], "wxyz", 2, [(A, "w"), (B, "x")]),
        ("auto", [A, B, C, D], [], "wx", 2, [(A, "w")]),
        ("auto", [B, C, D], [A], "xyz", 3, []),
        ("auto", [B, C, D], [A], "xyz", 2, [(B, "x")]),
        ("auto", [A], [], "", 0, []),
    ],
)
def test_strategies(
    strategy: str,
    todo: list[Span],
    running: list[Span],
    idle: str,
    waiting: int,
    starts: list[tuple[Span, str]],
) -> None:
    """Each strategy starts exactly these spans on exactly these devices."""
    assert list_assignments(strategy, todo, running, idle, waiting) == starts


def test_a_device_that_has_the_model_loaded_is_preferred() -> None:
    """The model comes before free memory, free memory before the id."""
    cold_large, cold_small = Device("a", "cuda", free_bytes=9), Device("b", "cuda", free_bytes=3)
    warm, twin = Device("c", "cuda", free_bytes=1, model="musetalk"), Device("aa", "cuda", free_bytes=9)
    order = rank_devices(Task("t", "cuda", (A,), model="musetalk"), [cold_small, twin, warm, cold_large])
    assert [device.id for device in order] == ["c", "a", "aa", "b"]


def test_a_task_without_a_model_finds_no_device_warm() -> None:
    """A task without a model prefers no device that has none."""
    order = rank_devices(Task("t", "cuda", (A,)), [Device("b", "cuda"), Device("a", "cuda", model="musetalk")])
    assert [device.id for device in order] == ["a", "b"]


@given(
    st.sampled_from(sorted(STRATEGIES)),
    st.integers(0, 6),
    st.lists(st.integers(6, 9), max_size=4),
    st.integers(0, 4),
    st.integers(0, 6),
)
def test_no_strategy_uses_a_device_twice_or_an_unknown_span(
    strategy: str, todo: int, running: list[int], idle: int, waiting: int
) -> None:
    """A plan has idle devices once each, and only spans of the task."""
    task = Task("t", "cuda", tuple(Span(i, i + 1) for i in range(todo)), tuple(Span(i, i + 1) for i in running))
    devices = [Device(str(i), "cuda") for i in range(idle)]
    plan = STRATEGIES[strategy](task, devices, waiting)
    used = [assignment.device for assignment in plan.assignments] if plan else []
    spans = {assignment.span for assignment in plan.assignments} if plan else set()
    assert len(set(used)) == len(used)
    assert set(used) <= {device.id for device in devices}
    assert spans <= {*task.todo, *task.running}
    assert plan is None or used
