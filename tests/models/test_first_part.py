"""The first part of a video as a video of its own."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

from models.handler import Handler
from models.media import VideoFrames
from models.types import Request
from tests.share import face, voice

FRAMES = 5


def test_the_first_part_plays_with_its_sound(tmp_path: Path) -> None:
    """Its frames are the first of the result, its sound is as long as they are, and its title says what it is."""
    for folder in ("work", "out", "cache"):
        (tmp_path / folder).mkdir()
    (tmp_path / "face.jpg").write_bytes(face())
    (tmp_path / "voice.wav").write_bytes(voice(0.4))
    request = Request(
        *("preview", str(tmp_path / "face.jpg"), str(tmp_path / "voice.wav"), str(tmp_path / "work")),
        *(str(tmp_path / "out" / "run"), str(tmp_path / "cache"), str(tmp_path)),
        metadata={"title": "hello"},
    )
    handler = Handler("cpu:0")
    outline = handler.inspect(request).to_dict()
    asked = {"request": request.to_dict(), "outline": outline}
    stages: tuple[tuple[str, int, int, dict[str, int]], ...] = (
        ("prepare", 0, 1, {}),
        ("render", 0, FRAMES, {}),
        ("first", 0, 1, {"stop": FRAMES}),
    )
    for stage, start, stop, more in stages:
        assert handler.run({"stage": stage, **asked, **more}, start, stop, lambda _: None) == {}
    [made] = Path(request.first_out).iterdir()
    assert made.name == "first.mp4"
    with (
        VideoFrames(made, Fraction(25)) as video,
        VideoFrames(request.files.part_path(0, FRAMES), Fraction(25)) as part,
    ):
        assert all((video.read(number) == part.read(number)).all() for number in range(FRAMES))
    with av.open(str(made)) as container:
        assert container.metadata["title"] == "hello (the first seconds)"
        [sound] = container.streams.audio
        assert abs((sound.duration or 0) * (sound.time_base or 0) - FRAMES / 25) < 0.03
