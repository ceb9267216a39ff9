"""Folders of the inbox, with a whole daemon: jobs, pairs and an avatar's voices come out under one folder."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.share import Share


@pytest.fixture
def noop(make_share: Callable[..., Share]) -> Share:
    share = make_share(module="tests.e2e.noop", settle_s=0.1)
    text = share.config.read_text().replace("[inbox]", "[inbox]\npatience_s = 0.2")
    share.config.write_text(text)
    share.start()
    return share


def test_the_results_of_a_folder_are_under_one_folder(noop: Share) -> None:
    """A job file, a pair, and a voice in the folder of an avatar, which is not made of its own results."""
    (noop.folder / "avatars" / "anna.jpg").write_bytes(b"face")
    for folder, names in (("monday", ("pair.jpg", "pair.wav", "face.jpg", "v.wav")), ("anna", ("voice.wav",))):
        (noop.inbox / folder).mkdir()
        for name in names:
            (noop.inbox / folder / name).write_bytes(name.encode())
    (noop.inbox / "monday" / "hello.json").write_text('{"avatar": "face.jpg", "audio": "v.wav", "id": "k"}')
    for name in ("hello", "pair", "voice"):
        assert noop.wait_for(name, "done", "failed")["state"] == "done", noop.log()
    assert {row["result"] for row in noop.rows()} == {"monday/hello", "monday/pair", "anna/voice"}
    for result in ("monday/hello", "monday/pair", "anna/voice"):
        assert {path.name for path in (noop.outbox / result).iterdir()} == {"result.mp4", "result.json", "preview.jpg"}
