"""`python -m agent.credentials.probe MIME`: print what the video on the standard input is and says of itself.

Anyone may have made it, so that it is read behind walls: without network, files, and more memory than it needs.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from typing import BinaryIO

from agent.credentials.boxes import TooManyBoxes, has_index_first, hash_file, list_boxes
from agent.credentials.reading import make_unreadable, read_credentials
from agent.credentials.report import VideoReport
from agent.credentials.tracks import read_tracks
from gpu_pool.walls import Walls, raise_walls

MEMORY_BYTES = 2 << 30
CPU_S, BYTES_PER_S = 20, 16 << 20
"""Seconds of the processor: some for any video, and more for a large one, which is hashed three times."""
MOST_REPORT_BYTES = 1 << 20


def probe_video(file: BinaryIO, mime: str, chain: str = "") -> VideoReport:
    """Return what an open video is, and what it says of itself.

    chain  the certificates of this installation in PEM, the own one first; "" where they are not known

    Raises OSError.
    """
    sha256 = hash_file(file)
    try:
        index_first = has_index_first(list_boxes(file))
        tracks, problem = tuple(read_tracks(file)), ""
    except TooManyBoxes as error:
        return VideoReport(make_unreadable(error), sha256, index_first=False, tracks=(), index_problem=str(error))
    except ValueError as error:
        index_first, tracks, problem = False, (), str(error)
    return VideoReport(read_credentials(file, mime, chain), sha256, index_first, tracks, problem)


def limit_time(size: int) -> int:
    """Return for how many seconds of the processor a video of so many bytes may be read."""
    return CPU_S + size // BYTES_PER_S


def main(words: Sequence[str] | None = None) -> int:
    mime, *chain = sys.argv[1:] if words is None else words
    with os.fdopen(os.dup(0), "rb") as file:
        seconds = limit_time(os.fstat(0).st_size)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        raise_walls(Walls())
        try:
            text = probe_video(file, mime, "".join(chain)).to_json()
        except (OSError, MemoryError, RecursionError) as error:
            print(error.strerror if isinstance(error, OSError) else "it takes too much memory", file=sys.stderr)
            return 1
    if len(text) > MOST_REPORT_BYTES:
        print("it says more than one MiB", file=sys.stderr)
        return 1
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
