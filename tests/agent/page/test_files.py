"""Files are served by a row and a name of ours: whole, in parts, and never through a link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from agent.page.files import KINDS, OF_DONE, VIDEO
from agent.settings import Settings
from tests.agent.samples import add_job

VIDEO_BYTES = bytes(range(256)) * 40


@pytest.fixture
def result(settings: Settings, ledger: Ledger) -> Path:
    """The folder of the result of job u1."""
    add_job(ledger, "u1", state=JobState.DONE, name="hello")
    folder = settings.folders.outbox / "hello"
    folder.mkdir()
    (folder / "result.mp4").write_bytes(VIDEO_BYTES)
    (folder / "preview.jpg").write_bytes(b"jpeg")
    return folder


def test_a_video_is_served_whole_and_in_parts(client: TestClient, result: Path) -> None:
    """A player asks for parts; each is exactly the bytes of the file."""
    assert result.is_dir()
    whole = client.get("/files/u1/video")
    assert whole.content == VIDEO_BYTES
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    for asked, start, stop in (("0-99", 0, 100), ("10000-", 10000, None), ("-7", -7, None), ("5-5", 5, 6)):
        part = client.get("/files/u1/video", headers={"range": f"bytes={asked}"})
        assert part.status_code == 206
        assert part.content == VIDEO_BYTES[start:stop]
    assert client.get("/files/u1/video", headers={"range": "bytes=999999-"}).status_code == 416


def test_a_video_with_transparency_is_a_mov(client: TestClient, result: Path) -> None:
    """The video is found under either of its names, and is called by its kind."""
    (result / "result.mp4").rename(result / "result.mov")
    answer = client.get("/files/u1/video?download")
    assert answer.content == VIDEO_BYTES
    assert answer.headers["content-type"] == "video/quicktime"
    assert 'filename="hello.mov"' in answer.headers["content-disposition"]


def test_the_first_part_of_a_running_job_is_served(client: TestClient, settings: Settings, ledger: Ledger) -> None:
    """While it is there; a running job has no other file to show."""
    add_job(ledger, "u2", state=JobState.RUNNING, name="long")
    assert client.get("/files/u2/first").status_code == 404
    ledger.update("u2", first_part="long.part")
    assert client.get("/files/u2/first").status_code == 404
    (settings.folders.outbox / "long.part").mkdir()
    (settings.folders.outbox / "long.part" / "first.mp4").write_bytes(VIDEO_BYTES)
    assert client.get("/files/u2/first").content == VIDEO_BYTES


def test_a_download_has_the_name_of_its_job(client: TestClient, result: Path) -> None:
    """What is saved is called as the job is."""
    assert result.is_dir()
    assert 'filename="hello.mp4"' in client.get("/files/u1/video?download").headers["content-disposition"]


@pytest.mark.parametrize(
    "name", ["secret.txt", "..%2Fsecret.txt", "%2e%2e%2f%2e%2e%2fstate%2fjobs.db", "error.json", ""]
)
def test_other_names_are_not_served(client: TestClient, result: Path, name: str) -> None:
    """Neither a name beside the result nor a path is a file of a job."""
    (result / "secret.txt").write_text("secret")
    assert client.get(f"/files/u1/{name}").status_code == 404


@pytest.mark.parametrize("name", OF_DONE)
def test_links_are_not_followed(client: TestClient, result: Path, tmp_path: Path, name: str) -> None:
    """A file or a folder that was replaced by a link shows nothing of what it leads to."""
    secret = tmp_path / "secret"
    secret.mkdir()
    file = "result.mp4" if name == VIDEO else name
    (secret / file).write_text("secret")
    (result / file).unlink(missing_ok=True)
    (result / file).symlink_to(secret / file)
    assert client.get(f"/files/u1/{name}").status_code == 404
    result.rename(tmp_path / "moved")
    result.symlink_to(secret)
    assert client.get(f"/files/u1/{name}").status_code == 404


def test_pipes_and_missing_files_are_not_waited_for(client: TestClient, result: Path) -> None:
    """A pipe in the place of a picture, or nothing, is answered at once."""
    (result / "preview.jpg").unlink()
    assert client.get("/files/u1/preview.jpg").status_code == 404
    os.mkfifo(result / "preview.jpg")
    assert client.get("/files/u1/preview.jpg").status_code == 404


def test_descriptors_are_closed(client: TestClient, result: Path) -> None:
    """A thousand answers leave no file open."""
    assert result.is_dir()
    client.get("/files/u1/video")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        client.get("/files/u1/video", headers={"range": "bytes=0-9"})
        client.head("/files/u1/preview.jpg")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3


def test_pictures_of_the_library_are_served(client: TestClient, settings: Settings) -> None:
    """The picture of an avatar is found by its name, pictures and videos; links and other files are not served."""
    (settings.folders.avatars / "anna.jpg").write_bytes(b"jpeg")
    (settings.folders.avatars / "bert.mp4").write_bytes(b"video")
    (settings.folders.avatars / "link.jpg").symlink_to("/etc/hostname")
    (settings.folders.avatars / "pages.html").write_bytes(b"<script>")
    assert client.get("/avatars/anna").content == b"jpeg"
    assert client.get("/avatars/bert").headers["content-type"] == "video/mp4"
    assert {client.get(f"/avatars/{name}").status_code for name in ("pages", "link", "nobody", "%2e%2e")} == {404}


def test_every_file_has_a_kind_that_runs_nothing() -> None:
    """No kind is one that a browser runs scripts in."""
    assert {kind.partition("/")[0] for kind in KINDS.values()} == {"video", "image", "application"}
    assert not KINDS.keys() & {".svg", ".html", ".xml", ".pdf", ".js"}
