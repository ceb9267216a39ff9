"""Commands without a shell, and signed requests to hosts of a list."""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from agent.errors import UserError
from agent.hooks.calls import HookFailed, check_url, run_command, send_request

VALUES = {"uid": "u1", "path": "/srv/outbox/a b; rm -rf", "video": "/srv/outbox/a/result.mp4"}


def test_a_command_gets_its_words_as_they_are(tmp_path: Path) -> None:
    """No shell reads them; the row is on the standard input, and the path also in the environment."""
    out = tmp_path / "out.json"
    code = (
        "import json, os, sys; json.dump([sys.argv[2:], json.load(sys.stdin), os.environ['MUSEDROP_PATH']],"
        " open(sys.argv[1], 'w'))"
    )
    run_command([sys.executable, "-c", code, str(out), "{path}", "$(x) {other}"], VALUES, {"name": "-rf"}, 30.0)
    assert json.loads(out.read_text()) == [[VALUES["path"], "$(x) {other}"], {"name": "-rf"}, VALUES["path"]]


@pytest.mark.parametrize(
    ("words", "timeout_s", "told"),
    [
        (["/nowhere/program"], 30.0, "can't be started"),
        ([sys.executable, "-c", "raise SystemExit(3)"], 30.0, "ended with 3"),
        ([sys.executable, "-c", "import time; time.sleep(600)"], 0.2, "was ended after"),
    ],
)
def test_a_command_that_fails_says_how(words: list[str], timeout_s: float, told: str) -> None:
    """One that isn't there, that says so, or that hangs and is ended with its children."""
    with pytest.raises(HookFailed, match=told):
        run_command(words, VALUES, {}, timeout_s)


class Answering(BaseHTTPRequestHandler):
    """Keeps what it gets; the path is the status that it answers with."""

    seen: list[tuple[dict[str, str], bytes]] = []  # noqa: RUF012 - one test at a time

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((dict(self.headers), body))
        self.send_response(int(self.path[1:]))
        self.send_header("Location", "http://127.0.0.1:9/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        Answering.seen.clear()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_request_is_signed(address: str) -> None:
    """The receiver can check who sent it, and when: HMAC-SHA256 over the time and the body."""
    send_request(f"{address}/204", "done", "d1", b'{"a": 1}', b"secret" * 4, 1_700_000_000.9, 10.0)
    [(headers, body)] = Answering.seen
    assert body == b'{"a": 1}'
    assert (headers["Musedrop-Event"], headers["Musedrop-Delivery"]) == ("done", "d1")
    assert headers["Musedrop-Timestamp"] == "1700000000"
    expected = hmac.new(b"secret" * 4, b"1700000000." + body, hashlib.sha256).hexdigest()
    assert headers["Musedrop-Signature"] == f"sha256={expected}"


@pytest.mark.parametrize("status", [302, 307, 404, 500])
def test_only_success_is_success(address: str, status: int) -> None:
    """An error is a failure, and so is a redirect, which is never followed."""
    with pytest.raises(HookFailed):
        send_request(f"{address}/{status}", "done", "d1", b"{}", b"s" * 16, 0.0, 10.0)


def test_a_host_that_does_not_answer_is_a_failure() -> None:
    """A refused connection is told like any other failure."""
    with pytest.raises(HookFailed, match=r"127\.0\.0\.1 was not told"):
        send_request("http://127.0.0.1:9/", "done", "d1", b"{}", b"s" * 16, 0.0, 10.0)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://evil.example/x", "not in hooks.hosts"),
        ("http://hooks.example/x", "needs https"),
        ("file:///etc/passwd", "no address"),
        ("https://user:pw@hooks.example/", "no address"),
        ("hooks.example", "no address"),
    ],
)
def test_a_url_must_be_https_and_on_the_list(url: str, told: str) -> None:
    """Only this machine itself may be told by http."""
    with pytest.raises(UserError, match=told):
        check_url(url, ["hooks.example", "127.0.0.1"])
    check_url("https://hooks.example/x", ["hooks.example"])
    check_url("http://127.0.0.1:8080/", ["127.0.0.1"])
