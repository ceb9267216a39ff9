"""The server as a process: slow requests, other addresses, the end."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from agent.errors import UserError
from agent.page import server
from agent.settings import PageSettings, Settings


def test_other_machines_need_a_login(settings: Settings, tmp_path: Path) -> None:
    """An address that others reach is refused until there is a secret."""
    assert server.make_logins(settings, "127.0.0.1") is None
    with pytest.raises(UserError, match="set page"):
        server.make_logins(settings, "0.0.0.0")  # noqa: S104
    unnamed = settings.model_copy(update={"page": PageSettings(token_file=str(tmp_path / "token"))})
    with pytest.raises(UserError, match="hosts first"):
        server.make_logins(unnamed, "0.0.0.0")  # noqa: S104
    named = settings.model_copy(update={"page": PageSettings(token_file=str(tmp_path / "token"), hosts=("studio",))})
    logins = server.make_logins(named, "0.0.0.0")  # noqa: S104
    assert logins is not None
    link = server.make_link(named, "0.0.0.0", 8765, logins)  # noqa: S104
    assert link.startswith("http://studio:8765/login?ticket=")


def test_a_port_that_is_taken_is_said() -> None:
    """The message names the address and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="choose another --listen"):
        server.open_socket("127.0.0.1", taken.getsockname()[1])
