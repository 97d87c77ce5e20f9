"""`python -m helpers.ray_nodes GCS DASHBOARD WORKERS`: a Ray cluster on loopback, each node a real raylet.

A worker that dies is replaced, as the operator does in a cluster. It ends, with all its nodes, when it is told to.
Source: https://docs.ray.io/en/releases-2.44.1/ray-contribute/testing-tips.html (mini clusters by `ray.cluster_utils`).
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import psutil

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

_STORE_BYTES = 80 * 2**20  # Ray's least for a node's object store is 75 MiB
_PAUSE_SECONDS = 0.5


def run(gcs_port: int, dashboard_port: int, workers: int) -> None:
    """Start a head without CPUs and some workers with one CPU each, and replace workers that die, until SIGTERM.

    Args:
        gcs_port: The head's port for nodes and drivers.
        dashboard_port: The head's port for the dashboard and the Jobs API.
        workers: How many workers.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="tutorial-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder, "ray").mkdir()
        if " " in sys.prefix:  # Ray starts its workers by a shell and does not quote the path of Python
            Path(folder, "python").symlink_to(sys.prefix)
            sys.path[:] = [path.replace(sys.prefix, f"{folder}/python") for path in sys.path]
            sys.executable = sys.executable.replace(sys.prefix, f"{folder}/python")
        os.environ |= {
            "RAY_TMPDIR": folder,  # logs and sockets; not in the state folder: a socket's path has 107 bytes at most
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9",  # it reports even that it reports nothing
            # A dead worker is found out within 5 s rather than 20: there is no network here that could be slow.
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "1000",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on macOS the default: all nodes listen on 127.0.0.1 only
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # a job calls `python`
        }
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "node_name": "head", "object_store_memory": _STORE_BYTES, "gcs_server_port": gcs_port}
        head |= {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": dashboard_port}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            _keep(cluster, [f"worker-{number}" for number in range(1, workers + 1)])
        finally:
            for process in psutil.Process().children(recursive=True):  # there is nothing to save
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def _keep(cluster: "Cluster", names: Sequence[str]) -> NoReturn:
    nodes: dict[str, Any] = {}
    while True:
        for name in names:
            if name in nodes and nodes[name].dead_processes():
                cluster.remove_node(nodes.pop(name), allow_graceful=False)
            if name not in nodes:
                nodes[name] = cluster.add_node(num_cpus=1, node_name=name, object_store_memory=_STORE_BYTES)
        time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    run(*map(int, sys.argv[1:4]))
