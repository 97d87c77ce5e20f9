"""Chapter 04: a host's GPU: look, choose the versions, restart, record; what changes the host are pyinfra deploys.

The deploys are `nvidia_driver`, `cuda` and `container_toolkit` in `deployments/host/`.
"""

import json
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from helpers import display, docker_host, gpu_versions
from helpers.errors import TutorialError
from helpers.gpu_versions import Versions
from helpers.provision import Changes
from helpers.settings import settings
from helpers.target import Capability, Target, failed, opened
from helpers.undo import Leftover

DEPLOYS = ("nvidia_driver", "cuda", "container_toolkit")
NBODY = ("nvcr.io/nvidia/k8s/cuda-sample:nbody", "nbody", "-gpu", "-benchmark")
FREE_GIB = 20  # CUDA's repository (3), unpacked (3), installed (6), the driver (1), and room to breathe
_DEVICES = """lspci 2>/dev/null | grep -i nvidia && exit
for d in /sys/bus/pci/devices/*; do
  grep -qs 0x10de "$d/vendor" && grep -qs "^0x03" "$d/class" && echo "${d##*/} NVIDIA, device $(cat "$d/device")"
done"""
_LOOK = """echo "system=$(. /etc/os-release; echo "$PRETTY_NAME")"; echo "kernel=$(uname -r)"
v=$(sed -n 's/^NVRM.*Module *\\([0-9.]*\\).*/\\1/p' /proc/driver/nvidia/version 2>/dev/null)
echo "driver that runs=${v:-none}"
echo "Docker=$(docker version -f '{{.Server.Version}}' 2>/dev/null || echo none)"
echo "containers that run=$(docker ps -q 2>/dev/null | wc -l)"
"""
# Whatever starts anew when a machine does: the kernel's boot, and process 1 (the only new thing of a container).
_STARTED = "cat /proc/sys/kernel/random/boot_id; cut -d' ' -f22 /proc/1/stat"
_INSTALLED_AFTER_START = """of=$(stat -c %Y "$0" 2>/dev/null || echo 0)
[ "$of" -gt $(($(date +%s) - $(ps -o etimes= -p 1))) ]"""
_RESTART_SECONDS = 600.0
_RECORD = """PATH=$PATH:/usr/local/cuda/bin:/usr/local/cuda-%s/bin
nvidia-smi 2>&1; echo "<nvcc>"; nvcc --version 2>&1; echo "<dpkg>"; dpkg -l 2>/dev/null"""
_SOURCES = """ls /etc/apt/sources.list.d/graphics-drivers.list /etc/apt/sources.list.d/nvidia-container-toolkit.list \
  /etc/apt/sources.list.d/cuda-ubuntu2204-*-local.list 2>/dev/null"""


def devices(target: Target) -> list[str]:
    """List a machine's NVIDIA GPUs, as `lspci | grep -i nvidia` does, or as the kernel does where lspci is missing."""
    return target.run(["/bin/sh"], input=_DEVICES, check=False, repeatable=True).stdout.splitlines()


def look(target: Target) -> list[Mapping[str, object]]:
    """Read what matters for the chapter of a machine.

    Args:
        target: The machine.

    Returns:
        Rows with the columns what and there.
    """
    there = dict(x.split("=", 1) for x in target.run(["/bin/sh"], input=_LOOK, repeatable=True).stdout.splitlines())
    gpus = "; ".join(devices(target)) or "none"
    there |= {"disk free": f"{free_gib(target)} GiB"}
    return [{"what": k, "there": v} for k, v in {"NVIDIA GPUs": gpus, **there}.items()]


def free_gib(target: Target) -> int:
    """Tell how much room the machine's root file system has, in GiB."""
    script = "df -Pk / | awk 'NR==2{print int($4/1048576)}'"
    return int(target.run(["sh", "-c", script], repeatable=True).stdout)


