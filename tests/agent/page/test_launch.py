"""The address of the page."""

from __future__ import annotations

import pytest

from agent.errors import UserError
from agent.page.launch import split_address


@pytest.mark.parametrize(
    ("listen", "address"),
    [("127.0.0.1:8765", ("127.0.0.1", 8765)), ("[::1]:80", ("::1", 80)), ("studio:0", ("studio", 0))],
)
def test_an_address_is_a_host_and_a_port(listen: str, address: tuple[str, int]) -> None:
    """IPv6 addresses are in brackets."""
    assert split_address(listen) == address


@pytest.mark.parametrize("listen", ["", "8765", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:99999", ":80"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    """The message shows what an address looks like."""
    with pytest.raises(UserError, match=r"127\.0\.0\.1:8765"):
        split_address(listen)
