"""`python -m gpu_pool.cluster.ray_bridge`: leads its input and output to the agent of a node of a Ray cluster.

The daemon starts it as it starts `ssh`, and so imports no Ray. It waits for the node to join, which it tells the
daemon, and ends with the pipe.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]

from gpu_pool.cluster.messages import Absent
from gpu_pool.cluster.ray_actor import END_S, start_actor
from gpu_pool.wire import encode_any

READ_BYTES = 1 << 16
"""Less than what Ray passes along with a call: its object store isn't used, however small or full it is."""
LOOK_S = 0.5
KNOCK_S, OPEN_S, ENTER_S = 5.0, 60.0, 10
REFUSED = 3
ENTER = f"""
import sys
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1]).get_all_node_info(timeout={ENTER_S})
except AuthenticationError:
    sys.exit({REFUSED})
"""
"""Succeeds where the cluster answers; Ray reads how it is to authenticate as it is imported."""
MAX_WORDS_CHARS = 400


def resolve(address: str) -> str:
    """Return the address with numbers in the place of a name. SystemExit where it may not be used, or nothing answers.

    Who reaches a Ray cluster can run any program on all its machines, and Ray asks for no password by default.
    """
    host, _, port = address.rpartition(":")
    try:
        answers = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        found = sorted({str(answer[4][0]) for answer in answers})
        if public := [one for one in found if not is_private(one)]:
            raise SystemExit(
                f"{address}{f' is {public[0]}, which' if public[0] not in address else ''} is no address of a private"
                " network: Ray must not be reachable from others"
            )
        socket.create_connection((found[0], int(port)), KNOCK_S).close()
    except (OSError, UnicodeError) as error:
        raise SystemExit(f"the Ray cluster at {address} can't be reached: {error}") from error
    return f"[{found[0]}]:{port}" if ":" in found[0] else f"{found[0]}:{port}"


def is_private(host: str) -> bool:
    """Whether an address is one of this machine, or of a network that the world doesn't reach."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    return found.is_private and not found.is_unspecified


def check_token() -> None:
    """SystemExit where this process has no token to show; Ray itself would crash."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise SystemExit(
            "Ray runs without authentication: set RAY_AUTH_MODE=token on all machines,"
            " and give them one token with `ray get-auth-token --generate`"
        )
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not os.environ.get("RAY_AUTH_TOKEN") and not path.is_file():
        raise SystemExit(f"there is no token of the Ray cluster in {path}: copy the one of the other machines there")


def connect(address: str) -> None:
    """Enter the cluster. SystemExit, in one sentence, where that fails."""
    try:
        GcsClient(address=address).get_all_node_info(timeout=ENTER_S)
        ray.init(
            address=address,
            logging_level=logging.WARNING,  # the last line is read as the reason of the end
            log_to_driver=False,
            include_dashboard=False,
            namespace="musedrop",
        )
    except ray.exceptions.AuthenticationError as error:
        raise SystemExit(
            f"the Ray cluster at {address} doesn't take our token:"
            " give all machines, and the user of the daemon, the same ~/.ray/auth_token"
        ) from error
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f"the Ray cluster at {address}: {join_lines(error)}") from error


def join_lines(error: BaseException) -> str:
    """Return the words of an error in one line, such as those about two versions of Ray or Python."""
    return " ".join(str(error).split())[:MAX_WORDS_CHARS]


def find_nodes(name: str) -> list[dict[str, Any]]:
    """Return the living nodes of that name, host name or address; one that has just died may be among them."""
    keys = ("NodeName", "NodeManagerHostname", "NodeManagerAddress")
    return [node for node in list_nodes() if node["Alive"] and name in (node.get(key) for key in keys)]


def list_nodes() -> list[dict[str, Any]]:
    """Return what Ray knows of its nodes."""
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return found


