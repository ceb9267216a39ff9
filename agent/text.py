"""What others wrote, made fit to print: it may hold escape sequences, line breaks, and markup of Rich."""

from __future__ import annotations

from rich.markup import escape


def plain(text: str) -> str:
    r"""One line of printable characters; whatever else is in it shows as its escape.

    >>> plain("a\x1b[2Jb\nc")
    'a\\x1b[2Jb\\nc'
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def literal(text: object) -> str:
    """For Rich, where it would read [brackets] as markup: printable, and shown as it is."""
    return escape(plain(str(text)))
