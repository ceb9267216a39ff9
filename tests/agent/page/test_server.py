"""The server as a process: slow requests, other addresses, the end."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from agent.errors import UserError
from agent.page import server
from agent.settings import PageSettings, Settings


@pytest.mark.parametrize(
    ("listen", "address"),
    [("127.0.0.1:8765", ("127.0.0.1", 8765)), ("[::1]:80", ("::1", 80)), ("studio:0", ("studio", 0))],
)
def test_an_address_is_a_host_and_a_port(listen: str, address: tuple[str, int]) -> None:
    """IPv6 addresses are in brackets."""
    assert server.split_address(listen) == address


@pytest.mark.parametrize("listen", ["", "8765", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:99999", ":80"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    """The message shows what an address looks like."""
    with pytest.raises(UserError, match=r"127\.0\.0\.1:8765"):
        server.split_address(listen)


def test_other_machines_need_a_login(settings: Settings, tmp_path: Path) -> None:
    """An address that others reach is refused until there is a secret."""
    assert server.make_logins(settings, "127.0.0.1") is None
    with pytest.raises(UserError, match="set page"):
        server.make_logins(settings, "0.0.0.0")  # noqa: S104
    named = settings.model_copy(update={"page": PageSettings(token_file=str(tmp_path / "token"), hosts=("studio",))})
    logins = server.make_logins(named, "0.0.0.0")  # noqa: S104
    assert logins is not None
    link = server.make_link(named, "0.0.0.0", 8765, logins)  # noqa: S104
    assert link.startswith("http://studio:8765/login?ticket=")


def test_a_port_that_is_taken_is_said() -> None:
    """The message names the address and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="choose another --listen"):
        server.open_socket("127.0.0.1", taken.getsockname()[1])