class OpenDoor:
    """An attempt to enter the cluster without a token: one that lets that in lets everything in, token or not."""

    def __init__(self, address: str) -> None:
        self._address = address
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
        self._popen = subprocess.Popen(  # noqa: S603  our own words, no shell
            [sys.executable, "-P", "-c", ENTER, address],
            env={**env, "RAY_AUTH_MODE": "disabled"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def check(self) -> None:
        """Wait for the end of the attempt. SystemExit unless it was refused for want of a token."""
        try:
            code = self._popen.wait(OPEN_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            code = self._popen.wait()
        if code == 0:
            raise SystemExit(
                f"the Ray cluster at {self._address} runs without authentication:"
                " start it again with RAY_AUTH_MODE=token on all machines"
            )
        if code != REFUSED:
            raise SystemExit(f"whether the Ray cluster at {self._address} asks for a token could not be tried")


class Search:
    """The search for a node: an actor is started on each that has its name, as Ray notices late that one has died.

    least_mib   the object store that it must have
    """

    def __init__(self, name: str, least_mib: int) -> None:
        self._name, self._least_mib = name, least_mib
        self._tried = set[str]()
        self._actors: dict[Any, Any] = {}

    def run(self, out_fd: int) -> Any:
        """Return the first actor that lives, and tell the daemon meanwhile.

        OSError when the daemon has ended, SystemExit where the object store is too small.
        """
        while (actor := self._look()) is None:
            os.write(out_fd, encode_any(self._explain_absence()))
        for other in self._actors.values():
            ray.kill(other)
        return actor

    def _explain_absence(self) -> Absent:
        if self._actors:
            return Absent(f"Ray starts the agent of {self._name}", is_coming=True)
        return Absent(f"no living node of the cluster is called {self._name}")

    def _look(self) -> Any:
        for node in find_nodes(self._name):
            if node["NodeID"] in self._tried:
                continue
            if not is_private(str(node["NodeManagerAddress"])):
                raise SystemExit(
                    f"{self._name} has the address {node['NodeManagerAddress']} in the Ray cluster, which is none of a"
                    " private network: start Ray there with --node-ip-address"
                )
            if small := explain_small_store(self._name, node, self._least_mib):
                raise SystemExit(small)
            self._tried.add(node["NodeID"])
            actor = start_actor(str(node["NodeID"]))
            self._actors[actor.__ray_ready__.remote()] = actor
        if not self._actors:
            select.select([], [], [], LOOK_S)
        for ready in ray.wait([*self._actors], timeout=LOOK_S)[0] if self._actors else ():
            actor = self._actors.pop(ready)
            with suppress(ray.exceptions.RayError):
                ray.get(ready)
                return actor
        return None


def explain_small_store(name: str, node: dict[str, Any], least_mib: int) -> str:
    """Return why a node has a smaller object store than the settings ask for; "" if it hasn't."""
    store_mib = int(node.get("Resources", {}).get("object_store_memory", 0)) >> 20
    if store_mib >= least_mib:
        return ""
    return (
        f"{name} has an object store of {store_mib} MiB, and cluster.object_store_mib asks for {least_mib}:"
        f" start Ray there with --object-store-memory {least_mib << 20}"
    )


class Bridge:
    """Passes bytes both ways until one side ends. `out_fd` is where the daemon reads."""

    def __init__(self, actor: Any, in_fd: int, out_fd: int) -> None:
        self._actor, self._in_fd, self._out_fd = actor, in_fd, out_fd
        self._ended = threading.Event()
        self._reason = "the daemon has closed the pipe"

    def run(self) -> str:
        """Return why it ended."""
        for copy in (self._send, self._fetch):
            threading.Thread(target=self._repeat, args=(copy,), daemon=True).start()
        self._ended.wait()
        return self._reason

    def _repeat(self, copy: Callable[[], bool]) -> None:
        try:
            while copy():
                pass
        except (OSError, ray.exceptions.RayError) as error:
            self._reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        finally:
            self._ended.set()

    def _send(self) -> bool:
        """Pass on what the daemon says; False when it has ended."""
        if data := os.read(self._in_fd, READ_BYTES):
            ray.get(self._actor.write.options(concurrency_group="writes").remote(data))
        return bool(data)

    def _fetch(self) -> bool:
        """Pass on what the agent says; False when it has ended."""
        data: bytes = ray.get(self._actor.read.options(concurrency_group="reads").remote())
        view = memoryview(data)
        while view:
            view = view[os.write(self._out_fd, view) :]
        if not data:
            self._reason = "the agent of the node has ended"
        return bool(data)


def run(address: str, node: str, least_mib: int, out_fd: int) -> str:
    """Connect to the cluster, start the agent on the node, and pass bytes on; return why that ended. SystemExit."""
    check_token()
    address = resolve(address)
    door = OpenDoor(address)
    connect(address)
    door.check()
    actor = Search(node, least_mib).run(out_fd)
    try:
        return Bridge(actor, 0, out_fd).run()
    finally:
        with suppress(ray.exceptions.RayError):
            ray.get(actor.end.remote(), timeout=END_S)  # when it is killed, its agent only begins to end workers
        ray.kill(actor)
        ray.shutdown()


def main() -> None:
    """Lead to the agent of a node until one side ends; the last line that is printed says why."""
    parser = argparse.ArgumentParser(description="Started by the daemon, not by hand.")
    parser.add_argument("--address", required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--least-store-mib", type=int, default=0)
    args = parser.parse_args()
    out_fd = os.dup(1)
    os.dup2(2, 1)  # what Ray prints must not get between the messages
    code, reason = 1, ""
    try:
        reason, code = run(args.address, args.node, args.least_store_mib, out_fd), 0
    except SystemExit as refusal:
        reason = str(refusal)
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        reason = f"{type(error).__name__}: {join_lines(error)}"
    print(reason, file=sys.stderr, flush=True)
    os._exit(code)  # a thread may hang in Ray, or print more


if __name__ == "__main__":
    main()
