"""`python -m models.musetalk fetch|verify|import`: what `musedrop models` runs, in a process that may load torch."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from models.checkpoints.terminal import (
    NETWORK,
    console,
    make_parser,
    print_verdicts,
    require_packages,
    run_command,
    say,
)
from models.musetalk.weights.index import S3FD_URL, VERSIONS, Version, installed_versions

NEEDED = ("torch", "diffusers", "safetensors", "onnxruntime")


def main() -> int:
    """Run one command and return its exit code; see `run_command`."""
    given = parse_arguments()
    return run_command(partial(COMMANDS[given.command], given))


def parse_arguments() -> argparse.Namespace:
    parser, (fetch, verify, convert) = make_parser()
    fetch.add_argument("--version", choices=[*VERSIONS, "both"])
    fetch.add_argument("--s3fd-url", default=S3FD_URL)
    verify.add_argument("--version", choices=[*VERSIONS, "both"])
    convert.add_argument("--precision", choices=["auto", "fp16", "bf16", "fp32", "none"], action="append")
    convert.add_argument("folder", type=Path, nargs="?")
    return parser.parse_args()


def select_versions(name: str | None) -> tuple[Version, ...]:
    return tuple(version for version in VERSIONS if name in (version, "both"))


def run_fetch(given: argparse.Namespace) -> int:
    """Get what is missing. Files that are there are left alone, unless --replace finds that they differ."""
    require_packages(NETWORK, "musetalk")
    from models.checkpoints import downloads
    from models.checkpoints.downloading import download_all
    from models.musetalk.commands import fetch

    root: Path = given.models_dir
    root.mkdir(parents=True, exist_ok=True)
    asked = select_versions(given.version) or installed_versions(root)[:1] or VERSIONS[:1]
    names = fetch.list_named(given.files) or fetch.list_needed(root, asked, replace=given.replace)
    files = fetch.list_remote_files(names, downloads.read_endpoint(dict(os.environ)), given.s3fd_url)
    if not files:
        say(f"all weights are in {root}; `musedrop models verify` checks them")
        return 0
    count = download_all(root, files, replace=given.replace, any_release=given.any_release)
    say(f"{count} files downloaded into {root}")
    say("next: `musedrop models import` converts them once, so that workers start faster and need no pickle")
    return 0


def run_verify(given: argparse.Namespace) -> int:
    """Print one line for every file; return 1 if any is bad."""
    require_packages(NEEDED, "musetalk")
    from models.musetalk.commands.verify import verify_folder

    versions, hashes = select_versions(given.version), not given.quick
    return print_verdicts(
        lambda tick: verify_folder(given.models_dir, versions, hashes=hashes, tick=tick), as_json=given.json
    )


def run_import(given: argparse.Namespace) -> int:
    """Convert the weights of a folder, by default of the models folder itself, into safetensors.

    It also writes ready files for the precisions in which they will run, by default the one of this machine.
    """
    require_packages(NEEDED, "musetalk")
    from models.musetalk.commands.convert import import_folder
    from models.musetalk.inpainting.precision import best_precision

    asked = dict.fromkeys(best_precision() if name == "auto" else name for name in given.precision or ["auto"])
    precisions = [name for name in asked if name != "none"]
    source: Path = given.folder or given.models_dir
    with console.status("converting"):
        for line in import_folder(source, given.models_dir, replace=given.replace, precisions=precisions):
            say(line)
    say(f"the converted weights and their manifest are in {given.models_dir / 'converted'}")
    return 0


COMMANDS = {"fetch": run_fetch, "verify": run_verify, "import": run_import}

if __name__ == "__main__":
    raise SystemExit(main())
