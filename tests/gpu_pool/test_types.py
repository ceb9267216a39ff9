"""The grid of spans."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_pool.types import Span, grid


@given(st.integers(1, 400_000))
def test_grid_covers_every_unit_once(units: int) -> None:
    """The spans follow each other from 0 to the last unit without a gap or an overlap."""
    spans = grid(units)
    assert spans[0].start == 0
    assert spans[-1].stop == units
    assert all(before.stop == after.start for before, after in pairwise(spans))


@given(st.integers(1, 400_000))
def test_grid_cuts_into_nearly_equal_spans(units: int) -> None:
    """No span is empty, longer than 240 units, or more than one unit longer than another."""
    lengths = {span.units for span in grid(units)}
    assert min(lengths) >= 1
    assert max(lengths) <= 240
    assert max(lengths) - min(lengths) <= 1


@given(st.integers(1, 400_000))
def test_grid_has_as_many_spans_as_the_formula_says(units: int) -> None:
    """Spans of about 24 units up to 16 of them, then of at most 240."""
    assert len(grid(units)) == max(min(math.ceil(units / 24), 16), math.ceil(units / 240))


@given(st.integers(1, 100_000), st.sampled_from([1, 2, 4, 8, 16, 32, 64]))
def test_spans_begin_at_multiples_of_the_step(units: int, step: int) -> None:
    """A worker that computes `step` units together leaves no slot empty but at the end of the job."""
    spans = grid(units, step)
    assert (spans[0].start, spans[-1].stop) == (0, units)
    assert all(before.stop == after.start for before, after in pairwise(spans))
    assert all(span.start % step == 0 and 1 <= span.units <= 240 for span in spans)


@pytest.mark.parametrize(
    ("units", "spans"),
    [(1, [(0, 1)]), (24, [(0, 24)]), (25, [(0, 12), (12, 25)]), (72, [(0, 24), (24, 48), (48, 72)])],
)
def test_grid_of_small_tasks(units: int, spans: list[tuple[int, int]]) -> None:
    """The bytes of a job's result depend on these cuts."""
    assert grid(units) == tuple(Span(*span) for span in spans)


def test_grid_of_nothing_is_refused() -> None:
    """A task has at least one unit."""
    for units, step in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least one unit"):
            grid(units, step)
