"""Write a ledger of this release: `python -m tests.e2e.released FILE`, once per schema version.

The files stay in tests/data: every later release must open the ledgers of every earlier one.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.share import Share


def make(target: Path) -> None:
    """Write a ledger with jobs in every state but running, made by a real daemon."""
    with TemporaryDirectory() as folder:
        share = Share(Path(folder), module="tests.e2e.noop", wait_media_s=3600)
        share.start()
        try:
            fill(share)
            share.stop()
        finally:
            share.end()
        shutil.copyfile(share.state / "jobs.db", target)


def fill(share: Share) -> None:
    share.put("face.jpg", b"face")
    share.put("voice.wav", b"voice")
    media = {"avatar": "face.jpg", "audio": "voice.wav"}
    share.drop("waiting", avatar="face.jpg", audio="late.wav")
    share.drop("done", **media, id="order-1", submitter="anna", priority="high")
    share.drop("failed", **media, options={"fail": True})
    share.put("refused.json", b"no job")
    share.drop("cancelled", avatar="face.jpg", audio="never.wav")
    share.wait_for("cancelled", "waiting")
    (share.inbox / "cancelled.cancel").touch()
    for name, state in (("done", "done"), ("failed", "failed"), ("refused", "failed"), ("cancelled", "cancelled")):
        share.wait_for(name, state)
    (share.inbox / "pause").touch()
    share.drop("queued", **media)
    share.wait_for("queued", "queued")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
