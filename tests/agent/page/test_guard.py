"""Requests that other sites, other names and strangers send are refused before anything looks at them."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from agent.page.app import Page
from agent.page.guard import strip_port
from agent.page.login import Logins, read_secret
from agent.settings import PageSettings, Settings
from tests.agent.page.conftest import FROM_PAGE


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:8765", "", "LOCALHOST@evil", "[::1", "localhost:x"],
)
def test_another_name_is_refused(client: TestClient, host: str) -> None:
    """A name that DNS leads here, whatever it looks like, shows nothing."""
    answer = client.get("/jobs", headers={"host": host})
    assert answer.status_code == 421
    assert "page.hosts" in answer.text


@pytest.mark.parametrize("host", ["localhost", "localhost:8765", "127.0.0.1:8765", "[::1]:8765", "LocalHost:1"])
def test_names_of_this_machine_are_served(client: TestClient, host: str) -> None:
    """Every loopback name shows the page."""
    assert client.get("/jobs", headers={"host": host}).status_code == 200


def test_configured_names_are_served(settings: Settings) -> None:
    """page.hosts adds names, in any letter case."""
    named = settings.model_copy(update={"page": PageSettings(hosts=("Studio.example",))})
    client = TestClient(Page(named, lambda: "").build_app(), base_url="http://localhost")
    assert client.get("/", headers={"host": "studio.EXAMPLE:8765"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost"},
        {"x-musedrop": "1"},
        {"origin": "http://evil.example", "x-musedrop": "1"},
        {"origin": "null", "x-musedrop": "1"},
        {"origin": "http://localhost:81", "x-musedrop": "1"},
        {"origin": "file://localhost", "x-musedrop": "1"},
        {"origin": "http://localhost.evil.example", "x-musedrop": "1"},
    ],
)
@pytest.mark.parametrize(
    "path", ["/jobs", "/uploads?name=a.wav", "/queue/pause", "/jobs/u1/cancel", "/devices/cpu:0/drain"]
)
def test_a_change_that_another_site_asks_for_is_refused(
    client: TestClient, settings: Settings, path: str, headers: dict[str, str]
) -> None:
    """Neither a form nor a script of another site changes anything."""
    assert client.post(path, headers=headers, content=b"{}").status_code == 403
    assert list(settings.folders.inbox.iterdir()) == []


def test_another_site_can_not_embed_files(client: TestClient) -> None:
    """A picture or a request of another site gets nothing; a link to the page works."""
    assert client.get("/jobs", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_every_answer_carries_the_rules_for_the_browser(client: TestClient) -> None:
    """Also refusals and missing files say what a browser may not do with them."""
    answers = [client.get("/"), client.get("/nothing"), client.get("/", headers={"host": "evil.example"})]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_page_with_a_login_shows_nothing_without_it(settings: Settings, tmp_path: Path) -> None:
    """A link works once and gives a cookie that scripts can't read; without it there is nothing but the login."""
    logins = Logins(read_secret(tmp_path / "token"))
    app = Page(settings, lambda: "", logins).build_app()
    viewer, other = (TestClient(app, base_url="http://localhost") for _ in range(2))
    for path in ("/", "/plain", "/live", "/jobs", "/files/u1/result.mp4", "/static/page.js"):
        assert viewer.get(path).status_code == 401
    assert viewer.post("/queue/pause", headers=FROM_PAGE).status_code == 401
    ticket = logins.make_ticket()
    answer = viewer.get(f"/login?ticket={ticket}")
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert viewer.get("/").status_code == 200
    assert other.get(f"/login?ticket={ticket}").status_code == 401
    assert other.get("/", headers={"cookie": "musedrop=1.a.b"}).status_code == 401


def test_ports_are_no_part_of_a_name() -> None:
    """The port of a Host header is left out, and nothing else is."""
    assert [strip_port(host) for host in ("a:1", "[::1]:80", "[::1]", "a", "a:b", "::1:80")] == [
        "a", "[::1]", "[::1]", "a", "a:b", "::1:80",
    ]  # fmt: skip
