"""Chapter 04's readings: what nvidia-smi, nvcc, dpkg and the n-body sample print, as versions and problems."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from helpers import gpu_faults


@dataclass(frozen=True)
class Reading:
    """What one tool says of the machine's versions.

    Attributes:
        version: The version that it gives; empty when it gives none.
        more: What else it gives: the highest CUDA of the driver (empty when it can't tell that), the GPUs.
        problem: What is wrong, in words for the reader: why there is no version, or which GPU does not answer.
        remedy: What to do then.
    """

    version: str = ""
    more: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    remedy: str = ""


# The head of the table; drivers before 410 name no CUDA there.
_HEAD = re.compile(r"NVIDIA-SMI\s+\S+\s+(?:Driver|KMD) Version:\s*(\S+)(?:\s+CUDA(?: UMD)? Version:\s*([\d.]+|\S+))?")
# A GPU's row has the address of the card in its second column, or N/A where it is no card (Jetson); the rows of MIG
# devices and processes have neither.
_GPU = re.compile(
    r"^\|\s+(\d+)\s+(\S.*?)\s+\S+\s+\| +(?:[0-9A-F]{4,8}:[0-9A-F]{2}:[0-9A-F]{2}\.\d|N/A\b)", re.MULTILINE
)
_UNREADABLE = re.compile(r"ERR!|\[?(N/A|Unknown Error|GPU is lost|GPU requires reset)\]?$", re.IGNORECASE)
_ERRORS = re.compile(r"^\|.*(ERR!|Unknown Error|GPU is lost)", re.MULTILINE)
_TOO_OLD = ("the driver is too old to name the CUDA that it can do", "a newer driver")
_NO_VERSION = (
    "nvidia-smi can't tell the driver's version",
    "restart the machine; install the driver again if it stays",
)
_CUDA_UNREADABLE = (
    "nvidia-smi can't tell which CUDA the driver can do",
    "nvidia-smi and the driver are of different installations: restart the machine (under WSL: `wsl --shutdown`, in "
    "Windows), and update the driver if it stays",
)
_NO_CUDA = (
    "nvidia-smi finds no CUDA library of the driver, so no CUDA can run",
    "install libnvidia-compute-NNN of the driver's branch (Debian: libcuda1); under WSL: `wsl --shutdown`, in Windows; "
    "a container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility; a host that lends its GPU to VMs has none",
)
_JETSON = ("the driver is part of NVIDIA JetPack and gives no version", "none is needed; `apt show nvidia-jetpack`")


def read_smi(said: str) -> Reading:
    """Read what `nvidia-smi` prints: the running driver, the highest CUDA that it can do, and the GPUs.

    Args:
        said: Both of its streams.

    Returns:
        The driver's version, and the problem, in words, with its remedy, where there is one.
    """
    head = _HEAD.search(said)
    if not head:
        problem, remedy = gpu_faults.meaning(said)
        unknown = f"it says: {said.strip()[:80] or 'nothing'}"
        return Reading(problem=problem or unknown, remedy=remedy or "run nvidia-smi by hand")
    names = [f"GPU {n} does not answer" if _UNREADABLE.match(name) else name for n, name in _GPU.findall(said)]
    version, highest = (part if re.match(r"\d", part or "") else "" for part in head.groups())
    problem, remedy = gpu_faults.meaning(_around_the_table(said))
    if not problem and _ERRORS.search(said.replace(head[0], "")):
        problem, remedy = gpu_faults.ERRORS
    if not problem and not highest:
        problem, remedy = {None: _TOO_OLD, "N/A": _NO_CUDA, "[N/A]": _NO_CUDA}.get(head[2], _CUDA_UNREADABLE)
    if not problem and not version:
        problem, remedy = _JETSON if "(nvgpu)" in said else _NO_VERSION
    return Reading(version, {"CUDA up to": highest, "GPUs": ", ".join(names)}, problem, remedy)


def _around_the_table(said: str) -> str:
    """Give the lines that are no rows of the table: a GPU that is lost is told there."""
    return "\n".join(line for line in said.splitlines() if not line.startswith(("|", "+")))


def read_nvcc(said: str) -> Reading:
    """Read what `nvcc --version` prints: the installed CUDA, which is not the one that nvidia-smi names."""
    if found := re.search(r"release [\d.]+, V([\d.]+)", said):
        return Reading(found[1])
    remedy = "log in again: ~/.bashrc names its folder; if it stays, install CUDA"
    return Reading(problem="nvcc is not installed, or not in PATH", remedy=remedy)


_STATES = {"H": "half-installed", "U": "unpacked, not configured", "F": "half-configured"}
_PACKAGE = re.compile(r"^([uihrp])([ncHUFWti])(R?)\s+(\S+)\s+(\S+)", re.MULTILINE)


def read_dpkg(said: str) -> dict[str, str]:
    """Read what `dpkg -l` prints.

    Args:
        said: Its output, with or without the lines above the table.

    Returns:
        The version of each package that is installed in whole, also of those that are held (`hi`).
    """
    return {name.partition(":")[0]: version for _, state, _, name, version in _PACKAGE.findall(said) if state in "iWt"}


def half_installed(said: str) -> dict[str, str]:
    """Read what `dpkg -l` prints of packages whose installation was broken off: the state of each, in words."""
    rows = _PACKAGE.findall(said)
    return {name.partition(":")[0]: f"{version}, {_STATES[s]}" for _, s, _, name, version in rows if s in _STATES}


# What stands for a CUDA, the best first: those up to `runtime` carry the version of the whole, as the metapackage does.
_TOOLKIT = ("toolkit", "compiler", "minimal-build", "libraries", "runtime", "nvcc", "cudart")


def cuda_packages(there: Mapping[str, str]) -> dict[str, str]:
    """Find the CUDA versions that packages of NVIDIA's bring, by the metapackages or by what these consist of.

    Args:
        there: The version of each installed package.

    Returns:
        For each CUDA version, such as 13.0, the version of the package that stands for it, the newest CUDA first. A
        package of the libraries for older drivers (cuda-compat), a key or a repository brings none.
    """
    found: dict[str, str] = {}
    for part in ("", *(f"{name}-" for name in _TOOLKIT)):
        for name, version in there.items():
            if match := re.fullmatch(rf"cuda-{part}(\d+)-(\d+)", name):
                found.setdefault(f"{match[1]}.{match[2]}", version)
    if match := re.match(r"(\d+\.\d+)", there.get("cuda", there.get("cuda-toolkit", ""))):
        found[match[1]] = there.get("cuda", there.get("cuda-toolkit", ""))
    return dict(sorted(found.items(), key=lambda row: [int(n) for n in row[0].split(".")], reverse=True))


_DRIVER = re.compile(
    r"nvidia-(driver|headless|headless-no-dkms|dkms|kernel-source|open|linux-grid)(-\d+)?(-server)?(-open)?|"
    r"nvidia-(tesla-|legacy-)?(\d+(xx)?-)?(open-)?(driver|kernel-dkms|kernel-open-dkms)"  # Debian's names
)


def driver_packages(packages: Mapping[str, str]) -> dict[str, str]:
    """Find the driver's packages of any kind: of desktops and servers, with open and closed modules, without display.

    Args:
        packages: The version, or the state, of each package.

    Returns:
        The same of the driver's packages, the one with all parts (`nvidia-driver-535`) first.
    """
    found = {n: v for n, v in packages.items() if _DRIVER.fullmatch(n) or re.fullmatch(r"cuda-drivers(-\d+)?", n)}
    return dict(sorted(found.items(), key=lambda row: not row[0].startswith("nvidia-driver")))


def read_nbody(said: str) -> Mapping[str, object]:
    """Read what CUDA's n-body sample prints.

    Args:
        said: Its output.

    Returns:
        The GPU, and how fast it computed; empty where it told no speed.
    """
    device = re.search(r"CUDA device: \[(.*?)\]", said)
    speed = re.search(r"= *([\d.]+) (single|double)-precision GFLOP/s", said)
    if not device or not speed:
        return {}
    return {"GPU": device[1], "GFLOP/s": float(speed[1]), "precision": speed[2]}
