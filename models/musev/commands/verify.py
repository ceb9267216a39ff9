"""What is to be said of every weight file of MuseV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from models.checkpoints.verdicts import Tick, Verdict, judge_hash
from models.musetalk.commands.verify import report_missing, verify_part
from models.musetalk.weights.index import find_part as find_musetalk_part
from models.musetalk.weights.index import get_part as get_musetalk_part
from models.musev.recipe import STEPS
from models.musev.schedule import check_steps, describe_config, read_config
from models.musev.weights.index import (
    LCM_FILE,
    VARIANTS,
    InstalledPart,
    Part,
    Selection,
    fetch_command,
    find_part,
    is_file,
    is_outdated,
    missing_files,
    repair_hint,
)
from models.musev.weights.lcm import read_lcm
from models.musev.weights.loader import check_base, check_part, get_installed, load_tokenizer, read_part, read_shape
from models.types import EngineError


def verify_folder(
    root: Path, selections: tuple[Selection, ...], *, hashes: bool, tick: Tick = lambda _: None
) -> Iterator[Verdict]:
    """Yield verdicts on all files that MuseV may use in `root`, and on what is missing for these variants."""
    seen: set[str] = set()
    for selection in selections:
        for part in selection.parts:
            if part.name not in seen:
                seen.add(part.name)
                yield from verify_forms(part, selection, root, hashes=hashes, tick=tick)
        missing = [file for file in missing_files(root, selection) if file not in seen]
        seen |= set(missing)
        for file in missing:
            if not file.startswith("sd-vae/"):
                yield Verdict("bad", file, f"missing for {selection.variant}", f"`{fetch_command(selection)}`")
        if not missing:
            yield from verify_base(selection, root)
            if selection.lcm and LCM_FILE not in seen:
                seen.add(LCM_FILE)
                yield verify_lcm(selection, root, hashes=hashes, tick=tick)
    picture_part = get_musetalk_part("vae")
    vae = find_musetalk_part(picture_part, root)
    yield from verify_part(vae, hashes=hashes, tick=tick) if vae else report_missing(picture_part, root, needed=True)


def choose_selections(root: Path, variant: str | None, base: str) -> tuple[Selection, ...]:
    """Return the variant that was asked for, else those that are here, else the default."""
    lcm = is_file(root / LCM_FILE)
    if variant:
        return (Selection(variant, base, lcm),)
    here = tuple(Selection(one, base, lcm) for one in VARIANTS if find_part(Selection(one, base).motion, root))
    return here or (Selection(base=base, lcm=lcm),)


def verify_forms(part: Part, selection: Selection, root: Path, *, hashes: bool, tick: Tick) -> Iterator[Verdict]:
    """Yield a verdict on each form of a part that is there."""
    for file in (part.converted, *part.originals):
        if is_file(root / file) and (not part.config or is_file(root / part.config_file)):
            yield verify_file(InstalledPart(part, root, file), selection, hashes=hashes, tick=tick)


def verify_file(found: InstalledPart, selection: Selection, *, hashes: bool, tick: Tick) -> Verdict:
    if found.file == found.part.converted and is_outdated(found.part, found.root):
        said = "older than what it was converted from, so it is not used"
        return Verdict("bad", found.file, said, repair_hint(found.file))
    try:
        what = check_part(found, selection)
    except EngineError as error:
        return Verdict("bad", found.file, error.message, error.hint)
    if hashes:
        return judge_hash(found.root, found.file, what, None, repair_hint(found.file), tick)
    return Verdict("ok", found.file, what)


def verify_lcm(selection: Selection, root: Path, *, hashes: bool, tick: Tick) -> Verdict:
    try:
        changes = read_lcm(root, read_part(get_installed(root, selection, selection.base_unet)))
    except EngineError as error:
        return Verdict("bad", LCM_FILE, error.message, error.hint)
    what = f"changes {len(changes)} tensors of the base model"
    if hashes:
        return judge_hash(root, LCM_FILE, what, None, repair_hint(LCM_FILE), tick)
    return Verdict("ok", LCM_FILE, what)


def verify_base(selection: Selection, root: Path) -> Iterator[Verdict]:
    """Yield verdicts on the family of a base model, on its words and on its steps."""
    file = f"{selection.base}/scheduler/scheduler_config.json"
    try:
        check_base(root, selection, read_shape(root, selection))
        load_tokenizer(root, selection)
        config = read_config(root / file, file)
        check_steps(config, file, STEPS)
        yield Verdict("ok", file, f"steps of {describe_config(config)}")
    except EngineError as error:
        yield Verdict("bad", selection.base, error.message, error.hint)
