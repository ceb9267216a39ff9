"""How long each command takes to load, and the imports of a worker that runs MuseTalk.

The wall time of `musedrop COMMAND --help`, median of some runs, and seconds of CPU time of a new worker's imports.

python -m benchmarks.startup [RUNS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ["", "init", "run", "submit", "status", "watch", "cancel", "retry", "devices", "drain", "resume"]
COMMANDS += ["schema", "doctor", "demo"]
MUSEDROP = Path(sys.executable).with_name("musedrop")


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([MUSEDROP, *words], check=True, capture_output=True)
    return time.perf_counter() - start


def cpu_seconds(module: str) -> float:
    code = f"import time, {module}; print(time.process_time())"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for engine in ("models.preview.engine", "models.musetalk.session"):
        print(f"worker with {engine:<24} {min(cpu_seconds(engine) for _ in range(runs)):.2f} s of CPU time")
    for command in COMMANDS:
        words = [*command.split(), "--help"]
        seconds(words)
        print(f"musedrop {' '.join(words):<14} {statistics.median(seconds(words) for _ in range(runs)):.2f} s")
    print(f"musedrop schema         {statistics.median(seconds(['schema']) for _ in range(runs)):.2f} s")


if __name__ == "__main__":
    main()
