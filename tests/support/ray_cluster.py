"""A program: starts a Ray cluster of several nodes on this machine, runs a command on it, and kills one worker.

python ray_cluster.py NODES WORD COMMAND... : `{address}` in the command becomes the cluster's address. The first worker
whose task has WORD in its name is killed once; its name is printed last. The exit status is the command's.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ray.cluster_utils import Cluster


def worker_of(word: str) -> tuple[int, str] | None:
    """Return the process and the task of a worker that is at a task of that name."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            name = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if name.startswith("ray::") and word in name:
            return int(path.parent.name), name.strip()
    return None


def main() -> int:
    """Run the command; see the module."""
    nodes, word, *command = sys.argv[1:]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(int(nodes) - 1):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    running = subprocess.Popen([part.replace("{address}", cluster.address) for part in command])
    killed = None
    while running.poll() is None:
        found = worker_of(word) if word and killed is None else None
        if found is not None:
            time.sleep(1)  # so that it is in the midst of its task
            os.kill(found[0], signal.SIGKILL)
            killed = found[1]
        time.sleep(0.1)

    print(f"killed: {killed}", flush=True)
    cluster.shutdown()
    return running.wait()


if __name__ == "__main__":
    sys.exit(main())
