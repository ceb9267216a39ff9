"""What a worker says of a clip that nobody can speak with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.languages import find_chinese
from models.motion.stage import name_the_clip
from models.types import EngineError, Request


def test_a_clip_without_a_face_is_named(tmp_path: Path) -> None:
    """Once the clip is the avatar, it lacks the face and not the photo; other errors stay as they are."""
    request = Request("preview", "anna.jpg", "v.wav", str(tmp_path), "out", "cache", "models", motion={"seed": 1})
    refusal, other = (EngineError(code, "no face was found in anna.jpg", "") for code in ("no_face", "bad_option"))
    with pytest.raises(EngineError) as caught, name_the_clip(request):
        raise refusal
    assert caught.value is refusal
    request.files.clip_facts.parent.mkdir(parents=True, exist_ok=True)
    request.files.clip_facts.write_text(json.dumps({"engine": "musev"}))
    with pytest.raises(EngineError, match="in the clip that was made of anna") as caught, name_the_clip(request):
        raise refusal
    assert caught.value.code == "no_face"
    assert "another seed" in caught.value.hint
    assert find_chinese(caught.value.message) == "在由 anna.jpg 生成的片段中没有找到人脸"
    with pytest.raises(EngineError) as caught, name_the_clip(request):
        raise other
    assert caught.value is other
