"""Drop 10,000 files by six kinds of slow writers at once; check that each job was accepted whole, and how soon.

`python -m benchmarks.writers [FILES]`. Three files make a job: its job file and two media of its own.
The latency of a job is the time from the end of its last writer to the moment at which it is queued.
It contains the settle time (1 s) of what no rename put into place.
"""

from __future__ import annotations

import hashlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any

from tests.share import Share

FILES, WORKERS, AT_ONCE = 10_000, 4, 24
MEDIUM_BYTES, PIECES, PAUSE_S = 6000, 3, 0.1
FILES_OF_JOB = 3

Step = Iterator[None]
"""One file being written; it pauses where a slow writer does."""
Writer = Callable[[Path, Path, bytes], Step]
"""(the inbox, a folder beside it, content) -> the steps that write one file."""


# writers -------------------------------------------------------------------------------------------------------------


def write_whole(path: Path, _beside: Path, data: bytes) -> Step:
    path.write_bytes(data)
    yield


def write_pieces(path: Path, _beside: Path, data: bytes) -> Step:
    """Write with pauses, the file open all the time."""
    with path.open("wb", buffering=0) as file:
        for piece in cut(data):
            file.write(piece)
            yield


def write_renamed(path: Path, _beside: Path, data: bytes) -> Step:
    """Write under a temporary name in the inbox, then rename."""
    temp = path.with_name(f".{path.name}.tmp")
    for piece in cut(data):
        with temp.open("ab") as file:
            file.write(piece)
        yield
    temp.rename(path)


def write_moved(path: Path, beside: Path, data: bytes) -> Step:
    """Write in another folder, then move."""
    (beside / path.name).write_bytes(data)
    yield
    (beside / path.name).rename(path)


def write_linked(path: Path, beside: Path, data: bytes) -> Step:
    """Write in another folder, then make a hard link and remove the first name."""
    (beside / path.name).write_bytes(data)
    yield
    path.hardlink_to(beside / path.name)
    (beside / path.name).unlink()


def write_placeholder(path: Path, _beside: Path, data: bytes) -> Step:
    """Make an empty file first, as browsers do, and a partial file beside it that takes its place."""
    path.touch()
    yield
    part = path.with_name(path.name + ".part")
    for piece in cut(data):
        with part.open("ab") as file:
            file.write(piece)
        yield
    part.replace(path)


WRITERS: dict[str, Writer] = {
    "whole": write_whole,
    "pieces": write_pieces,
    "renamed": write_renamed,
    "moved": write_moved,
    "linked": write_linked,
    "placeholder": write_placeholder,
}


