"""What is refused in a prompt."""

from __future__ import annotations

import pytest

from models.motion.prompts import check_brackets, refuse_long
from models.types import EngineError


@pytest.mark.parametrize("prompt", ["", "a woman", "(blinks:1.1), [smile]", "((a) [b])", r"a \( b", r"\\(a)"])
def test_brackets_that_match(prompt: str) -> None:
    """Weights, nested ones, and escaped brackets are taken."""
    check_brackets(prompt)


@pytest.mark.parametrize(("prompt", "place"), [("(a", 1), ("a)", 2), ("(a]", 3), ("((a)", 1), (r"\\(a", 3), ("[a", 1)])
def test_brackets_without_a_partner(prompt: str, place: int) -> None:
    """The message says which bracket."""
    with pytest.raises(EngineError, match=rf"bad_prompt: .* at character {place} of motion.prompt") as caught:
        check_brackets(prompt)
    assert "close each" in caught.value.hint


def test_a_long_prompt_is_told_in_tokens() -> None:
    """The message has both numbers."""
    assert refuse_long(300, 225, "motion.negative_prompt").message.startswith("motion.negative_prompt has 300 tokens")
