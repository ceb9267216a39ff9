"""The motion engine `diffusers`: image-to-video pipelines, one denoising step at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.motion.catalog import find_pipelines
from models.motion.diffusers.families import NEGATIVE_PROMPT, PROMPT, Family, read_index
from models.motion.prompts import check_brackets, check_tokenizer_files, refuse_long
from models.motion.sizes import choose_size
from models.motion.tensors import read_arrays, write_arrays, write_frame
from models.motion.threads import use_one_thread
from models.motion.types import MotionFiles, MotionPlan, MotionRequest
from models.types import EngineError, ProgressCallback

if TYPE_CHECKING:
    from models.motion.diffusers.stepping import OneStep

SIZE = 512
PIXEL_BYTES = 60
"""Memory of a card for each pixel of all frames beside the largest network; an estimate, not measured."""
DECODED_PIXEL_BYTES = 1_500
"""The same for each pixel of the frames that are decoded together, six tensors of 128 channels."""
MAX_TOKENS = 512
"""Of a prompt of Wan; what is beyond would be cut off."""
RANGES = {"motion_bucket_id": (1, 255), "noise_aug_strength": (0, 1)}


class DiffusersEngine:
    """See models.motion.types.MotionEngine. A unit is a step of the whole clip, with both halves of the guidance."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._pipeline: tuple[tuple[Path, str], Any] | None = None

    def inspect(self, request: MotionRequest) -> MotionPlan:
        """See MotionEngine.inspect. Also raises EngineError bad_option for a pipeline that is not known."""
        folder = find_folder(request)
        family, index = read_index(folder)
        if request.base:
            raise EngineError("bad_option", f"{family.name} has no other base model", 'leave out "base"')
        read_options(request, family)
        check_prompts(request, family, folder)
        frames = count_frames(request, family, folder)
        largest, pixel_bytes = find_largest_bytes(folder), PIXEL_BYTES * frames + DECODED_PIXEL_BYTES * family.decoded

        def count_bytes(wide: int, tall: int) -> int:
            return largest + pixel_bytes * wide * tall

        width, height = choose_size(read_size(request), request.size, SIZE, count_bytes, request.device_bytes)
        asked: dict[str, Any] = {
            "prompt": (PROMPT if request.prompt is None else request.prompt) if family.has_text else "",
            "negative_prompt": NEGATIVE_PROMPT if request.negative_prompt is None else request.negative_prompt,
            "seed": request.seed,
            "guidance": request.guidance or family.guidance,
            "steps": request.steps or family.steps,
        }
        facts = {"engine": "diffusers", "weights": folder.name, "licence": family.licence, **asked}
        facts |= {"pipeline": family.cls, "scheduler": str(index["scheduler"][1])}
        identity = {**facts, "size": [width, height], "frames": frames, "options": request.options}
        return MotionPlan(
            request,
            width,
            height,
            frames,
            str(family.fps),
            (1,) * int(asked["steps"]),
            {**identity, "stamp": stamp_folder(folder)},
            memory_bytes=count_bytes(width, height),
            facts=facts,
            notes=tuple(note_limits(request, family, frames)),
        )

    @use_one_thread()
    def prepare(self, plan: MotionPlan, folder: Path, report: ProgressCallback) -> None:
        import torch

        report(0)
        files, family = MotionFiles(folder), read_index(find_folder(plan.request))[0]
        constants: dict[str, Any] = {"none": np.zeros(1, np.float32)}
        with self.open_pipeline(plan, report) as pipeline, torch.inference_mode():
            if family.has_text:
                embeds = pipeline.encode_prompt(
                    plan.facts["prompt"],
                    plan.facts["negative_prompt"],
                    plan.facts["guidance"] > 1,
                    max_sequence_length=MAX_TOKENS,
                    device=self.place,
                )
                names = ("prompt_embeds", "negative_prompt_embeds")
                constants = {
                    name: one.float().cpu().numpy() for name, one in zip(names, embeds, strict=True) if one is not None
                }
        write_arrays(files.constants, constants)
        latents, _ = self._call(files, None, None, report, output_type="latent")
        write_arrays(files.state_path(0), {"latents": latents.float().cpu().numpy()})
        report(1)

    @use_one_thread()
    def denoise(self, folder: Path, step: int, start: int, stop: int, report: ProgressCallback) -> None:
        report(0)
        files = MotionFiles(folder)
        for unit in range(start, stop):
            if not files.unit_path(step, unit).exists():
                _, scheduler = self._call(files, step, read_latents(files, step), report, output_type="latent")
                assert scheduler.output is not None  # noqa: S101 - the pipeline has called the scheduler
                write_arrays(files.unit_path(step, unit), {"predicted": scheduler.output.float().cpu().numpy()})
            report(unit + 1 - start)

    @use_one_thread()
    def advance(self, folder: Path, step: int, report: ProgressCallback) -> None:
        from models.motion.diffusers.stepping import advance_scheduler

        report(0)
        files = MotionFiles(folder)
        plan, state = files.read_plan(), read_arrays(files.state_path(step))
        predicted = read_arrays(files.unit_path(step, 0))["predicted"]
        after = advance_scheduler(load_scheduler(plan), len(plan.units), step, state, predicted)
        write_arrays(files.state_path(step + 1), after)
        report(1)

    @use_one_thread()
    def decode(self, folder: Path, out: Path, report: ProgressCallback) -> None:
        files = MotionFiles(folder)
        steps = len(files.read_plan().units)
        frames, _ = self._call(files, None, read_latents(files, steps), report, output_type="np")
        for number, frame in enumerate(frames):
            report(0)
            picture = np.rint(np.clip(frame[..., ::-1], 0, 1) * 255).astype(np.uint8)
            write_frame(out, number, picture)

    @property
    def place(self) -> str:
        return "cpu" if self.device.startswith("cpu") else "cuda"

    def _call(
        self, files: MotionFiles, step: int | None, latents: Any, report: ProgressCallback, *, output_type: str
    ) -> tuple[Any, OneStep]:
        """Run the pipeline for one step, or for none; return what it makes and the scheduler that stood in."""
        import torch

        from models.motion.diffusers.stepping import OneStep

        plan = files.read_plan()
        family = read_index(find_folder(plan.request))[0]
        stand_in = OneStep(load_scheduler(plan), step, is_scaled=latents is not None)
        with self.open_pipeline(plan, report) as pipeline, torch.inference_mode():
            arguments: dict[str, Any] = {"image": read_photo(plan), "width": plan.width, "height": plan.height}
            arguments |= {"num_frames": plan.frames, "num_inference_steps": plan.facts["steps"]}
            arguments |= {family.guidance_key: plan.facts["guidance"], **read_options(plan.request, family)}
            arguments |= {
                "generator": torch.Generator("cpu").manual_seed(plan.request.seed),
                "output_type": output_type,
            }
            if family.decoded:
                arguments["decode_chunk_size"] = family.decoded
            if family.has_text:
                embeds = read_arrays(files.constants)
                arguments |= {name: to_tensor(one, self.place, pipeline.dtype) for name, one in embeds.items()}
            pipeline.scheduler = stand_in
            made = pipeline(**arguments, latents=None if latents is None else torch.from_numpy(latents))
        return (made.frames if output_type == "latent" else made.frames[0]), stand_in

    @contextmanager
    def open_pipeline(self, plan: MotionPlan, report: ProgressCallback) -> Iterator[Any]:
        """Yield the pipeline with its networks; each block of them reports, so that a cancelled call ends soon."""
        import torch

        folder = find_folder(plan.request)
        key = folder, stamp_folder(folder)
        if self._pipeline is None or self._pipeline[0] != key:
            self._pipeline = None  # free the memory of the old networks before the new ones take theirs
            self._pipeline = key, load_pipeline(folder, self.place)
        pipeline = self._pipeline[1]
        networks = (one for one in pipeline.components.values() if isinstance(one, torch.nn.Module))
        lists = (inner for network in networks for inner in network.modules() if isinstance(inner, torch.nn.ModuleList))
        hooks = [block.register_forward_pre_hook(lambda *_: report(0)) for blocks in lists for block in blocks]
        try:
            yield pipeline
        finally:
            for hook in hooks:
                hook.remove()


