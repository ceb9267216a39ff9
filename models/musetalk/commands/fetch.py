"""Weights over the net: resumed where they were cut off, checked against what is known of them, whole or not there.

Standard library only. What the server says of a file (size, SHA-256 of large files, git's hash of small ones) comes
from the Hugging Face hub's headers; a known release is in `layout.SOURCES`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from typing import IO, Any

from models.atomic import sync, translate_full_disk
from models.musetalk.weights.index import (
    HUGGING_FACE,
    S3FD_URL,
    SOURCES,
    Version,
    check_room,
    missing_files_for,
    published_files,
    repair_hint,
)
from models.musetalk.weights.manifest import Entry, read_manifest, recorded_sha256, sha256_of, stamp_of, write_entry
from models.types import EngineError

PARTIAL = ".downloads"
CHUNK_BYTES = 1 << 20
LARGEST_BYTES = 16 << 30
TIMEOUT_S = 30.0
TRIES = 5
LASTING = (401, 403, 404, 410, 451)

Tick = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file to get: its name in the folder, its address, and what is known of it."""

    file: str
    url: str
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """What the server says of a file. `sha1` is git's, of a small file; `mark` changes when the file does."""

    bytes: int | None
    sha256: str | None
    sha1: str | None
    mark: str


def endpoint(environ: dict[str, str]) -> str:
    """The hub or its mirror, from HF_ENDPOINT. Raises EngineError download_failed if that is no web address."""
    address = (environ.get("HF_ENDPOINT") or HUGGING_FACE).rstrip("/")
    return web_address(address, "HF_ENDPOINT")


def web_address(url: str, what: str) -> str:
    if not url.startswith(("https://", "http://")):
        hint = "give an address such as https://hf-mirror.com"
        raise EngineError("download_failed", f'{what} is "{url}", which is no web address', hint)
    return url


def wanted(files: Iterable[str], hub: str, s3fd: str = S3FD_URL) -> list[Wanted]:
    """Files by their names in the folder -> where to get them. Raises EngineError download_failed for unknown names."""
    found = []
    for file in files:
        source = SOURCES.get(file)
        if source is None:
            hint = f"these can be downloaded: {', '.join(SOURCES)}"
            raise EngineError("download_failed", f"nobody publishes a weight file {file}", hint)
        url = hub + source.url if source.url.startswith("/") else web_address(s3fd, "the address of S3FD")
        found.append(Wanted(file, url, source.bytes, source.sha256))
    return found


def needed(root: Path, asked: Iterable[Version], *, replace: bool) -> list[str]:
    """Names of the files that are missing for the versions; with `replace` of all files that are published for them."""
    names = []
    for version in asked:
        names += published_files(version) if replace else missing_files_for(version, root)
    return list(dict.fromkeys(names))


class Hops(urllib.request.HTTPRedirectHandler):
    """Follows redirects on the web and keeps the headers of each answer: the hub tells of a file in the first one."""

    def __init__(self) -> None:
        self.headers: list[Message] = []

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        web_address(newurl, "the address that the server redirects to")
        self.headers.append(headers)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None:
            following.method = req.get_method()  # before Python 3.13 a redirected HEAD becomes a GET
        return following


def request(url: str, method: str, start: int = 0) -> tuple[http.client.HTTPResponse, list[Message]]:
    """The answer and the headers on the way to it, its own last."""
    hops = Hops()
    headers = {"User-Agent": "musedrop", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    asked = urllib.request.Request(web_address(url, "the address"), headers=headers, method=method)  # noqa: S310
    try:
        answer = urllib.request.build_opener(hops).open(asked, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        raise
    return answer, [*hops.headers, answer.headers]


def ask(file: Wanted) -> Offer:
    """What the server says of a file, without its content. Raises EngineError download_failed, OSError."""
    try:
        answer, headers = request(file.url, "HEAD")
        answer.close()
    except urllib.error.HTTPError as error:
        if error.code in LASTING:
            raise refused(file, error.code) from error
        if error.code not in (405, 501):
            raise
        headers = [Message()]
    return offer_from(headers, file.url)


def patiently(file: Wanted, wait: Callable[[float], None] = time.sleep) -> Offer:
    """The same, asked again while the net fails. Raises EngineError download_failed after five times."""
    for attempt in range(1, TRIES + 1):
        try:
            return ask(file)
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error))
        if attempt < TRIES:
            wait(2.0**attempt)
    raise gave_up(file, reason)


