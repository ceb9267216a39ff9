"""Where the files of a share and a state are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Folders:
    """Every folder and file. `share` is for users and may be exported, `state` is local."""

    share: Path
    state: Path
    cache: Path
    logs: Path

    @cached_property
    def inbox(self) -> Path:
        return self.share / "inbox"

    @cached_property
    def outbox(self) -> Path:
        return self.share / "outbox"

    @cached_property
    def failed(self) -> Path:
        return self.share / "failed"

    @cached_property
    def archive(self) -> Path:
        return self.share / "archive"

    @cached_property
    def avatars(self) -> Path:
        """The avatar library."""
        return self.share / "avatars"

    @cached_property
    def status_file(self) -> Path:
        return self.share / "status.json"

    @cached_property
    def snapshot(self) -> Path:
        """The copy of the ledger for readers on other machines."""
        return self.share / "status.db"

    @cached_property
    def cluster_check(self) -> Path:
        """By its content other machines show that they see this state folder."""
        return self.state / "cluster.check"

    @cached_property
    def claimed(self) -> Path:
        """Job files taken out of the inbox; on the share, so that a claim is one rename."""
        return self.share / ".musedrop" / "claimed"

    @cached_property
    def staging(self) -> Path:
        """Results before they are published; on the share, so that publishing is one rename."""
        return self.share / ".musedrop" / "staging"

    @cached_property
    def trash(self) -> Path:
        """Folders being deleted; on the share, so that a deletion starts with one rename."""
        return self.share / ".musedrop" / "trash"

    @cached_property
    def share_id_file(self) -> Path:
        """The file by which the ledger recognises its share."""
        return self.share / ".musedrop" / "share-id"

    @cached_property
    def lease(self) -> Path:
        """The file that says which daemon serves the share."""
        return self.share / ".musedrop" / "lease"

    @cached_property
    def ledger_mark(self) -> Path:
        """The file by which a ledger sees that it is older than the share."""
        return self.share / ".musedrop" / "ledger-mark"

    @cached_property
    def ledger(self) -> Path:
        return self.state / "jobs.db"

    @cached_property
    def running_mark(self) -> Path:
        """A file that is there while a daemon runs, and is left by one that was killed."""
        return self.state / "daemon.running"

    @cached_property
    def work(self) -> Path:
        """The work folders of the jobs; an operator may put them elsewhere by a link."""
        return Path(os.path.realpath(self.state / "work"))

    @cached_property
    def selftest_file(self) -> Path:
        """The last self-test of each device."""
        return self.state / "selftest.json"

    @property
    def tuning_file(self) -> Path:
        """What was found fastest on each device."""
        return self.state / "tune.json"

    @cached_property
    def selftest_logs(self) -> Path:
        """The logs of the workers of self-tests."""
        return self.logs / "selftest"

    @cached_property
    def nvml_log(self) -> Path:
        return self.logs / "nvml.log"

    @cached_property
    def credentials(self) -> Path:
        """The key of this installation and its certificates; no worker may open it."""
        return self.state / "credentials"

    @cached_property
    def signed(self) -> Path:
        """Reports of the program that signs, until the daemon has read them."""
        return self.credentials / "signed"

    @cached_property
    def lock(self) -> Path:
        return self.state / "daemon.lock"

    @cached_property
    def of_share(self) -> tuple[Path, ...]:
        """The folders of the share."""
        return (
            self.inbox,
            self.outbox,
            self.failed,
            self.archive,
            self.avatars,
            self.claimed,
            self.staging,
            self.trash,
        )

    @cached_property
    def of_state(self) -> tuple[Path, ...]:
        """The folders of the state folder."""
        return (self.work, self.cache, self.logs)
