"""The pipelines of diffusers that are known: how each is called, and what it makes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.types import EngineError

PROMPT = (
    "a calm person looks into the camera, closed lips, natural eye blinks, slow breathing, very small movements of the"
    " head, still camera, even light"
)
NEGATIVE_PROMPT = (
    "open mouth, speaking, teeth, laughing, turning away, hands before the face, moving camera, cuts, zoom, text,"
    " watermark, deformed face, flicker, blur"
)


@dataclass(frozen=True, slots=True)
class Family:
    """A pipeline class of diffusers.

    cls            its name in diffusers
    name, licence  for result.json; the licence is that of the published weights
    fps            of the clip
    grain, most    frames are a multiple of `grain` and one more, at most `most`; 0: as many as the network says
    has_text       whether it takes prompts
    guidance_key   the argument for the guidance
    guidance, steps  the defaults
    arguments      further arguments, whose names are the options of a job
    decoded        frames that are decoded together; 0: the pipeline has no such argument
    """

    cls: str
    name: str
    licence: str
    fps: int
    grain: int = 0
    most: int = 0
    has_text: bool = True
    guidance_key: str = "guidance_scale"
    guidance: float = 5.0
    steps: int = 50
    arguments: Mapping[str, float] = field(default_factory=dict)
    decoded: int = 0


WAN = Family("WanImageToVideoPipeline", "Wan", "Apache-2.0", 24, grain=4, most=121)
SVD = Family(
    cls="StableVideoDiffusionPipeline",
    name="Stable Video Diffusion",
    licence="Stability AI Community License",
    fps=7,
    has_text=False,
    guidance_key="max_guidance_scale",
    guidance=3.0,
    steps=25,
    arguments={"motion_bucket_id": 60, "noise_aug_strength": 0.02},
    decoded=4,
)
FAMILIES: dict[str, Family] = {
    "WanPipeline": WAN,  # the published folder of TI2V-5B names the class that begins without a picture
    "WanImageToVideoPipeline": WAN,
    "StableVideoDiffusionPipeline": SVD,
}


def read_index(folder: Path) -> tuple[Family, dict[str, Any]]:
    """Return the family of a pipeline folder, and its model_index.json.

    Raises EngineError weights_missing, weights_damaged, bad_option for a class that is not known.
    """
    try:
        index: dict[str, Any] = json.loads((folder / "model_index.json").read_bytes())
        name = str(index["_class_name"])
    except FileNotFoundError:
        message = f"there is no pipeline in {folder}"
        raise EngineError("weights_missing", message, "docs/motion.md says which folders belong there") from None
    except (ValueError, KeyError, TypeError) as error:
        message = f"{folder.name}/model_index.json is damaged: {error}"
        raise EngineError("weights_damaged", message, "fetch the folder again") from error
    is_text_only = name == "WanPipeline" and not index.get("expand_timesteps")
    if name not in FAMILIES or is_text_only:
        message = f"{folder.name} holds a {name}, which does not begin with a photo or is not known here"
        raise EngineError("bad_option", message, f"use a folder of {', '.join(sorted(set(FAMILIES)))}")
    return FAMILIES[name], index