def data(target: Target, versions: Versions, set_as_default: bool = True) -> dict[str, object]:
    """Choose the deploys' values for a machine.

    Args:
        target: The machine.
        versions: A set that fits together.
        set_as_default: Make NVIDIA's runtime Docker's default, which KinD with GPUs needs.

    Returns:
        Values for `host.data` of all three deploys.

    Raises:
        TutorialError: The table does not tell which package CUDA's version comes in.
    """
    cuda = gpu_versions.TABLE["cuda"][versions.cuda]
    if "release" not in cuda:
        raise TutorialError(
            f"CUDA {versions.cuda} can't be installed by this chapter",
            "the table does not name the package of its local repository",
            "add its release and keyring to deployments/gpu/versions.toml, from NVIDIA's download page",
            target=target.name,
        )  # fmt: skip
    return {
        "driver": versions.driver,
        "cuda": versions.cuda,
        "cuda_release": cuda["release"],
        "cuda_driver": cuda["driver"],
        "cuda_keyring": cuda["keyring"],
        "toolkit": versions.toolkit,
        "set_as_default": "yes" if set_as_default else "no",
        "low_level_runtime": _low_level_runtime(target),
    }


def _low_level_runtime(target: Target) -> str:
    """Name the program of Docker's default runtime, where it is neither runc nor NVIDIA's: it stays the last link."""
    asked = ["docker", "info", "--format", "{{json .DefaultRuntime}} {{json .Runtimes}}"]
    said = target.run(asked, check=False, repeatable=True).stdout if _has_docker(target) else ""
    default, _, known = said.partition(" ")
    if not default or default.strip('"') in ("runc", "nvidia"):
        return ""
    return str(json.loads(known).get(default.strip('"'), {}).get("path", ""))


def _has_docker(target: Target) -> bool:
    return Capability.DOCKER in target.capabilities()


def configure(target: Target, values: Mapping[str, object]) -> Changes:
    """Apply the deploy container_toolkit, and start again what its restart of Docker has ended.

    Args:
        target: The machine.
        values: Its `host.data`.

    Returns:
        What has changed.

    Raises:
        TutorialError: The deploy failed, or a container did not start.
    """
    with docker_host.containers_kept(target):
        return target.apply("container_toolkit", values)


def needs_restart(target: Target, driver: str) -> bool:
    """Tell whether the driver was installed, or updated, after the machine was started.

    Args:
        target: The machine.
        driver: The driver's branch.

    Returns:
        Whether a restart is due.
    """
    words = ["sh", "-c", _INSTALLED_AFTER_START, f"/var/lib/dpkg/info/nvidia-driver-{driver}.list"]
    return target.run(words, check=False, repeatable=True).returncode == 0


def restart(target: Target, timeout: float = _RESTART_SECONDS) -> float:
    """Restart a machine, and come back to it.

    Args:
        target: The machine.
        timeout: Seconds until it must be back.

    Returns:
        The seconds that it took.

    Raises:
        TutorialError: It is the machine that this runs on, it refused, or it did not come back, newly started.
    """
    if target.kind in ("local", "host"):
        raise TutorialError(
            "This machine is not restarted by itself", "the notebook runs on it, and would end with it",
            "save your work, `sudo reboot`, and run the chapter again: it goes on from here", target=target.name,
        )  # fmt: skip
    before, started = _started(target), time.monotonic()
    with display.progress(f"Restart of {target.name}", timeout, "s") as report:
        done = None
        with suppress(TutorialError):  # the connection ends with the machine
            done = target.run(target.sudo("systemctl", "reboot"), check=False, timeout=30)
        if done and done.returncode not in (0, 255):
            raise failed(target.name, done, "the machine refused to restart")
        target.close()
        while _started(target) in ("", before):
            report(time.monotonic() - started, "waits for it")
            if time.monotonic() - started > timeout:
                raise TutorialError(
                    "The machine did not come back", f"it is not back, or was not restarted, after {timeout:g} s",
                    "look at its console in the cloud's web page; run the cell again when it is up", target=target.name,
                )  # fmt: skip
            time.sleep(0.5)
    return time.monotonic() - started


def _started(target: Target) -> str:
    """Tell one start of the machine from another; empty while it does not answer."""
    with suppress(TutorialError):
        return target.run(["sh", "-c", _STARTED], timeout=15, check=False, repeatable=True).stdout
    return ""


