"""Attacks of another user in the share's group on a running daemon: nothing of others is read, written or deleted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial

import pytest

from tests.member import GID, make_shared_folder, needs_root, run_as_member, running_as_member
from tests.share import Share, until

pytestmark = needs_root
RETENTION = "\n[retention]\nfailed_days = 0.00001\narchive_days = 0.00001\n"


@pytest.fixture
def share() -> Iterator[Share]:
    """A daemon over a share with the modes of `musedrop service install`; its machine has precious files."""
    before = os.umask(0o007)
    with make_shared_folder() as folder:
        made = Share(folder.parent / "s", module="tests.e2e.noop", settle_s=0.1, keep_media_s=3600.0)
        made.root.chmod(0o755)
        os.chown(made.folder, -1, GID)
        made.folder.chmod(0o2770)
        (weights := made.root / "weights").mkdir(mode=0o700)
        (weights / "unet.pth").write_bytes(b"precious")
        (weights / "voice.wav").write_bytes(b"secret")
        try:
            made.start()
            made.put("face.png", b"face")
            made.put("voice.wav", b"voice")
            yield made
            assert (weights / "unet.pth").read_bytes() == b"precious"
            assert (weights / "voice.wav").read_bytes() == b"secret"
            assert sorted(os.listdir(weights)) == ["unet.pth", "voice.wav"]  # noqa: PTH208
            assert made.rows("PRAGMA quick_check") == [{"quick_check": "ok"}]
            plain = [path for path in made.folder.rglob("*") if path.is_file() and not path.is_symlink()]
            assert not any(b"secret" in path.read_bytes() for path in plain)
        finally:
            made.end()
            os.umask(before)


def drop_paused(share: Share, name: str, audio: str = "voice.wav") -> None:
    """A job that is accepted, and queued until the queue is resumed."""
    share.put("pause", b"")
    until(lambda: (share.status_file() or {}).get("paused", False), 30, share.log)
    share.drop(name, avatar="face.png", audio=audio)
    share.wait_for(name, "queued")


def test_a_medium_that_is_swapped_for_a_link_after_its_acceptance(share: Share) -> None:
    """The voice of another user doesn't come out in the outbox; a retry takes what is there then."""
    drop_paused(share, "one")
    secret = share.root / "weights" / "voice.wav"
    run_as_member("os.unlink(args[0]); os.symlink(args[1], args[0])", share.inbox / "voice.wav", secret)
    share.put("resume", b"")
    share.wait_for("one", "failed")
    assert share.error("one")["code"] == "media_changed"
    run_as_member("os.unlink(args[0])", share.inbox / "voice.wav")
    share.put("voice.wav", b"another voice")
    share.put("one.retry", b"")
    share.wait_for("one", "done")
    assert (share.outbox / "one" / "result.mp4").read_bytes().endswith(b"another voice")


def test_a_folder_of_a_medium_that_is_swapped_for_a_link(share: Share) -> None:
    """The last part of the path is a plain file each time."""
    (share.inbox / "sub").mkdir()
    (share.inbox / "sub" / "voice.wav").write_bytes(b"voice")
    os.utime(share.inbox / "sub" / "voice.wav", (1e9, 1e9))
    drop_paused(share, "one", "sub/voice.wav")
    code = "os.rename(args[0], args[0] + '.old'); os.symlink(args[1], args[0])"
    run_as_member(code, share.inbox / "sub", share.root / "weights")
    share.put("resume", b"")
    share.wait_for("one", "failed")
    assert share.error("one")["code"] == "media_changed"


