"""The states of a job and the moves between them."""

from __future__ import annotations

from agent.jobs.states import MOVES, JobState, can_move


def test_every_state_has_its_moves() -> None:
    """Done is the end; what failed or was cancelled may be tried again; nothing moves to itself."""
    assert set(MOVES) == set(JobState)
    assert MOVES[JobState.DONE] == frozenset()
    assert all(state not in targets for state, targets in MOVES.items())
    assert {state for state in JobState if can_move(state, JobState.DONE)} == {JobState.RUNNING}
    assert {state for state in JobState if can_move(state, JobState.RUNNING)} == {JobState.QUEUED}


def test_every_state_can_be_reached_from_waiting() -> None:
    """A job starts as waiting and can get everywhere, and everywhere but done it can end or go on."""
    reached, edge = {JobState.WAITING}, {JobState.WAITING}
    while edge:
        edge = {target for state in edge for target in MOVES[state]} - reached
        reached |= edge
    assert reached == set(JobState)
