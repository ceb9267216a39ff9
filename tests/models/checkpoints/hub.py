"""A hub of weights on 127.0.0.1: redirects to another host like the real one, and misbehaves on request.

Its storage server is the same server by another name, localhost.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """What a hub has and how it behaves.

    files      path -> content
    cuts       path -> at which byte each next answer breaks off
    statuses   path -> errors that come before the content
    targets    path -> where the hub redirects to, if not to its own storage server
    log        what was asked, tokens in brackets
    """

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    heads: bool = True
    log: list[str] = field(default_factory=list)
    url: str = ""


def etag_of(path: str, content: bytes) -> str:
    """Large files have their SHA-256, small ones (here: JSON) git's hash."""
    if path.endswith(".json"):
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return hashlib.sha256(content).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def end_headers(self) -> None:
            self.send_header("Connection", "close")  # else a client that keeps connections keeps the server running
            super().end_headers()

        def answer(self, *, body: bool) -> None:
            path = self.path.removeprefix("/cdn")
            token = f" [{self.headers['Authorization']}]" if self.headers["Authorization"] else ""
            hub.log.append(f"{self.command} {self.path} {self.headers['Range'] or ''}".strip() + token)
            if path not in hub.files:
                return self.plain(404)
            if not body and not hub.heads:
                return self.plain(405)
            if self.path == path and "/resolve/" in path:
                return self.redirect(path)
            if body and hub.statuses.get(path):
                return self.plain(hub.statuses[path].pop(0))
            return self.content(path, body=body)

        def plain(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def redirect(self, path: str) -> None:
            self.send_response(302)
            self.send_header("Location", hub.targets.get(path) or f"http://localhost:{server.server_port}/cdn{path}")
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("X-Linked-Etag", f'"{hub.etags.get(path) or etag_of(path, hub.files[path])}"')
            self.send_header("X-Linked-Size", str(len(hub.files[path])))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def content(self, path: str, *, body: bool) -> None:
            whole = hub.files[path]
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
            start = int(asked[1]) if asked and hub.ranges else 0
            if asked and hub.ranges and start >= len(whole):
                return self.plain(416)
            self.send_response(206 if asked and hub.ranges else 200)
            if asked and hub.ranges:
                self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
            self.send_header("ETag", '"of-the-cdn"')
            self.send_header("Content-Length", str(len(whole) - start))
            self.end_headers()
            if not body:
                return None
            cuts = hub.cuts.get(path)
            with suppress(ConnectionError):  # a client that has enough hangs up
                self.wfile.write(whole[start : cuts.pop(0)] if cuts else whole[start:])
            return None

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # so that closing waits for the answers under way
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
