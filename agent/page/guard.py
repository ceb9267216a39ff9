"""What a request must be before anything looks at it: for a name of ours, from a page of ours, by a person who may.

Other pages in the same browser, and names that lead here by DNS, are the danger on a loopback address.
"""

from __future__ import annotations

from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.page.login import COOKIE, Logins

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
MARK = "x-musedrop"
"""The header that every request which changes something carries; a form of another page can't send it."""
READING = ("GET", "HEAD")
OPEN_PATHS = ("/login", "/static/page.css")
SECURITY = {
    "content-security-policy": "default-src 'self'; media-src 'self' blob:; img-src 'self' blob:;"
    " frame-ancestors 'none'; form-action 'self'; base-uri 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """Middleware that refuses what it must, and adds the headers that hold the browser to the same rules."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str], logins: Logins | None) -> None:
        self._app, self._logins = app, logins
        self._hosts = LOOPBACK | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._find_refusal(scope["method"], scope["path"], Headers(scope=scope))

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        if refusal is not None:
            await refusal(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)

    def _find_refusal(self, method: str, path: str, headers: Headers) -> PlainTextResponse | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or strip_port(hosts[0]) not in self._hosts:
            return _refuse(421, "this address is not one that the page may be reached by: see page.hosts")
        if method not in READING and not _is_from_here(headers, hosts[0]):
            return _refuse(403, "a request that changes something must come from the page itself")
        if method in READING and path != "/" and headers.get("sec-fetch-site") == "cross-site":
            return _refuse(403, "another site may not read from here")
        if self._logins is not None and path not in OPEN_PATHS and not self._logins.is_cookie(_read_cookie(headers)):
            return _refuse(401, "open the page by a link of `musedrop page --link`")
        return None


def strip_port(host: str) -> str:
    """Return the name of a Host header in lower case: "[::1]" of "[::1]:8765"."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() and (name.endswith("]") or ":" not in name) else host.lower()


def _is_from_here(headers: Headers, host: str) -> bool:
    scheme, _, origin = headers.get("origin", "").partition("://")
    return scheme in ("http", "https") and origin.lower() == host.lower() and headers.get(MARK) == "1"


def _read_cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _refuse(status: int, text: str) -> PlainTextResponse:
    return PlainTextResponse(text + "\n", status)