def gave_up(file: Wanted, reason: str) -> EngineError:
    return EngineError(
        "download_failed",
        f"{file.file}: the connection failed {TRIES} times ({reason}, {file.url})",
        "run the command again when the net is better: it goes on where it stopped",
        retry=True,
    )


def offer_from(headers: list[Message], url: str) -> Offer:
    """Read the headers of an answer and of the redirects to it."""
    linked = next((h["X-Linked-Etag"] for h in headers if h["X-Linked-Etag"]), "")
    tag = linked or headers[-1]["ETag"] or ""
    digest = re.sub(r'^(W/)?"|"$', "", tag).lower()
    size = next((h["X-Linked-Size"] for h in headers if h["X-Linked-Size"]), headers[-1]["Content-Length"])
    number = int(size) if size and size.isdigit() else None
    of_hub = bool(linked) or any(h["X-Repo-Commit"] for h in headers)
    sha256 = digest if of_hub and re.fullmatch(r"[0-9a-f]{64}", digest) else None
    sha1 = digest if of_hub and re.fullmatch(r"[0-9a-f]{40}", digest) else None
    changes = f"{url} {tag or headers[-1]['Last-Modified']} {number}"
    return Offer(number, sha256, sha1, hashlib.sha256(changes.encode()).hexdigest()[:16])


def refused(file: Wanted, status: int) -> EngineError:
    said = "has no such file" if status in (404, 410) else "doesn't give it away"
    return EngineError(
        "download_failed",
        f"{file.file}: the server {said} (HTTP {status}, {file.url})",
        "look at HF_ENDPOINT, or download the file by other means and put it there",
    )


def check_release(file: Wanted, offer: Offer) -> None:
    """Raise EngineError download_failed if the server offers another file than the release that is known."""
    other_hash = file.sha256 and offer.sha256 and file.sha256 != offer.sha256
    other_size = file.bytes and offer.bytes and file.bytes != offer.bytes
    if other_hash or other_size:
        raise EngineError(
            "download_failed",
            f"{file.file}: the server has another file than the known release ({size_of(offer.bytes)}, {file.url})",
            "try another HF_ENDPOINT; --any-release takes what the server has",
        )


def size_of(count: int | None) -> str:
    return "size unknown" if count is None else f"{count:,} bytes"


def settled(file: Wanted, offer: Offer) -> Wanted:
    """What the finished file has to be: the known release, else what the server says."""
    return replace(file, bytes=file.bytes or offer.bytes, sha256=file.sha256 or offer.sha256)


def partial_of(root: Path, file: Wanted, offer: Offer) -> Path:
    return root / PARTIAL / f"{file.file.replace('/', '--')}.{offer.mark}"


def is_there(root: Path, file: Wanted, offer: Offer) -> bool:
    """Whether the folder has this very file already; its hash is taken unless the manifest has it."""
    path = root / file.file
    if not path.is_file() or (file.bytes is not None and path.stat().st_size != file.bytes):
        return False
    known = bool(file.sha256) and recorded_sha256(root, file.file) == file.sha256
    return known or not wrong_content(path, file, offer, lambda _: None)


def wrong_content(path: Path, file: Wanted, offer: Offer, tick: Tick) -> str:
    """Why a file can't be the one that was asked for; "" if nothing speaks against it."""
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        return f"{size:,} bytes instead of {file.bytes:,}"
    if file.sha256 and (actual := sha256_of(path, tick)) != file.sha256:
        return f"SHA-256 {actual[:12]}... instead of {file.sha256[:12]}..."
    if not file.sha256 and offer.sha1 and git_sha1(path) != offer.sha1:
        return "another content than the server's (git hash)"
    return ""


