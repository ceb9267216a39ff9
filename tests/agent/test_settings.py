"""The settings as a frozen tree: defaults, every key, and where the folders are."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from agent.scheduler.tuning import card_rules
from agent.settings import RetentionSettings
from models.types import Limits, Output
from tests.agent.settings_texts import SMALLEST, loaded, refused


def test_the_smallest_file_has_every_default(tmp_path: Path) -> None:
    """Only share and state must be set; the daemon's own defaults agree with the workers'."""
    settings = loaded(tmp_path, SMALLEST)
    assert settings.media_limits == Limits()
    assert settings.encoding == Output()
    assert (settings.inbox.settle_s, settings.inbox.max_job_bytes, settings.inbox.media_roots) == (1.0, 1 << 20, ())


def test_every_key_can_be_set(tmp_path: Path) -> None:
    """Each section takes its keys, and they arrive where they are used."""
    settings = loaded(
        tmp_path,
        SMALLEST
        + """
        inbox = { settle_s = 2, share_settle_s = 6.5, scan_s = 1, wait_media_s = 10, keep_media_s = 0,
                  media_roots = ["in", "/mnt/voices"], max_job_bytes = 2048, watch = "poll" }
        devices = { only = ["GPU-5e1f", "GPU-77aa"], exclude = ["GPU-77aab"], reserve_mib = 512, workers_per_device = 2,
                  preload = false, cpu_workers = 3, idle_unload_s = 600 }
        pool = { stall_s = 5, cancel_s = 1, max_interruptions = 2, recycle_spans = 9, recycle_mib = 100 }
        limits = { media_mib = 1, megapixels = 0.5, audio_s = 10, video_s = 20, inspect_s = 30,
                  inspect_gigapixels = 0.04, inspect_gib = 0.5, inspect_memory_mib = 64 }
        musetalk = { models_dir = "weights" }
        output = { crf = 0, encoder = "libx264" }
        cache = { max_gib = 0.5 }
        status = { write_s = 0.1, snapshot_s = 60 }
        retention = { archive_days = 1, archive_gib = 2.5, failed_days = 0.5, failed_gib = 1, logs_days = 0,
                      rows_days = 7 }
        log = { level = "debug", format = "json" }
        """.replace("\n                  ", " "),
    )
    assert settings.retention == RetentionSettings(
        archive_days=1, archive_gib=2.5, failed_days=0.5, failed_gib=1, logs_days=0, rows_days=7
    )
    assert settings.status.snapshot_s == 60
    assert settings.inbox.media_roots == (tmp_path / "in", Path("/mnt/voices"))
    assert settings.inbox.watch == "poll"
    assert settings.devices.count_workers(cores=64) == 3
    assert [card_rules(settings).can_use(card) for card in ("GPU-5e1f2", "GPU-77aab1", "GPU-77aaa", "GPU-8")] == [
        *(True, False, True, False)
    ]
    assert (card_rules(settings).workers, settings.devices.reserve_mib, settings.devices.preload) == (2, 512, False)
    assert settings.devices.idle_unload_s == 600
    assert (settings.pool.recycle_spans, settings.pool.recycle_mib) == (9, 100)
    assert settings.media_limits == Limits(1 << 20, 500_000, 10.0, 20.0, 30.0, 40_000_000, 1 << 29, 64 << 20)
    assert settings.models_dir == tmp_path / "weights"
    assert settings.encoding == Output(crf=0, encoder="libx264")
    assert (settings.pool.max_interruptions, settings.status.write_s, settings.log.format) == (2, 0.1, "json")


def test_every_folder_has_its_place(tmp_path: Path) -> None:
    """What users see is in the share, what is the daemon's own is in the state folder."""
    folders = loaded(tmp_path, SMALLEST).folders
    share, state = tmp_path / "share", tmp_path / "state"
    assert (folders.inbox, folders.outbox, folders.failed) == (share / "inbox", share / "outbox", share / "failed")
    assert (folders.archive, folders.avatars, folders.status_file) == (
        share / "archive",
        share / "avatars",
        share / "status.json",
    )
    assert folders.snapshot == share / "status.db"
    assert (folders.claimed, folders.staging) == (share / ".musedrop" / "claimed", share / ".musedrop" / "staging")
    assert (folders.ledger, folders.work, folders.cache) == (state / "jobs.db", state / "work", state / "cache")
    assert (folders.logs, folders.lock.parent) == (state / "logs", state)
    elsewhere = loaded(tmp_path, SMALLEST + 'cache.folder = "/var/cache/m"\nlog.folder = "log"\n').folders
    assert (elsewhere.cache, elsewhere.logs) == (Path("/var/cache/m"), tmp_path / "log")
    every = (*folders.of_share, *folders.of_state)
    assert len(set(every)) == len(every) == 11


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (4, 4), (64, 4), (0, 1)])
def test_as_many_workers_as_cores_but_not_more_than_four(tmp_path: Path, cores: int, workers: int) -> None:
    """0 means that the machine decides."""
    assert loaded(tmp_path, SMALLEST).devices.count_workers(cores) == workers


def test_settings_can_not_be_changed(tmp_path: Path) -> None:
    """One tree, read once."""
    settings = loaded(tmp_path, SMALLEST)
    with pytest.raises(ValidationError, match="frozen"):
        settings.inbox.settle_s = 3.0


@pytest.mark.parametrize("name", ["0", "cuda:0", "GPU-", "NVIDIA H100", "GPU-a b c d", ""])
@pytest.mark.parametrize("key", ["only", "exclude"])
def test_cards_are_named_by_uuid(tmp_path: Path, key: str, name: str) -> None:
    """A number may mean another card after the next reboot."""
    error = refused(tmp_path, f'{SMALLEST}[devices]\ncpu_workers = 1\n{key} = ["{name}"]\n')
    assert "should be the UUID of a card" in str(error)
    assert error.key == f"devices.{key}"
