"""Folders of tiny weights of MuseTalk, whose files come in every form."""

from __future__ import annotations

from tests.models.musetalk.conftest import _no_torch_hub, master, root

__all__ = ["_no_torch_hub", "master", "root"]
