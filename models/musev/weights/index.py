"""Which files MuseV needs, in which forms they may lie in the models folder, and under which licence.

Standard library only: the daemon looks here. The folder is laid out as the hub's TMElyralab/MuseV.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.checkpoints.manifest import read_manifest, stamp_of
from models.checkpoints.sources import hub_path
from models.musetalk.weights.index import find_part as find_musetalk_part
from models.musetalk.weights.index import get_part as get_musetalk_part
from models.types import EngineError

VARIANTS = ("musev_referencenet", "musev")
"""What MuseV published, the default first."""
REPOSITORY = "TMElyralab/MuseV"
LICENCE = "non-commercial research only (README of MuseV); creativeml-openrail-m (its page on the hub)"
LICENCE_NOTE = "made with the weights of MuseV, which are for non-commercial research only"
WATERMARK_NOTE = "the training videos of these weights bear watermarks, which may show in the clip"
BASES = "t2i/sd1.5"
DEFAULT_BASE = "majicmixRealv6Fp16"
CONVERTED = "converted/musev"
LCM_FILE = "lcm/lcm-lora-sdv1-5/pytorch_lora_weights.safetensors"
"""Changes of a base model, with which it needs a few steps: what the option `lcm` takes."""
DIFFUSERS_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
)
TRANSFORMERS_FILES = ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class Part:
    """One network: the name of its conversion, what it does, its folder, and the names its weights may have.

    `config` is "" where it has none.
    """

    name: str
    does: str
    folder: str
    names: tuple[str, ...]
    config: str = "config.json"

    @property
    def converted(self) -> str:
        return f"{CONVERTED}/{self.name}.safetensors"

    @property
    def config_file(self) -> str:
        return f"{self.folder}/{self.config}" if self.config else ""

    @property
    def originals(self) -> tuple[str, ...]:
        return tuple(f"{self.folder}/{name}" for name in self.names)


@dataclass(frozen=True, slots=True)
class InstalledPart:
    """A part that is there, and the file with its weights that will be used."""

    part: Part
    root: Path
    file: str

    @property
    def path(self) -> Path:
        return self.root / self.file

    @property
    def config_path(self) -> Path:
        return self.root / self.part.config_file


@dataclass(frozen=True, slots=True)
class Selection:
    """A variant on a base model, whose folder is relative to the models folder; `lcm`: with the LCM-LoRA."""

    variant: str = VARIANTS[0]
    base: str = f"{BASES}/{DEFAULT_BASE}"
    lcm: bool = False

    @property
    def has_reference(self) -> bool:
        return self.variant == "musev_referencenet"

    @property
    def parts(self) -> tuple[Part, ...]:
        """All networks but the VAE, which is MuseTalk's."""
        base = re.sub(r"[^\w.-]+", "-", self.base.removeprefix(f"{BASES}/"))
        motion = f"motion/{self.variant}"
        found = [Part(f"{self.variant}-unet", "moves a picture", f"{motion}/unet", DIFFUSERS_FILES)]
        if self.has_reference:
            found += [
                Part(f"{self.variant}-referencenet", "keeps the person", f"{motion}/referencenet", DIFFUSERS_FILES),
                Part(f"{self.variant}-picture", "reads the picture", motion, ("ip_adapter_image_proj.bin",), ""),
                Part("picture-encoder", "sees the picture", "IP-Adapter/models/image_encoder", TRANSFORMERS_FILES),
            ]
        return (
            *found,
            Part(f"base-{base}-unet", "draws (base model)", f"{self.base}/unet", DIFFUSERS_FILES),
            Part(f"base-{base}-words", "reads the prompt", f"{self.base}/text_encoder", TRANSFORMERS_FILES),
        )

    @property
    def small_files(self) -> tuple[str, ...]:
        """What there is beside networks: words and steps of the base model, and what makes it need few of them."""
        names = ("tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json")
        return (*(f"{self.base}/{name}" for name in names), *((LCM_FILE,) if self.lcm else ()))

    def get_part(self, ending: str) -> Part:
        """Return the part whose name ends so: "unet", "referencenet", "picture", "picture-encoder", "words" ..."""
        return next(part for part in self.parts if part.name.endswith(ending))

    @property
    def motion(self) -> Part:
        return self.parts[0]

    @property
    def base_unet(self) -> Part:
        return self.parts[-2]


def select_base(base: str) -> str:
    """Return the folder of a base model by what a job calls it: "" is the default. Raises EngineError bad_option.

    >>> select_base(""), select_base("fantasticmix_v10"), select_base("t2i/other/mine")
    ('t2i/sd1.5/majicmixRealv6Fp16', 't2i/sd1.5/fantasticmix_v10', 't2i/other/mine')
    """
    steps = base.split("/")
    if base and (any(step in ("", ".", "..") for step in steps) or "\\" in base or "\0" in base):
        hint = f"name a folder inside {BASES} of the models folder, such as {DEFAULT_BASE}"
        raise EngineError("bad_option", f'motion.base "{base[:80]}" is no folder of the models folder', hint)
    return base if len(steps) > 1 else f"{BASES}/{base or DEFAULT_BASE}"


