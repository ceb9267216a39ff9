"""`python -m benchmarks.record_watch`: write docs/watch.md, frames of `musedrop watch` beside a real daemon."""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from agent import client
from agent.cli.display.views import FrameRates
from agent.cli.jobs.commands import build_dashboard
from agent.service.share_folders import lay_out
from agent.settings import Settings
from agent.settings_file import format_settings, load_settings

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "inbox_example"
WIDTH, LOOK_S, LONGEST_S, REPEATS = 80, 0.05, 120.0, 10
HEAD = """# A recording of `watch`

Frames of `musedrop watch` in 80 columns, beside a real daemon on a processor.
`python -m benchmarks.record_watch` makes this page.
"""


class Recorder:
    """The screen of `watch` beside a daemon that serves a share in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "musedrop.toml"
        self.source.write_text(format_settings("./share", "./state"))
        self.settings: Settings = load_settings(self.source)
        lay_out(self.settings.folders)
        command = [sys.executable, "-m", "agent.cli.main", "run", "-c", str(self.source)]
        with (folder / "daemon.log").open("wb") as log:
            self.daemon = subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=log)
        wait_until(self.settings.folders.status_file.exists)
        self.db, self.rates = client.open_ledger(self.settings), FrameRates()

    def draw(self) -> str:
        """Return the screen as it is now."""
        console = Console(width=WIDTH, file=io.StringIO(), force_terminal=False, color_system=None)
        with console.capture() as screen:
            console.print(build_dashboard(self.settings, self.source, self.db, self.rates))
        shown = screen.get().replace(str(self.settings.share), "/srv/musedrop")
        return "\n".join(line.rstrip() for line in shown.splitlines()).strip("\n")

    def wait_for(self, *signs: str) -> str:
        """Draw until the screen shows all of these, patterns with words between single spaces; return that screen."""
        shown = [""]

        def look() -> bool:
            shown[0] = self.draw()
            words = " ".join(shown[0].split())
            return all(re.search(sign, words) for sign in signs)

        wait_until(look)
        return shown[0]

    def drop(self, name: str, data: bytes) -> None:
        inbox = self.settings.folders.inbox
        (inbox / f".{name}.tmp").write_bytes(data)
        (inbox / f".{name}.tmp").rename(inbox / name)

    def close(self) -> None:
        self.db.close()
        if self.daemon.poll() is None:
            self.daemon.kill()
        self.daemon.wait()


def wait_until(is_so: Callable[[], bool]) -> None:
    """Look until something is so. Raises TimeoutError."""
    end_s = time.monotonic() + LONGEST_S
    while not is_so():
        if time.monotonic() > end_s:
            raise TimeoutError
        time.sleep(LOOK_S)


def repeat_voice(path: Path) -> bytes:
    """Return a sound several times over, as a WAV file: its rendering lasts long enough to be seen."""
    with wave.open(str(path)) as source:
        params, frames = source.getparams(), source.readframes(source.getnframes())
    made = io.BytesIO()
    with wave.open(made, "wb") as target:
        target.setparams(params)
        target.writeframes(frames * REPEATS)
    return made.getvalue()


def record(recorder: Recorder) -> Iterator[tuple[str, str]]:
    """Yield each frame with what happens in it."""
    yield "Nothing to do yet.", recorder.draw()
    (recorder.settings.folders.inbox / "later.json").write_text('{"avatar": "anna.jpg", "audio": "later.wav"}')
    recorder.drop("hello.jpg", (EXAMPLES / "hello.jpg").read_bytes())
    recorder.drop("hello.wav", repeat_voice(EXAMPLES / "hello.wav"))
    yield "A job whose media are missing, and a pair.", recorder.wait_for("hello", "later", "has not arrived")
    half = recorder.wait_for(r"hello running \d\d %", " fps, ")
    yield "The pair is rendered; the bar has its frames, their rate and the time left.", half
    yield "It is done.", recorder.wait_for("hello done")
    client.control_queue(recorder.settings, "pause")
    recorder.wait_for("the queue is paused")
    (recorder.settings.folders.inbox / "broken.json").write_text('{"avatar": "anna.jpg", "audio": "v.wav", "fps": 0}')
    yield "The queue is paused, and a job is refused.", recorder.wait_for("broken failed")
    recorder.daemon.kill()
    recorder.daemon.wait()
    yield "The daemon was killed.", recorder.draw()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record_watch", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "watch.md")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder))
        try:
            frames = [f"\n{said}\n\n```text\n{screen}\n```\n" for said, screen in record(recorder)]
        finally:
            recorder.close()
    out.write_text((HEAD + "".join(frames)).replace(folder, "/srv"), encoding="utf-8")


if __name__ == "__main__":
    main()
