"""What the pool costs, with real workers: dispatch, death notice, start-up, scaling over a sleeping handler.

python -m benchmarks.pool [--json]
"""

from __future__ import annotations

import json
import sys

from benchmarks import job_rate


def main() -> None:
    measured = job_rate.figures()
    if "--json" in sys.argv[1:]:
        print(json.dumps(measured, indent=2))
        return
    for what, figure in measured.items():
        print(f"{what:<28} {figure:g}")


if __name__ == "__main__":
    main()
