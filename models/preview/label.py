"""The label in the corner, so that nobody takes a preview for the real thing."""

from __future__ import annotations

from typing import Any

import cv2
import numpy.typing as npt

TEXT = "PREVIEW - no model weights"


def stamp(frame: npt.NDArray[Any]) -> None:
    """Write the label into the top left corner, in place; its size follows the frame's."""
    height, width = frame.shape[:2]
    size = max(0.3, min(height / 1000, width / 700))
    stroke = max(1, round(size * 1.4))
    (wide, high), below = cv2.getTextSize(TEXT, cv2.FONT_HERSHEY_SIMPLEX, size, stroke)
    margin = round(9 * size) + 2
    corner = frame[: high + below + 2 * margin, : wide + 2 * margin]
    corner //= 3
    cv2.putText(
        frame, TEXT, (margin, high + margin), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), stroke, cv2.LINE_AA
    )
