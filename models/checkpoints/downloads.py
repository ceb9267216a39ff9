"""Download weights: resumed where a transfer broke off, checked, and never published incomplete.

`huggingface_hub` gives the HTTP client, tokens, the offline switch and what the hub says of a file (size, SHA-256 of
large files, git's hash of small ones). Its `hf_hub_download` does not fit: it deletes the old file before it has the
new one, and keeps no partial file for the next run.
"""

from __future__ import annotations

import hashlib
import http
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx2
from huggingface_hub import get_hf_file_metadata, get_session, hf_raise_for_status, is_offline_mode, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # it is exported, but lazily

from models.atomic import hash_file, lock, sync, translate_full_disk
from models.checkpoints.configs import KnownConfig, find_other_value
from models.checkpoints.manifest import Entry, read_manifest, recorded_sha256, stamp_of, write_entry
from models.checkpoints.sources import HUGGING_FACE, check_room
from models.types import EngineError

PARTIAL_FOLDER = ".downloads"
LARGEST_BYTES = 16 << 30
TIMEOUT_S = 30.0
ATTEMPTS = 5
LASTING = (401, 403, 404, 410, 451)

Tick = Callable[[int], None]
Wait = Callable[[float], None]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file to get: its name in the models folder, its address, what is known of it, and how to get it again."""

    file: str
    url: str
    bytes: int | None = None
    sha256: str | None = None
    config: KnownConfig | None = None
    repair: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the server says of a file.

    sha1   git's hash of a small file
    mark   another one as soon as the server has another file
    url    where the content is: the hub redirects to a storage server
    """

    bytes: int | None
    sha256: str | None
    sha1: str | None
    mark: str
    url: str


# what to get ---------------------------------------------------------------------------------------------------------


def read_endpoint(environ: dict[str, str]) -> str:
    """Return the hub or its mirror, from HF_ENDPOINT. Raises EngineError download_failed for what is no address."""
    address = (environ.get("HF_ENDPOINT") or HUGGING_FACE).rstrip("/")
    return check_web_address(address, "HF_ENDPOINT")


def check_web_address(url: str, what: str) -> str:
    """Return `url` if it is on the web. Raises EngineError download_failed."""
    if not url.startswith(("https://", "http://")):
        hint = "give an address such as https://hf-mirror.com"
        raise EngineError("download_failed", f'{what} is "{url}", which is no web address', hint)
    return url


# the server ----------------------------------------------------------------------------------------------------------


def make_client() -> httpx2.Client:
    """Return the client for all requests of this process. It never follows a redirect to a less secure address."""
    return httpx2.Client(follow_redirects=True, event_hooks={"response": [check_redirect]})


def check_redirect(answer: httpx2.Response) -> None:
    """Raise EngineError download_failed for a redirect that leaves the web, or https for plain http."""
    if answer.has_redirect_location:
        source, target = str(answer.url), urljoin(str(answer.url), answer.headers["Location"])
        check_web_address(target, "the address that the server redirects to")
        if source.startswith("https://") and not target.startswith("https://"):
            hint = "try another HF_ENDPOINT, or another network: this one may tamper with the download"
            raise EngineError("download_failed", f"{source} redirects to {target}, which is not encrypted", hint)


set_client_factory(make_client)


def query_server(file: RemoteFile, wait: Wait = time.sleep) -> Offer:
    """Return what the server says of a file, without its content. Raises EngineError download_failed."""
    return repeat(file, lambda: query_once(file), wait)


def query_once(file: RemoteFile) -> Offer:
    try:
        told = get_hf_file_metadata(file.url, choose_token(file, file.url), TIMEOUT_S, user_agent="musedrop")
    except HfHubHTTPError as error:
        if error.response.status_code not in (http.HTTPStatus.METHOD_NOT_ALLOWED, http.HTTPStatus.NOT_IMPLEMENTED):
            raise
        return Offer(None, None, None, short_hash(file.url), file.url)
    digest = told.etag.lower() if told.etag and told.commit_hash else ""
    sha256 = digest if re.fullmatch(r"[0-9a-f]{64}", digest) else None
    sha1 = digest if re.fullmatch(r"[0-9a-f]{40}", digest) else None
    return Offer(told.size, sha256, sha1, short_hash(f"{file.url} {told.etag} {told.size}"), told.location)


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def choose_token(file: RemoteFile, target: str) -> Literal[False] | None:
    """Return None, for the user's token, where `target` is the hub itself; elsewhere False, for no token."""
    is_hub = "/resolve/" in file.url and urlsplit(target)[:2] == urlsplit(file.url)[:2]
    return None if is_hub else False


