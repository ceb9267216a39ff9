"""The folders of the share: made with their modes, and known by device and inode while the daemon serves it."""

from __future__ import annotations

from agent.fs import find_filesystem_kind, has_change_events
from agent.fs.folders import forget_folders, is_replaced, limit_access, make_folders, remember_folders
from agent.settings import Folders

PRIVATE = 0o700


class ShareFolders:
    """Users of the share can replace its folders: nothing is moved into, or deleted in, one that is not ours.

    Users may make the inbox and the library anew: those are only read, and what is in them is theirs anyway.
    """

    def __init__(self, folders: Folders) -> None:
        self._share, self._private = folders.share, folders.share_id_file.parent
        below = [folder for folder in folders.of_share if folder.is_relative_to(self._private)]
        self._modes = {self._private: PRIVATE, **dict.fromkeys(below, PRIVATE)}
        self._all = (self._private, *folders.of_share)
        self._kept = [folder for folder in self._all if folder not in (folders.inbox, folders.avatars)]

    def open(self) -> None:
        """Make the folders that are missing, and remember which they are. Raises OSError."""
        forget_folders((self._share, *self._kept))
        self.make()
        has_inodes = has_change_events(find_filesystem_kind(self._share))
        remember_folders((self._share, *self._kept), has_inodes=has_inodes)

    def make(self) -> None:
        """Make the folders that are missing; what is the daemon's own only its user may open. Raises OSError."""
        for folder in self._all:
            make_folders([folder], self._modes.get(folder, 0o777))
        limit_access(self._private, PRIVATE)

    def check(self) -> str:
        """Return which folders are not ours any more, "" if all are. One that is gone is another problem."""
        replaced = [str(folder.relative_to(self._share)) for folder in self._kept if is_replaced(folder)]
        if not replaced:
            return ""
        how = "put the old one back, or restart the daemon if the new one is meant"
        return f"replaced on the share, so nothing is moved or deleted there: {', '.join(replaced)}; {how}"

    @property
    def is_same_share(self) -> bool:
        """Whether the share itself is the one that was opened: a new mount has other numbers."""
        return not is_replaced(self._share)


def lay_out(folders: Folders) -> None:
    """Make all folders of the share and of the state that are missing. Raises OSError."""
    ShareFolders(folders).make()
    make_folders(folders.of_state, PRIVATE)
