"""Files that a browser sends: into the inbox under a hidden name, and renamed when a job is made of them."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from agent.fs import NEW_FILE, discard, make_safe_name
from agent.fs.folders import hold_folder

if TYPE_CHECKING:
    from agent.settings import Settings

CHUNK_S = 30.0
"""A browser that sends nothing for so long has gone."""
KEEP_S = 3600.0
"""How long a file waits for the job that it is for."""
MAX_UPLOADS = 200
SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}\Z")
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that is in the inbox as a whole, under a hidden name."""

    path: Path
    given: str
    size: int
    until_s: float

    @property
    def stem(self) -> str:
        """Return the name as it was given without its suffix, as far as a file may have it."""
        return make_safe_name(SUFFIX.sub("", self.given))

    @property
    def suffix(self) -> str:
        """Return the suffix of the name as it was given, in lower case; "" where it is none of a media file."""
        found = SUFFIX.search(self.given)
        return found[0].lower() if found else ""


class Uploads:
    """The files that no job was made of yet."""

    def __init__(self, settings: Settings, now_s: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._now_s = settings, now_s
        self._waiting: dict[str, Upload] = {}
        self._busy = 0

    async def receive(self, given: str, chunks: AsyncIterator[bytes]) -> str:
        """Write the body of a request; return the word that a job names the file by.

        Raises HTTPException where it is too large, comes too slowly or doesn't fit on the disk; then nothing is left.
        """
        self.drop_old()
        if len(self._waiting) + self._busy >= MAX_UPLOADS:
            raise HTTPException(429, "too many files wait for their jobs: make jobs of them first")
        path = self._settings.folders.inbox / f".{token_hex(16)}.tmp"
        self._busy += 1
        size, is_whole = 0, False
        try:
            size = await self._write(path, chunks)
            is_whole = True
        except TimeoutError:
            raise HTTPException(408, f"nothing came for {CHUNK_S:.0f} s") from None
        except OSError as error:
            status = 507 if error.errno in FULL else 500
            raise HTTPException(status, f"the inbox takes no file: {error.strerror}") from None
        finally:
            self._busy -= 1
            if not is_whole:
                discard(path)
        word = token_hex(16)
        self._waiting[word] = Upload(path, given, size, self._now_s() + KEEP_S)
        return word

    async def _write(self, path: Path, chunks: AsyncIterator[bytes]) -> int:
        limit, size = self._settings.limits.media_mib << 20, 0
        with hold_folder(path.parent) as folder:
            fd = os.open(path.name, NEW_FILE, 0o666, dir_fd=folder)
        try:
            while (chunk := await asyncio.wait_for(anext(chunks, None), CHUNK_S)) is not None:
                size += len(chunk)
                if size > limit:
                    raise HTTPException(413, f"a file may have {self._settings.limits.media_mib} MiB")
                await asyncio.to_thread(_write_all, fd, chunk)
            await asyncio.to_thread(os.fsync, fd)
        finally:
            os.close(fd)
        return size

    def find(self, word: str) -> Upload | None:
        return self._waiting.get(word)

    def take(self, word: str) -> None:
        """Forget a file: it has its name in the inbox."""
        self._waiting.pop(word, None)

    def drop_old(self) -> None:
        """Delete the files that no job came for."""
        for word, upload in list(self._waiting.items()):
            if self._now_s() > upload.until_s:
                self.drop(word)

    def drop(self, word: str) -> None:
        if upload := self._waiting.pop(word, None):
            discard(upload.path)

    def drop_all(self) -> None:
        for word in list(self._waiting):
            self.drop(word)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
