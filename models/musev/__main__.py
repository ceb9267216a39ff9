"""`python -m models.musev fetch|verify|import`: what `musedrop models --engine musev` runs."""

from __future__ import annotations

import argparse
import os
from functools import partial

from models.checkpoints.terminal import (
    NETWORK,
    console,
    make_parser,
    print_verdicts,
    require_packages,
    run_command,
    say,
)
from models.musev.weights.index import LICENCE, VARIANTS, Selection, select_base

NEEDED = ("torch", "diffusers", "transformers", "safetensors")


def main() -> int:
    """Run one command and return its exit code; see `run_command`."""
    given = parse_arguments()
    return run_command(partial(COMMANDS[given.command], given))


def parse_arguments() -> argparse.Namespace:
    parser, (fetch, verify, convert) = make_parser()
    fetch.add_argument("--accept-licence", action="store_true")
    fetch.add_argument("--lcm", action="store_true")
    for command in (fetch, verify):
        command.add_argument("--variant", choices=VARIANTS)
    for command in (verify, convert):
        command.add_argument("--base", default="")
    return parser.parse_args()


def run_fetch(given: argparse.Namespace) -> int:
    """Get what is missing, once the licence was confirmed."""
    require_packages(NETWORK, "motion")
    from models.checkpoints.downloading import download_all
    from models.checkpoints.downloads import read_endpoint
    from models.musev.commands.fetch import check_licence, list_needed, list_remote_files

    check_licence(accepted=given.accept_licence)
    root, selection = given.models_dir, Selection(given.variant or VARIANTS[0], lcm=given.lcm)
    root.mkdir(parents=True, exist_ok=True)
    names = given.files or list_needed(root, selection, replace=given.replace)
    files = list(list_remote_files(names, read_endpoint(dict(os.environ)), selection))
    say(f"licence of the weights: {LICENCE}")
    if not files:
        say(f"all weights of {selection.variant} are in {root}; `musedrop models verify --engine musev` checks them")
        return 0
    count = download_all(root, files, replace=given.replace, any_release=given.any_release)
    say(f"{count} files downloaded into {root}")
    say("next: `musedrop models import --engine musev` converts them once, so that workers need no pickle")
    return 0


def run_verify(given: argparse.Namespace) -> int:
    """Print one line for every file; return 1 if any is bad."""
    require_packages(NEEDED, "motion")
    from models.musev.commands.verify import choose_selections, verify_folder

    root = given.models_dir
    selections = choose_selections(root, given.variant, select_base(given.base))
    return print_verdicts(
        lambda tick: verify_folder(root, selections, hashes=not given.quick, tick=tick), as_json=given.json
    )


def run_import(given: argparse.Namespace) -> int:
    """Convert all parts in the models folder into fp16 safetensors."""
    require_packages(NEEDED, "motion")
    from models.musev.commands.convert import import_folder

    with console.status("converting"):
        for line in import_folder(given.models_dir, select_base(given.base), replace=given.replace):
            say(line)
    return 0


COMMANDS = {"fetch": run_fetch, "verify": run_verify, "import": run_import}

if __name__ == "__main__":
    raise SystemExit(main())