def test_a_retry_with_links_in_the_failed_folder(share: Share) -> None:
    """What the member left there, links, hard links, pipes and folders, is neither followed nor written through."""
    share.drop("one", avatar="face.png", audio="voice.wav", options={"fail": True})
    share.wait_for("one", "failed")
    share.error("one")
    code = """
failed, victim = args
for name in ("error.json", "job.json"):
    os.unlink(f"{failed}/{name}")
    os.symlink(victim, f"{failed}/{name}")
for name in (".error.json.1.tmp", ".job.json.tmp", "face.jpg"):
    os.symlink(victim, f"{failed}/{name}")
os.mkfifo(f"{failed}/pipe")
os.mkdir(f"{failed}/folder")
"""
    run_as_member(code, share.failed / "one", share.root / "weights" / "unet.pth")
    for state in ("failed", "failed"):
        before = len(share.rows("SELECT * FROM job_attempts"))
        share.put("one.retry", b"")
        until(lambda: len(share.rows("SELECT * FROM job_attempts")) > before, 60, share.log)  # noqa: B023
        share.wait_for("one", state)
    reports = partial(share.failed.glob, "*/error.json")
    until(lambda: any(path.is_file() and not path.is_symlink() for path in reports()), 60, share.log)
    [report] = [path for path in reports() if not path.is_symlink()]
    assert json.loads(report.read_text())["code"] == "bad_option"
    assert [row["state"] for row in share.rows()] == ["failed"]


@pytest.mark.parametrize("name", ["failed", ".musedrop/trash", "archive"])
def test_a_root_of_deletion_that_became_a_link(share: Share, name: str) -> None:
    """Retention deletes nothing behind it, and says so."""
    share.drop("one", avatar="face.png", audio="voice.wav", options={"fail": name == "failed"})
    share.wait_for("one", "failed" if name == "failed" else "done")
    assert share.stop() == 0
    share.config.write_text(share.config.read_text() + RETENTION)
    share.start()
    code = "os.rename(args[0], args[0] + '.old'); os.symlink(args[1], args[0])"
    if name.startswith("."):  # the member can't get in there: they replace all of it
        code = "os.rename(os.path.dirname(args[0]), args[0].replace('/.', '/old')[:-6]); "
        code += "os.mkdir(os.path.dirname(args[0])); os.symlink(args[1], args[0])"
    run_as_member(code, share.folder / name, share.root / "weights")
    until(lambda: "replaced" in share.log() or "not the one" in share.log(), 60, share.log)


def test_links_and_pipes_as_entries_of_the_inbox(share: Share) -> None:
    """They are no jobs, and keep no other waiting."""
    code = """
inbox, weights = args
os.symlink(f"{weights}/unet.pth", f"{inbox}/spy.json")
os.symlink(f"{weights}/voice.wav", f"{inbox}/spy.wav")
os.symlink(f"{weights}/voice.wav", f"{inbox}/spy.png")
os.mkfifo(f"{inbox}/pipe.json")
os.symlink("face.png", f"{inbox}/alias.png")
"""
    run_as_member(code, share.inbox, share.root / "weights")
    share.drop("one", avatar="face.png", audio="voice.wav")
    share.drop("two", avatar="face.png", audio="spy.wav")
    share.drop("three", avatar="alias.png", audio="voice.wav")
    share.wait_for("one", "done")
    share.wait_for("three", "done")
    share.wait_for("two", "failed")
    assert share.error("two")["code"] == "outside_roots"
    assert {row["name"] for row in share.rows()} == {"one", "two", "three"}


def test_a_name_of_the_outbox_that_is_taken_by_a_link(share: Share) -> None:
    """The result gets another name, with modes that the group may read."""
    run_as_member("os.symlink(args[1], args[0])", share.outbox / "one", share.root / "weights")
    share.drop("one", avatar="face.png", audio="voice.wav")
    share.wait_for("one", "done")
    read = "print(open(args[0] + '/result.json').read().count('done'), os.access(args[0] + '/result.mp4', os.R_OK))"
    assert run_as_member(read, share.outbox / "one-2") == "1 True"


def test_files_that_the_daemon_writes_often_are_links(share: Share) -> None:
    """status.json, made a link to the ledger again and again, is replaced and not followed."""
    code = """
status, ledger = args
print("ready", flush=True)
while True:
    try:
        os.symlink(ledger, status + ".link")
        os.rename(status + ".link", status)
    except OSError:
        pass
"""
    with running_as_member(code, share.folder / "status.json", share.state / "jobs.db"):
        share.drop("one", avatar="face.png", audio="voice.wav")
        share.wait_for("one", "done")
    until(lambda: not (share.folder / "status.json").is_symlink(), 30, share.log)
    assert (share.status_file() or {})["counts"]["done"] == 1
