"""The figures of `musedrop bench pool`, taken from little."""

from __future__ import annotations

from benchmarks.pool_rate import Effort, bench


def test_every_figure_is_taken() -> None:
    """With real workers; each is there, none is nought, and sleeping spans never run faster than there are workers."""
    effort = Effort(dispatches=5, deaths=2, flood=20, jobs=4, spans=4, span_s=0.02, workers=(1, 2))
    figures = bench(effort)
    assert list(figures) == [
        "start_of_1_s",
        "start_of_2_s",
        "dispatch_median_ms",
        "dispatch_p99_ms",
        "death_noticed_median_ms",
        "death_noticed_p99_ms",
        "dispatches_per_s_at_1",
        "dispatches_per_s_at_2",
        "queue_scaling_at_1",
        "queue_scaling_at_2",
        "split_scaling_at_1",
        "split_scaling_at_2",
    ]
    assert all(figure > 0 for figure in figures.values())
    for strategy in ("queue", "split"):
        for count in effort.workers:
            assert figures[f"{strategy}_scaling_at_{count}"] <= count
