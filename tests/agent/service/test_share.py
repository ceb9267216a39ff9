"""The share is recognised by an id in one of its files, which the ledger knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.service.share import KEY, ShareIdentity
from tests.agent.samples import a_ledger


@pytest.fixture
def identity(tmp_path: Path) -> ShareIdentity:
    share = tmp_path / "share"
    share.mkdir()
    return ShareIdentity(share, share / ".musedrop" / "share-id", a_ledger(tmp_path))


def test_the_first_share_is_remembered(identity: ShareIdentity) -> None:
    """It gets an id of its own, and keeps it."""
    assert identity.check() == ""
    known = identity.ledger.recall(KEY)
    assert known is not None
    assert identity.id_file.read_text() == f"{known}\n"
    assert identity.check() == ""
    assert identity.ledger.recall(KEY) == known


def test_a_share_that_has_an_id_keeps_it(identity: ShareIdentity) -> None:
    """A new state folder takes over the id that it finds."""
    identity.id_file.parent.mkdir()
    identity.id_file.write_text("an-id-of-before\n")
    assert identity.check() == ""
    assert identity.ledger.recall(KEY) == "an-id-of-before"


@pytest.mark.parametrize("text", ["another\n", None])
def test_another_folder_is_not_taken_for_the_share(identity: ShareIdentity, text: str | None) -> None:
    """An id that is missing or another one is a problem, and the message says how to accept the folder."""
    identity.check()
    identity.id_file.unlink()
    if text is not None:
        identity.id_file.write_text(text)
    problem = identity.check()
    assert "is not the one" in problem
    assert f"write {identity.ledger.recall(KEY)} into {identity.id_file}" in problem


def test_a_share_that_does_not_exist_is_a_problem(identity: ShareIdentity) -> None:
    """The message says what to do, and nothing is made."""
    identity.share.rmdir()
    assert "does not exist" in identity.check()
    assert not identity.share.exists()


def test_a_share_that_cannot_be_written_is_a_problem(identity: ShareIdentity) -> None:
    """No id is remembered that is not on the share."""
    identity.id_file.parent.write_text("in the way")
    assert "can't be written" in identity.check()
    assert identity.ledger.recall(KEY) is None
