"""`musedrop hooks`: reads the ledger and tells a command or a web address of each job that has ended."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.errors import UserError
from agent.hooks.calls import HookFailed, check_url, run_command, send_request
from agent.hooks.queue import Delivery, HookQueue, find_row
from agent.ledger.reader import Rows, find_failed_folder
from agent.results.video_file import find_video
from agent.settings import HooksSettings, Settings

log = logging.getLogger("musedrop.hooks")


class HookRunner:
    """Tells of the ends of jobs, one after the other. `now_s`: seconds since 1970."""

    def __init__(self, settings: Settings, file: Path, now_s: Callable[[], float] = time.time) -> None:
        self.settings, self.hooks, self._now_s = settings, settings.hooks, now_s
        self.states = check_hooks(self.hooks)
        self.secret = read_secret(self.hooks)
        self.queue = HookQueue(file)

    def step(self, db: Rows) -> None:
        """Read what has ended, and tell what is due."""
        self.queue.read_ends(db, self.states)
        for delivery in self.queue.list_due(self._now_s()):
            row = find_row(db, delivery)
            if row is None or row["finished_at"] != delivery.finished_at:
                self.queue.finish(delivery)  # deleted, or run again: then its next end is told
                continue
            path = self.find_path(db, row)
            try:
                self.tell(delivery, row, path)
            except HookFailed as failure:
                self._note_failure(delivery, row, failure)
            else:
                log.info("%s: %s was told", row["name"], delivery.hook)
                self.queue.finish(delivery)

    def find_path(self, db: Rows, row: dict[str, Any]) -> Path:
        """Return the folder of the result, or of the failed job."""
        folders = self.settings.folders
        if row["state"] == "done":
            return folders.outbox / str(row["result"])
        return find_failed_folder(db, folders, row)

    def tell(self, delivery: Delivery, row: dict[str, Any], path: Path) -> None:
        """Run the command or send the request of a delivery. Raises HookFailed."""
        video = str(find_video(path)) if row["state"] == "done" else ""
        values = {"uid": str(row["uid"]), "path": str(path), "video": video}
        if delivery.hook == "url":
            body = json.dumps({"event": row["state"], "path": str(path), "job": row}, ensure_ascii=False).encode()
            name = hashlib.sha256(f"{delivery.uid} {delivery.finished_at}".encode()).hexdigest()[:32]
            send_request(self.hooks.url, row["state"], name, body, self.secret, self._now_s(), self.hooks.timeout_s)
        else:
            words = self.hooks.done if delivery.hook == "done" else self.hooks.failed
            run_command(words, values, row, self.hooks.timeout_s)

    def _note_failure(self, delivery: Delivery, row: dict[str, Any], failure: HookFailed) -> None:
        if delivery.attempts + 1 >= self.hooks.attempts:
            log.error("%s: %s; tried %d times, given up", row["name"], failure, self.hooks.attempts)
            self.queue.finish(delivery)
        else:
            log.warning("%s: %s; it is tried again", row["name"], failure)
            self.queue.postpone(delivery, self._now_s())


def check_hooks(hooks: HooksSettings) -> dict[str, tuple[str, ...]]:
    """Return the hooks that are set, each with the states that it is told of. Raises UserError."""
    found: dict[str, tuple[str, ...]] = {}
    if hooks.done:
        found["done"] = ("done",)
    if hooks.failed:
        found["failed"] = ("failed",)
    if hooks.url:
        check_url(hooks.url, hooks.hosts)
        found["url"] = ("done", "failed")
    if not found:
        raise UserError("no hook is set: set done, failed or url in [hooks] of the settings")
    return found


def read_secret(hooks: HooksSettings) -> bytes:
    """Return the secret that requests are signed with. Raises UserError where there is a URL and no secret."""
    if not hooks.url:
        return b""
    if not hooks.secret_file:
        raise UserError("hooks.url needs hooks.secret_file: requests are signed")
    try:
        secret = Path(hooks.secret_file).read_bytes().strip()
    except OSError as error:
        raise UserError(f"hooks.secret_file {hooks.secret_file} can't be read: {error.strerror}") from None
    if len(secret) < 16:
        raise UserError(f"hooks.secret_file {hooks.secret_file} needs at least 16 characters")
    return secret
