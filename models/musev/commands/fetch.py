"""Which files of MuseV to download, and from where; nothing is asked for before the licence was confirmed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from models.checkpoints.downloads import RemoteFile, query_server
from models.checkpoints.sources import Source
from models.musetalk.weights.index import SOURCES as MUSETALK_SOURCES
from models.musev.weights.index import (
    LICENCE,
    REPOSITORY,
    Selection,
    list_alternatives,
    missing_files,
    repair_hint,
    source_url,
    usual_file,
)
from models.types import EngineError


def check_licence(*, accepted: bool) -> None:
    """Raise EngineError download_failed unless the user has confirmed the licence of the weights."""
    if not accepted:
        raise EngineError(
            "download_failed",
            f"the weights of MuseV are not free for every use: {LICENCE}; see https://huggingface.co/{REPOSITORY}",
            "if your use is allowed, run the command again with --accept-licence;"
            ' else take the engine "diffusers" with a model whose licence allows it',
        )


def list_published(selection: Selection) -> list[str]:
    """Return all files of a variant and its base model, in the form in which they are published."""
    networks = ((part.config_file, usual_file(part)) for part in selection.parts)
    files = [file for pair in networks for file in pair if file]
    return [*files, *selection.small_files, "sd-vae/config.json", "sd-vae/diffusion_pytorch_model.bin"]


def list_needed(root: Path, selection: Selection, *, replace: bool) -> list[str]:
    return list_published(selection) if replace else missing_files(root, selection)


def list_remote_files(files: Iterable[str], hub: str, selection: Selection) -> Iterator[RemoteFile]:
    """Yield where to get files, under the name that the hub has them. Raises EngineError download_failed."""
    published = list_published(selection)
    for file in files:
        names = list(list_alternatives(file, selection))
        if file not in published and not any(name in published for name in names):
            hint = f"these can be downloaded: {', '.join(published)}"
            raise EngineError("download_failed", f"{file} is no file of {selection.variant}", hint)
        yield find_published([make_remote_file(name, hub) for name in names])


def make_remote_file(file: str, hub: str) -> RemoteFile:
    known = find_source(file)
    return RemoteFile(file, hub + source_url(file), known.bytes, known.sha256, known.config, repair_hint(file))


def find_source(file: str) -> Source:
    """Return what is known of a file. MuseV's have no hash that could be confirmed: the first download is held to."""
    return MUSETALK_SOURCES.get(file) or Source(source_url(file))


def find_published(candidates: list[RemoteFile]) -> RemoteFile:
    """Return the first one that the hub has; the first of all where it has none."""
    for file in candidates[:-1]:
        try:
            query_server(file)
        except EngineError as error:
            if "has no such file" not in error.message:
                raise
        else:
            return file
    return candidates[-1]
