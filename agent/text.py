"""Text of unknown origin made safe to print: without escape sequences, line breaks and markup."""

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
    """Return one printable line that Rich prints unchanged: its [brackets] are no markup."""
    return markup.escape(escape(str(text)))
