"""Animated WebP as a video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from models import media
from models.types import EngineError, Limits
from tests import media_samples as samples

LIMITS = Limits()


def test_animations_are_videos(tmp_path: Path) -> None:
    """An animated WebP moves and can be read backwards; one picture, even of an animation, is an image."""
    pictures = [np.dstack([samples.numbered(n), np.full((64, 96), 255, np.uint8)]) for n in range(40)]
    for count, kind in ((40, "video"), (1, "image")):
        animation = cv2.Animation()
        animation.frames, animation.durations = pictures[:count], [40] * count
        path = tmp_path / f"{count}.webp"
        assert cv2.imwriteanimation(str(path), animation, [cv2.IMWRITE_WEBP_QUALITY, 95])
        picture = media.read_picture(path, path.name, LIMITS)
        assert (picture.kind, picture.width, picture.height, picture.frames) == (kind, 96, 64, count)
        with media.VideoFrames(path, Fraction(25)) as frames:
            order = [*range(count), *range(count - 1, -1, -1)]
            assert samples.numbers_shown(frames, order) == order
    with pytest.raises(EngineError, match="video_too_long"):
        media.read_picture(tmp_path / "40.webp", "40.webp", Limits(video_s=1.0))
    with pytest.raises(EngineError, match="avatar_too_large"):
        media.read_picture(tmp_path / "40.webp", "40.webp", Limits(pixels=96 * 64))
