"""`python -m agent.credentials.sign`: the program that signs verified results, started by the daemon.

It alone opens the private key. It reads a list of jobs as JSON from the standard input, and leaves a report of each.
A video is replaced by its signed copy in one rename, after the copy was read back.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO, NoReturn

import c2pa
from cryptography.exceptions import UnsupportedAlgorithm

from agent.credentials import FULL
from agent.credentials.boxes import UNSIGNED, Box, has_index_first, hash_boxes, hash_file, list_boxes, make_seal
from agent.credentials.keys import SigningKey, load_or_make
from agent.credentials.manifest import LABEL
from agent.credentials.reading import make_context, read_credentials
from agent.credentials.tracks import list_chunks
from agent.fs import atomic_write_bytes, is_disk_full, read_regular
from agent.fs.folders import hold_folder
from gpu_pool.failpoints import failpoint
from gpu_pool.guards import die_with_parent, raise_oom_score
from gpu_pool.walls import Walls, raise_walls

MEMORY_BYTES = 4 << 30
KEPT_IN_MEMORY = {"backing_store_memory_threshold_in_mb": 32}
"""The library keeps a copy of a larger video in a file, where TMPDIR says."""
UNUSABLE = (OSError, ValueError, TypeError, UnsupportedAlgorithm)
"""What loading a key raises."""
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def open_video(name: str, folder: int) -> BinaryIO:
    """Open a file of an open folder that is no link."""
    return os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb")


def sign_video(folder: Path, name: str, manifest: Mapping[str, Any], key: SigningKey, mark: Path) -> dict[str, Any]:
    """Replace a video by its signed copy; one that this program has signed stays. Return what to say of it.

    mark   a file of our own that has the hash of the signed copy from before the rename on: the manifest of a video
           tells nothing of who made it, since anyone can sign for any job

    Raises OSError, C2paError, ValueError where the copy isn't what it has to be.
    """
    with hold_folder(folder) as fd, open_video(name, fd) as video:
        if is_marked(video, mark):
            return describe(video, key, read_credentials(video, str(manifest["format"])).label)
        temp = f".{name}.{token_hex(16)}.tmp"
        try:
            with os.fdopen(os.open(temp, _NEW, 0o666, dir_fd=fd), "w+b") as copy:
                label = write_signed(video, copy, manifest, key)
                copy.flush()
                os.fsync(copy.fileno())
                said = describe(copy, key, label)
            atomic_write_bytes(mark, said["video_sha256"].encode())
            failpoint("signing")
            os.rename(temp, name, src_dir_fd=fd, dst_dir_fd=fd)
            os.fsync(fd)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temp, dir_fd=fd)
    failpoint("signed")
    return said


def is_marked(video: BinaryIO, mark: Path) -> bool:
    """Whether a video is the signed copy whose hash a file has."""
    try:
        return read_regular(mark, 64) == hash_file(video).encode()
    except OSError:
        return False


def write_signed(video: BinaryIO, copy: BinaryIO, manifest: Mapping[str, Any], key: SigningKey) -> str:
    """Write the signed copy, and check it; return the label of its manifest."""
    before = list_boxes(video)
    asserted = [
        one | {"data": one["data"] | {"unsigned_boxes_sha256": hash_boxes(video, before, *UNSIGNED), "sealed": True}}
        if one["label"] == LABEL
        else one
        for one in manifest["assertions"]
    ]
    signer = c2pa.Signer.from_info(
        c2pa.C2paSignerInfo(alg=key.algorithm.encode(), sign_cert=key.chain, private_key=key.key, ta_url=None)
    )
    video.seek(0)
    builder = c2pa.Builder({**manifest, "assertions": asserted}, context=make_context({"core": KEPT_IN_MEMORY}))
    builder.sign(signer, manifest["format"], video, copy)
    seal = make_seal(copy)
    copy.seek(0, 2)
    copy.write(seal)
    after = list_boxes(copy)
    if hash_boxes(copy, after, "mdat") != hash_boxes(video, before, "mdat"):
        raise ValueError("the signed copy has another picture or sound")
    moved = find_start(after, "mdat") - find_start(before, "mdat")
    if list_chunks(copy) != [at + moved for at in list_chunks(video)]:
        raise ValueError("the index of the signed copy names other places for its picture or sound")
    if has_index_first(before) and not has_index_first(after):
        raise ValueError("the index of the signed copy doesn't stand at the front")
    found = read_credentials(copy, manifest["format"])
    if found.problem:
        raise ValueError(f"the signed copy can't be read back: {found.problem}")
    return found.label


def find_start(boxes: list[Box], kind: str) -> int:
    """Return where the first box of a kind starts. Raises ValueError where there is none."""
    start = next((box.start for box in boxes if box.kind == kind), None)
    if start is None:
        raise ValueError(f"the video has no {kind}")
    return start


def describe(video: BinaryIO, key: SigningKey, label: str) -> dict[str, Any]:
    """Return what result.json says of a signed video."""
    return {
        "video_sha256": hash_file(video),
        "video_bytes": video.seek(0, 2),
        "credentials": {"manifest": label, "certificate_sha256": key.certificate_sha256},
    }


def explain(error: Exception) -> str:
    """Return an error on one line."""
    return " ".join(f"{type(error).__name__.strip('_')}: {error}".split())[:300]


def write_report(folder: Path, token: str, said: Mapping[str, Any]) -> None:
    """Leave what became of a job. Ends the program where the disk is full."""
    try:
        atomic_write_bytes(folder / f"{token}.json", json.dumps(said).encode())
    except OSError as error:
        if not is_disk_full(error):
            raise
        print(explain(error), flush=True)
        sys.exit(FULL)
    failpoint("reported")


def main(words: Sequence[str] | None = None) -> NoReturn:
    parser = argparse.ArgumentParser(prog="python -m agent.credentials.sign", description="Started by the daemon.")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--reports", type=Path, required=True)
    parser.add_argument("--walls", action="store_true")
    args = parser.parse_args(words)
    die_with_parent(args.parent)
    raise_oom_score()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    jobs = json.load(sys.stdin)
    try:
        key = load_or_make(args.keys)
    except UNUSABLE as error:
        problem = f"the key in {args.keys} can't be used: {explain(error)}"
        print(problem, flush=True)
        for job in jobs:
            write_report(args.reports, job["token"], {"problem": problem})
        sys.exit(0)
    if args.walls:
        folders = (str(args.reports), *(str(job["folder"]) for job in jobs))
        raise_walls(Walls(write=folders, hides_files=False))
    for job in jobs:
        mark = args.reports / f"{job['token']}.sha256"
        os.environ["TMPDIR"] = job["folder"]  # where the library puts its copies of large videos
        try:
            said = sign_video(Path(job["folder"]), job["video"], job["manifest"], key, mark)
        except (OSError, ValueError, c2pa.C2paError) as error:
            is_full = isinstance(error, OSError) and is_disk_full(error)
            said = {"problem": explain(error), "wait": is_full}
        write_report(args.reports, job["token"], said)
    sys.exit(0)


if __name__ == "__main__":
    main()
