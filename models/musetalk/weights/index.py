"""Which weights MuseTalk needs, in which forms they may lie in the models folder, and where they come from.

Standard library only: the daemon looks here. The folder is the one that MuseTalk's own download scripts lay out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.checkpoints.manifest import read_manifest, recorded_sha256, stamp_of
from models.checkpoints.sources import Source, hub_path
from models.musetalk.weights.published_configs import MEL, TAESD, UNET, VAE, WHISPER
from models.types import EngineError

Version = Literal["v15", "v1"]
VERSIONS: tuple[Version, ...] = ("v15", "v1")
Form = Literal["converted", "safetensors", "pickle", "onnx"]
CONVERTED = "converted"


@dataclass(frozen=True, slots=True)
class Variant:
    """One form in which a network may lie in the folder: its weights and the files beside them, as relative paths."""

    form: Form
    weights: str
    configs: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        return (self.weights, *self.configs)

    def is_complete(self, root: Path) -> bool:
        """Whether all files are there; a folder that may not be read, as another user's home, has none."""
        return all(os.path.isfile(root / file) for file in self.files)  # noqa: PTH113 - Path.is_file raises


@dataclass(frozen=True, slots=True)
class Part:
    """One network. `variants` are its forms, best first; `hub` a name in torch's own download folder."""

    name: str
    does: str
    variants: tuple[Variant, ...]
    version: Version | None = None
    hub: str = ""


@dataclass(frozen=True, slots=True)
class InstalledPart:
    """A part that is there, in the form that will be used."""

    part: Part
    variant: Variant
    root: Path

    @property
    def weights(self) -> Path:
        return self.root / self.variant.weights

    @property
    def configs(self) -> tuple[Path, ...]:
        return tuple(self.root / name for name in self.variant.configs)

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.weights, *self.configs)


OLD_WHISPER = "whisper/tiny.pt"
"""OpenAI's own file, which releases before 2025 used."""
S3FD_URL = "https://www.adrianbulat.com/downloads/python-fan/s3fd-619a316812.pth"


# Sizes and hashes of the files as published in 2024 and 2025; v1's weights have none that could be confirmed: what the
# first download brings is held to by all later ones.
SOURCES: dict[str, Source] = {
    "musetalkV15/unet.pth": Source(
        hub_path("TMElyralab/MuseTalk", "musetalkV15/unet.pth"),
        3_400_074_924,
        "7ebf6c98c181e20838e4c0054e96e944ac60d5d692cc01db42839fe11b787007",
    ),
    "musetalkV15/musetalk.json": Source(hub_path("TMElyralab/MuseTalk", "musetalkV15/musetalk.json"), config=UNET),
    "musetalk/pytorch_model.bin": Source(hub_path("TMElyralab/MuseTalk", "musetalk/pytorch_model.bin")),
    "musetalk/musetalk.json": Source(hub_path("TMElyralab/MuseTalk", "musetalk/musetalk.json"), config=UNET),
    "sd-vae/config.json": Source(hub_path("stabilityai/sd-vae-ft-mse", "config.json"), config=VAE),
    "sd-vae/diffusion_pytorch_model.bin": Source(
        hub_path("stabilityai/sd-vae-ft-mse", "diffusion_pytorch_model.bin"),
        334_707_217,
        "1b4889b6b1d4ce7ae320a02dedaeff1780ad77d415ea0d744b476155c6377ddc",
    ),
    "whisper/config.json": Source(hub_path("openai/whisper-tiny", "config.json"), config=WHISPER),
    "whisper/pytorch_model.bin": Source(
        hub_path("openai/whisper-tiny", "pytorch_model.bin"),
        151_095_027,
        "9607f98a2b22d9e229ae43c52ecea79dcede9e0c5cfae67e8da6eda86d8aac1d",
    ),
    "whisper/preprocessor_config.json": Source(hub_path("openai/whisper-tiny", "preprocessor_config.json"), config=MEL),
    "dwpose/dw-ll_ucoco_384.pth": Source(
        hub_path("yzd-v/DWPose", "dw-ll_ucoco_384.pth"),
        406_878_486,
        "0d9408b13cd863c4e95a149dd31232f88f2a12aa6cf8964ed74d7d97748c7a07",
    ),
    "face-parse-bisent/79999_iter.pth": Source(
        hub_path("ManyOtherFunctions/face-parse-bisent", "79999_iter.pth"),
        53_289_463,
        "468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
    ),
    "s3fd/s3fd-619a316812.pth": Source(
        S3FD_URL, 89_843_225, "619a31681264d3f7f7fc7a16a42cbbe8b23f31a256f75a366e5a1bcd59b33543"
    ),
    "taesd/config.json": Source(hub_path("madebyollin/taesd", "config.json"), config=TAESD),
    "taesd/diffusion_pytorch_model.safetensors": Source(
        hub_path("madebyollin/taesd", "diffusion_pytorch_model.safetensors"),
        9_793_292,
        "db169d69145ec4ff064e49d99c95fa05d3eb04ee453de35824a6d0f325513549",
    ),
}