def find_folder(request: MotionRequest) -> Path:
    """Return the folder of the variant, or the first by name. Raises EngineError weights_missing."""
    pipelines = find_pipelines(Path(request.models_dir))
    found = [path for path in pipelines if path.name == request.variant or not request.variant]
    if not found:
        names = ", ".join(path.name for path in pipelines) or "none"
        message = (
            f"there is no pipeline {request.variant or 'for motion'} in {request.models_dir}/motion; {names} there"
        )
        raise EngineError("weights_missing", message, "docs/motion.md says which folders belong there")
    return found[0]


def check_prompts(request: MotionRequest, family: Family, folder: Path) -> None:
    """Raise EngineError bad_prompt for brackets without a partner, and for more tokens than the encoder takes."""
    for key in ("prompt", "negative_prompt"):
        text = getattr(request, key) or ""
        check_brackets(text, f"motion.{key}")
        may_be_long = family.has_text and len(text.encode()) >= MAX_TOKENS  # a token is a byte at least
        if may_be_long and (tokens := count_tokens(text, folder)) > MAX_TOKENS:
            raise refuse_long(tokens, MAX_TOKENS, f"motion.{key}")


def count_tokens(text: str, folder: Path) -> int:
    """Return the number of tokens, the last one included. Raises EngineError weights_damaged."""
    from transformers import AutoTokenizer

    load: Any = AutoTokenizer.from_pretrained
    try:
        check_tokenizer_files(folder / "tokenizer")
        tokenizer = load(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        message = f"the tokenizer in {folder} can't be loaded: {error}"[:900]
        raise EngineError("weights_damaged", message, "fetch the folder again") from error
    return len(tokenizer(text, verbose=False).input_ids)


def load_pipeline(folder: Path, place: str) -> Any:
    """Load the networks; on a card one after another is on it. Raises EngineError weights_damaged."""
    import diffusers
    import torch
    from safetensors import SafetensorError

    family, _ = read_index(folder)
    dtype = torch.bfloat16 if place == "cuda" else torch.float32
    try:
        pipeline = getattr(diffusers, family.cls).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        message = f"the pipeline in {folder} can't be loaded: {error}"[:900]
        raise EngineError("weights_damaged", message, "fetch the folder again; weights must be safetensors") from error
    pipeline.set_progress_bar_config(disable=True)
    if place == "cuda":
        pipeline.enable_model_cpu_offload()
        if hasattr(pipeline.vae, "use_tiling"):  # each has `enable_tiling`, which raises in those without
            pipeline.vae.enable_tiling()
    return pipeline


def load_scheduler(plan: MotionPlan) -> Any:
    import diffusers

    return getattr(diffusers, plan.facts["scheduler"]).from_pretrained(find_folder(plan.request), subfolder="scheduler")


def to_tensor(array: Any, place: str, dtype: Any) -> Any:
    import torch

    return torch.from_numpy(array).to(place, dtype)


def read_latents(files: MotionFiles, step: int) -> Any:
    return read_arrays(files.state_path(step))["latents"]


def read_photo(plan: MotionPlan) -> Any:
    """Return the middle of the photo in the shape of the clip, as a PIL image."""
    from PIL import Image, ImageOps

    with Image.open(plan.request.photo) as photo:
        return ImageOps.fit(photo.convert("RGB"), (plan.width, plan.height), Image.Resampling.LANCZOS)


def read_size(request: MotionRequest) -> tuple[int, int]:
    from PIL import Image

    with Image.open(request.photo) as photo:
        return photo.size


def read_options(request: MotionRequest, family: Family) -> dict[str, float]:
    """Return the pipeline's own arguments. Raises EngineError bad_option."""
    for name, value in request.options.items():
        low, high = RANGES.get(name, (0, 0))
        if name not in family.arguments:
            known = ", ".join(family.arguments) or "none"
            raise EngineError("bad_option", f"motion.options.{name} is no option of {family.name}", f"it has {known}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise EngineError("bad_option", f"motion.options.{name} is {value!r}", f"it is a number of {low} to {high}")
    return {**family.arguments, **request.options}


def count_frames(request: MotionRequest, family: Family, folder: Path) -> int:
    """Return the number of frames of the clip: what was asked for, as far as the pipeline makes it.

    Raises EngineError weights_damaged.
    """
    if not family.grain:
        return read_frames(folder / "unet" / "config.json")
    return min(family.most, max(1, round(request.seconds * family.fps / family.grain)) * family.grain + 1)


def read_frames(config: Path) -> int:
    """Return the frames of a clip of a pipeline that makes one length alone. Raises EngineError weights_damaged."""
    try:
        frames = json.loads(config.read_bytes())["num_frames"]
        if isinstance(frames, int) and frames > 1:
            return frames
        problem = f"num_frames is {frames!r}"[:80]
    except (OSError, ValueError, LookupError, TypeError) as error:
        problem = f"{error}"
    raise EngineError("weights_damaged", f"{config} says no number of frames ({problem})", "fetch the folder again")


def note_limits(request: MotionRequest, family: Family, frames: int) -> Iterator[str]:
    made_s = (frames - 1) / family.fps
    if abs(made_s - request.seconds) > 0.5:
        yield f"{family.name} makes clips of {made_s:.1f} s here; {request.seconds:g} s were asked for"
    if request.prompt and not family.has_text:
        yield f"{family.name} takes no prompt; it was ignored"


def find_largest_bytes(folder: Path) -> int:
    """Return the size of the files of the largest network: on a card there is one at a time."""
    parts = [path for path in folder.iterdir() if path.is_dir()]
    return max((sum(file.stat().st_size for file in part.glob("*.safetensors")) for part in parts), default=0)


def stamp_folder(folder: Path) -> str:
    """Return a hash of names, sizes and times of all files: it is another as soon as one is replaced."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = (f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
