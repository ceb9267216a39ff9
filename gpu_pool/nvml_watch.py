"""The process that reads the cards: `python -m gpu_pool.nvml_watch`.

Prints a line of JSON for each reading until its parent or the pipe is gone. It may hang or crash;
the daemon then starts another.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

from gpu_pool.guards import die_with_parent
from gpu_pool.nvml import Driver


def main() -> None:
    """Read the cards for ever, with `--interval` seconds between two readings."""
    parser = argparse.ArgumentParser(description="Started by the pool, not by hand.")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--interval", type=float, required=True)
    args = parser.parse_args()
    die_with_parent(args.parent)
    driver = Driver()
    with contextlib.suppress(BrokenPipeError):
        while True:
            sys.stdout.write(driver.read_cards().to_json() + "\n")
            sys.stdout.flush()
            driver.wait_for_event(args.interval)


if __name__ == "__main__":
    main()
