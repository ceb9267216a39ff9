"""What the daemon costs while it has nothing to do: share of one core, and resident memory, workers aside.

python -m benchmarks.idle [SECONDS [FILES]]

With FILES the inbox holds so many files that belong to no job, and a pair among them is timed: from its last file to
the moment at which it is queued, less the settle time.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.share import Share, face, voice

SETTLE_S, PAIRS = 1.0, 9
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def time_pair_s(share: Share, name: str) -> float:
    """Return the seconds from a pair's last file, which is renamed into place, until it is queued."""
    share.put(f"{name}.jpg", face(256))
    share.put(f"{name}.wav", voice(0.4))
    dropped_ms = 1000 * time.time()
    share.wait_for(name, "done")
    [row] = share.rows("SELECT queued_ms FROM jobs WHERE name = ?", name)
    return float(row["queued_ms"] - dropped_ms) / 1000


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    files = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as folder:
        share = Share(Path(folder) / "idle", workers=4, settle_s=SETTLE_S)
        share.config.write_text(share.config.read_text().replace("scan_s = 0.5", "").replace("write_s = 0.2", ""))
        share.start()
        for number in range(files):
            (share.inbox / f"other-{number}.dat").write_bytes(b"other")
        assert share.daemon is not None
        pause = threading.Event()
        pause.wait(60.0 if files else 5.0)  # until the four workers are up, and the files have been seen
        before = cpu_seconds(share.daemon.pid)
        pause.wait(seconds)
        used = cpu_seconds(share.daemon.pid) - before
        print(f"idle daemon over {seconds:.0f} s: {100 * used / seconds:.2f} % of one core, ", end="")
        print(f"{rss_mib(share.daemon.pid):.1f} MiB resident")
        if files:
            times_s = sorted(time_pair_s(share, f"pair{number}") - SETTLE_S for number in range(PAIRS))
            print(
                f"a pair beside {files} files is queued after {times_s[PAIRS // 2]:.2f} s (median), {times_s[-1]:.2f} s"
            )
        share.stop()


if __name__ == "__main__":
    main()
