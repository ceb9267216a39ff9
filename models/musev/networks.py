"""The networks of one worker on their device: UNet and VAE stay, what encodes photo and prompt goes after use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.arrays import U8
from models.checkpoints.manifest import stamp_files
from models.motion.tensors import read_arrays
from models.motion.types import MotionPlan
from models.musetalk.inpainting.math_flags import set_math_flags
from models.musetalk.inpainting.precision import DTYPES
from models.musetalk.weights.index import find_part as find_musetalk_part
from models.musetalk.weights.index import get_part as get_musetalk_part
from models.musetalk.weights.loader import load_part
from models.musev import pictures, prompts
from models.musev.denoising import Encoded
from models.musev.nets.unet import MotionUNet
from models.musev.recipe import Recipe
from models.musev.schedule import Schedule
from models.musev.weights import loader
from models.musev.weights.index import installed_files, missing_error
from models.types import EngineError

Tell = Callable[[], None]


def open_device(name: str) -> torch.device:
    """Return the torch device of "cpu:0", or of the only card that this process sees."""
    if name.startswith("cpu"):
        return torch.device("cpu")
    if not torch.backends.cuda.is_built():
        message = f"PyTorch {torch.__version__} is a build for processors alone, and can't use the card {name}"
        raise EngineError("engine_unavailable", message, "install its CUDA build, see https://pytorch.org")
    return torch.device("cuda:0")


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the format of numbers; a processor, which has no fast fp16, takes fp32 instead."""
    if device.type == "cpu":
        return DTYPES["bf16" if precision == "bf16" else "fp32"]
    return DTYPES["fp16" if precision == "auto" else precision]


class Networks:
    """What a plan needs loaded, each when it is first asked for."""

    def __init__(self, plan: MotionPlan, device: str) -> None:
        self.root = Path(plan.request.models_dir)
        self.recipe = Recipe.of_plan(plan)
        self.schedule = Schedule(self.recipe.scheduler, self.recipe.steps)
        self.device = open_device(device)
        self.dtype = choose_dtype(self.recipe.tuning.precision, self.device)
        self.stamp = stamp_files(installed_files(self.root, self.recipe.selection))
        self._encoded: tuple[tuple[str, int, int], Encoded] | None = None
        set_math_flags()

    @property
    def key(self) -> tuple[Any, ...]:
        """What the loaded networks depend on."""
        recipe = self.recipe
        return self.root, recipe.variant, recipe.base, recipe.fingerprint, recipe.tuning.precision

    @cached_property
    def unet(self) -> MotionUNet:
        return loader.load_unet(self.root, self.recipe.selection, self.device, self.dtype)

    @cached_property
    def vae(self) -> Any:
        found = find_musetalk_part(get_musetalk_part("vae"), self.root)
        if found is None:
            raise missing_error(self.root, self.recipe.selection)
        return load_part(found, self.device, self.dtype)

    @contextmanager
    def telling(self, tell: Tell) -> Iterator[None]:
        """Call `tell` before each layer of the UNet, which may raise."""
        self.unet.on_layer = tell
        try:
            yield
        finally:
            self.unet.on_layer = None

    @torch.inference_mode()
    def encode(self, photo: str, tell: Tell) -> tuple[Encoded, Tensor]:
        """Return photo and prompts as the UNet takes them, and the latents (1, 4, 1, h, w) of the photo."""
        recipe, root, selection = self.recipe, self.root, self.recipe.selection
        where = (root, selection, self.device, self.dtype)
        cropped = pictures.crop_photo(pictures.read_photo(photo), recipe.width, recipe.height, recipe.tuning.crop)
        picture = pictures.picture_for_latents(cropped, recipe.width, recipe.height)
        given = encode_picture(self.vae, picture.to(self.device, self.dtype))
        tell()
        tokenizer = loader.load_tokenizer(root, selection)
        tokens = [prompts.tokenize_prompt(text, tokenizer) for text in (recipe.negative_prompt, recipe.prompt)]
        words = prompts.encode_prompts(tokens, tokenizer, loader.load_words(*where))
        tell()
        if not selection.has_reference:
            return Encoded(words), given
        shown = pictures.picture_for_clip(cropped).to(self.device, self.dtype)
        embedding = loader.load_picture_encoder(*where)(shown).image_embeds
        tell()
        image = encode_image(loader.load_picture_tokens(*where, embedding.shape[-1]), embedding)
        maps = read_maps(loader.load_reference(*where), given.to(image), image)
        return Encoded(words, image, maps), given

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> U8:
        """Return (height, width, 3) uint8 BGR of latents (1, 4, 1, h, w)."""
        scaled = (latents[:, :, 0] / self.vae.config.scaling_factor).to(self.device, self.dtype)
        return pictures.picture_of_frame(self.vae.decode(scaled).sample[0])

    def read_encoded(self, path: Path) -> Encoded:
        """Return the constants of a clip on the device; those of the last clip stay there."""
        facts = path.stat()
        key = (str(path), facts.st_ino, facts.st_mtime_ns)
        if self._encoded is None or self._encoded[0] != key:
            tensors = {name: torch.from_numpy(one.copy()) for name, one in read_arrays(path).items()}
            there = {name: one.to(self.device, self.dtype) for name, one in tensors.items()}
            self._encoded = key, Encoded.of_tensors(there)
        return self._encoded[1]


def encode_picture(vae: Any, picture: Tensor) -> Tensor:
    """Return (1, 4, 1, h, w) float32 on the processor, the mean of the VAE, of a picture (1, 3, height, width)."""
    latents = vae.encode(picture).latent_dist.mean * vae.config.scaling_factor
    return latents.float().cpu()[:, :, None]


def encode_image(tokens: Any, embedding: Tensor) -> Tensor:
    """Return (2, 4, width): the tokens of an embedding of zeros, and those of the picture's."""
    return torch.cat([tokens(torch.zeros_like(embedding)), tokens(embedding)])


def read_maps(reference: Any, given: Tensor, image: Tensor) -> tuple[Tensor, ...]:
    """Return the maps of the photo's latents (1, 4, 1, h, w) for both halves of guidance."""
    return tuple(reference.read_maps(given[:, :, 0].expand(len(image), -1, -1, -1), image))


def adapt_networks(networks: Networks | None, plan: MotionPlan) -> Networks | None:
    """Give loaded networks another plan that needs the same ones; return None where it does not."""
    if networks is None:
        return None
    before, networks.recipe = networks.key, Recipe.of_plan(plan)
    same = networks.root == Path(plan.request.models_dir) and networks.key == before
    same = same and networks.stamp == stamp_files(installed_files(networks.root, networks.recipe.selection))
    networks.schedule = Schedule(networks.recipe.scheduler, networks.recipe.steps)
    return networks if same else None
