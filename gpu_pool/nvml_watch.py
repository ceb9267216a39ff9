"""The process that asks the driver: `python -m gpu_pool.nvml_watch`. A line of JSON for each reading, about once a
second, until its parent or the pipe is gone. It may hang or crash; the daemon then starts another."""

from __future__ import annotations

import argparse
import contextlib
import sys

from gpu_pool.guards import die_with_parent
from gpu_pool.nvml import Driver


def main() -> None:
    parser = argparse.ArgumentParser(description="Started by the pool, not by hand.")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--every", type=float, required=True)
    args = parser.parse_args()
    die_with_parent(args.parent)
    driver = Driver()
    with contextlib.suppress(BrokenPipeError):
        while True:
            sys.stdout.write(driver.read().line() + "\n")
            sys.stdout.flush()
            driver.rest(args.every)


if __name__ == "__main__":
    main()
