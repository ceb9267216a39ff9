"""Download a list of weight files with progress on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from models.checkpoints import downloads
from models.checkpoints.downloads import RemoteFile
from models.checkpoints.terminal import report, say, show_progress


def download_all(root: Path, files: Sequence[RemoteFile], *, replace: bool, any_release: bool) -> int:
    """Get what is missing, and return how many files that were. Raises EngineError download_failed, disk_full."""
    offers = list(downloads.query_missing(root, files, replace=replace, any_release=any_release, say=say))
    downloads.check_space(root, offers)
    with show_progress() as board:
        for file, offer in offers:
            task = board.add_task(file.file, total=file.bytes)
            downloads.download(root, file, offer, partial(report, board, task))
            size_text = downloads.format_size((root / file.file).stat().st_size)
            board.console.print(f"{file.file}: {size_text}")
    downloads.remove_empty_folder(root)
    return len(offers)
