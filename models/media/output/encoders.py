"""Which encoder makes all parts of a job: planned by `inspect`, settled on the device that
renders.

An encoder counts as usable after it has encoded two frames in this process.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from models.atomic import atomic_write
from models.media.output.encode import add_video_stream, check_machine
from models.media.pictures.colour import ToYuv
from models.types import EngineError, Inspection, JobFiles, Request

ENCODERS = ("libx264", "h264_nvenc")
FALLBACK = "libx264"
_CARDS = ("nvidia[0-9]*", "dxg")
_NVENC = "h264_nvenc"


def plan_encoder(asked: str) -> str:
    """Choose before the rendering device is known: "auto" and h264_nvenc stay open where this
    machine has a GPU.

    For workers that see no GPU of their own. Raises EngineError encoder_unavailable where no
    device has the encoder.
    """
    return choose_encoder(asked) if asked == "libx264" or not has_nvidia_gpu() else asked


def choose_encoder(asked: str) -> str:
    """Choose on the device that renders: `auto` is NVENC where a trial succeeds, else x264.

    Raises EngineError encoder_unavailable.
    """
    if asked == "auto":
        return _NVENC if probe_encoder(_NVENC) == "usable" else "libx264"
    if (state := probe_encoder(asked)) != "usable":
        raise EngineError("encoder_unavailable", f"the encoder {asked} can't be used here: {state}", 'ask for "auto"')
    return asked


def probe_encoder(encoder: str) -> str:
    """Return "usable" after a trial in this process succeeded, else the reason why it is not."""
    if encoder == _NVENC and not has_nvidia_gpu():
        return "there is no NVIDIA card"
    return try_encoder(encoder)


def has_nvidia_gpu() -> bool:
    return any(chain.from_iterable(Path("/dev").glob(node) for node in _CARDS))


@cache
def try_encoder(encoder: str) -> str:
    """Encode two frames, which also shows GPUs without NVENC. Return "usable", or what failed."""
    to_yuv = ToYuv()
    try:
        with av.open("/dev/null", "w", format="null") as output:
            stream = add_video_stream(output, Fraction(25), 256, 144, encoder, 23)
            for number in range(2):
                frame = to_yuv(np.full((144, 256, 3), 60 * number, np.uint8))
                frame.pts, frame.time_base = number, Fraction(1, 25)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    except av.FFmpegError as error:  # NVENC without a GPU raises PermissionError too, which is not about files
        check_machine(error)
        return f"it fails ({error.strerror})"
    return "usable"


def describe_worker() -> dict[str, Any]:
    """Return versions and usable encoders of this worker, for `musedrop doctor`."""
    states = {encoder: probe_encoder(encoder) for encoder in ENCODERS}
    return {"pyav": av.__version__, "opencv": cv2.__version__, "encoders": states}


def settle_encoder(request: Request, inspection: Inspection) -> None:
    """Decide on a rendering device, before rendering, what `inspect` left open, once for all
    devices.

    Raises EngineError encoder_unavailable where the encoder that was asked for doesn't work here.
    """
    if inspection.encoder == "auto" and not request.files.encoder.exists():
        _write_choice(request.files, choose_encoder("auto"))
    elif inspection.encoder != "auto":
        choose_encoder(inspection.encoder)


def read_encoder(files: JobFiles, inspection: Inspection) -> str:
    """Return the encoder of every part of the job, libx264 where none has been settled."""
    if inspection.encoder != "auto":
        return inspection.encoder
    return files.encoder.read_text("ascii") if files.encoder.exists() else FALLBACK


def fall_back(error: EngineError, files: JobFiles, inspection: Inspection) -> None:
    """Switch the job to x264 after a part failed because `auto` chose an encoder that is missing."""
    unavailable = error.code == "encoder_unavailable" and inspection.encoder == "auto"
    if unavailable and read_encoder(files, inspection) != FALLBACK:
        _write_choice(files, FALLBACK)


def _write_choice(files: JobFiles, encoder: str) -> None:
    with atomic_write(files.encoder) as temp_path:
        temp_path.write_text(encoder, "ascii")
