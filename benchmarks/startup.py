"""How long each command takes to load, and the start of a worker.

The wall time of `musedrop COMMAND --help`, median of some runs, and seconds of CPU time of a new process: for its
imports, and until MuseTalk's networks are open, in the tests' size.

python -m benchmarks.startup [RUNS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.models.musetalk import tiny

COMMANDS = ["", "init", "run", "submit", "status", "watch", "cancel", "retry", "devices", "drain", "resume"]
COMMANDS += ["schema", "doctor", "demo"]
MUSEDROP = Path(sys.executable).with_name("musedrop")
IMPORTS = "from models.heavy_imports import import_heavy; import_heavy('{}')"
WORKERS = {
    "torch alone": "import torch",
    "the preview engine's imports": IMPORTS.format("models.preview.engine"),
    "MuseTalk's imports": IMPORTS.format("models.musetalk.session"),
    "MuseTalk until all is open": """
import sys
from pathlib import Path
from models.musetalk.engine import MuseTalkEngine
from models.musetalk.options import Options
networks = MuseTalkEngine("cpu:0")._open_session(sys.argv[1], Options(precision="fp32"), Path()).networks
networks.inpainter, networks.whisper_encoder, networks._faces
""",
}


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([MUSEDROP, *words], check=True, capture_output=True)
    return time.perf_counter() - start


def cpu_seconds(code: str, *words: str) -> float:
    code += "\nimport time; print(time.process_time())"
    done = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        models_dir = str(tiny.lay_out(Path(folder) / "models"))
        for name, code in WORKERS.items():
            print(f"{name:<30} {min(cpu_seconds(code, models_dir) for _ in range(runs)):.2f} s of CPU time")
    for command in COMMANDS:
        words = [*command.split(), "--help"]
        seconds(words)
        print(f"musedrop {' '.join(words):<14} {statistics.median(seconds(words) for _ in range(runs)):.2f} s")
    print(f"musedrop schema         {statistics.median(seconds(['schema']) for _ in range(runs)):.2f} s")


if __name__ == "__main__":
    main()
