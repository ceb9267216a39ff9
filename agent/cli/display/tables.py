"""Tables that keep their shape at every width: long names are cut in the middle, reasons have lines of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.text import Text

GAP = 2
ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    least   the narrowest that it may become, in cells; 0 for one that is never cut
    drop    a column with a higher number is left out earlier where there is no room; 0: never
    """

    heading: str
    least: int = 0
    drop: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of a row, each printable, and the lines below it. `style` is that of the second cell."""

    cells: tuple[str, ...]
    style: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RowTable:
    """A table without lines, drawn for the width at hand."""

    columns: tuple[Column, ...]
    rows: Sequence[Row]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self.fit(options.max_width)
        headings = tuple(column.heading for column in self.columns)
        yield Text(format_line(headings, widths), style="bold", no_wrap=True, overflow="crop", end="\n")
        for row in self.rows:
            yield self._draw_row(row, widths)
            for detail in row.details:
                yield Padding(Text(detail, overflow="fold"), (0, 0, 0, GAP), expand=False)

    def _draw_row(self, row: Row, widths: Sequence[int]) -> Text:
        line = Text(format_line(row.cells, widths), no_wrap=True, overflow="crop")
        if row.style:
            start = len(pad(cut_middle(row.cells[0], widths[0]), widths[0])) + GAP
            line.stylize(row.style, start, start + len(row.cells[1]))
        return line

    def fit(self, width: int) -> list[int]:
        """Return the width of each column in cells, 0 for one that is left out."""
        natural = [
            max(cell_len(text) for text in (column.heading, *(row.cells[place] for row in self.rows)))
            for place, column in enumerate(self.columns)
        ]
        for widths in self._leave_out(natural):
            shrunk = self._shrink(widths, width)
            if measure(shrunk) <= width:
                return shrunk
        return shrunk

    def _leave_out(self, natural: list[int]) -> Iterator[list[int]]:
        """Yield the natural widths with ever more columns left out."""
        yield list(natural)
        out = list(natural)
        for rank in sorted({column.drop for column in self.columns} - {0}, reverse=True):
            out = [0 if column.drop == rank else size for column, size in zip(self.columns, out, strict=True)]
            yield list(out)

    def _shrink(self, widths: list[int], width: int) -> list[int]:
        """Take from the columns that may be cut, the widest first, until all fit or each has its least width."""
        while measure(widths) > width:
            spare = [
                size - column.least if column.least and size else 0
                for column, size in zip(self.columns, widths, strict=True)
            ]
            place = spare.index(max(spare))
            if spare[place] <= 0:
                break
            widths[place] -= 1
        return widths


def measure(widths: Sequence[int]) -> int:
    """Return the width of a line with these columns."""
    shown = [width for width in widths if width]
    return sum(shown) + GAP * max(0, len(shown) - 1)


def format_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return the cells as one line; the last one is not padded."""
    shown = [pad(cut_middle(cell, width), width) for cell, width in zip(cells, widths, strict=True) if width]
    return (" " * GAP).join(shown).rstrip()


def pad(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def cut_middle(text: str, width: int) -> str:
    """Return the text with its middle left out, so that it has at most `width` cells.

    >>> cut_middle("a-long-name-of-a-job", 11)
    'a-lon…a-job'
    """
    if cell_len(text) <= width:
        return text
    if width < 3:
        return ELLIPSIS[:width]
    tail_cells = (width - 1) // 2
    head, tail = _take_cells(text, width - 1 - tail_cells), _take_cells(text[::-1], tail_cells)[::-1]
    return f"{head}{ELLIPSIS}{tail}"


def _take_cells(text: str, cells: int) -> str:
    taken = ""
    for char in text:
        cells -= cell_len(char)
        if cells < 0:
            break
        taken += char
    return taken
