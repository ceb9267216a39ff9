"""Rows of job_status and device_status as the tests of the tables need them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

NOW = datetime(2026, 1, 2, 4, 0, tzinfo=UTC)
JOB: dict[str, Any] = {"uid": "u1", "name": "a\x1b[2J", "state": "running", "stage": "render", "frames": 50}
JOB |= {"units_done": 20, "units_total": 50, "percent": 40.0, "engine": None, "engine_asked": "auto"}
JOB |= {"device": "cpu:0", "since": "2026-01-02T03:04:05.000Z", "error_code": None, "error_message": None}
JOB |= {"waiting_for": None, "result": None, "run_seconds": 1.25}
DEVICE: dict[str, Any] = {"device": "cpu:0", "kind": "cpu", "name": "CPU", "state": "sick", "job": None, "model": ""}
DEVICE |= {"total_mib": 0, "held_mib": 0, "free_mib": 0, "since": "2026-01-02T03:04:05.000Z", "reason": "it died"}
DEVICE |= {"worker_pid": 7, "until": None}
CARD = {**DEVICE, "device": "GPU-5e1f0d3c-1111-2222-3333-444444444444", "kind": "cuda", "name": "NVIDIA H100"}
CARD |= {"state": "busy", "reason": "", "total_mib": 81920, "held_mib": 20480, "free_mib": 61440, "model": "musetalk"}

LONG = "interview-with-the-mayor-" * 9 + "take-0042"
"""A name of 234 characters."""
WIDE = "你好世界" * 20
REASON = (
    'the voice "interview.wav" is no sound: it begins like a JPEG picture; the face and the voice may have been swapped'
)
DONE = {**JOB, "uid": "u2", "name": "hello", "state": "done", "stage": "publish", "percent": 100.0, "result": "hello"}
DONE |= {"engine": "preview", "device": None, "since": "2026-01-01T23:59:59.000Z"}
FAILED = {**JOB, "uid": "u3", "name": WIDE, "state": "failed", "stage": "inspect", "percent": 0.0, "device": None}
FAILED |= {"error_code": "audio_unreadable", "error_message": REASON, "since": "2025-06-01T00:00:00.000Z"}
WAITING = {**JOB, "uid": "u4", "name": "later", "state": "waiting", "stage": "inspect", "percent": 0.0, "device": None}
WAITING |= {"waiting_for": 'audio "later.wav" has not arrived in the inbox'}
JOBS = [{**JOB, "name": LONG, "device": CARD["device"]}, WAITING, DONE, FAILED]
DEVICES = [{**CARD, "job": LONG}, {**DEVICE, "until": "2026-01-02T03:09:05.000Z"}]
