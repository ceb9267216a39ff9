"""A daemon whose workers write small files instead of media, for tests of everything else.

`python -m tests.e2e.noop --config FILE` is `musedrop run` with this handler.
The options of a job set its duration: `frame_s` for each of its `frames`, `prepare_s` and `assemble_s`.
`fault_errno` ends its stage `fault_stage` while the file `fault_while` is there; with `notes_ticks` the cache gets a
note of each frame.
The environment variable `NOOP_LEASE_SPEED` makes all times of the share's lease shorter by its factor.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.cli.main import stop
from agent.daemon import serve
from agent.errors import UserError
from agent.service import share_lease
from agent.service.log import configure_logging
from agent.settings_file import load_settings
from models.inputs import copy_input
from models.short_jobs import run_short_job
from models.types import EngineError, Inspection, Request

HANDLER = "tests.e2e.noop:open_handler"
LEASE_SPEED = "NOOP_LEASE_SPEED"
FRAMES = 48
"""Two spans."""


class Noop:
    def run(self, payload: dict[str, Any], start: int, stop: int, tick: Callable[[int], None]) -> dict[str, Any]:
        if payload.get("goes_on"):
            return run_short_job(self.run, payload, tick)
        request = Request.from_dict(payload["request"])
        asked = request.options
        if asked.get("fault_stage") == payload["stage"] and Path(asked["fault_while"]).exists():
            raise OSError(asked["fault_errno"], os.strerror(asked["fault_errno"]), request.work)
        deed: Callable[..., dict[str, Any]] = getattr(self, payload["stage"])
        return deed(request, payload, start, stop, tick)

    def inspect(self, request: Request, *_: object) -> dict[str, Any]:
        marks = [
            copy_input(Path(request.avatar), request.files.avatar, request.limits.media_bytes, request.marks["avatar"]),
            copy_input(Path(request.audio), request.files.audio, request.limits.media_bytes, request.marks["audio"]),
        ]
        if request.options.get("fail"):
            raise EngineError("bad_option", "fail is set", "take it away")
        frames = int(request.options.get("frames", FRAMES))
        units = {"inspect": 1, "prepare": 1, "render": frames, "assemble": 1}
        outline = Inspection(frames, "25", 2, 2, frames / 25, units, avatar_sha256=marks[0], audio_sha256=marks[1])
        return {"outline": outline.to_dict()}

    def prepare(
        self, request: Request, _: object, _start: int, _stop: int, tick: Callable[[int], None]
    ) -> dict[str, Any]:
        take_time(request.options.get("prepare_s", 0.0), tick)
        request.files.prepared.mkdir(exist_ok=True)
        return {}

    def render(self, request: Request, _: object, start: int, stop: int, tick: Callable[[int], None]) -> dict[str, Any]:
        pause = threading.Event()
        for done in range(stop - start):
            pause.wait(request.options.get("frame_s", 0.0))
            tick(done + 1)
            if request.options.get("notes_ticks"):
                note_tick(request, start)
        part = request.files.part_path(start, stop)
        part.parent.mkdir(exist_ok=True)
        write(part, f"{start}-{stop}\n".encode())
        return {}

    def first(self, request: Request, payload: dict[str, Any], *_: object) -> dict[str, Any]:
        out = Path(request.first_out)
        out.mkdir(exist_ok=True)
        write(out / "first.mp4", request.files.part_path(0, payload["stop"]).read_bytes())
        return {}

    def assemble(
        self, request: Request, payload: dict[str, Any], _start: int, _stop: int, tick: Callable[[int], None]
    ) -> dict[str, Any]:
        take_time(request.options.get("assemble_s", 0.0), tick)
        out = Path(request.out)
        out.mkdir(exist_ok=True)
        parts = [request.files.part_path(*span).read_bytes() for span in payload["spans"]]
        write(out / "result.mp4", b"".join(parts) + request.files.audio.read_bytes())
        write(out / "preview.jpg", b"preview")
        return {"notes": []}


def open_handler(_device: str, _options: dict[str, Any]) -> Noop:
    return Noop()


def take_time(seconds: float, tick: Callable[[int], None]) -> None:
    pause, end_s = threading.Event(), time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        pause.wait(min(left_s, 0.1))
        tick(0)


def write(path: Path, data: bytes) -> None:
    """Write a file atomically and flush it to disk, as real parts are."""
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def note_tick(request: Request, start: int) -> None:
    """Write down which worker made a frame of which span, and when."""
    with Path(request.cache, f"ticks-{os.getpid()}").open("a") as file:
        file.write(f"{Path(request.work).name}-{start} {time.monotonic_ns()}\n")


def speed_up_lease(factor: float) -> None:
    for name in ("RENEW_S", "PATIENCE_S", "CONFIRM_S"):
        setattr(share_lease, name, getattr(share_lease, name) / factor)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("command", nargs="?", help="ignored: `run`, as the product is called")
    source = parser.parse_args().config
    settings = load_settings(source)
    configure_logging(settings)
    speed_up_lease(float(os.environ.get(LEASE_SPEED, "1")))
    try:
        serve(settings, HANDLER, source)
    except UserError as error:
        stop(str(error), error.exit_code)


if __name__ == "__main__":
    main()
