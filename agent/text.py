"""Text of unknown origin made safe to print: without escape sequences, line breaks and markup."""

from __future__ import annotations

import pwd
import re

COPY_TAG = re.compile(r"-[0-9a-f]{8}\.(?:avatar|audio|soundtrack|background)(?:-[0-9]{1,2})?(?=\.[A-Za-z0-9]{1,10}\b)")
"""What our clients put into the names of their copies in the inbox."""


def escape(text: str) -> str:
    r"""Return one line of printable characters; every other character becomes its escape.

    >>> escape("a\x1b[2Jb\nc")
    'a\\x1b[2Jb\\nc'
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def restore_names(text: str) -> str:
    """Return a sentence with the names of copies that clients made as their users know them.

    >>> restore_names("face-0123abcd.avatar.jpg has no face")
    'face.jpg has no face'
    """
    return COPY_TAG.sub("", text)


def escape_markup(text: object) -> str:
    """Return one printable line that Rich prints unchanged: its [brackets] are no markup."""
    from rich import markup  # not for processes that print nothing with it

    return markup.escape(escape(str(text)))


def name_submitter(submitter: str) -> str:
    """Return "uid:1000" as the name of that user, where this machine knows one."""
    number = submitter.removeprefix("uid:")
    if number == submitter or not number.isascii() or not number.isdigit():
        return submitter
    try:
        return pwd.getpwuid(int(number)).pw_name
    except (KeyError, OverflowError):
        return submitter
