"""CUDA_VISIBLE_DEVICES as CUDA reads it."""

from __future__ import annotations

import pytest

from gpu_pool.visible import find_visible, hides_all

A, B, C, X, Y = "GPU-aaaa1111", "GPU-bbbb2222", "GPU-bbcc3333", "MIG-x1", "MIG-y2"
CARDS = [[A], [B, X, Y], [C]]


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (None, [A, B, X, Y, C]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0", [A]),
        ("2, 0", [C, A]),
        ("1", [B, X, Y]),
        ("0,0", [A]),
        ("0,-1,2", [A]),
        ("0,7,2", [A]),
        (A, [A]),
        ("GPU-a", [A]),
        ("GPU-b", []),
        ("GPU-bbbb", [B, X, Y]),
        ("GPU-", []),
        (f"{C},{A}", [C, A]),
        (f"{A},GPU-gone,{C}", [A]),
        ("MIG-x1", [X]),
        ("MIG-y", [Y]),
        ("MIG-", []),
        (f"{A},MIG-y2", [A, Y]),
        ("all", []),
        (",0", []),
    ],
)
def test_what_the_variable_admits(asked: str | None, names: list[str]) -> None:
    """Numbers, UUIDs and unique beginnings count until the first entry that names nothing."""
    assert find_visible(asked, CARDS) == names


@pytest.mark.parametrize(
    ("asked", "is_all"),
    [
        (None, False),
        ("", True),
        (" ", True),
        ("-1", True),
        ("-1,0", True),
        ("NoDevFiles", True),
        ("0", False),
        ("x", False),
    ],
)
def test_no_card_on_purpose(asked: str | None, is_all: bool) -> None:
    """An empty list and a negative number are decisions; a name that doesn't exist is a mistake."""
    assert hides_all(asked) is is_all
