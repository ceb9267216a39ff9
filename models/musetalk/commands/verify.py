"""What is to be said of every weight file: there, of the right shapes, with the right checksum, or how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from models.checkpoints.verdicts import Tick, Verdict, judge_hash
from models.musetalk.inpainting import fused_weights
from models.musetalk.inpainting.precision import DTYPES, best_precision, precision_name
from models.musetalk.weights.architectures import read_feature_extractor
from models.musetalk.weights.index import (
    DRAFT_DECODER,
    PARTS,
    READY_PARTS,
    SOURCES,
    VERSIONS,
    InstalledPart,
    Part,
    Version,
    files_to_add,
    find_part,
    forms_of,
    installed_versions,
    is_outdated,
    note_old_files,
    ready_file,
    repair_hint,
)
from models.musetalk.weights.loader import read_part
from models.musetalk.weights.onnx_pose import OnnxPose
from models.types import EngineError


def verify_folder(
    root: Path, asked: tuple[Version, ...] = (), *, hashes: bool, tick: Tick = lambda _: None
) -> Iterator[Verdict]:
    """Yield verdicts on all files that MuseTalk may use in `root`. Without `asked`, one version of two is enough."""
    needed = asked or installed_versions(root)[:1] or VERSIONS[:1]
    for part in (*PARTS, DRAFT_DECODER):
        complete = [variant for variant in forms_of(part) if variant.is_complete(root)]
        for variant in complete:
            yield from verify_part(InstalledPart(part, variant, root), hashes=hashes, tick=tick)
        used = find_part(part, root)
        if used is None:
            yield from report_missing(part, root, needed=part.version in (None, *needed))
        elif part.name in READY_PARTS and used.variant.form == "converted":
            yield from verify_ready_files(used, hashes=hashes, tick=tick)


def report_missing(part: Part, root: Path, *, needed: bool) -> Iterator[Verdict]:
    """Yield the files to add; of a version that is not needed here, only a note."""
    if part is DRAFT_DECODER:
        command = f"if you want faster drafts: `musedrop models fetch {part.name}`"
        yield Verdict("note", files_to_add(part, root)[0], "not here: drafts are decoded as all else is", command)
        return
    if not needed:
        command = f"if you want {part.version}: `musedrop models fetch --version {part.version}`"
        yield Verdict("note", files_to_add(part, root)[0], f"not here: {part.version} can't be used", command)
        return
    version = f" --version {part.version}" if part.version else ""
    files = files_to_add(part, root)
    for file in files:
        found = f"missing: {part.does}{note_old_files(root, files)}"
        yield Verdict("bad", file, found, f"`musedrop models fetch{version}`")


def verify_part(found: InstalledPart, *, hashes: bool, tick: Tick) -> Iterator[Verdict]:
    """Yield verdicts on one form of a part: weights against the network, files against what is known of them."""
    if is_outdated(found.variant, found.root):
        file = found.variant.weights
        yield Verdict("bad", file, "older than what it was converted from, so it is not used", repair_hint(file))
        return
    try:
        contents = open_part(found)
    except EngineError as error:
        yield Verdict("bad", found.variant.weights, error.message, error.hint)
        return
    for file in found.variant.files:
        what = contents if file == found.variant.weights else "fits its network"
        yield verify_hash(found, file, what, tick) if hashes else Verdict("ok", file, what)


def verify_ready_files(found: InstalledPart, *, hashes: bool, tick: Tick) -> Iterator[Verdict]:
    """Yield verdicts on the ready files of a converted part; a missing one for this machine is only a note."""
    for precision, dtype in DTYPES.items():
        file = ready_file(found.part.name, precision)
        if (found.root / file).is_file():
            yield verify_ready_file(found, file, dtype, hashes=hashes, tick=tick)
        elif precision == best_precision():
            said = "not here: workers start some seconds slower without it"
            yield Verdict("note", file, said, f"`musedrop models import --precision {precision}`")


def verify_ready_file(found: InstalledPart, file: str, dtype: torch.dtype, *, hashes: bool, tick: Tick) -> Verdict:
    try:
        fused_weights.open_ready_file(found, torch.device("cpu"), dtype)
    except EngineError as error:
        return Verdict("bad", file, error.message, error.hint)
    what = f"the same in {precision_name(dtype)}, ready to run"
    return verify_hash(found, file, what, tick) if hashes else Verdict("ok", file, what)


def open_part(found: InstalledPart) -> str:
    """Return what is inside, after names and shapes were compared with the network. Raises EngineError."""
    if found.variant.form == "onnx":
        OnnxPose(found.weights, threads=1)
        return "an ONNX model with the right input and outputs"
    state, _ = read_part(found)
    if found.part.name == "whisper":
        read_feature_extractor(found)
    millions = sum(tensor.numel() for tensor in state.values()) / 1e6
    return f"{len(state)} tensors of the right shapes, {millions:,.1f} M numbers"


def verify_hash(found: InstalledPart, file: str, what: str, tick: Tick) -> Verdict:
    """Compare the checksum of one file with the published one, or with the one in the manifest."""
    return judge_hash(found.root, file, what, SOURCES.get(file), repair_hint(file), tick)
