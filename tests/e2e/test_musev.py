"""A photo that MuseV moves and MuseTalk lets speak, in the whole daemon, with tiny weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from tests.models.musetalk import tiny as musetalk_tiny
from tests.models.musev import tiny
from tests.share import Share, face, voice

MOTION: dict[str, Any] = {"engine": "musev", "seconds": 1, "size": 256, "steps": 1, "clip": True}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_photo_moves_and_speaks(make_share: Callable[..., Share]) -> None:
    """What the clip was made with, and under which licence, is in result.json."""
    share = make_share(workers=1)
    shutil.rmtree(tiny.lay_out(share.state / "models", ("musev_referencenet",)) / "sd-vae")
    musetalk_tiny.lay_out(share.state / "models")
    share.start()
    share.put("face.jpg", face())
    share.put("voice.wav", voice(0.4))
    motion = {**MOTION, "options": {"window": 4, "overlap": 2}, "prompt": "a calm person"}
    share.drop("anna", avatar="face.jpg", audio="voice.wav", engine="musetalk", strategy="split", motion=motion)
    assert share.wait_for("anna", "done", "failed")["state"] == "done", (share.log(), share.rows())
    assert (share.outbox / "anna" / "result.mp4").is_file()
    told = share.result("anna")["motion"]
    assert (told["engine"], told["weights"]) == ("musev", "musev_referencenet")
    assert "non-commercial" in told["licence"]
    assert told["scheduler"] == "EulerDiscrete (linspace)"
