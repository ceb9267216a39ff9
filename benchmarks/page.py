"""What the page costs: its start, its first paint, a change on the screen, and a viewer while nothing goes on.

python -m benchmarks.page [JOBS]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from agent.ledger.ledger import Ledger
from benchmarks.idle import cpu_seconds, rss_mib
from tests.agent.samples import add_job
from tests.e2e.page_server import PageServer, add_results
from tests.needs import need
from tests.share import Share

PAINT = """() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null"""
LOOKS, CHANGES, QUIET_S = 5, 20, 30.0


def measure_paint(page: Page, url: str) -> tuple[float, float]:
    """Return the seconds to the first paint and to the first video of the gallery."""
    start_s = time.perf_counter()
    page.goto(url)
    page.locator("#videos li").first.wait_for()
    return page.evaluate(PAINT) / 1000, time.perf_counter() - start_s


def measure_change(page: Page, ledger: Ledger, number: int) -> float:
    """Return the seconds from the commit of a row to its line on the page."""
    add_job(ledger, f"new{number}", name=f"new {number}")
    start_s = time.perf_counter()
    page.get_by_text(f"new {number}", exact=True).first.wait_for()
    return time.perf_counter() - start_s


def private_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def main() -> None:
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        share = Share(Path(folder) / "s")
        share.inbox.mkdir(parents=True)
        add_results(share, jobs)
        served = PageServer(share)
        start_s = time.perf_counter()
        served.start()
        started_s = time.perf_counter() - start_s
        assert served.process is not None
        browser = playwright.chromium.launch(executable_path=need("chromium", "chromium"), args=["--no-sandbox"])
        looks = []
        for _ in range(LOOKS):
            page = browser.new_page()
            looks.append(measure_paint(page, served.url))
            page.close()
        page = browser.new_page()
        page.goto(served.url)
        ledger = Ledger(share.state / "jobs.db")
        changes = [measure_change(page, ledger, number) for number in range(CHANGES)]
        ledger.close()
        before_s = cpu_seconds(served.process.pid)
        threading.Event().wait(QUIET_S)
        used_s = cpu_seconds(served.process.pid) - before_s
        pid = served.process.pid
        paint_s, gallery_s = (statistics.median(times) for times in zip(*looks, strict=True))
        print(f"{jobs} jobs; the page answers {started_s:.2f} s after its start")
        print(f"first paint {paint_s:.2f} s, first video {gallery_s:.2f} s (medians of {LOOKS})")
        print(f"a change is on the page after {statistics.median(changes):.2f} s, at most {max(changes):.2f} s")
        print(f"a viewer while nothing goes on: {100 * used_s / QUIET_S:.2f} % of one core, ", end="")
        print(f"{private_mib(pid):.0f} MiB of its own, {rss_mib(pid):.0f} MiB resident")
        browser.close()
        served.stop()


if __name__ == "__main__":
    main()
