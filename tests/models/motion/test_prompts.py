"""What is refused in a prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.motion.prompts import check_brackets, check_tokenizer_files, refuse_long
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


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("vocab.json", "{", "vocab.json is not JSON"),
        ("vocab.json", "[]", "no list of words"),
        ("vocab.json", '{"a": "b"}', "no list of words"),
        ("vocab.json", '{"a": 0, "b": 1}', 'joins "a b"'),
        ("merges.txt", "a b c", "joins"),
        ("tokenizer.json", "{", "tokenizer.json is not JSON"),
    ],
)
def test_files_of_no_tokenizer_are_named(tmp_path: Path, file: str, text: str, said: str) -> None:
    """What is wrong with them; a whole one passes, with or without the line of its version."""
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1, "ab": 2}')
    for version in ("#version: 0.2\n", ""):
        (tmp_path / "merges.txt").write_text(f"{version}a b\r\n")
        check_tokenizer_files(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=said):
        check_tokenizer_files(tmp_path)
