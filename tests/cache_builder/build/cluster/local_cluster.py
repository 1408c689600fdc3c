"""A Ray cluster on loopback, in processes of its own: ``python -m …local_cluster CPUS …``, a node each.

It prints its address, and does what it reads: ``add CPUS`` starts another node, ``drop`` kills the last one.
It ends with its input.
"""

from __future__ import annotations

import inspect
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[4]
LOOPBACK = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""For the cluster and who connects: Ray else takes 127.0.0.1 for the machine's address in its network."""
_OWN = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
"""For the cluster: Ray else gives way to everybody, and its processes take minutes on a busy machine."""
_STORE_BYTES = 100 * 2**20
_PORTS = (
    "metrics_agent_port",
    "metrics_export_port",
    "dashboard_agent_listen_port",
    "runtime_env_agent_port",
)


@dataclass
class LocalCluster:
    """One that runs."""

    address: str
    process: subprocess.Popen[str]
    environment: dict[str, str]

    def ask(self, what: str) -> None:
        """``add CPUS`` or ``drop``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline().strip() == "done"


@contextmanager
def local_cluster(*cpus: int) -> Iterator[LocalCluster]:
    """A node with so many processors each; all of it is gone afterwards."""
    # Ray's sockets have long names, for which a folder of a test is too deep.
    with tempfile.TemporaryDirectory(prefix="kdray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        environment = os.environ | LOOPBACK | _OWN | {"RAY_TMPDIR": folder}
        command = [sys.executable, "-W", "ignore", "-m", __name__, *map(str, cpus)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        log = Path(folder) / "cluster.log"
        with log.open("w") as errors:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=errors, **pipes)
        with process:
            try:
                assert process.stdout is not None
                address = process.stdout.readline().strip()
                assert address, log.read_text()[-3000:]
                yield LocalCluster(address, process, environment)
            finally:
                assert process.stdin is not None
                process.stdin.close()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _node(cpus: int) -> dict[str, Any]:
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    return {
        "num_cpus": cpus,
        "object_store_memory": _STORE_BYTES,
        "include_dashboard": False,
        **ports,
        "node_ip_address": "127.0.0.1",
    }


def _do_not_wait_for_agents() -> None:
    """A raylet waits 15 seconds for its agents to say their ports, which a busy machine does not keep.

    The ports are given, so that what the agents will say can be written down before.
    """
    from ray import _raylet
    from ray._private import services

    start = services.start_raylet

    def started(*args: Any, **options: Any) -> Any:
        given = inspect.signature(start).bind(*args, **options).arguments
        for name in _PORTS:
            constant = getattr(_raylet, f"{name.upper()}_NAME")
            _raylet.persist_port(given["session_dir"], given["node_id"], constant, given[name])
        return start(*args, **options)

    services.start_raylet = started


def main() -> None:
    """Run it until the input ends."""
    from ray.cluster_utils import Cluster

    _do_not_wait_for_agents()
    first, *others = map(int, sys.argv[1:])
    logging.disable(logging.INFO)
    cluster = Cluster(initialize_head=True, head_node_args=_node(first))
    try:
        nodes = [cluster.add_node(wait=False, **_node(cpus)) for cpus in others]
        sys.stdout.write(f"{cluster.address}\n")
        sys.stdout.flush()
        for line in sys.stdin:
            if line.startswith("add"):
                nodes.append(cluster.add_node(wait=False, **_node(int(line.split()[1]))))
            else:
                cluster.remove_node(nodes.pop(), allow_graceful=False)
            sys.stdout.write("done\n")
            sys.stdout.flush()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
