"""Find weights where `huggingface_hub`, diffusers, transformers and ModelScope keep their downloads.

    models--OWNER--NAME/snapshots/COMMIT/FILE    Hugging Face; each file is a link to a blob
    OWNER/NAME/FILE                              ModelScope, whose owners differ for some repositories

Standard library only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.musetalk.weights.index import PARTS, SOURCES

FOLDERS = ("", "hub", "models", "hub/models")
"""Below the folder that a user names, where either cache begins."""
FILES = tuple(file for part in PARTS for variant in part.variants for file in variant.files)


@contextmanager
def show_as_models_folder(cache: Path) -> Iterator[Path]:
    """Yield a folder in MuseTalk's layout, of links to what is in a download cache; any other folder as it is."""
    found: dict[str, Path] = {} if any((cache / name).is_file() for name in FILES) else find_in_cache(cache)
    if not found:
        yield cache
        return
    with tempfile.TemporaryDirectory(prefix="musedrop-") as folder:
        for name, path in found.items():
            link = Path(folder) / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
        yield Path(folder)


def find_in_cache(cache: Path) -> dict[str, Path]:
    """Return the weight files in a download cache, by their names in MuseTalk's layout."""
    found: dict[str, Path] = {}
    for name, (repository, file) in list_published().items():
        for folder in list_copies(cache, repository):
            if (folder / file).is_file():
                found.setdefault(name, folder / file)
    return found


def list_published() -> dict[str, tuple[str, str]]:
    """Return the repository and the name in it of every file that may be used, in any form that it has there."""
    folders = {}
    for name, source in SOURCES.items():
        if source.url.startswith("/"):
            repository, file = source.url[1:].split("/resolve/main/")
            folders[name.partition("/")[0]] = repository, file.rpartition("/")[0]
    published = {}
    for name in FILES:
        folder, _, file = name.partition("/")
        if folder in folders:
            repository, inner = folders[folder]
            published[name] = repository, f"{inner}/{file}".lstrip("/")
    return published


def list_copies(cache: Path, repository: str) -> Iterator[Path]:
    """Yield the folders that may hold a repository's files, the one in use first."""
    owner, name = repository.split("/")
    for base in (cache / folder for folder in FOLDERS):
        downloads = base / f"models--{owner}--{name}"
        if downloads.is_dir():
            reference = downloads / "refs" / "main"
            current = reference.read_text(encoding="ascii").strip() if reference.is_file() else ""
            yield from sorted((downloads / "snapshots").glob("*"), key=lambda folder: (folder.name != current, folder))
        yield from sorted(base.glob(f"*/{name.replace('.', '___')}"), key=lambda folder: folder.parent.name != owner)
