"""What a hook does: it runs a command, or sends a signed request. The names in a job are data from strangers."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from typing import Any, NoReturn
from urllib.parse import urlsplit

from agent.errors import UserError

ANSWER_BYTES = 1 << 16


class HookFailed(Exception):
    """A command or a request did not succeed; the message says why."""


# commands ------------------------------------------------------------------------------------------------------------


def run_command(words: Sequence[str], values: Mapping[str, str], facts: Mapping[str, Any], timeout_s: float) -> None:
    """Run a command without a shell. Raises HookFailed.

    values  what {uid}, {path} ... in the words stand for: paths and numbers, nothing that could be an option
    facts   the row of the job: JSON on the standard input
    """
    command = [fill_in(word, values) for word in words]
    environment = {**os.environ, "MUSEDROP_UID": values["uid"], "MUSEDROP_PATH": values["path"]}
    try:
        process = subprocess.Popen(  # noqa: S603 - a list of the settings, no shell
            command, stdin=subprocess.PIPE, env=environment, start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise HookFailed(f"{words[0]} can't be started: {error}") from None
    try:
        process.communicate(json.dumps(facts).encode(), timeout=timeout_s)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise HookFailed(f"{words[0]} was ended after {timeout_s:g} s") from None
    if process.returncode:
        raise HookFailed(f"{words[0]} ended with {process.returncode}")


def fill_in(word: str, values: Mapping[str, str]) -> str:
    """Return a word with the values for {name}; other braces stay."""
    for name, value in values.items():
        word = word.replace("{" + name + "}", value)
    return word


# requests ------------------------------------------------------------------------------------------------------------


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would send a signed request to a host that is on no list."""

    def redirect_request(self, *_: Any) -> NoReturn:
        raise HookFailed("the answer is a redirect, which is not followed")


def check_url(url: str, hosts: Sequence[str]) -> None:
    """Raise UserError where a URL is not for https, or not for one of the hosts."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or parts.username:
        raise UserError(f'hooks.url "{url}" is no address of the form https://HOST/PATH')
    if host not in hosts:
        raise UserError(f"hooks.url names the host {host}, which is not in hooks.hosts")
    if parts.scheme == "http" and not is_loopback(host):
        raise UserError("hooks.url needs https: only this machine itself may be told by http")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def send_request(
    url: str, event: str, delivery_id: str, body: bytes, secret: bytes, at_s: float, timeout_s: float
) -> None:
    """Send a signed POST and read the answer, which must be 2xx. Raises HookFailed."""
    stamp = str(int(at_s))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "musedrop",
        "Musedrop-Event": event,
        "Musedrop-Delivery": delivery_id,
        "Musedrop-Timestamp": stamp,
        "Musedrop-Signature": sign(secret, stamp, body),
    }
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - check_url allows http(s) only
    try:
        with urllib.request.build_opener(NoRedirects).open(request, timeout=timeout_s) as answer:
            answer.read(ANSWER_BYTES)
    except (OSError, HTTPException) as error:
        raise HookFailed(f"{urlsplit(url).hostname} was not told: {error}") from None


def sign(secret: bytes, stamp: str, body: bytes) -> str:
    """Return the signature of a request: HMAC-SHA256 over TIMESTAMP.BODY."""
    return "sha256=" + hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
