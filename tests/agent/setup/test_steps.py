"""What a set-up is made of, and what it still lacks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.fs.layout import Folders
from agent.service.process import InstanceLock
from agent.settings import Settings
from agent.setup import steps
from models import catalog

CHINESE = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture
def place(settings: Settings) -> steps.Place:
    return steps.Place(settings.folders, settings.share.parent / "musedrop.toml", settings.models_dir)


def test_the_state_is_never_in_the_share(place: steps.Place, tmp_path: Path) -> None:
    """Both places are named; a state that users can see, or on a network share, is not done."""
    share = tmp_path / "share"
    share.mkdir()
    beside = steps.Place(Folders(share, tmp_path / "s", tmp_path / "c", tmp_path / "l"), place.source, tmp_path)
    assert steps.check_share(beside).is_done
    inside = steps.Place(Folders(share, share / "state", share / "cache", share / "logs"), place.source, tmp_path)
    step = steps.check_share(inside)
    assert not step.is_done
    assert f"The state {share / 'state'} is in the share" in step.told[1]


def test_a_state_on_a_network_share_is_named(place: steps.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite needs a local disk."""
    monkeypatch.setattr(steps, "find_filesystem_kind", lambda _: "cifs")
    step = steps.check_share(place)
    assert not step.is_done
    assert "(cifs)" in step.told[-1]


def test_weights_have_a_size_a_licence_and_a_command(place: steps.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages come first, since nothing can be fetched without them."""
    monkeypatch.setattr(catalog, "find_missing_packages", lambda _: [])
    step = steps.check_weights(place)
    assert "10 weight files of MuseTalk" in step.told[0]
    assert "about 4.4 GB" in step.told[0]
    assert "Licences" in step.told[1]
    assert step.commands == (f"musedrop models fetch -c {place.source}",)
    monkeypatch.setattr(catalog, "find_missing_weights", lambda *_: [])
    assert steps.check_weights(place).is_done
    monkeypatch.setattr(catalog, "find_missing_packages", lambda _: ["torch"])
    assert steps.check_weights(place).commands == ("pip install '.[musetalk]'",)


def test_a_service_is_known_by_its_settings(
    place: steps.Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings of this user, of the machine, and others that no service reads."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert steps.check_service(place).commands == (f"musedrop run -c {place.source}",)
    mine = steps.Place(place.folders, tmp_path / ".config" / "musedrop" / "musedrop.toml", place.models_dir)
    assert steps.check_service(mine).commands[1] == "systemctl --user enable --now musedrop"
    system = steps.Place(place.folders, steps.SYSTEM_SETTINGS, place.models_dir)
    assert steps.check_service(system).commands[0] == "sudo musedrop service install"
    unit = tmp_path / ".config" / "systemd" / "user" / "musedrop.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    lock = InstanceLock(place.folders.lock)
    assert steps.check_service(mine).is_done
    assert steps.check_whole(mine).is_done
    lock.release()
    assert not steps.check_service(mine).is_done


def test_a_video_in_a_folder_of_the_outbox_counts(place: steps.Place) -> None:
    """Results of batches are one folder deeper."""
    assert not steps.check_demo(place).is_done
    result = place.folders.outbox / "batch" / "hello" / "result.json"
    result.parent.mkdir(parents=True)
    result.touch()
    assert steps.check_demo(place).is_done


def test_cards_are_named_once(place: steps.Place) -> None:
    """Two workers of a card are one card; without any the preview engine is named."""
    row = {"kind": "cuda", "card": "GPU-1", "name": "Card", "total_mib": 24576}
    assert steps.check_cards([row, row, {"kind": "cpu"}]).told == ("Card GPU-1, 24 GiB",)
    assert "preview" in steps.check_cards([]).told[0]
    assert [step.name for step in steps.list_steps(place)] == [
        *("share", "access", "cards", "weights", "service", "demo", "check")
    ]


def test_every_sentence_is_there_in_chinese(place: steps.Place) -> None:
    """As the page shows them."""
    for step in steps.list_steps(place):
        shown = step.to_dict()
        assert all(CHINESE.search(text) for text in shown["told_zh"]), shown


def test_the_demo_clip_is_part_of_the_project() -> None:
    """A face and a voice, which every checkout has."""
    found = steps.find_example()
    assert found is not None
    assert [path.name for path in found] == ["hello.jpg", "hello.wav"]