def cut(data: bytes) -> list[bytes]:
    edges = [len(data) * n // PIECES for n in range(PIECES + 1)]
    return [data[start:stop] for start, stop in pairwise(edges)]


# jobs ----------------------------------------------------------------------------------------------------------------


@dataclass
class Dropped:
    """One job: the content of its files by their suffix, and when the last was whole, in ms since 1970."""

    name: str
    files: dict[str, bytes]
    left: int = FILES_OF_JOB
    whole_ms: float = 0.0


def make_job(kind: str, number: int) -> Dropped:
    name = f"{kind}-{number}"
    avatar, audio = f"face of {name}.png", f"voice of {name}.wav"
    media = {medium: (f"{medium} ".encode() * MEDIUM_BYTES)[:MEDIUM_BYTES] for medium in (avatar, audio)}
    job = {"avatar": avatar, "audio": audio, "id": name, "options": {"frames": 1}}
    return Dropped(name, {f"{name}.json": json.dumps(job).encode(), **media})


@dataclass
class Crew:
    """A thread that writes the files of one kind, some at once, in turns."""

    writer: Writer
    jobs: Sequence[Dropped]
    inbox: Path
    beside: Path
    dice: random.Random
    errors: list[BaseException] = field(default_factory=list)

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.errors.append(error)
            raise

    def _run(self) -> None:
        todo = [(job, name) for job in self.jobs for name in job.files]
        active: list[tuple[Dropped, Step]] = []
        pause = Event()
        while todo or active:
            while todo and len(active) < AT_ONCE:
                job, name = todo.pop()
                active.append((job, self.writer(self.inbox / name, self.beside, job.files[name])))
            active = [entry for entry in active if self._take_step(*entry)]
            pause.wait(self.dice.uniform(0.0, PAUSE_S))

    def _take_step(self, job: Dropped, step: Step) -> bool:
        try:
            next(step)
        except StopIteration:
            job.left -= 1
            job.whole_ms = time.time() * 1000
            return False
        return True


def drop_all(share: Share, jobs_by_kind: Mapping[str, Sequence[Dropped]]) -> None:
    """Let all kinds write at once."""
    beside = share.root / "beside"
    beside.mkdir()
    crews = [Crew(WRITERS[kind], jobs, share.inbox, beside, random.Random(kind)) for kind, jobs in jobs_by_kind.items()]
    threads = [Thread(target=crew.run, name=kind) for kind, crew in zip(jobs_by_kind, crews, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors := [error for crew in crews for error in crew.errors]:
        raise errors[0]


# checks --------------------------------------------------------------------------------------------------------------


def find_wrong(job: Dropped, row: Mapping[str, Any] | None) -> str:
    """Return what is wrong with the row of a job, "" if it was accepted as it was written, and not before."""
    if row is None:
        return "has no row"
    if row["state"] != "done":
        return f"is {row['state']}: {row['error_message']}"
    if row["client_id"] != job.name:
        return f"has the id {row['client_id']}"
    outline = json.loads(row["outline"])
    for role, name in (("avatar", f"face of {job.name}.png"), ("audio", f"voice of {job.name}.wav")):
        if outline[f"{role}_sha256"] != hashlib.sha256(job.files[name]).hexdigest():
            return f"was made of another {role} than was written"
    if row["queued_ms"] < int(job.whole_ms) - 1:
        return f"was queued {job.whole_ms - row['queued_ms']:.0f} ms before its files were whole"
    return ""


def print_latencies(kind: str, jobs: Sequence[Dropped], rows: Mapping[str, Mapping[str, Any]]) -> None:
    waits = sorted(rows[job.name]["queued_ms"] - job.whole_ms for job in jobs if job.name in rows)
    tail = [waits[min(len(waits) - 1, int(len(waits) * share))] for share in (0.9, 0.99, 0.999)]
    figures = [statistics.median(waits), *tail, waits[-1]]
    print(f"  {kind:12}" + "".join(f"{figure:9.0f}" for figure in figures))


def main() -> None:
    files = int(sys.argv[1]) if len(sys.argv) > 1 else FILES
    count = max(1, files // FILES_OF_JOB // len(WRITERS))
    jobs_by_kind = {kind: [make_job(kind, number) for number in range(count)] for kind in WRITERS}
    jobs = [job for group in jobs_by_kind.values() for job in group]
    with tempfile.TemporaryDirectory() as folder:
        how: dict[str, Any] = {"workers": WORKERS, "settle_s": 1.0, "keep_media_s": 3600.0, "write_s": 2.0}
        share = Share(Path(folder, "share"), module="tests.e2e.noop", **how)
        share.start()
        try:
            began_s = time.monotonic()
            drop_all(share, jobs_by_kind)
            wrote_s = time.monotonic() - began_s
            share.wait_until_finished(len(jobs), 3600)
            took_s = time.monotonic() - began_s
            found = {str(row["name"]): row for row in share.rows("SELECT * FROM jobs")}
        finally:
            share.end()
    wrong = {job.name: why for job in jobs if (why := find_wrong(job, found.get(job.name)))}
    print(f"{len(jobs) * FILES_OF_JOB} files of {len(jobs)} jobs")
    print(f"written in {wrote_s:.0f} s, all jobs done after {took_s:.0f} s")
    print(f"wrong: {len(wrong)}" + "".join(f"\n  {name} {why}" for name, why in list(wrong.items())[:20]))
    print("ms from whole to queued:  median      90%      99%    99.9%     most")
    for kind, group in jobs_by_kind.items():
        print_latencies(kind, group, found)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
