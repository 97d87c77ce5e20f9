"""The second run of every deploy, in which nothing is to be changed, against `ansible-playbook` with the same tasks.

Ansible comes into an environment of its own, kept in the user's cache: it is no part of the course.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.update(TUTORIAL_VM="tutorial-bench", TUTORIAL_STATE=tempfile.mkdtemp(prefix="bench-provision-"))

from helpers import airgap, cpouta_lab, docker_host, gpu, gpu_lab, gpu_versions, vm
from helpers.settings import ROOT
from helpers.target import Target

ANSIBLE = "ansible-core==2.19.14"
PLAYBOOK = ROOT / "tests" / "bench" / "ansible" / "host.yml"
VOLUME = "0a1b2c3d-0000-4000-8000-00000000bench"
DEPLOYS = ("volume", "docker", "data_root", *gpu.DEPLOYS)
ROUNDS = 5


def ansible() -> str:
    """Have ansible-playbook in the cache."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tutorial" / ANSIBLE
    program = folder / "bin" / "ansible-playbook"
    if not program.exists():
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "-q", str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(folder / "bin" / "python"), ANSIBLE], check=True)
    return str(program)


def provisioned(target: Target) -> dict[str, object]:
    """Run every deploy once; give their values."""
    values: dict[str, object] = {"volume_id": VOLUME, "mount_point": "/mnt/bench", "docker_repository": ""}
    values |= gpu.data(target, gpu_versions.chosen())
    with gpu_lab.served(target) as sources:
        values |= sources
        for name in DEPLOYS:
            with docker_host.containers_kept(target):
                target.apply(name, values)
    return values


def measure(target: Target, values: dict[str, object]) -> dict[str, list[float]]:
    """Run both a few times; each must find nothing to change."""
    config = Path.home() / ".ssh" / "tutorial.conf"
    ssh = f"-F {config} -o ControlMaster=auto -o ControlPersist=60s"
    playbook = [ansible(), "-i", "tutorial-bench,", f"--ssh-common-args={ssh}", str(PLAYBOOK)]
    words = [f"{k}={v}" for k, v in values.items()]
    playbook += [word for value in words for word in ("-e", value)]
    with target.inventory() as inventory:
        deploys = [f"deployments/host/{name}.py" for name in DEPLOYS]
        data = [word for value in words for word in ("--data", value)]
        pyinfra = [str(Path(sys.executable).with_name("pyinfra")), "--json", "-y", *inventory, *data, *deploys]
        ways = {"ansible-playbook": playbook, "pyinfra": pyinfra}
        times: dict[str, list[float]] = {name: [] for name in ways}
        env = {**os.environ, "ANSIBLE_PIPELINING": "1", "ANSIBLE_DEPRECATION_WARNINGS": "0"}
        for number in range(ROUNDS + 1):
            for name, argv in ways.items():
                began = time.perf_counter()
                done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)
                seconds = time.perf_counter() - began
                same = "changed=0" in done.stdout if name != "pyinfra" else '"success": 0, "error": 0' in done.stdout
                if done.returncode != 0 or (number and not same):
                    sys.exit(f"{name} failed, or changed something:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
                if number:  # the first round may bring the two to the same state
                    times[name].append(seconds)
    return times


def main() -> None:
    """Print both medians and their ratio."""
    if airgap.needed():
        airgap.build("bases", "vm", "nvidia", quiet=True)
    try:
        with Target.open("vm") as target:
            cpouta_lab.plug_in(target, VOLUME)
            try:
                times = measure(target, provisioned(target))
            finally:
                cpouta_lab.unplug(target, VOLUME, "/mnt/bench")
    finally:
        vm.destroy()
    plain = statistics.median(times["ansible-playbook"])
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"{name:16} {median:5.1f} s   {median / plain:.2f} × ansible-playbook")


if __name__ == "__main__":
    main()
