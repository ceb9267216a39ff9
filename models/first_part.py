"""Join the first part of a long video with its sound, to be looked at while the others are made."""

from __future__ import annotations

from pathlib import Path

from models import media
from models.atomic import hold_folder
from models.types import Inspection, Layer, Request


def assemble_first_part(request: Request, inspection: Inspection, stop: int) -> None:
    """Write frames [0, stop) with what is heard in them, as one video of its own, into `request.first_out`.

    Raises EngineError as `media.assemble_video` does.
    """
    layers = inspection.layers or (Layer("audio"),)
    out = Path(request.first_out)
    with hold_folder(out.parent) as staging:
        folder = staging / out.name
        folder.mkdir(exist_ok=True)
        media.assemble_video(
            [request.files.part_path(0, stop)],
            audio=request.files.audio,
            out=folder / request.output.first_name,
            frames=stop,
            fps=inspection.rate,
            metadata={**request.metadata, "title": f"{request.metadata.get('title', '')} (the first seconds)"},
            layers=[(request.files.medium_path(layer.role), layer) for layer in layers],
            alpha=request.output.alpha,
        )