def unet_part(version: Version, folder: str, pickle: str) -> Part:
    config = f"{folder}/musetalk.json"
    stem = pickle.rpartition(".")[0]
    return Part(
        f"unet-{version}",
        f"paints the mouth ({version})",
        (
            Variant("converted", f"{CONVERTED}/unet-{version}.safetensors", (f"{CONVERTED}/unet-{version}.json",)),
            Variant("safetensors", f"{folder}/{stem}.safetensors", (config,)),
            Variant("pickle", f"{folder}/{pickle}", (config,)),
        ),
        version,
    )


MUSEV_VAE = "vae/sd-vae-ft-mse"
"""Where the models folder of MuseV has the same file."""
WHISPER_CONFIGS = ("whisper/config.json", "whisper/preprocessor_config.json")
PARTS: tuple[Part, ...] = (
    unet_part("v15", "musetalkV15", "unet.pth"),
    unet_part("v1", "musetalk", "pytorch_model.bin"),
    Part(
        "vae",
        "turns pictures into latents and back",
        (
            Variant("converted", f"{CONVERTED}/vae.safetensors", (f"{CONVERTED}/vae.json",)),
            Variant("safetensors", "sd-vae/diffusion_pytorch_model.safetensors", ("sd-vae/config.json",)),
            Variant("pickle", "sd-vae/diffusion_pytorch_model.bin", ("sd-vae/config.json",)),
            Variant("safetensors", "sd-vae-ft-mse/diffusion_pytorch_model.safetensors", ("sd-vae-ft-mse/config.json",)),
            Variant("pickle", "sd-vae-ft-mse/diffusion_pytorch_model.bin", ("sd-vae-ft-mse/config.json",)),
            Variant("safetensors", f"{MUSEV_VAE}/diffusion_pytorch_model.safetensors", (f"{MUSEV_VAE}/config.json",)),
            Variant("pickle", f"{MUSEV_VAE}/diffusion_pytorch_model.bin", (f"{MUSEV_VAE}/config.json",)),
        ),
    ),
    Part(
        "whisper",
        "hears the voice",
        (
            Variant(
                "converted",
                f"{CONVERTED}/whisper.safetensors",
                (f"{CONVERTED}/whisper.json", f"{CONVERTED}/whisper-preprocessor.json"),
            ),
            Variant("safetensors", "whisper/model.safetensors", WHISPER_CONFIGS),
            Variant("pickle", "whisper/pytorch_model.bin", WHISPER_CONFIGS),
        ),
    ),
    Part(
        "pose",
        "finds the points of the face (DWPose)",
        (
            Variant("converted", f"{CONVERTED}/pose.safetensors"),
            Variant("safetensors", "dwpose/dw-ll_ucoco_384.safetensors"),
            Variant("pickle", "dwpose/dw-ll_ucoco_384.pth"),
            Variant("onnx", "dwpose/dw-ll_ucoco_384.onnx"),
        ),
    ),
    Part(
        "bisenet",
        "finds skin, lips and hair",
        (
            Variant("converted", f"{CONVERTED}/bisenet.safetensors"),
            Variant("safetensors", "face-parse-bisent/79999_iter.safetensors"),
            Variant("pickle", "face-parse-bisent/79999_iter.pth"),
        ),
    ),
    Part(
        "s3fd",
        "finds faces (S3FD)",
        (
            Variant("converted", f"{CONVERTED}/s3fd.safetensors"),
            Variant("safetensors", "s3fd/s3fd-619a316812.safetensors"),
            Variant("pickle", "s3fd/s3fd-619a316812.pth"),
            Variant("pickle", "s3fd/s3fd.pth"),
        ),
        hub="s3fd-619a316812.pth",
    ),
)
DRAFT_DECODER = Part(
    "taesd",
    "decodes drafts (TAESD)",
    (Variant("safetensors", "taesd/diffusion_pytorch_model.safetensors", ("taesd/config.json",)),),
)
"""A small decoder of the same latents, which no job needs."""


READY_PARTS = ("unet-v15", "unet-v1", "vae")
"""Whose conversion may have ready files beside it; see `inpainting.fused_weights`."""


def ready_file(name: str, precision: str) -> str:
    """Return the name of the ready file of the part `name` for "fp16", "bf16" or "fp32"."""
    return f"{CONVERTED}/{name}.{precision}.safetensors"


def get_part(name: str) -> Part:
    return next(part for part in (*PARTS, DRAFT_DECODER) if part.name == name)


def parts_of(version: Version) -> tuple[Part, ...]:
    """Return the six networks that a job of this version needs."""
    return tuple(part for part in PARTS if part.version in (None, version))


def published_files(version: Version) -> list[str]:
    """Return the files that can be downloaded for a version, as MuseTalk's own scripts lay them out."""
    files = (file for part in parts_of(version) for file in files_of(part))
    return [file for file in files if file in SOURCES]


def find_part(part: Part, root: Path) -> InstalledPart | None:
    """Return the best form of `part` that is complete in `root`, or None. An outdated conversion does not count."""
    for variant in forms_of(part):
        if variant.is_complete(root) and not is_outdated(variant, root):
            return InstalledPart(part, variant, root)
    return None