def record(target: Target, versions: Versions) -> list[Mapping[str, object]]:
    """Read the versions of a machine, for the day on which something breaks.

    Args:
        target: The machine.
        versions: The chosen set.

    Returns:
        Rows with the columns what, wanted, there and remedy.
    """
    said = target.run(["sh", "-c", _RECORD % versions.cuda], check=False, repeatable=True).stdout
    smi, _, rest = said.partition("<nvcc>\n")
    nvcc, _, dpkg = rest.partition("<dpkg>\n")
    return gpu_versions.rows(smi, nvcc, dpkg, versions)


def nbody_words() -> list[str]:
    """Give the command that lets a container compute on the GPU."""
    return ["docker", "run", "--rm", "--gpus=all", *NBODY]


def nbody(target: Target) -> Mapping[str, object]:
    """Let a container compute on the GPU: NVIDIA's n-body sample, as a benchmark.

    Args:
        target: A machine with a GPU, the driver and the container toolkit.

    Returns:
        What it computed on, and how fast.

    Raises:
        TutorialError: It failed; what a frequent message means is told.
    """
    with display.progress("The n-body sample"):
        done = target.run(nbody_words(), check=False, timeout=900)
    if done.returncode != 0 or not (seen := gpu_versions.read_nbody(done.stdout)):
        raise failed(target.name, done, *_explain(done.stdout + done.stderr))
    return seen


def _explain(said: str) -> tuple[str, str]:
    reasons = {
        "could not select device driver": (
            "Docker does not know NVIDIA's runtime",
            "apply the deploy container_toolkit",
        ),
        "nvml error: driver not loaded": ("the driver is not loaded", "restart the machine"),
        "no CUDA-capable device": ("the container sees no GPU", "run nvidia-smi on the machine; it tells more"),
        "unsatisfied condition: cuda": ("the image wants a newer driver", "choose a newer driver of the table"),
        "pull access denied": ("the image is not to be had", "see whether the machine reaches nvcr.io"),
        "nvcr.io": ("the image is not to be had", "see whether the machine reaches nvcr.io"),
    }
    return next((v for k, v in reasons.items() if k in said), ("", ""))


def remove_sources(target: Target, versions: Versions) -> None:
    """Take away the chapter's apt sources, pins, keys and profile lines; the packages stay."""
    cuda = gpu_versions.TABLE["cuda"][versions.cuda]
    target.apply("gpu_sources_removed", {"cuda": versions.cuda, "cuda_keyring": cuda.get("keyring", "none")})


def sources(target: Target) -> list[str]:
    """List the apt sources of the chapter that a machine has."""
    return target.run(["sh", "-c", _SOURCES], check=False, repeatable=True).stdout.split()


def leftovers(target: str) -> list[Leftover]:
    """List what the chapter has put on a machine: what goes, and what stays. The VM goes as a whole."""
    if target in ("local", "vm"):
        folder = stand_in_folder(target)
        found = Leftover("the stand-in of NVIDIA's repositories", str(folder), lambda: shutil.rmtree(folder, True))
        return [found] if folder.exists() else []
    with opened(target) as machine:
        lists = sources(machine)
        if not lists:
            return []
        there = gpu_versions.read_dpkg(machine.run(["dpkg", "-l"], repeatable=True).stdout)
    kept = [f"{k} {v}" for k, v in there.items() if re.match(r"nvidia-driver-\d|cuda$|nvidia-container-toolkit$", k)]
    stays = [Leftover("the GPU packages", ", ".join(kept), None, _STAYS)] if kept else []
    return [
        Leftover("apt sources, pins, keys and profile lines of chapter 04", " ".join(lists), lambda: _remove(target)),
        *stays,
    ]


_STAYS = (
    "Docker's runtime and what runs on the GPU need them; by hand: take `nvidia` out of /etc/docker/daemon.json and "
    "/etc/containerd/config.toml, then sudo apt-get purge 'nvidia-*' 'libnvidia-*' 'cuda*', and restart"
)


def _remove(target: str) -> None:
    with opened(target) as machine:
        remove_sources(machine, gpu_versions.chosen())


def stand_in_folder(target: str) -> Path:
    """Tell where the stand-in of NVIDIA's repositories is, which helpers/gpu_lab.py makes."""
    return settings().state / target / "nvidia-repository"
