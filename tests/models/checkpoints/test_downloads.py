"""Weights from a real server that cuts connections, lies, and has other files than it should."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx2
import pytest

from models.checkpoints import downloads
from models.checkpoints.downloads import (
    Offer,
    RemoteFile,
    check_release,
    download,
    has_file,
    merge_offer,
    query_missing,
    query_server,
)
from models.musetalk.weights.published_configs import UNET
from models.types import EngineError
from tests.models.checkpoints.hub import Hub, serving

CONTENT = random.Random(7).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = "/a/b/resolve/main/unet.pth"
FILE = "musetalkV15/unet.pth"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub(files={PATH: CONTENT})) as hub:
        yield hub


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def file_on(hub: Hub, bytes: int | None = None, sha256: str | None = None, path: str = PATH) -> RemoteFile:
    return RemoteFile(FILE, hub.url + path, bytes, sha256)


def get(root: Path, file: RemoteFile) -> tuple[list[int], list[float]]:
    """Download it as the command does; what the progress bar was told, and how long was waited."""
    told: list[int] = []
    waited: list[float] = []
    offer = query_server(file)
    check_release(file, offer)
    download(root, merge_offer(file, offer), offer, told.append, waited.append)
    return told, waited


def partials(root: Path) -> list[Path]:
    return list((root / ".downloads").iterdir())


# what arrives --------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_checked_and_written_down(hub: Hub, root: Path) -> None:
    """It lies in its place, its hash and its address are in the manifest, and nothing is left over."""
    told, waited = get(root, file_on(hub))
    assert (root / FILE).read_bytes() == CONTENT
    assert told[-1] == len(CONTENT)
    assert waited == []
    entry = json.loads((root / "manifest.json").read_text())["files"][FILE]
    assert (entry["stamp"]["sha256"], entry["stamp"]["bytes"]) == (SHA256, len(CONTENT))
    assert entry["origin"] == hub.url + PATH
    assert partials(root) == []


def test_the_server_is_believed_about_size_and_hash(hub: Hub) -> None:
    """Both come from the headers of the redirect; the CDN's own tag is not taken for a hash."""
    offer = query_server(file_on(hub))
    assert (offer.bytes, offer.sha256, offer.sha1) == (len(CONTENT), SHA256, None)


def test_a_cut_connection_is_taken_up_where_it_broke(hub: Hub, root: Path) -> None:
    """Twice cut, three requests, each for the rest only; nothing is fetched twice."""
    hub.cuts[PATH] = [100_000, 250_000]
    _, waited = get(root, file_on(hub))
    assert (root / FILE).read_bytes() == CONTENT
    asked = [line.partition("bytes=")[2] for line in hub.log if line.startswith("GET /cdn")]
    assert asked == ["", "100000-", "250000-"]
    assert len(waited) == 2


def test_a_later_run_goes_on(hub: Hub, root: Path) -> None:
    """After giving up, what has arrived stays, and the next command fetches only the rest."""
    hub.cuts[PATH] = [120_000, *[120_000] * downloads.ATTEMPTS]
    with pytest.raises(EngineError, match="failed 5 times") as caught:
        get(root, file_on(hub))
    assert caught.value.retry
    assert "goes on where it stopped" in caught.value.hint
    assert [path.stat().st_size for path in partials(root)] == [120_000]
    assert not (root / FILE).exists()
    hub.log.clear()
    hub.cuts.clear()
    get(root, file_on(hub))
    assert [line for line in hub.log if line.startswith("GET /cdn")] == [f"GET /cdn{PATH} bytes=120000-"]
    assert (root / FILE).read_bytes() == CONTENT


def test_a_partial_file_of_another_release_is_not_continued(hub: Hub, root: Path) -> None:
    """When the server's file has changed meanwhile, it is fetched from its beginning."""
    hub.cuts[PATH] = [120_000] * (downloads.ATTEMPTS + 1)
    with pytest.raises(EngineError, match="download_failed"):
        get(root, file_on(hub))
    hub.cuts.clear()
    hub.files[PATH] = CONTENT[::-1]
    get(root, file_on(hub))
    assert (root / FILE).read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges(hub: Hub, root: Path) -> None:
    """It sends the whole file again, and the whole file is what one gets."""
    hub.ranges = False
    hub.cuts[PATH] = [100_000]
    get(root, file_on(hub))
    assert (root / FILE).read_bytes() == CONTENT


def test_a_server_without_head(hub: Hub, root: Path) -> None:
    """Then nothing is known beforehand; a known release is still checked."""
    hub.heads = False
    get(root, file_on(hub, len(CONTENT), SHA256))
    assert (root / FILE).read_bytes() == CONTENT
    with pytest.raises(EngineError, match="SHA-256"):
        get(root, file_on(hub, len(CONTENT), "0" * 64))


