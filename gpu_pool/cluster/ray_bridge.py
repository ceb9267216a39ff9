"""`python -m gpu_pool.cluster.ray_bridge`: leads its input and output to the agent of a node of a Ray cluster.

The daemon starts it as it starts `ssh`, and so imports no Ray. It waits for the node to join, and ends with the pipe.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import ray

from gpu_pool.cluster.ray_actor import start_actor

READ_BYTES = 1 << 16
"""Less than what Ray passes along with a call: its object store isn't used, however small or full it is."""
LOOK_S = 1.0
JOIN_S = 50.0
"""Less than the daemon waits for the first word of a node, so that it reads why none came."""


def explain_risk(address: str) -> str:
    """Return why a cluster must not be used; "" if it may be.

    Who reaches a Ray cluster can run any program on all its machines, and Ray asks for no password by default.
    """
    host = address.rpartition(":")[0].strip("[]")
    try:
        is_private = ipaddress.ip_address(host).is_private
    except ValueError:
        is_private = host in ("localhost", "")
    if not is_private:
        return f"{address} is no address of a private network: Ray must not be reachable from others"
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return (
            "Ray runs without authentication: set RAY_AUTH_MODE=token on all machines,"
            " and give them one token with `ray get-auth-token --generate`"
        )
    return ""


def find_node(name: str) -> str | None:
    """Return the id of the living node of that name, host name or address; None while it isn't there."""
    keys = ("NodeName", "NodeManagerHostname", "NodeManagerAddress")
    found = [node for node in list_nodes() if node["Alive"] and name in (node.get(key) for key in keys)]
    return str(found[0]["NodeID"]) if found else None


def list_nodes() -> list[dict[str, Any]]:
    """Return what Ray knows of its nodes."""
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return found


def wait_for_node(name: str, timeout_s: float) -> str:
    """Return the id of the node as soon as it has joined. SystemExit if it doesn't in time."""
    until_s = time.monotonic() + timeout_s
    while (node_id := find_node(name)) is None:
        if time.monotonic() >= until_s:
            raise SystemExit(f"no living node of the cluster is called {name}")
        time.sleep(LOOK_S)
    return node_id


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


def main() -> None:
    """Connect to the cluster, start the agent on the node, and pass bytes on."""
    parser = argparse.ArgumentParser(description="Started by the daemon, not by hand.")
    parser.add_argument("--address", required=True)
    parser.add_argument("--node", required=True)
    args = parser.parse_args()
    out_fd = os.dup(1)
    os.dup2(2, 1)  # what Ray prints must not get between the messages
    if risk := explain_risk(args.address):
        raise SystemExit(risk)
    ray.init(address=args.address, log_to_driver=False, include_dashboard=False, namespace="musedrop")
    actor = start_actor(wait_for_node(args.node, JOIN_S))
    try:
        reason = Bridge(actor, 0, out_fd).run()
    finally:
        ray.kill(actor)
        ray.shutdown()
    print(reason, file=sys.stderr, flush=True)
    os._exit(0)  # a thread may hang in Ray


if __name__ == "__main__":
    main()
