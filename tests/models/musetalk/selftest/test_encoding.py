"""How pictures come back from an encoder."""

from __future__ import annotations

import pytest

from models.musetalk.selftest import encoding


def test_an_encoder_that_cannot_be_used_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no figures then; the other is measured."""
    monkeypatch.setattr(encoding, "probe_encoder", lambda name: "usable" if name == "libx264" else "it fails (x)")
    found = encoding.compare_encoders(lambda: None)
    assert found["h264_nvenc"] == {"state": "it fails (x)"}
    assert set(found["libx264"]) == {"state", "psnr_db", "fps", "bytes"}