def find_part(part: Part, root: Path) -> InstalledPart | None:
    """Return the best form of a part in `root`, or None. A conversion that is older than its source doesn't count."""
    if part.config and not is_file(root / part.config_file):
        return None
    for file in (part.converted, *part.originals):
        if is_file(root / file) and not (file == part.converted and is_outdated(part, root)):
            return InstalledPart(part, root, file)
    return None


def is_file(path: Path) -> bool:
    """Whether a file is there; what may not be read is not."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises


def is_outdated(part: Part, root: Path) -> bool:
    """Whether the file that a conversion was made from has been changed since."""
    entry = read_manifest(root / CONVERTED).get(Path(part.converted).name)
    if entry is None or entry.source is None:
        return False
    source = root / entry.source.path
    return is_file(source) and not entry.source.matches(stamp_of(source))


def missing_files(root: Path, selection: Selection) -> list[str]:
    """Return the relative names of the files that a job still needs."""
    files: list[str] = []
    for part in selection.parts:
        if find_part(part, root) is None:
            has_weights = any(is_file(root / file) for file in (part.converted, *part.originals))
            wanted = ([part.config_file] if part.config else []) + ([] if has_weights else [usual_file(part)])
            files += [file for file in wanted if not is_file(root / file)]
    files += [file for file in selection.small_files if not is_file(root / file)]
    if find_musetalk_part(get_musetalk_part("vae"), root) is None:
        files += ["sd-vae/config.json", "sd-vae/diffusion_pytorch_model.bin"]
    return files


def default_variant(root: Path) -> str:
    """Return the variant of a job that names none: the better one of those that are whole, on the default base."""
    return next((one for one in VARIANTS if not missing_files(root, Selection(one))), VARIANTS[0])


def list_missing_for_default(root: Path) -> list[str]:
    """Return what a job still needs that names neither variant nor base."""
    return missing_files(root, Selection(default_variant(root)))


def usual_file(part: Part) -> str:
    """Return the form in which the weights of a part are published."""
    return part.originals[0] if part.name == "picture-encoder" else part.originals[-1]


def list_alternatives(file: str, selection: Selection) -> Iterator[str]:
    """Yield the names under which a hub may have the file, the usual one first."""
    yield file
    for part in selection.parts:
        if file in part.originals:
            yield from (other for other in part.originals if other != file)


def installed_files(root: Path, selection: Selection) -> list[Path]:
    """Return the files that decide what a clip is, where all are there."""
    parts = [part for part in (find_part(one, root) for one in selection.parts) if part]
    vae = find_musetalk_part(get_musetalk_part("vae"), root)
    files = [path for part in parts for path in (part.path, *([part.config_path] if part.part.config else []))]
    return [*files, *(root / name for name in selection.small_files), *(vae.files if vae else ())]


def list_used_files(root: Path, motion: Mapping[str, Any]) -> list[Path]:
    """Return the same of what a job asks for; see `Request.motion`. Raises EngineError bad_option."""
    variant = motion.get("variant") or default_variant(root)
    lcm = motion.get("options", {}).get("lcm") is True
    return installed_files(root, Selection(variant, select_base(motion.get("base", "")), lcm))


def missing_error(root: Path, selection: Selection) -> EngineError:
    """Return the error of a job whose weights are not all in `root`."""
    files = missing_files(root, selection)
    message = f"{len(files)} files of {selection.variant} are missing: {', '.join(files)}"
    if selection.base != Selection().base and any(file.startswith(f"{selection.base}/") for file in files):
        bases = ", ".join(sorted(path.name for path in (root / BASES).glob("*/") if path.is_dir())) or "none"
        hint = f"leave out motion.base, or put a Stable Diffusion 1.5 for diffusers there; {BASES} has {bases}"
        return EngineError("weights_missing", message, hint)
    return EngineError("weights_missing", message, f"get them with `{fetch_command(selection)}`; mind their licence")


def fetch_command(selection: Selection, files: Iterable[str] = ()) -> str:
    variant = "" if selection.variant == VARIANTS[0] else f" --variant {selection.variant}"
    variant += " --lcm" if selection.lcm else ""
    names = "".join(f" {file}" for file in files)
    return f"musedrop models fetch --engine musev{variant} --accept-licence{' --replace' if names else ''}{names}"


def repair_hint(file: str) -> str:
    """Return the command that repairs a file which is damaged or not what it should be."""
    if file.startswith(f"{CONVERTED}/"):
        return "convert it again with `musedrop models import --engine musev --replace`"
    if file == LCM_FILE:
        return f"download it again with `{fetch_command(Selection(lcm=True), [file])}`"
    if file.startswith("motion/musev/"):
        return f"download it again with `{fetch_command(Selection('musev'), [file])}`"
    return f"download it again with `{fetch_command(Selection(), [file])}`"


def source_url(file: str) -> str:
    """Return the address of a file of MuseV or of its default base model, below an endpoint of the hub."""
    if file.startswith("sd-vae/"):
        return hub_path("stabilityai/sd-vae-ft-mse", file.removeprefix("sd-vae/"))
    return hub_path(REPOSITORY, file)
