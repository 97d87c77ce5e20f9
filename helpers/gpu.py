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

from helpers import display, docker_host, gpu_devices, gpu_faults, gpu_versions
from helpers.errors import TutorialError
from helpers.gpu_readings import read_dpkg, read_nbody, read_smi
from helpers.gpu_restart import needs_restart as needs_restart
from helpers.gpu_versions import Versions
from helpers.provision import Changes
from helpers.settings import settings
from helpers.shell import query
from helpers.target import Capability, Target, failed, opened
from helpers.undo import Leftover

DEPLOYS = ("nvidia_driver", "cuda", "container_toolkit")
NBODY = ("nvcr.io/nvidia/k8s/cuda-sample:nbody", "nbody", "-gpu", "-benchmark")
FREE_GIB = 20  # CUDA's repository (3), unpacked (3), installed (6), the driver (1), and room to breathe
_DISK = "df -Pk / | awk 'NR==2{print int($4/1048576)}'"
_SYSTEM = '. /etc/os-release && echo "$PRETTY_NAME" || uname -sr'
_AS_ROOT = "{0} || sudo -n {0}"  # your user need not be in the group docker
_ENGINE = {
    "Docker": "docker version -f '{{.Server.Version}}'",
    "containers": "docker ps -q",
}
# Whatever starts anew when a machine does: the kernel's boot, and process 1 (the only new thing of a container).
_STARTED = "cat /proc/sys/kernel/random/boot_id; cut -d' ' -f22 /proc/1/stat"
_RESTART_SECONDS = 600.0
# Every CUDA of NVIDIA's packages or .run files has a folder of its own; the wanted one is looked into first.
_FOLDERS = "/usr/local/cuda-{0}/bin:/usr/local/cuda/bin:$(ls -d /usr/local/cuda-*/bin | sort -rV | tr '\\n' :)"
_NVCC = f"PATH=$PATH:{_FOLDERS} nvcc --version 2>&1; true"
_SOURCES = """ls /etc/apt/sources.list.d/graphics-drivers.list /etc/apt/sources.list.d/nvidia-container-toolkit.list \
  /etc/apt/sources.list.d/cuda-ubuntu2204-*-local.list; true"""


def devices(target: Target) -> list[str]:
    """List a machine's NVIDIA GPUs, each card once; see `gpu_devices.named`."""
    return gpu_devices.named(query(target, gpu_devices.QUESTIONS))


def look(target: Target) -> list[Mapping[str, object]]:
    """Read what matters for the chapter of a machine.

    Args:
        target: The machine.

    Returns:
        Rows with the columns what and there.
    """
    may_sudo = Capability.ROOT in target.capabilities()
    engine = {name: _AS_ROOT.format(words) if may_sudo else words for name, words in _ENGINE.items()}
    engine["containers"] += " && echo END"  # an empty list is an answer, too
    questions = {"system": _SYSTEM, "kernel": "uname -r", "disk": _DISK, **engine, **gpu_devices.QUESTIONS}
    answers = query(target, questions)
    containers = answers["containers"]
    seen = {
        "NVIDIA GPUs": "; ".join(gpu_devices.named(answers)) or "none",
        "system": answers["system"] or "unknown",
        "kernel": answers["kernel"] or "unknown",
        "driver that runs": _driver(answers),
        "Docker": answers["Docker"] or "none",
        "containers that run": "unknown" if containers is None else str(len(containers.split()) - 1),
        "disk free": f"{answers['disk']} GiB" if answers["disk"] else "unknown",
    }
    return [{"what": k, "there": v} for k, v in seen.items()]


def _driver(answers: Mapping[str, str | None]) -> str:
    """Give the version of the driver that runs, or why none does."""
    if version := gpu_devices.driver(answers):
        return version
    problem, _ = gpu_faults.meaning(answers["smi"] or "")
    return "none" if problem in ("", gpu_faults.NO_DRIVER) else f"none: {problem}"


def free_gib(target: Target) -> int:
    """Tell how much room the machine's root file system has, in GiB.

    Raises:
        TutorialError: The machine does not tell.
    """
    free = query(target, {"disk": _DISK})["disk"]
    if free is None:
        raise TutorialError(
            "It is not known how much disk space is free", "`df -Pk /` does not answer",
            "run it on the machine, and see what it prints", target=target.name,
        )  # fmt: skip
    return int(free)


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
    cuda = gpu_devices.TABLE["cuda"].get(versions.cuda, {})
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
    words = "docker info --format '{{.DefaultRuntime}} {{json .Runtimes}}'"
    default, _, known = (query(target, {"runtimes": words})["runtimes"] or "").partition(" ")
    if default in ("", "runc", "nvidia"):
        return ""
    with suppress(ValueError, AttributeError):  # podman as docker knows no runtimes of this kind
        return str(json.loads(known).get(default, {}).get("path", ""))
    return ""


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
    smi = f"{gpu_devices.PROGRAMS} nvidia-smi 2>&1; true"
    questions = {"smi": smi, "nvcc": _NVCC.format(versions.cuda), "dpkg": "COLUMNS=300 dpkg -l"}
    answers = query(target, questions)
    said = {name: answer or "" for name, answer in answers.items()}
    fault = ("", "")
    if answers["smi"] is None:  # it fails with words, or not at all
        fault = gpu_faults.HANGS
    elif not read_smi(said["smi"]).version:
        fault = gpu_faults.module_fault(query(target, gpu_faults.QUESTIONS))
    return gpu_versions.rows(said["smi"], said["nvcc"], said["dpkg"], versions, fault)


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
    if done.returncode != 0 or not (seen := read_nbody(done.stdout)):
        raise failed(target.name, done, *_explain(done.stdout + done.stderr))
    return seen


def _explain(said: str) -> tuple[str, str]:
    reasons = {
        "could not select device driver": (
            "Docker does not know NVIDIA's runtime",
            "apply the deploy container_toolkit",
        ),
        "nvml error: driver not loaded": ("the driver is not loaded", "restart the machine"),
        "no CUDA-capable device": ("the container sees no GPU", "run nvidia-smi on the machine; it shows more"),
        "unsatisfied condition: cuda": ("the image wants a newer driver", "choose a newer driver of the table"),
        "pull access denied": ("the image is not to be had", "see whether the machine reaches nvcr.io"),
        "nvcr.io": ("the image is not to be had", "see whether the machine reaches nvcr.io"),
    }
    return next((v for k, v in reasons.items() if k in said), ("", ""))


def remove_sources(target: Target, versions: Versions) -> None:
    """Take away the chapter's apt sources, pins, keys and profile lines; the packages stay."""
    cuda = gpu_devices.TABLE["cuda"].get(versions.cuda, {})
    target.apply("gpu_sources_removed", {"cuda": versions.cuda, "cuda_keyring": cuda.get("keyring", "none")})


def sources(target: Target) -> list[str]:
    """List the apt sources of the chapter that a machine has."""
    return (query(target, {"sources": _SOURCES})["sources"] or "").split()


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
        there = read_dpkg(query(machine, {"packages": "COLUMNS=300 dpkg -l"})["packages"] or "")
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