def repeat(file: RemoteFile, work: Callable[[], Result], wait: Wait, done: Callable[[], int] = int) -> Result:
    """Return the result of `work`, repeated while the connection fails.

    It gives up after five failures in a row between which `done` did not grow.
    Raises EngineError download_failed.
    """
    if is_offline_mode():
        message = f"{file.file} can't be downloaded: HF_HUB_OFFLINE forbids it"
        raise EngineError("download_failed", message, "unset HF_HUB_OFFLINE, or put the file there by other means")
    failures = 0
    while True:
        before = done()
        try:
            return work()
        except HfHubHTTPError as error:
            if error.response.status_code in LASTING:
                raise refused_error(file, error.response.status_code) from error
            reason = f"HTTP {error.response.status_code}"
        except httpx2.RequestError as error:
            reason = str(error)
        failures = 0 if done() > before else failures + 1
        if failures == ATTEMPTS:
            raise connection_error(file, reason)
        wait(2.0**failures)


def connection_error(file: RemoteFile, reason: str) -> EngineError:
    return EngineError(
        "download_failed",
        f"{file.file}: the connection failed {ATTEMPTS} times ({reason}, {file.url})",
        "run the command again when the net is better: it goes on where it stopped",
        retry=True,
    )


def refused_error(file: RemoteFile, status: int) -> EngineError:
    said = "has no such file" if status in (404, 410) else "doesn't give it away"
    return EngineError(
        "download_failed",
        f"{file.file}: the server {said} (HTTP {status}, {file.url})",
        "look at HF_ENDPOINT, or download the file by other means and put it there",
    )


def check_release(file: RemoteFile, offer: Offer) -> None:
    """Raise EngineError download_failed if the server offers another file than the release that is known."""
    other_hash = file.sha256 and offer.sha256 and file.sha256 != offer.sha256
    other_size = file.bytes and offer.bytes and file.bytes != offer.bytes
    if other_hash or other_size:
        raise EngineError(
            "download_failed",
            f"{file.file}: the server has another file than the known release ({format_size(offer.bytes)}, {file.url})",
            "try another HF_ENDPOINT; --any-release takes what the server has",
        )


def format_size(count: int | None) -> str:
    return "size unknown" if count is None else f"{count:,} bytes"


def merge_offer(file: RemoteFile, offer: Offer) -> RemoteFile:
    """Return what the complete file has to be: the known release, else what the server says."""
    return replace(file, bytes=file.bytes or offer.bytes, sha256=file.sha256 or offer.sha256)


def query_missing(
    root: Path, files: Iterable[RemoteFile], *, replace: bool, any_release: bool, say: Callable[[str], None]
) -> Iterator[tuple[RemoteFile, Offer]]:
    """Yield what has to be downloaded, and what the servers say of it. Raises EngineError before it would replace."""
    for file in files:
        known = RemoteFile(file.file, file.url, repair=file.repair) if any_release else hold_to_first(root, file)
        offer = query_server(known)
        check_release(known, offer)
        complete = merge_offer(known, offer)
        if has_file(root, complete, offer):
            record(root, complete)
            say(f"{file.file} is here already")
        elif (root / file.file).exists() and not replace:
            raise differs_error(root, file)
        else:
            yield complete, offer


def hold_to_first(root: Path, file: RemoteFile) -> RemoteFile:
    """Return a file with the hash that its first download had, where no release is known: later ones have to match."""
    entry = read_manifest(root).get(file.file)
    if file.sha256 or file.config or entry is None or entry.origin != file.url:
        return file
    return replace(file, bytes=entry.stamp.bytes, sha256=entry.stamp.sha256 or None)


# files ---------------------------------------------------------------------------------------------------------------


def partial_path(root: Path, file: RemoteFile, offer: Offer) -> Path:
    return root / PARTIAL_FOLDER / f"{file.file.replace('/', '--')}.{offer.mark}"


def has_file(root: Path, file: RemoteFile, offer: Offer) -> bool:
    """Whether the folder has this very file already; its hash is taken unless the manifest has it."""
    path = root / file.file
    if not path.is_file() or (file.bytes is not None and path.stat().st_size != file.bytes):
        return False
    known = bool(file.sha256) and recorded_sha256(root, file.file) == file.sha256
    return known or not find_difference(path, file, offer)


