"""Files that a browser sends are whole or not there, and no larger than allowed."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException

from agent.page import uploads as uploads_module
from agent.page.uploads import KEEP_S, Uploads
from agent.settings import LimitsSettings, Settings


class Time:
    now_s = 0.0


@pytest.fixture
def uploads(settings: Settings) -> Uploads:
    Time.now_s = 0.0
    limits = settings.model_copy(update={"limits": LimitsSettings(media_mib=1)})
    return Uploads(limits, lambda: Time.now_s)


async def send(*chunks: bytes, stall: bool = False) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if stall:
        await asyncio.Event().wait()


def receive(uploads: Uploads, *chunks: bytes, name: str = "voice.wav", stall: bool = False) -> str:
    return asyncio.run(uploads.receive(name, send(*chunks, stall=stall)))


def list_inbox(settings: Settings) -> list[Path]:
    return sorted(settings.folders.inbox.iterdir())


def test_a_file_is_hidden_until_a_job_takes_it(uploads: Uploads, settings: Settings) -> None:
    """What was sent is in the inbox as it was, under a name that no scan takes."""
    word = receive(uploads, b"abc", b"", b"def")
    upload = uploads.find(word)
    assert upload is not None
    assert list_inbox(settings) == [upload.path]
    assert upload.path.read_bytes() == b"abcdef"
    assert upload.path.name.startswith(".")
    assert (upload.size, upload.suffix) == (6, ".wav")


def test_a_file_that_is_too_large_leaves_nothing(uploads: Uploads, settings: Settings) -> None:
    """The limit holds for what comes, whatever the header had said."""
    with pytest.raises(HTTPException) as caught:
        receive(uploads, *[b"x" * 65536] * 17)
    assert caught.value.status_code == 413
    assert list_inbox(settings) == []


def test_a_browser_that_stalls_is_given_up(
    uploads: Uploads, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half of a file that never goes on is deleted."""
    monkeypatch.setattr(uploads_module, "CHUNK_S", 0.05)
    with pytest.raises(HTTPException) as caught:
        receive(uploads, b"abc", stall=True)
    assert caught.value.status_code == 408
    assert list_inbox(settings) == []


def test_a_full_disk_is_said(uploads: Uploads, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space is a sentence with a status of its own, and half a file is deleted."""

    def refuse(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(HTTPException) as caught:
        receive(uploads, b"abc")
    assert caught.value.status_code == 507
    assert "No space left" in caught.value.detail
    assert list_inbox(settings) == []


def test_files_without_a_job_are_deleted_after_a_while(uploads: Uploads, settings: Settings) -> None:
    """What nobody made a job of goes after an hour, or at the end of the page."""
    word = receive(uploads, b"abc")
    Time.now_s = KEEP_S + 1
    other = receive(uploads, b"def")
    assert uploads.find(word) is None
    assert len(list_inbox(settings)) == 1
    uploads.drop_all()
    assert uploads.find(other) is None
    assert list_inbox(settings) == []


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.WAV", ".wav"),
        ("a", ""),
        ("../../x.mp3", ".mp3"),
        ("a.\x1b[2J", ""),
        ("x" * 300 + ".wav", ".wav"),
        ("a.wav\n", ""),
        ("a.json/x", ""),
    ],
)
def test_the_suffix_is_what_a_name_may_have(uploads: Uploads, name: str, suffix: str) -> None:
    """Whatever a browser calls its file, the suffix is one of a file name."""
    upload = uploads.find(receive(uploads, b"abc", name=name))
    assert upload is not None
    assert upload.suffix == suffix
