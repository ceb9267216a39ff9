"""A photo that MuseV moves and MuseTalk lets speak, in the whole daemon, with tiny weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_cluster import AGENT, add_node, wait_for_node
from tests.models.musetalk import tiny as musetalk_tiny
from tests.models.musev import tiny
from tests.share import Share, face, voice

MOTION: dict[str, Any] = {"engine": "musev", "seconds": 1, "size": 256, "steps": 1, "clip": True}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_photo_moves_and_speaks(make_share: Callable[..., Share], tmp_path: Path) -> None:
    """Two machines make the bytes of one; what the clip was made with, and its licence, is in result.json."""
    share, both = make_share(workers=1), Share(tmp_path / "both", workers=1)
    add_node(both, AGENT, fence_s=25, lost_s=30)
    motion = {**MOTION, "options": {"window": 4, "overlap": 2}, "prompt": "a calm person"}
    try:
        for one in (both, share):
            shutil.rmtree(tiny.lay_out(one.state / "models", ("musev_referencenet",)) / "sd-vae")
            musetalk_tiny.lay_out(one.state / "models")
            one.start()
        wait_for_node(both)
        for one in (share, both):
            one.put("face.jpg", face())
            one.put("voice.wav", voice(0.4))
            one.drop("anna", avatar="face.jpg", audio="voice.wav", engine="musetalk", strategy="split", motion=motion)
        for one in (share, both):
            assert one.wait_for("anna", "done", "failed")["state"] == "done", (one.log(), one.rows())
        assert "box2/cpu:0" in both.result("anna")["devices"]
        results = [(one.outbox / "anna" / "result.mp4").read_bytes() for one in (share, both)]
        assert results[0] == results[1]
    finally:
        both.end()
    told = share.result("anna")["motion"]
    assert (told["engine"], told["weights"]) == ("musev", "musev_referencenet")
    assert "non-commercial" in told["licence"]
    assert told["scheduler"] == "EulerDiscrete (linspace)"
