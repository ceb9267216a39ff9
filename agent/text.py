"""Text of unknown origin made fit to print: it may hold escape sequences, line breaks and markup of Rich."""

from __future__ import annotations

from rich import markup


def escape(text: str) -> str:
    r"""Return one line of printable characters; every other character becomes its escape.

    >>> escape("a\x1b[2Jb\nc")
    'a\\x1b[2Jb\\nc'
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def escape_markup(text: object) -> str:
    """Return the text as Rich prints it unchanged: one printable line, with [brackets] that are no markup."""
    return markup.escape(escape(str(text)))
