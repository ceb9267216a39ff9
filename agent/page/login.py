"""Who may see a page that other machines can reach: links that work once, and the cookie that they give.

Both are made from the secret of `page.token_file` by HMAC-SHA256, so that nothing is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex

from agent.errors import UserError
from agent.fs import NEW_FILE, read_regular

COOKIE = "musedrop"
LINK_S = 600.0
COOKIE_S = 30 * 86400.0
MIN_SECRET_CHARS = 16
MAX_SECRET_BYTES = 4096


class Logins:
    """Makes and checks links and cookies. `now_s`: seconds since 1970."""

    def __init__(self, secret: bytes, now_s: Callable[[], float] = time.time) -> None:
        self._secret, self._now_s = secret, now_s
        self._used: dict[str, float] = {}

    def make_ticket(self) -> str:
        """Return the text of a link, which `redeem` takes once within `LINK_S`."""
        return self._sign("link", self._now_s() + LINK_S)

    def redeem(self, ticket: str) -> str | None:
        """Return the value of the cookie for a ticket, None where it is wrong, old or was used before."""
        now_s = self._now_s()
        self._used = {used: until_s for used, until_s in self._used.items() if until_s > now_s}
        if ticket in self._used or not self._is_signed("link", ticket):
            return None
        self._used[ticket] = now_s + LINK_S
        return self._sign("cookie", now_s + COOKIE_S)

    def is_cookie(self, value: str) -> bool:
        return self._is_signed("cookie", value)

    def _sign(self, kind: str, until_s: float) -> str:
        text = f"{int(until_s)}.{token_hex(8)}"
        return f"{text}.{self._hash(kind, text)}"

    def _is_signed(self, kind: str, value: str) -> bool:
        text, _, digest = value.rpartition(".")
        until, _, _ = text.partition(".")
        if not value.isascii() or not hmac.compare_digest(digest, self._hash(kind, text)):
            return False
        return int(until) > self._now_s()

    def _hash(self, kind: str, text: str) -> str:
        return hmac.new(self._secret, f"{kind}:{text}".encode(), hashlib.sha256).hexdigest()


def read_secret(path: Path) -> bytes:
    """Return the secret of a file, which is made where it is missing. Raises UserError."""
    try:
        fd = os.open(path, NEW_FILE, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise UserError(f"page.token_file {path} can't be made: {error.strerror}") from None
    else:
        with os.fdopen(fd, "w") as file:
            file.write(token_hex(32) + "\n")
    try:
        if path.stat().st_mode & 0o077:
            raise UserError(f"page.token_file {path} can be read by others: chmod 600 {path}")
        secret = read_regular(path, MAX_SECRET_BYTES).strip()
    except OSError as error:
        raise UserError(f"page.token_file {path} can't be read: {error.strerror}") from None
    if len(secret) < MIN_SECRET_CHARS:
        raise UserError(
            f"page.token_file {path} holds fewer than {MIN_SECRET_CHARS} characters: delete it for a new one"
        )
    return secret