def test_a_busy_server_is_asked_again(hub: Hub, root: Path) -> None:
    """503 and 429 pass."""
    hub.statuses[PATH] = [503, 429]
    _, waited = get(root, file_on(hub))
    assert (root / FILE).read_bytes() == CONTENT
    assert len(waited) == 2


# what must not arrive ------------------------------------------------------------------------------------------------


def test_a_wrong_hash_is_never_published(hub: Hub, root: Path) -> None:
    """The server's own hash doesn't fit what it sends: nothing appears, the partial file is gone."""
    hub.etags[PATH] = "5" * 64
    with pytest.raises(EngineError, match="is not what it should be") as caught:
        get(root, file_on(hub))
    assert caught.value.code == "download_failed"
    assert not (root / FILE).exists()
    assert partials(root) == []


def test_a_wrong_config_is_never_published(hub: Hub, root: Path) -> None:
    """Small files are checked by the hash that git has of them."""
    path = "/a/b/resolve/main/musetalk.json"
    hub.files[path] = b'{"sample_size": 64}'
    get(root, file_on(hub, path=path))
    assert (root / FILE).read_bytes() == hub.files[path]
    hub.etags[path] = "5" * 40
    with pytest.raises(EngineError, match="git hash"):
        get(root, file_on(hub, path=path))


def test_a_config_is_held_to_the_published_values(hub: Hub, root: Path) -> None:
    """Whatever a mirror says its hash is; who wants another release says so."""
    path = "/a/b/resolve/main/musetalk.json"
    known = RemoteFile(FILE, hub.url + path, config=UNET)
    hub.files[path] = json.dumps({**UNET.values, "_diffusers_version": "0.6.0.dev0"}).encode()
    get(root, known)
    hub.files[path] = json.dumps({**UNET.values, "upcast_attention": True}).encode()
    with pytest.raises(EngineError, match="another config than the published one: upcast_attention True"):
        get(root, known)
    with pytest.raises(EngineError, match="not the published file"):
        list(query_missing(root, [known], replace=False, any_release=False, say=lambda _: None))
    taken = list(query_missing(root, [known], replace=True, any_release=True, say=lambda _: None))
    assert [file.config for file, _ in taken] == [None]


def test_a_release_without_a_known_hash_is_held_to_its_first_download(hub: Hub, root: Path) -> None:
    """Version 1's weights: another file under the same address is refused, before it is fetched."""
    get(root, file_on(hub))
    (root / FILE).unlink()
    ask = partial(query_missing, root, [file_on(hub)], replace=True, say=lambda _: None)
    assert [file.sha256 for file, _ in ask(any_release=False)] == [SHA256]
    hub.files[PATH] = CONTENT[::-1]
    with pytest.raises(EngineError, match="another file than the known release"):
        list(ask(any_release=False))
    assert next(iter(ask(any_release=True)))[0].sha256 not in (SHA256, None)


@pytest.mark.parametrize(("size", "sha256"), [(12, None), (None, "0" * 64), (12, "0" * 64)])
def test_another_release_is_refused_before_it_is_fetched(
    hub: Hub, root: Path, size: int | None, sha256: str | None
) -> None:
    """The server tells of another size or hash than the known release has: nothing is fetched."""
    with pytest.raises(EngineError, match="another file than the known release") as caught:
        get(root, file_on(hub, size, sha256))
    assert "--any-release" in caught.value.hint
    assert not [line for line in hub.log if line.startswith("GET")]


def test_a_file_that_is_shorter_than_promised(hub: Hub, root: Path) -> None:
    """A server that ends early without an error, again and again, is given up; nothing half appears."""
    small = "/plain/unet.pth"
    hub.files[small] = CONTENT[:1000]
    with pytest.raises(EngineError, match="1,000 bytes instead of 300,000"):
        download(
            root,
            file_on(hub, len(CONTENT), path=small),
            Offer(None, None, None, "x", hub.url + small),
            lambda _: None,
            lambda _: None,
        )
    assert not (root / FILE).exists()


def test_a_file_that_never_ends_is_not_taken(hub: Hub, root: Path) -> None:
    """What is longer than announced is stopped and thrown away."""
    file = file_on(hub, 1000, path="/plain/unet.pth")
    hub.files["/plain/unet.pth"] = CONTENT * 20
    with pytest.raises(EngineError, match="instead of 1,000"):
        download(root, file, Offer(None, None, None, "x", file.url), lambda _: None, lambda _: None)
    assert partials(root) == []


