"""Text of unknown origin on a terminal."""

from __future__ import annotations

import pytest
from rich.console import Console

from agent.text import escape, escape_markup


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë 张伟 [x]", "Zoë 张伟 [x]"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\udcff\u2028\u202e", "\\udcff\\u2028\\u202e"),
    ],
)
def test_only_what_can_be_printed_is_printed(text: str, shown: str) -> None:
    """Controls, separators and direction marks show as escapes; all scripts and brackets stay."""
    assert escape(text) == shown


@pytest.mark.parametrize("text", ["[/b]", "[red]x[/red]", "a\\[b]", "[bold"])
def test_brackets_are_no_markup(text: str) -> None:
    """Rich shows the text letter by letter."""
    console = Console(width=80)
    with console.capture() as captured:
        console.print(escape_markup(text), highlight=False)
    assert captured.get() == escape(text) + "\n"