def find_difference(path: Path, file: RemoteFile, offer: Offer) -> str:
    """Return why a file can't be the one that was asked for; "" if nothing speaks against it."""
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        return f"{size:,} bytes instead of {file.bytes:,}"
    if file.sha256 and (actual := hash_file(path)) != file.sha256:
        return f"SHA-256 {actual[:12]}... instead of {file.sha256[:12]}..."
    if file.config and (other := find_other_value(path, file.config)):
        return f"another config than the published one: {other}"
    if not file.sha256 and offer.sha1 and git_sha1(path) != offer.sha1:
        return "another content than the server's (git hash)"
    return ""


def git_sha1(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def download(root: Path, file: RemoteFile, offer: Offer, tick: Tick, wait: Wait = time.sleep) -> None:
    """Get one file into the folder; `tick` is told the bytes that are there. The next run resumes what was cut off.

    Raises EngineError download_failed, disk_full.
    """
    partial = partial_path(root, file, offer)
    partial.parent.mkdir(parents=True, exist_ok=True)
    with open_partial(partial) as output, translate_full_disk(file.file):
        lock_partial(output, file)
        output.seek(0, os.SEEK_END)
        repeat(file, lambda: receive(output, file, offer, tick), wait, output.tell)
    if difference := find_difference(partial, file, offer):
        partial.unlink()
        raise EngineError(
            "download_failed",
            f"{file.file}: what arrived is not what it should be ({difference}, {file.url})",
            "run the command again; if it stays so, try another HF_ENDPOINT",
        )
    publish(root, file, partial)


def open_partial(partial: Path) -> IO[bytes]:
    """Open the file to write and read; it is created if it isn't there, and its content is kept."""
    return os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT, 0o644), "r+b")


def lock_partial(output: IO[bytes], file: RemoteFile) -> None:
    if not lock(output.fileno()):
        message = f"{file.file} is being downloaded by another process"
        raise EngineError("download_failed", message, "wait until that one has finished")


def receive(output: IO[bytes], file: RemoteFile, offer: Offer, tick: Tick) -> None:
    """Append what is still lacking, by one request. Raises HfHubHTTPError, httpx2.RequestError, OSError."""
    start, most = output.tell(), LARGEST_BYTES if file.bytes is None else file.bytes
    if start == file.bytes:
        return
    own = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    headers = build_hf_headers(token=choose_token(file, offer.url), user_agent="musedrop", headers=own)
    with get_session().stream("GET", offer.url, headers=headers, timeout=TIMEOUT_S) as answer:
        if answer.status_code in (http.HTTPStatus.OK, http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            output.truncate(output.seek(0))
        hf_raise_for_status(answer)
        for chunk in answer.iter_bytes():
            output.write(chunk)
            tick(output.tell())
            if output.tell() > most:
                return


def publish(root: Path, file: RemoteFile, partial: Path) -> None:
    """Move the partial file to its place, by one rename, and enter it into the manifest."""
    target = root / file.file
    target.parent.mkdir(parents=True, exist_ok=True)
    sync(partial)
    partial.replace(target)
    sync(target.parent)
    record(root, file)


def record(root: Path, file: RemoteFile) -> None:
    """Enter a file that has just been checked into the manifest, so that its hash need not be taken again."""
    entry = read_manifest(root).get(file.file)
    sha256 = file.sha256 or recorded_sha256(root, file.file) or hash_file(root / file.file)
    stamp = replace(stamp_of(root / file.file), path=file.file, sha256=sha256)
    if entry is None or entry.stamp != stamp:
        write_entry(root, file.file, Entry(stamp, file.url))


def check_space(root: Path, files: Iterable[tuple[RemoteFile, Offer]]) -> None:
    """Raise EngineError disk_full before a download that can't fit."""
    lacking = 0
    for file, offer in files:
        partial = partial_path(root, file, offer)
        lacking += (file.bytes or 0) - (partial.stat().st_size if partial.is_file() else 0)
    check_room(root, lacking, "the weights need")


def remove_empty_folder(root: Path) -> None:
    """Remove the folder of partial files once it is empty."""
    folder = root / PARTIAL_FOLDER
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def differs_error(root: Path, file: RemoteFile) -> EngineError:
    return EngineError(
        "weights_damaged",
        f"{file.file} in {root} is not the published file",
        f"if you did not train it yourself, {file.repair}",
    )
