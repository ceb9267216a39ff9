"""Which encoders work on this device: each is tried before it is promised."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from models.media.colour import ToYuv
from models.media.encode import add_video
from models.types import EngineError

ENCODERS = ("libx264", "h264_nvenc")
_CARDS = ("nvidia[0-9]*", "dxg")
_NVENC = "h264_nvenc"


def plan_encoder(asked: str) -> str:
    """What is known before the rendering device is: "auto" and h264_nvenc stay open where this machine has a card.

    For workers that see no card of their own. Raises EngineError encoder_unavailable where no device can have it.
    """
    return choose_encoder(asked) if asked == "libx264" or not has_card() else asked


def choose_encoder(asked: str) -> str:
    """On the device that renders: `auto` is NVENC where it really encodes, else x264.

    Raises EngineError encoder_unavailable.
    """
    if asked == "auto":
        return _NVENC if encoder_state(_NVENC) == "usable" else "libx264"
    if (state := encoder_state(asked)) != "usable":
        raise EngineError("encoder_unavailable", f"the encoder {asked} can't be used here: {state}", 'ask for "auto"')
    return asked


def encoder_state(encoder: str) -> str:
    """ "usable" once it has encoded two frames in this process, else what stands in the way."""
    if encoder == _NVENC and not has_card():
        return "there is no NVIDIA card"
    return trial(encoder)


def has_card() -> bool:
    return any(chain.from_iterable(Path("/dev").glob(node) for node in _CARDS))


@cache
def trial(encoder: str) -> str:
    """Encode two frames: "usable", or what failed. Data-centre cards and full ones show only in this way."""
    to_yuv = ToYuv()
    try:
        with av.open("/dev/null", "w", format="null") as output:
            stream = add_video(output, Fraction(25), 256, 144, encoder, 23)
            for number in range(2):
                frame = to_yuv(np.full((144, 256, 3), 60 * number, np.uint8))
                frame.pts, frame.time_base = number, Fraction(1, 25)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    except av.FFmpegError as error:  # without a card NVENC's is a PermissionError too: it says nothing about files
        return f"it fails ({error.strerror})"
    return "usable"


def examine() -> dict[str, Any]:
    """What `musedrop doctor` wants to know of a worker."""
    states = {encoder: encoder_state(encoder) for encoder in ENCODERS}
    return {"pyav": av.__version__, "opencv": cv2.__version__, "encoders": states}
