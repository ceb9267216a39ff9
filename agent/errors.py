"""What a person at a terminal can mend. Standard library only, so that the command line starts fast."""

from __future__ import annotations


class UserError(Exception):
    """The message says what happened and what to do; the command line prints it as one line and exits."""

    exit_code = 2
