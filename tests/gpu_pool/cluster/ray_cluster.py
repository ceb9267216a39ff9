"""A Ray cluster of two nodes, as a program: prints its address, then does what the lines of its input say.

Ray reads its token from the environment as it is imported, so the cluster of a test needs a process of its own.
"""

from __future__ import annotations

import sys
from typing import Any

from ray._private import ray_constants
from ray.cluster_utils import Cluster

STORE_BYTES = 2 << 20
"""Of each node, less than a file of a job. Ray itself starts with no less than 75 MiB."""


def main() -> None:
    """Serve `kill` and `join`, which are about the node box2, until the input ends; without it if called for a head."""
    ray_constants.OBJECT_STORE_MINIMUM_MEMORY_BYTES = STORE_BYTES
    small = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    cluster: Any = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    box2 = cluster.add_node(**small, node_name="box2") if sys.argv[1:] != ["head"] else None
    print(f"address {cluster.address}", flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(box2, allow_graceful=False)
        else:
            box2 = cluster.add_node(**small, node_name="box2")
            print("joined", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