def git_sha1(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def download(root: Path, file: Wanted, offer: Offer, tick: Tick, wait: Callable[[float], None] = time.sleep) -> None:
    """Get one file into the folder; `tick` is told the bytes that are there. What is cut off is gone on with next time.

    Raises EngineError download_failed, disk_full.
    """
    partial = partial_of(root, file, offer)
    partial.parent.mkdir(parents=True, exist_ok=True)
    with opened(partial) as output, translate_full_disk(file.file):
        lock(output, file)
        output.seek(0, os.SEEK_END)
        receive_all(output, file, tick, wait)
    if wrong := wrong_content(partial, file, offer, lambda _: None):
        partial.unlink()
        raise EngineError(
            "download_failed",
            f"{file.file}: what arrived is not what it should be ({wrong}, {file.url})",
            "run the command again; if it stays so, try another HF_ENDPOINT",
        )
    publish(root, file, partial)


def opened(partial: Path) -> IO[bytes]:
    """The file to write and read, made if it isn't there, its content kept."""
    return os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT, 0o644), "r+b")


def lock(output: IO[bytes], file: Wanted) -> None:
    try:
        fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        message = f"{file.file} is being downloaded by another process"
        raise EngineError("download_failed", message, "wait until that one has finished") from error


def receive_all(output: IO[bytes], file: Wanted, tick: Tick, wait: Callable[[float], None]) -> None:
    """Append until the file is complete. A cut connection is taken up again; giving up needs five in a row in vain."""
    vain = 0
    while file.bytes is None or output.tell() < file.bytes:
        before = output.tell()
        try:
            receive(output, file, tick)
            return
        except urllib.error.HTTPError as error:
            if error.code in LASTING:
                raise refused(file, error.code) from error
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                output.truncate(output.seek(0))
            reason = f"HTTP {error.code}"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            reason = str(getattr(error, "reason", error))
        vain = 0 if output.tell() > before else vain + 1
        if vain == TRIES:
            raise gave_up(file, reason)
        wait(2.0**vain)


def receive(output: IO[bytes], file: Wanted, tick: Tick) -> None:
    """One request for what is still lacking. Raises OSError if less arrived than was promised."""
    answer, _ = request(file.url, "GET", output.tell())
    with answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            output.truncate(output.seek(0))
        promised = answer.headers["Content-Length"]
        end = output.tell() + int(promised) if promised else None
        while output.tell() <= (file.bytes or LARGEST_BYTES) and (chunk := answer.read(CHUNK_BYTES)):
            output.write(chunk)
            tick(output.tell())
    if end is not None and output.tell() < end:
        raise ConnectionError("the connection was cut")


def publish(root: Path, file: Wanted, partial: Path) -> None:
    """From the partial file to its place, by one rename, and into the manifest."""
    target = root / file.file
    target.parent.mkdir(parents=True, exist_ok=True)
    sync(partial)
    partial.replace(target)
    sync(target.parent)
    note(root, file)


def note(root: Path, file: Wanted) -> None:
    """Write down what the file is, so that nobody has to read all of it again; its content has just been checked."""
    entry = read_manifest(root).get(file.file)
    sha256 = file.sha256 or recorded_sha256(root, file.file) or sha256_of(root / file.file)
    stamp = replace(stamp_of(root / file.file), path=file.file, sha256=sha256)
    if entry is None or entry.stamp != stamp:
        write_entry(root, file.file, Entry(stamp, file.url))


def check_space(root: Path, files: Iterable[tuple[Wanted, Offer]]) -> None:
    """Raise EngineError disk_full before a download that can't fit."""
    lacking = 0
    for file, offer in files:
        partial = partial_of(root, file, offer)
        lacking += (file.bytes or 0) - (partial.stat().st_size if partial.is_file() else 0)
    check_room(root, lacking, "the weights need")


def clean_up(root: Path) -> None:
    """Remove the folder of partial files once nothing is left in it."""
    try:
        (root / PARTIAL).rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT, errno.EEXIST):
            raise


def differs(root: Path, file: Wanted) -> EngineError:
    return EngineError(
        "weights_damaged",
        f"{file.file} in {root} is not the published file",
        f"if you did not train it yourself, {repair_hint(file.file)}",
    )