def test_a_missing_file_is_named_with_its_address(hub: Hub, root: Path) -> None:
    """404 is final: one request, the file and where it was looked for."""
    with pytest.raises(EngineError, match="has no such file") as caught:
        get(root, file_on(hub, path="/a/b/resolve/main/none.pth"))
    assert FILE in caught.value.message
    assert "none.pth" in caught.value.message
    assert "HF_ENDPOINT" in caught.value.hint
    assert len(hub.log) == 1


def test_no_server_at_all() -> None:
    """Nobody listens there: said after five times, without a traceback."""
    file = RemoteFile(FILE, "http://127.0.0.1:9/unet.pth")
    waited: list[float] = []
    with pytest.raises(EngineError, match="failed 5 times"):
        query_server(file, waited.append)
    assert waited == [2.0, 4.0, 8.0, 16.0]


def test_a_full_disk_keeps_what_has_arrived(hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space: said at once, not tried again."""

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads, "receive", no_space)
    with pytest.raises(EngineError, match="disk_full"):
        get(root, file_on(hub))
    assert not (root / FILE).exists()


def test_too_little_space_is_said_before(hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived already counts; nothing is begun that can't fit."""
    file = file_on(hub, len(CONTENT))
    offer = query_server(file)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 200_000))
    with pytest.raises(EngineError, match="disk_full"):
        downloads.check_space(root, [(file, offer)])
    partial = downloads.partial_path(root, file, offer)
    partial.parent.mkdir()
    partial.write_bytes(CONTENT[:150_000])
    downloads.check_space(root, [(file, offer)])


def test_two_downloads_of_one_file(hub: Hub, root: Path) -> None:
    """The second one doesn't write into the file of the first."""
    file = file_on(hub)
    offer = query_server(file)
    partial = downloads.partial_path(root, file, offer)
    partial.parent.mkdir()
    with partial.open("wb") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(EngineError, match="by another process"):
            get(root, file)
    get(root, file)
    assert (root / FILE).read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirects_stay_on_the_web(hub: Hub, root: Path, target: str) -> None:
    """A server can't make us read a local file."""
    hub.targets[PATH] = target
    with pytest.raises(EngineError, match="no web address"):
        get(root, file_on(hub))
    hub.heads = False
    with pytest.raises(EngineError, match="no web address"):
        get(root, file_on(hub))
    assert not (root / FILE).exists()


def test_an_encrypted_address_never_redirects_to_a_plain_one() -> None:
    """From https to https, and from http on, but not from https to http."""
    for source, target in (("https://a/x", "https://b/x"), ("https://a/x", "/y"), ("http://a/x", "http://b/x")):
        downloads.check_redirect(redirect(source, target))
    for target in ("http://b/x", "HTTP://b/x", "http://a/x"):
        with pytest.raises(EngineError, match=r"no web address|not encrypted"):
            downloads.check_redirect(redirect("https://a/x", target))


def redirect(source: str, target: str) -> httpx2.Response:
    return httpx2.Response(302, headers={"Location": target}, request=httpx2.Request("GET", source))


def test_the_token_goes_to_the_hub_alone(hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the storage server, to which the hub redirects, nor the server of S3FD is told it."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.files["/s3fd.pth"] = CONTENT
    get(root, file_on(hub))
    get(root, file_on(hub, path="/s3fd.pth"))
    told = {line.split()[1] for line in hub.log if "[Bearer hf_secret]" in line}
    assert told == {PATH}
    assert {line.split()[1] for line in hub.log} == {PATH, f"/cdn{PATH}", "/s3fd.pth"}


def test_offline_is_said_at_once(hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With HF_HUB_OFFLINE nothing is asked, and the message names it."""
    monkeypatch.setattr(downloads, "is_offline_mode", lambda: True)
    with pytest.raises(EngineError, match="HF_HUB_OFFLINE"):
        get(root, file_on(hub))
    assert hub.log == []


def test_a_redirected_question_stays_a_question(hub: Hub) -> None:
    """Asking about a file of gigabytes doesn't begin to send it."""
    query_server(file_on(hub))
    assert hub.log == [f"HEAD {PATH}"]


# what is wanted ------------------------------------------------------------------------------------------------------


def test_what_is_there_is_recognised(hub: Hub, root: Path) -> None:
    """The same content counts, wherever it came from; another size or content doesn't."""
    file = file_on(hub, len(CONTENT), SHA256)
    offer = query_server(file)
    assert not has_file(root, file, offer)
    (root / FILE).parent.mkdir()
    (root / FILE).write_bytes(CONTENT)
    assert has_file(root, file, offer)
    (root / FILE).write_bytes(CONTENT[::-1])
    assert not has_file(root, file, offer)
    (root / FILE).write_bytes(CONTENT[1:])
    assert not has_file(root, file, offer)
