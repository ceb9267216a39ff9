"""Links that work once, cookies, and the file of the secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import UserError
from agent.page.login import COOKIE_S, LINK_S, Logins, read_secret


class Time:
    now_s = 1_000_000.0


@pytest.fixture
def logins() -> Logins:
    Time.now_s = 1_000_000.0
    return Logins(b"a secret of some length", lambda: Time.now_s)


def test_a_ticket_is_taken_once(logins: Logins) -> None:
    """The second use of a link gives nothing."""
    ticket = logins.make_ticket()
    cookie = logins.redeem(ticket)
    assert cookie is not None
    assert logins.is_cookie(cookie)
    assert logins.redeem(ticket) is None


def test_tickets_and_cookies_grow_old(logins: Logins) -> None:
    """After its time neither is taken."""
    ticket, other = logins.make_ticket(), logins.make_ticket()
    Time.now_s += LINK_S - 1
    cookie = logins.redeem(ticket)
    assert cookie is not None
    Time.now_s += 2
    assert logins.redeem(other) is None
    Time.now_s += COOKIE_S
    assert not logins.is_cookie(cookie)


@pytest.mark.parametrize(
    "value", ["", ".", "..", "9999999999.aa.", "é.é.é", "9999999999.aa." + "0" * 64, "x" * 100_000]
)
def test_what_was_made_up_is_no_cookie(logins: Logins, value: str) -> None:
    """Only the secret makes cookies."""
    assert not logins.is_cookie(value)
    assert logins.redeem(value) is None


def test_a_ticket_is_no_cookie_and_a_cookie_no_ticket(logins: Logins) -> None:
    """The two can't stand for each other, nor with another secret."""
    ticket = logins.make_ticket()
    assert not logins.is_cookie(ticket)
    cookie = logins.redeem(ticket)
    assert cookie is not None
    assert logins.redeem(cookie) is None
    assert not Logins(b"another secret of some length").is_cookie(cookie)


def test_the_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    """The file is made at the first start, with rights for its owner only, and kept."""
    path = tmp_path / "token"
    secret = read_secret(path)
    assert len(secret) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_secret(path) == secret


def test_a_secret_that_others_read_is_refused(tmp_path: Path) -> None:
    """A file that is open to others, too short or a link is refused in words."""
    path, short, link = (tmp_path / name for name in ("token", "short", "link"))
    read_secret(path)
    path.chmod(0o644)
    short.write_text("abc")
    short.chmod(0o600)
    link.symlink_to(short)
    for bad, words in ((path, "chmod 600"), (short, "characters"), (link, "can't be read")):
        with pytest.raises(UserError, match=words):
            read_secret(bad)
