"""A real daemon with a second machine: a real agent at the end of a real pipe, on this machine."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from threading import Event

import pytest

from tests.gpu_pool.nodes import RAY_SECRET
from tests.needs import need
from tests.share import ROOT, Share, alive, are_gone, face, until, voice

JOBS, EVENTS = 4, 8
AGENT = ["setsid", "--wait", sys.executable, "-m", "gpu_pool.agent"]
"""As over `ssh`, the end of the command doesn't end the agent."""


def add_node(share: Share, command: list[str], **more: object) -> None:
    """Name a machine in the settings, whose silence counts soon, and which keeps files in a folder of the test."""
    values = {"fence_s": 2, "lost_s": 4, "node_folder": str(share.root / "far"), **more}
    settings = "\n[cluster]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
    settings += f"nodes = {{box2 = {json.dumps(command)}}}\n"
    share.config.write_text(share.config.read_text() + settings)


def wait_for_node(share: Share, state: str = "idle") -> None:
    sql = "SELECT state FROM device_status WHERE device = 'box2/cpu:0'"
    until(lambda: [row["state"] for row in share.rows(sql)] == [state], 60, share.log)


def find_agent(share: Share) -> int | None:
    """Return the process that has started the worker of box2."""
    sql = "SELECT worker_pid FROM device_status WHERE device = 'box2/cpu:0' AND worker_pid IS NOT NULL"
    for row in share.rows(sql):
        if alive(row["worker_pid"]):
            return int(Path(f"/proc/{row['worker_pid']}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def submit(share: Share, name: str) -> None:
    share.put(f"{name}-face.jpg", face())
    share.put(f"{name}-voice.wav", voice(2.4))
    share.drop(name, avatar=f"{name}-face.jpg", audio=f"{name}-voice.wav", strategy="split")


def test_two_machines_make_the_bytes_of_one(make_share: Callable[..., Share], tmp_path: Path) -> None:
    """Both have rendered; `cluster check` and `devices` know the second one, and it is drained and resumed."""
    alone, both = make_share(workers=1), Share(tmp_path / "both", workers=1)
    add_node(both, AGENT)
    try:
        alone.start()
        submit(alone, "one")
        both.start()
        wait_for_node(both)
        submit(both, "one")
        for share in (alone, both):
            share.wait_for("one", "done")
        assert sorted(both.result("one")["devices"]) == ["box2/cpu:0", "cpu:0"]  # either may end first
        one, other = (share.outbox / "one" / "result.mp4" for share in (alone, both))
        assert one.read_bytes() == other.read_bytes()
        far = both.root / "far"
        assert len(list(far.glob("*/content/*"))) >= 3  # avatar, sound, what was prepared
        assert list(far.glob("*/runs/*/*/work/*")) == []
        checked = json.loads(both.musedrop("cluster", "check", "--json").stdout)
        assert [(node["node"], node["trouble"]) for node in checked] == [("box2", None)]
        assert "ok" in both.musedrop("cluster", "check").stdout
        assert both.musedrop("drain", "box2-cpu-0").returncode == 0
        until(lambda: "drained" in both.musedrop("devices").stdout, 60, both.log)
        assert both.musedrop("resume", "box2-cpu-0").returncode == 0
        wait_for_node(both)
    finally:
        both.end()


class SshServer:
    """An sshd of this user, which lets in one key; `prefix` are words that start it elsewhere."""

    def __init__(self, folder: Path, address: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        self._address = address
        sshd, keygen = need("sshd", "openssh-server"), need("ssh-keygen", "openssh-client")
        folder.mkdir()
        self._key, host, config = folder / "key", folder / "host", folder / "sshd_config"
        for path in (self._key, host):
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self._port = free.getsockname()[1]
        config.write_text(
            f"Port {self._port}\nListenAddress {address}\nHostKey {host}\nAuthorizedKeysFile {self._key}.pub\n"
            "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where it gives up its privileges
        with (folder / "log").open("wb") as log:
            self._popen = subprocess.Popen([*prefix, sshd, "-D", "-e", "-f", str(config)], stderr=log)
        until(self._is_up, 30, (folder / "log").read_text)

    def _is_up(self) -> bool:
        with suppress(OSError), closing(socket.create_connection((self._address, self._port), 1)):
            return True
        return False

    def build_command(self) -> list[str]:
        options = ("BatchMode=yes", "UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no", "LogLevel=ERROR")
        words = [word for option in options for word in ("-o", option)]
        agent = f"cd {ROOT} && exec {sys.executable} -m gpu_pool.agent"
        return ["ssh", "-F", "/dev/null", "-i", str(self._key), "-p", str(self._port), *words, self._address, agent]

    def end(self) -> None:
        self._popen.terminate()
        self._popen.wait(30)


def test_a_machine_over_ssh(make_share: Callable[..., Share], tmp_path: Path) -> None:
    """Its workers render, and none is left there after kill -9 of the daemon."""
    server = SshServer(tmp_path / "ssh")
    share = make_share(workers=1)
    add_node(share, server.build_command(), shared_state=True)
    try:
        share.start()
        wait_for_node(share)
        submit(share, "one")
        share.wait_for("one", "done")
        assert sorted(share.result("one")["devices"]) == ["box2/cpu:0", "cpu:0"]
        assert not (share.root / "far").exists()  # the state folder was used as it is
        workers = share.workers()
        share.kill()
        until(lambda: are_gone(workers), 60, lambda: "a worker outlives the daemon")
    finally:
        server.end()


def test_a_machine_that_cannot_be_used_is_named(make_share: Callable[..., Share]) -> None:
    """In `problems`, with the last words of the program that leads to it; jobs run here meanwhile."""
    share = make_share(workers=1)
    add_node(share, ["sh", "-c", "echo 'ssh: Could not resolve hostname box2' >&2; exit 255"])
    share.start()
    submit(share, "one")
    share.wait_for("one", "done")
    told = "the link to box2 ended: ssh: Could not resolve hostname box2"
    until(lambda: told in " ".join((share.status_file() or {}).get("problems", [])), 60, share.log)
    checked = share.musedrop("cluster", "check")
    assert checked.returncode == 1
    assert "box2: ssh: Could not resolve hostname box2\n" in checked.stdout


@pytest.mark.timeout(400)
def test_jobs_are_done_once_whatever_happens_to_the_second_machine(make_share: Callable[..., Share]) -> None:
    """Its agent is killed, frozen and woken, the daemon is killed: nothing is lost, nothing twice, no process left."""
    schedule = random.Random(19)
    share = make_share(workers=1)
    add_node(share, AGENT)
    share.start()
    pause, agents = Event(), set[int]()
    names = [f"job{number}" for number in range(JOBS)]
    for number in range(EVENTS * int(os.environ.get("MUSEDROP_SCHEDULES", "40")) // 40):
        if number < JOBS:
            submit(share, names[number])
        pause.wait(schedule.uniform(0.2, 2.0))
        agent = find_agent(share)
        match schedule.choice(["kill", "freeze", "daemon"]):
            case "kill" if agent:
                os.kill(agent, signal.SIGKILL)
            case "freeze" if agent:
                agents.add(agent)
                os.kill(agent, signal.SIGSTOP)
                pause.wait(schedule.choice([0.5, 5.0]))
                os.kill(agent, signal.SIGCONT)
            case "daemon":
                workers = share.workers()
                share.kill()
                until(lambda workers=workers: are_gone(workers), 60, lambda: "workers outlive the daemon")  # type: ignore[misc]
                share.start()
    share.wait_until_finished(JOBS)
    rows = share.rows()
    assert sorted(row["name"] for row in rows) == names
    assert {row["state"] for row in rows} == {"done"}, rows
    assert sorted(path.name for path in share.outbox.iterdir()) == names
    workers = share.workers()
    assert share.stop() == 0
    until(lambda: are_gone([*workers, *agents]), 60, lambda: "an agent or worker outlives the daemon")


def is_at(share: Share, stage: str, place: str) -> bool:
    """Whether a job is in that stage, on a device whose name begins so."""
    sql = "SELECT 1 FROM job_status WHERE state = 'running' AND stage = ? AND device LIKE ? || '%'"
    return bool(share.rows(sql, stage, place))


def test_a_machine_is_killed_in_each_stage(make_share: Callable[..., Share]) -> None:
    """What it was to prepare and to render is made again; the end of a video is put together here, whatever it does."""
    share = make_share(module="tests.e2e.noop", workers=1)
    add_node(share, AGENT)
    share.start()
    options = {"frames": 48, "frame_s": 0.05, "prepare_s": 1.0, "assemble_s": 1.0}
    names = list[str]()
    for stage, place in (("prepare", "box2"), ("render", "box2"), ("assemble", "")):
        wait_for_node(share)
        for name in (f"{stage}-one", f"{stage}-two"):
            names.append(name)
            for file in (f"{name}-a.png", f"{name}-b.wav"):
                share.put(file, name.encode())
            share.drop(name, avatar=f"{name}-a.png", audio=f"{name}-b.wav", strategy="split", options=options)
        until(partial(is_at, share, stage, place), 60, share.log)
        agent = find_agent(share)
        assert agent
        os.kill(agent, signal.SIGKILL)
        for name in names:
            share.wait_for(name, "done")
    assert sorted(path.name for path in share.outbox.iterdir()) == sorted(names)
    for name in names:
        assert (share.outbox / name / "result.mp4").read_bytes() == b"0-24\n24-48\n" + name.encode()


ALTERED = "import {module} as altered; {change}; import gpu_pool.agent.__main__ as agent; agent.main()"
"""An agent of which one thing is other than it should be."""


def alter_agent(module: str, change: str) -> list[str]:
    return ["setsid", "--wait", sys.executable, "-c", ALTERED.format(module=module, change=change)]


def test_machines_that_must_not_be_used_spoil_no_job(make_share: Callable[..., Share]) -> None:
    """One of another version, one whose disk is full, and one that sends other bytes than it says."""
    share = make_share(workers=1)
    add_node(
        share,
        alter_agent(
            "gpu_pool.agent.files", "altered.Piece = lambda block, make=altered.Piece: make(bytes(len(block)))"
        ),
    )
    text = share.config.read_text().replace(
        "nodes = {box2",
        "nodes = {{old = {}, full = {}, box2".format(
            json.dumps(alter_agent("platform", "altered.python_version = lambda: '3.9.1'")),
            json.dumps(alter_agent("gpu_pool.agent.files", "altered.LEAST_FREE_BYTES = 1 << 60")),
        ),
    )
    share.config.write_text(text)
    share.start()
    wait_for_node(share)
    submit(share, "one")
    share.wait_for("one", "done")
    assert share.result("one")["devices"] == ["cpu:0"]
    sql = "SELECT state, reason FROM device_status WHERE device LIKE '%/cpu:0' ORDER BY device"
    until(lambda: len(share.rows(sql)) == 3, 60, share.log)
    liar, full, old = share.rows(sql)
    assert liar["state"] == "lost"
    assert "box2 sent what is no message" in liar["reason"]
    assert (full["state"], old["state"]) == ("sick", "sick")
    assert "MiB are free in" in full["reason"]
    assert "old has Python 3.9.1 instead of" in old["reason"]


class Network:
    """A network of its own, behind a pair of links, for programs that are another machine."""

    HERE, THERE = "10.217.19.1", "10.217.19.2"

    def __init__(self) -> None:
        self.name = f"musedrop-{os.getpid()}"
        for line in (
            f"netns add {self.name}",
            f"link add md{os.getpid()} type veth peer name far netns {self.name}",
            f"addr add {self.HERE}/30 dev md{os.getpid()}",
            f"link set md{os.getpid()} up",
            f"-n {self.name} addr add {self.THERE}/30 dev far",
            f"-n {self.name} link set far up",
            f"-n {self.name} link set lo up",
        ):
            self.call(line)

    def call(self, line: str) -> None:
        subprocess.run([need("ip", "iproute2"), *line.split()], check=True)

    def set_link(self, state: str) -> None:
        self.call(f"link set md{os.getpid()} {state}")

    def end(self) -> None:
        self.call(f"link del md{os.getpid()}")  # the namespace stays for as long as a program is in it
        self.call(f"netns del {self.name}")


class RayNodes:
    """A head of Ray at one address, and the node box2 at another, which `prefix` starts elsewhere."""

    def __init__(self, here: str, there: str, prefix: Sequence[str]) -> None:
        with closing(socket.create_server((here, 0))) as free:
            self._address = f"{here}:{free.getsockname()[1]}"
        port, ray = self._address.rpartition(":")[2], [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        head = ["--head", "--port", port, "--node-ip-address", here, "--include-dashboard", "false"]
        self._popens = [self._start(*ray, *head)]
        until(self._is_up, 60, lambda: "no head")
        node = ["--address", self._address, "--node-ip-address", there, "--node-name", "box2"]
        self._popens.append(self._start(*prefix, *ray, *node))

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _is_up(self) -> bool:
        host, _, port = self._address.rpartition(":")
        with suppress(OSError), closing(socket.create_connection((host, int(port)), 1)):
            return True
        return False

    def build_command(self) -> list[str]:
        return [sys.executable, "-m", "gpu_pool.cluster.ray_bridge", "--address", self._address, "--node", "box2"]

    def end(self) -> None:
        for popen in reversed(self._popens):
            popen.terminate()
            popen.wait(60)


@pytest.mark.timeout(400)
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network of its own, for which it must be root")
@pytest.mark.parametrize("way", ["ssh", "ray"])
def test_a_partition_heals(
    make_share: Callable[..., Share], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The machine is lost and ends its workers, the job is done here; then it is used again."""
    for name, value in RAY_SECRET.items():
        monkeypatch.setenv(name, value)
    network = Network()
    elsewhere = ("ip", "netns", "exec", network.name)
    server: SshServer | RayNodes
    if way == "ssh":
        server, times = SshServer(tmp_path / "ssh", network.THERE, elsewhere), {}
    else:
        server, times = RayNodes(network.HERE, network.THERE, elsewhere), {"fence_s": 8, "lost_s": 10}
    share = make_share(workers=1)
    add_node(share, server.build_command(), **times)
    try:
        share.start()
        wait_for_node(share)
        far = [
            row["worker_pid"] for row in share.rows("SELECT worker_pid FROM device_status WHERE device = 'box2/cpu:0'")
        ]
        network.set_link("down")
        submit(share, "one")
        share.wait_for("one", "done")
        until(lambda: are_gone(far), 60, lambda: "a worker works on behind the partition")
        wait_for_node(share, "lost")
        network.set_link("up")
        wait_for_node(share)
        submit(share, "two")
        share.wait_for("two", "done")
        assert sorted(share.result("two")["devices"]) == ["box2/cpu:0", "cpu:0"]
        assert sorted(path.name for path in share.outbox.iterdir()) == ["one", "two"]
    finally:
        share.end()
        server.end()
        network.end()
