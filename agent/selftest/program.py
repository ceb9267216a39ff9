"""`python -m agent.selftest.program DEVICE ...`: the self-test that the daemon starts beside itself.

The settings come on standard input, as JSON. It gives way to everything else on the machine.
"""

from __future__ import annotations

import argparse
import os
import sys

from agent.errors import UserError
from agent.selftest.run import DRIVER_S, choose_targets, run_selftest
from agent.selftest.workers import Target
from agent.settings import Settings
from gpu_pool.cards import read_cards
from gpu_pool.guards import die_with_parent, raise_oom_score

NICENESS = 19


def read_settings(text: str) -> Settings:
    """Return the settings that the daemon has sent."""
    return Settings.model_validate_json(text)


def run_in_background(settings: Settings, names: list[str]) -> int:
    """Test these cards and write selftest.json. Return 0 when all reports are written, whatever they say."""
    cards = read_cards(settings.folders.selftest_logs / "nvml.log", DRIVER_S, had_cards=True)
    try:
        targets: list[Target] = [target for name in names for target in choose_targets(settings, cards, name)]
        run_selftest(settings, targets, lambda target, row: print(f"{target.id}: {row.verdict}, {row.sentence}"))
    except UserError as error:
        print(error)
        return 1
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m agent.selftest.program", description="Started by the daemon.")
    parser.add_argument("devices", nargs="+")
    parser.add_argument("--parent", type=int, required=True)
    args = parser.parse_args()
    die_with_parent(args.parent)
    raise_oom_score()
    os.nice(NICENESS)
    sys.exit(run_in_background(read_settings(sys.stdin.read()), args.devices))


if __name__ == "__main__":
    main()
