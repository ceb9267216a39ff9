"""What the daemon costs while it has nothing to do: share of one core, and resident memory, workers aside.

python -m benchmarks.idle [SECONDS]
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from pathlib import Path

from tests.share import Share

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as folder:
        share = Share(Path(folder) / "idle", workers=4, settle_s=1.0)
        share.config.write_text(share.config.read_text().replace("scan_s = 0.5", "").replace("write_s = 0.2", ""))
        share.start()
        assert share.daemon is not None
        pause = threading.Event()
        pause.wait(5.0)  # until the four workers are up
        before = cpu_seconds(share.daemon.pid)
        pause.wait(seconds)
        used = cpu_seconds(share.daemon.pid) - before
        print(f"idle daemon over {seconds:.0f} s: {100 * used / seconds:.2f} % of one core, ", end="")
        print(f"{rss_mib(share.daemon.pid):.1f} MiB resident")
        share.stop()


if __name__ == "__main__":
    main()