def forms_of(part: Part) -> Iterable[Variant]:
    yield from part.variants
    if part.hub:
        yield Variant("pickle", str(torch_hub_folder() / part.hub))


def torch_hub_folder() -> Path:
    """Return the folder where torch keeps what it downloads; MuseTalk's own code leaves the S3FD weights there."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - Path raises without a home
    home = os.environ.get("TORCH_HOME") or str(Path(cache) / "torch")
    return Path(home) / "hub" / "checkpoints"


def is_outdated(variant: Variant, root: Path) -> bool:
    """Whether a converted file was made from a file of this same folder that has been changed since."""
    if variant.form != "converted":
        return False
    entry = read_manifest(root / CONVERTED).get(Path(variant.weights).name)
    if entry is None or entry.source is None:
        return False
    source = root / entry.source.path
    inside = not Path(entry.source.path).is_absolute()
    return inside and source.is_file() and not entry.source.matches(stamp_of(source))


def installed_versions(root: Path) -> tuple[Version, ...]:
    """Return the versions whose UNet is here, the better one first."""
    return tuple(version for version in VERSIONS if find_part(get_part(f"unet-{version}"), root))


def list_installed_files(root: Path) -> list[Path]:
    """Return the files of the networks that a job uses which names no version; none where some are missing."""
    found = [find_part(part, root) for part in parts_of(default_version(root))]
    return [file for part in found if part for file in part.files] if all(found) else []


def default_version(root: Path) -> Version:
    """Return the version of a job that names none: the better one of those that are here."""
    return next(iter(installed_versions(root)), VERSIONS[0])


def missing_files(root: Path, asked: object = None) -> list[str]:
    """Return the relative names of the files that a job still needs which asks for this version.

    None, or what is no version, stands for the default.
    """
    version = next((version for version in VERSIONS if version == asked), None) or default_version(root)
    return missing_files_for(version, root)


def read_hashes(version: Version, root: Path, more: Iterable[Part] = ()) -> dict[str, str]:
    """Return name in the folder -> SHA-256 of the weights in use, as far as `models fetch` or `verify` noted it."""
    parts = (*parts_of(version), *more)
    found = [installed for part in parts if (installed := find_part(part, root)) is not None]
    hashes = {one.variant.weights: read_hash(one.root, one.variant.weights) for one in found}
    return {name: digest for name, digest in hashes.items() if digest}


def read_hash(root: Path, name: str) -> str:
    """Return what the manifest of the folder, or the one beside the file, says of a file; "" if neither knows it."""
    file = root / name
    return recorded_sha256(root, name) or recorded_sha256(file.parent, file.name)


def missing_files_for(version: Version, root: Path) -> list[str]:
    """Return the same for one version."""
    absent = [part for part in parts_of(version) if find_part(part, root) is None]
    return list(dict.fromkeys(file for part in absent for file in files_to_add(part, root)))


def missing_error(version: Version, root: Path) -> EngineError:
    """Return the error of a job whose weights are not all in `root`."""
    files = missing_files_for(version, root)
    return EngineError(
        "weights_missing",
        f"{len(files)} weight files of MuseTalk {version} are missing: {', '.join(files)}{note_old_files(root, files)}",
        f"get them with `musedrop models fetch --version {version}`, or set musetalk.models_dir to where they are",
    )


def note_old_files(root: Path, absent: Iterable[str]) -> str:
    """Return what to add to a message where files of old releases are in the place of missing ones; "" if none are."""
    if any(file.startswith("whisper/") for file in absent) and os.path.isfile(root / OLD_WHISPER):  # noqa: PTH113
        return f"; {OLD_WHISPER} is of MuseTalk before 1.5 and serves no longer"
    return ""


def files_to_add(part: Part, root: Path) -> list[str]:
    """Return what to add so that `part` is complete: the fewest files, preferably ones that can be downloaded."""
    ways = []
    for variant in part.variants:
        files = [file for file in variant.files if not (root / file).is_file()]
        if variant.form != "converted":
            ways.append((len(files), any(file not in SOURCES for file in files), files))
    return min(ways)[2]


def repair_hint(file: str) -> str:
    """Return the command that repairs a file which is damaged or not what it should be."""
    if file.startswith(f"{CONVERTED}/"):
        ready_for = "".join(f" --precision {suffix[1:]}" for suffix in Path(file).suffixes[:-1])
        return f"convert it again with `musedrop models import --replace{ready_for}`"
    if file in SOURCES:
        return f"download it again with `musedrop models fetch --replace {file}`"
    published = next((f for part in PARTS if file in files_of(part) for f in files_of(part) if f in SOURCES), None)
    if published is None:
        return "remove it, then run `musedrop models fetch`"
    return f"remove it and download {published} with `musedrop models fetch`"


def files_of(part: Part) -> tuple[str, ...]:
    """Return every name that a file of `part` may have, its weights first."""
    return tuple(dict.fromkeys(file for variant in forms_of(part) for file in variant.files))
