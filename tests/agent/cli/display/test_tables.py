"""Tables for every width of a terminal."""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from rich.console import Console

from agent.cli.display.tables import Column, Row, RowTable, cut_middle, measure


@pytest.mark.parametrize("text", ["a-long-name-of-a-job", "你好世界你好世界你好世界", "e\u0301" * 20])
@pytest.mark.parametrize("width", range(1, 25))
def test_a_cut_text_has_both_ends_and_fits(text: str, width: int) -> None:
    """It never has more cells than asked for, and from three on it shows how it begins and ends."""
    cut = cut_middle(text, width)
    assert cell_len(cut) <= width
    if cell_len(text) <= width:
        assert cut == text
    elif width > 5:
        assert cut[0] == text[0]
        assert cut[-1] == text[-1]


def test_columns_give_way_in_their_order() -> None:
    """The widest that may be cut shrinks first; then columns are left out by their number; the rest stays whole."""
    columns = (Column("name", least=6), Column("state"), Column("engine", drop=1), Column("more", drop=2))
    table = RowTable(columns, [Row(("x" * 40, "running", "preview", "more"))])
    assert table.fit(80) == [40, 7, 7, 4]
    assert table.fit(40) == [16, 7, 7, 4]
    assert table.fit(26) == [8, 7, 7, 0]
    assert table.fit(20) == [11, 7, 0, 0]
    assert measure(table.fit(5)) == 6 + 2 + 7


@pytest.mark.parametrize("name", ["a", "你好", "a-long-name-of-a-job"])
def test_the_style_is_that_of_the_second_cell(name: str) -> None:
    """The state is coloured whole, and nothing beside it, however long the name before it is."""
    rows = [Row((name, "done"), "green"), Row(("another-name", "done"), "green")]
    drawn = Console(width=30).render(RowTable((Column("name", least=6), Column("state")), rows))
    assert [part.text for part in drawn if part.style and part.style.color] == ["done", "done"]
