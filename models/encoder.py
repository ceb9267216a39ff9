"""Which encoder all parts of a job are made with: planned by `inspect`, settled on the device that renders."""

from __future__ import annotations

from models import media
from models.atomic import whole_file
from models.types import EngineError, JobFiles, Outline, Request

FALLBACK = "libx264"


def settle(request: Request, outline: Outline) -> None:
    """On a rendering device, before anything is rendered: decide what `inspect` left open, once for all devices.

    Raises EngineError encoder_unavailable where the encoder that was asked for doesn't work here.
    """
    if outline.encoder == "auto" and not request.files.encoder.exists():
        _write(request.files, media.choose_encoder("auto"))
    elif outline.encoder != "auto":
        media.choose_encoder(outline.encoder)


def settled(files: JobFiles, outline: Outline) -> str:
    if outline.encoder != "auto":
        return outline.encoder
    return files.encoder.read_text("ascii") if files.encoder.exists() else FALLBACK


def give_way(error: EngineError, files: JobFiles, outline: Outline) -> None:
    """After a part failed: where `auto` chose an encoder that this device can't offer, the whole job takes x264."""
    if error.code == "encoder_unavailable" and outline.encoder == "auto" and settled(files, outline) != FALLBACK:
        _write(files, FALLBACK)


def _write(files: JobFiles, encoder: str) -> None:
    with whole_file(files.encoder) as beside:
        beside.write_text(encoder, "ascii")
