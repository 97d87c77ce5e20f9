"""A command on a target, against the same command by a bare `ssh` over a shared connection of its own."""

import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

os.environ["TUTORIAL_STATE"] = tempfile.mkdtemp(prefix="bench-ssh-")

from helpers import ssh_lab
from helpers.target_ssh import SshTarget

ROUNDS = 30


def main() -> None:
    """Print both medians and their ratio."""
    place = ssh_lab.endpoint("local")
    place.config.install(place.blocks())
    target = SshTarget("cpouta", place.config.config)
    socket = Path(os.environ["TUTORIAL_STATE"]) / "master"
    bare = ["ssh", "-F", str(place.config.config), "-o", f"ControlPath={socket}", "cpouta"]
    opening = [*bare[:-1], "-o", "ControlMaster=yes", "-f", "-N", "cpouta"]
    subprocess.run(opening, check=True, stderr=subprocess.DEVNULL)
    times: dict[str, list[float]] = {"bare ssh": [], "target.run": []}
    try:
        for _ in range(ROUNDS):
            for name in times:
                began = time.perf_counter()
                if name == "bare ssh":
                    subprocess.run([*bare, "true"], check=True, capture_output=True)
                else:
                    target.run(["true"])
                times[name].append(time.perf_counter() - began)
    finally:
        subprocess.run([*bare[:-1], "-O", "exit", "cpouta"], capture_output=True)
        ssh_lab.close(target, place)
    plain = statistics.median(times["bare ssh"])
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"{name:11} {1000 * median:6.1f} ms   {median / plain:.2f} × bare ssh")


if __name__ == "__main__":
    main()
