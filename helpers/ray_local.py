"""Chapter 07 without a cluster: Ray on this machine, a head and two workers, each a process of its own, on loopback."""

from contextlib import suppress
from typing import Self

import psutil

from helpers import display, processes
from helpers.errors import TutorialError
from helpers.processes import PYTHON
from helpers.ray_jobs import Ray
from helpers.settings import ROOT

NAME, WORKERS = "ray", 2
_STOP_SECONDS = 30.0
_START_SECONDS = 120.0  # Ray's processes read hundreds of modules each, and machines are busy


class LocalRay:
    """Ray on this machine; used as a context manager, or with `start` and `stop`.

    Args:
        dashboard_port: The port of the dashboard and the Jobs API; 0 takes a free one.
    """

    def __init__(self, dashboard_port: int = 0) -> None:
        self._port = dashboard_port or processes.free_port()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()

    def start(self) -> Ray:
        """Have Ray run: the one that is there already, or a new one.

        Returns:
            The way to its dashboard and jobs.

        Raises:
            TutorialError: A port is taken, or it did not get ready.
        """
        if there := processes.find(NAME):
            self._port = there.ports["dashboard"]
            return self.ray
        gcs = processes.free_port()
        with display.progress("Start Ray"):
            processes.start(
                NAME,
                [PYTHON, "-m", "helpers.ray_nodes", str(gcs), str(self._port), str(WORKERS)],
                ready=lambda: len(self.ray.workers()) == WORKERS,
                cwd=ROOT,
                ports={"dashboard": self._port, "gcs": gcs},
                timeout=_START_SECONDS,
            )
        return self.ray

    @property
    def ray(self) -> Ray:
        """The way to its dashboard and jobs."""
        return Ray(f"http://127.0.0.1:{self._port}")

    def kill(self, worker: str) -> None:
        """Kill all processes of a worker without notice, as if its machine had died.

        Args:
            worker: Its name, as `Ray.workers` has it.

        Raises:
            TutorialError: There is no such worker.
        """
        there = processes.find(NAME)
        for process in psutil.Process(there.pid).children(recursive=True) if there else []:
            if f"--node-name={worker}" in _command(process):
                for victim in (process, *process.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):  # it ended by itself when its raylet was gone
                        victim.kill()
                return
        raise TutorialError(f"There is no worker {worker}", "", "Ray.workers() lists them")

    def stop(self) -> None:
        """End it; twice is no error."""
        if there := processes.find(NAME):
            there.stop(_STOP_SECONDS)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # gone meanwhile, or a zombie
        return []
