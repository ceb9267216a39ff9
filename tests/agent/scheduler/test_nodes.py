"""The machines that the settings name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import cast

import pytest

from agent.fs.folders import make_folders
from agent.scheduler.nodes import find_facts, make_nodes, make_start, open_link
from agent.scheduler.tuning import write_tunings
from agent.settings import CurrentSettings, Settings
from agent.settings_file import BadSettings
from gpu_pool.cluster.probe import NodeProbe
from tests.agent.scheduler.tunings import make_tuning
from tests.agent.settings_texts import SMALLEST, loaded

AGENT = json.dumps([sys.executable, "-m", "gpu_pool.agent"])


def load(folder: Path, cluster: str) -> Settings:
    settings = loaded(folder, f"{SMALLEST}[cluster]\n{cluster}\n")
    make_folders(settings.folders.of_state)
    return settings


def test_without_the_section_there_are_none(tmp_path: Path) -> None:
    """And nothing is hashed for them."""
    assert make_nodes(CurrentSettings(loaded(tmp_path, SMALLEST)), "x:y") == []


def test_a_node_is_asked_for_what_the_settings_say(tmp_path: Path) -> None:
    """The same workers as here; the file by which it shows that it sees the state stays the same."""
    settings = load(tmp_path, "nodes = {box2 = ['ssh', 'box2']}\nfence_s = 5\n[devices]\ncpu_workers = 3")
    (node,) = make_nodes(CurrentSettings(settings), "x:y")
    start = make_start(settings, node.name)
    assert (start.cpu_workers, start.fence_s) == (3, 5)
    assert start.cards["workers_of"] == {}
    write_tunings(settings.folders.tuning_file, [make_tuning(settings)])
    assert make_start(settings, node.name).cards["workers_of"] == {"Card": 2}
    assert start.shared_text == Path(start.shared_file).read_text() == make_start(settings, "box3").shared_text
    assert Path(start.log_dir) == settings.folders.logs / "box2"
    assert start.folder == f"~/.cache/musedrop/box2-{start.shared_text[:12]}"
    assert start.roots == {"work": str(settings.folders.work), "cache": str(settings.folders.cache)}


def test_a_mounted_state_folder_is_used_as_it_is(tmp_path: Path) -> None:
    """No file is sent then."""
    settings = load(tmp_path, "nodes = {box2 = ['ssh', 'box2']}\nshared_state = true")
    assert make_start(settings, "box2").folder == ""


def test_a_node_of_ray_needs_the_object_store_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that leads there is told."""
    monkeypatch.setattr("agent.scheduler.nodes.CommandLink", lambda command, _log, _env: command)
    settings = load(tmp_path, "address = '10.0.0.1:6379'\nnodes = {box2 = 'b'}\nobject_store_mib = 512")
    command = cast(list[str], open_link(settings, "box2"))
    assert command[-6:] == ["--address", "10.0.0.1:6379", "--node", "b", "--least-store-mib", "512"]


def test_an_installation_equals_itself_over_a_real_link(tmp_path: Path) -> None:
    """What the daemon compares is found there as here."""
    settings = load(tmp_path, f"nodes = {{box2 = {AGENT}}}\nnode_folder = '{tmp_path}/far'")
    report = NodeProbe(open_link(settings, "box2"), make_start(settings, "box2"), 60.0).run()
    assert (report.trouble, report.sees_state) == ("", True)
    assert report.facts == find_facts(settings)
    assert {"Python", "code of musedrop", "numpy"} <= report.facts.keys()
    assert "cpu:0" in {device.id for device in report.devices}
    assert abs(report.clock_s) < 5
    assert min(report.round_trip_s, report.down_bytes_s, report.up_bytes_s) > 0


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        ("nodes = {box2 = 'box2'}", "whose address is missing"),
        ("nodes = {Box2 = ['ssh']}", "no name of a machine"),
        ("nodes = {'cpu:0' = ['ssh']}", "no name of a machine"),
        ("nodes = {box2 = []}", "at least 1"),
        ("fence_s = 10.0", "at least a second less"),
        ("node_folder = 'far'", "must begin with"),
        ("node_folder = '/far/../etc'", "must begin with"),
        ("address = 'ray://box1'", "address and a port"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, cluster: str, told: str) -> None:
    """By the settings, before anything is started."""
    with pytest.raises(BadSettings, match=told):
        load(tmp_path, cluster)
