"""Chapter 04's versions: which fit together, and which a machine has, read from what its tools print.

The table is `deployments/gpu/versions.toml`, with the source of each fact.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from helpers.errors import TutorialError
from helpers.settings import ROOT

TABLE: dict[str, Any] = tomllib.loads((ROOT / "deployments/gpu/versions.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Versions:
    """A set of GPU software.

    Attributes:
        driver: The branch of NVIDIA's driver, as in the package nvidia-driver-535.
        cuda: CUDA's version, such as 12.2.
        toolkit: The version of the container toolkit's packages.
        operator: The version of the GPU operator's chart (chapter 05).
        nvshare: The tag of nvshare's images (chapter 05).
    """

    driver: str
    cuda: str
    toolkit: str
    operator: str
    nvshare: str


def chosen(name: str = "reference", **changes: str) -> Versions:
    """Take a set of the table, with other versions where one likes.

    Args:
        name: The set's name.
        changes: Versions in place of the set's: `driver="550"`.

    Returns:
        The set. Whether it fits together is another question: `require_fit`.

    Raises:
        TutorialError: There is no such set, or no such part of one.
    """
    if name not in TABLE["sets"]:
        raise TutorialError(f"There is no set {name!r}", "", f"the table has {', '.join(TABLE['sets'])}")
    row = {k: v for k, v in TABLE["sets"][name].items() if k in Versions.__dataclass_fields__}
    if unknown := set(changes) - set(row):
        raise TutorialError(f"{min(unknown)!r} is no part of a set", "", f"a set has {', '.join(row)}")
    return replace(Versions(**row), **changes)


def capability(device: str) -> str:
    """Tell a GPU's compute capability by its name in lspci's line; empty when the table does not know it."""
    found = [(len(name), value) for name, value in TABLE["gpus"].items() if re.search(rf"\b{name}\b", device)]
    return str(max(found)[1]) if found else ""


def table(versions: Versions) -> list[Mapping[str, object]]:
    """List a set's parts, and what each of them needs.

    Args:
        versions: The set; every part is known.

    Returns:
        Rows with the columns part, version, needs driver and oldest GPU.
    """
    rows = [(part, value, TABLE[part].get(value, {})) for part, value in asdict(versions).items()]
    return [
        {"part": p, "version": v, "needs driver": r.get("driver", ""), "oldest GPU": r.get("oldest_gpu", "")}
        for p, v, r in rows
    ]


def misfits(versions: Versions, devices: Sequence[str] = ()) -> list[str]:
    """List why a set does not fit together, or not to the machine's GPUs.

    Args:
        versions: The set.
        devices: The lines in which lspci names the GPUs.

    Returns:
        The reasons; none when it fits.
    """
    parts = asdict(versions)
    unknown = [f"the table knows no {part} {value}" for part, value in parts.items() if value not in TABLE[part]]
    if unknown:
        return unknown
    rows = {part: TABLE[part][value] for part, value in parts.items()}
    reasons = [
        f"{part} {parts[part]} needs driver {row['driver']} or newer; the set has {versions.driver}"
        for part, row in rows.items()
        if part != "driver" and _older(versions.driver, row.get("driver", "0"))
    ]
    if _older(versions.toolkit, rows["operator"]["toolkit"]):
        reasons.append(f"operator {versions.operator} needs container toolkit {rows['operator']['toolkit']} or newer")
    for device in devices:
        has = capability(device)
        for part, row in rows.items():
            if has and _older(has, row.get("oldest_gpu", "0")):
                needs = f"needs compute capability {row['oldest_gpu']} or newer; {_short(device)} has {has}"
                reasons.append(f"{part} {parts[part]} {needs}")
    return reasons


def require_fit(versions: Versions, devices: Sequence[str] = ()) -> None:
    """Refuse a set that does not fit together.

    Args:
        versions: The set.
        devices: The lines in which lspci names the GPUs.

    Raises:
        TutorialError: It doesn't; every reason is named.
    """
    if reasons := misfits(versions, devices):
        remedy = "choose versions that fit, or the set `reference`; deployments/gpu/versions.toml has the sources"
        raise TutorialError("These versions do not fit together", "; ".join(reasons), remedy)


def _older(version: str, than: str) -> bool:
    """Compare as far as both are told: the branch 535 is not older than 535.54.03."""
    pairs = zip(_numbers(version), _numbers(than), strict=False)
    return next((a < b for a, b in pairs if a != b), False)


def _numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)]


def _short(device: str) -> str:
    name = re.search(r"\[(.*?)\]", device)
    return name[1] if name else device


@dataclass(frozen=True)
class Reading:
    """What one tool says of the machine's versions.

    Attributes:
        version: The version that it tells; empty when it tells none.
        more: What else it tells: the highest CUDA of the driver, the GPUs.
        problem: Why there is no version, in words for the reader.
        remedy: What to do then.
    """

    version: str = ""
    more: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    remedy: str = ""


_HEAD = re.compile(r"NVIDIA-SMI\s+\S+\s+(?:Driver|KMD) Version:\s*(\S+)\s+CUDA(?: UMD)? Version:\s*([\d.]+|\S+)")
_GPU = re.compile(r"^\|\s+\d+\s+(\S.*?)\s+(?:On|Off)\s+\|", re.MULTILINE)
# What nvidia-smi says instead, what it means, and what helps.
# https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceEnumvs.html (the return codes).
_SMI = (
    (
        r"Driver/library version mismatch",
        "the driver was updated, and the kernel still runs the old one",
        "restart the machine",
    ),
    (
        r"couldn't communicate with the NVIDIA driver",
        "the driver's kernel module is not loaded",
        "restart the machine; if it stays, `dkms status` tells whether the module was built for this kernel, "
        "`mokutil --sb-state` whether secure boot refuses it",
    ),
    (r"No devices were found", "the driver runs and sees no GPU", "`sudo dmesg | grep NVRM` tells why"),
    (r"GPU is lost", "the GPU has fallen off the bus", "stop the VM and start it again; tell the cloud's support"),
    (r"not found|No such file", "no driver is installed", "install the driver; without a GPU none is needed"),
)


def read_smi(said: str) -> Reading:
    """Read what `nvidia-smi` prints: the running driver, the highest CUDA that it can do, and the GPUs.

    Args:
        said: Both of its streams.

    Returns:
        The driver's version; or the problem, in words, with its remedy.
    """
    if head := _HEAD.search(said):
        more = {"CUDA up to": head[2], "GPUs": ", ".join(_GPU.findall(said))}
        return Reading(head[1], more)
    for pattern, problem, remedy in _SMI:
        if re.search(pattern, said):
            return Reading(problem=problem, remedy=remedy)
    return Reading(problem=f"it says: {said.strip()[:80] or 'nothing'}", remedy="run nvidia-smi by hand")


def read_nvcc(said: str) -> Reading:
    """Read what `nvcc --version` prints: the installed CUDA, which is not the one that nvidia-smi names."""
    if found := re.search(r"release [\d.]+, V([\d.]+)", said):
        return Reading(found[1])
    remedy = "log in again: ~/.bashrc names its folder; if it stays, install CUDA"
    return Reading(problem="nvcc is not installed, or not in PATH", remedy=remedy)


def read_dpkg(said: str) -> dict[str, str]:
    """Read what `dpkg -l` prints.

    Args:
        said: Its output, with or without the lines above the table.

    Returns:
        The version of each package that is installed, in whole.
    """
    rows = (line.split() for line in said.splitlines())
    return {row[1].partition(":")[0]: row[2] for row in rows if len(row) > 2 and row[0] in ("ii", "hi")}


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


def rows(smi: str, nvcc: str, dpkg: str, versions: Versions) -> list[Mapping[str, object]]:
    """Put the versions of a machine into one table.

    Args:
        smi: What `nvidia-smi` printed.
        nvcc: What `nvcc --version` printed.
        dpkg: What `dpkg -l` printed.
        versions: The chosen set.

    Returns:
        A row a part, with the columns what, wanted, there, remedy.
    """
    return list(_rows(read_smi(smi), read_nvcc(nvcc), read_dpkg(dpkg), versions))


def _rows(driver: Reading, nvcc: Reading, there: Mapping[str, str], wanted: Versions) -> Iterator[Mapping[str, object]]:
    def row(what: str, wanted: str, there: str, remedy: str = "") -> Mapping[str, object]:
        return {"what": what, "wanted": wanted, "there": there, "remedy": remedy}

    packages = {name: version for name, version in there.items() if re.fullmatch(r"nvidia-driver-\d+.*", name)}
    installed = packages.get(f"nvidia-driver-{wanted.driver}", "")
    other = ", ".join(f"{name} {version}" for name, version in packages.items())
    yield row("driver, installed", wanted.driver, installed or other or "none", "" if installed else "install it")
    strange = bool(driver.version) and not driver.version.startswith(wanted.driver)
    yield row(
        "driver, running",
        wanted.driver,
        driver.version or driver.problem,
        driver.remedy or ("another branch runs: restart the machine, or choose it" if strange else ""),
    )
    if highest := driver.more.get("CUDA up to"):
        low = _older(highest, wanted.cuda)
        yield row("CUDA that the driver can do", wanted.cuda, highest, "a newer driver" if low else "")
        yield row("GPUs", "", driver.more["GPUs"])
    cuda = there.get(f"cuda-toolkit-{wanted.cuda.replace('.', '-')}") or there.get("cuda", "none")
    yield row("CUDA, installed", wanted.cuda, cuda, "" if cuda.startswith(wanted.cuda) else "install it")
    strange = bool(nvcc.version) and not nvcc.version.startswith(wanted.cuda)
    another = "PATH finds another one first" if strange else ""
    yield row("nvcc", wanted.cuda, nvcc.version or nvcc.problem, nvcc.remedy or another)
    toolkit = there.get("nvidia-container-toolkit", "none")
    yield row("container toolkit", wanted.toolkit, toolkit, "" if toolkit == wanted.toolkit else "install it")
