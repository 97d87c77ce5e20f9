"""Chapter 04's versions: which fit together, and which a machine has, read from what its tools print.

The table is `deployments/gpu/versions.toml`, with the source of each fact.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from helpers import display
from helpers.errors import TutorialError
from helpers.gpu_devices import TABLE, capability, short
from helpers.gpu_readings import Reading, cuda_packages, driver_packages, half_installed, read_dpkg, read_nvcc, read_smi
from helpers.gpu_readings import read_nbody as read_nbody


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
    """List why a set does not fit together or not to the machine's GPUs, or why that is unknown.

    Args:
        versions: The set.
        devices: The lines that name the GPUs, as `gpu.devices` gives them.

    Returns:
        The reasons; none when it is known to fit. The reasons of `unknown` come last.
    """
    if reasons := _unknown_parts(versions):
        return reasons
    return [*_misfits(versions), *_unfit_gpus(versions, devices), *unknown(devices)]


def _unknown_parts(versions: Versions) -> list[str]:
    return [
        f"the table knows no {part} {value}" for part, value in asdict(versions).items() if _row(part, value) is None
    ]


def _row(part: str, value: str) -> Mapping[str, str] | None:
    """Give a version's row of the table; the driver's branches of servers and open modules are that of their number."""
    key = re.sub(r"(-server)?(-open)?$", "", value) if part == "driver" else value
    row: Mapping[str, str] | None = TABLE[part].get(key)
    return row


def _misfits(versions: Versions) -> list[str]:
    rows = {part: _row(part, value) or {} for part, value in asdict(versions).items()}
    reasons = [
        f"{part} {getattr(versions, part)} needs driver {row['driver']} or newer; the set has {versions.driver}"
        for part, row in rows.items()
        if part != "driver" and _older(versions.driver, row.get("driver", "0"))
    ]
    if _older(versions.toolkit, rows["operator"]["toolkit"]):
        reasons.append(f"operator {versions.operator} needs container toolkit {rows['operator']['toolkit']} or newer")
    return reasons


def _unfit_gpus(versions: Versions, devices: Sequence[str]) -> Iterator[str]:
    known = [(device, has) for device in devices if (has := capability(device))]
    for device, has in known:
        for part, value in asdict(versions).items():
            row = _row(part, value) or {}
            if _older(has, row.get("oldest_gpu", "0")):
                needs = f"needs compute capability {row['oldest_gpu']} or newer; {short(device)} has {has}"
                yield f"{part} {value} {needs}"
            if _older(row.get("newest_gpu", has), has):
                yield f"{part} {value} knows no GPU above {row['newest_gpu']}; {short(device)} has {has}"


def unknown(devices: Sequence[str]) -> list[str]:
    """List the GPUs of which nothing can be said: no table knows their compute capability.

    Args:
        devices: The lines that name the GPUs, as `gpu.devices` gives them.

    Returns:
        A sentence for each; none when all are known.
    """
    why = "its compute capability is in no table"
    return [f"it is unknown whether the set fits {short(d)}: {why}" for d in devices if not capability(d)]


def gpus(versions: Versions, devices: Sequence[str]) -> list[Mapping[str, object]]:
    """Say of each GPU whether the set fits it.

    Args:
        versions: The set.
        devices: The lines that name the GPUs, as `gpu.devices` gives them.

    Returns:
        Rows with the columns GPU, compute capability and fits: yes, unknown, or the reasons why not.
    """
    return [
        {
            "GPU": short(device),
            "compute capability": capability(device) or "unknown",
            "fits": "; ".join(_unfit_gpus(versions, [device])) or ("yes" if capability(device) else "unknown"),
        }
        for device in devices
    ]


def require_fit(versions: Versions, devices: Sequence[str] = ()) -> None:
    """Refuse a set that does not fit together; show what is unknown.

    A GPU that no table knows does not stop you. It is shown as not known to fit, and you decide.

    Args:
        versions: The set.
        devices: The lines that name the GPUs, as `gpu.devices` gives them.

    Raises:
        TutorialError: It doesn't fit; every reason is named.
    """
    doubts = unknown(devices)
    if reasons := [reason for reason in misfits(versions, devices) if reason not in doubts]:
        remedy = "choose versions that fit, or the set `reference`; deployments/gpu/versions.toml has the sources"
        raise TutorialError("These versions do not fit together", "; ".join(reasons), remedy)
    for doubt in doubts:
        display.show(f"Not known to fit: {doubt}. Compare https://developer.nvidia.com/cuda-gpus before you go on.")


def _older(version: str, than: str) -> bool:
    """Compare as far as both are told: the branch 535 is not older than 535.54.03."""
    pairs = zip(_numbers(version), _numbers(than), strict=False)
    return next((a < b for a, b in pairs if a != b), False)


def _numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)]


def _of_branch(version: str, branch: str) -> bool:
    """Tell whether a version (535.247.01, 1:535.54-1) is of a branch or a release (535, 535-server, 12.2)."""
    wanted = _numbers(branch)
    return _numbers(version.rpartition(":")[2])[: len(wanted)] == wanted


def rows(
    smi: str, nvcc: str, dpkg: str, versions: Versions, fault: tuple[str, str] = ("", "")
) -> list[Mapping[str, object]]:
    """Put the versions of a machine into one table.

    Args:
        smi: What `nvidia-smi` printed.
        nvcc: What `nvcc --version` printed.
        dpkg: What `dpkg -l` printed.
        versions: The chosen set.
        fault: Why the driver's kernel module does not run, and the remedy, where that is known better than from `smi`.

    Returns:
        A row a part, with the columns what, wanted, there, remedy.
    """
    driver, compiler, there, broken = read_smi(smi), read_nvcc(nvcc), read_dpkg(dpkg), half_installed(dpkg)
    toolkit = there.get("nvidia-container-toolkit") or broken.get("nvidia-container-toolkit", "none")
    return [
        _installed_driver(driver, there, broken, versions.driver),
        _running_driver(driver, versions.driver, fault),
        *_gpus(driver, versions.cuda),
        _cuda(compiler, there, broken, versions.cuda),
        _nvcc(compiler, versions.cuda),
        _told("container toolkit", versions.toolkit, toolkit, "" if toolkit == versions.toolkit else _install(toolkit)),
    ]


def _told(what: str, wanted: str, there: str, remedy: str = "") -> Mapping[str, object]:
    return {"what": what, "wanted": wanted, "there": there, "remedy": remedy}


def _install(there: str) -> str:
    """Give the remedy for what is not installed as wanted; `there` has a state in words where it was broken off."""
    return "sudo dpkg --configure -a, then sudo apt-get -f install" if ", " in there else "install it"


def _installed_driver(
    driver: Reading, there: Mapping[str, str], broken: Mapping[str, str], wanted: str
) -> Mapping[str, object]:
    what = "driver, installed"
    if rest := driver_packages(broken):
        return _told(what, wanted, "; ".join(f"{n} {v}" for n, v in rest.items()), _install(", "))
    packages = driver_packages(there)
    exact = packages.get(f"nvidia-driver-{wanted}", "")
    if exact and _of_branch(exact, wanted):
        return _told(what, wanted, exact)
    if packages:
        fits = any(_of_branch(version, wanted) for version in packages.values())
        listed = ", ".join(f"{name} {version}" for name, version in packages.items())
        return _told(what, wanted, listed, "" if fits else "install it")
    if driver.version:
        keep = (
            "it came without a package (a .run file, the image, Windows): keep it, or remove it before you install one"
        )
        return _told(what, wanted, f"{driver.version}, from no package", keep)
    return _told(what, wanted, "none", "install it")


def _running_driver(driver: Reading, wanted: str, fault: tuple[str, str]) -> Mapping[str, object]:
    if not driver.version:
        problem, remedy = fault if fault[0] else (driver.problem, driver.remedy)
        return _told("driver, running", wanted, problem, remedy)
    strange = not _of_branch(driver.version, wanted)
    remedy = "another branch runs: restart the machine, or choose it" if strange else ""
    return _told("driver, running", wanted, driver.version, remedy)


def _gpus(driver: Reading, cuda: str) -> Iterator[Mapping[str, object]]:
    if "GPUs" not in driver.more:
        return
    what, highest = "CUDA that the driver can do", driver.more["CUDA up to"]
    if highest:
        yield _told(what, cuda, highest, "a newer driver" if _older(highest, cuda) else "")
    else:
        yield _told(what, cuda, "unknown: nvidia-smi can't tell", driver.remedy)
    wrong = driver.problem if highest else ""
    listed = "; ".join(part for part in (driver.more["GPUs"], wrong) if part)
    yield _told("GPUs", "", listed, driver.remedy if wrong else "")


def _cuda(compiler: Reading, there: Mapping[str, str], broken: Mapping[str, str], wanted: str) -> Mapping[str, object]:
    what, packages = "CUDA, installed", cuda_packages(there)
    if rest := {n: v for n, v in broken.items() if re.match(r"cuda(-|$)", n)}:
        return _told(what, wanted, "; ".join(f"{n} {v}" for n, v in rest.items()), _install(", "))
    if wanted in packages:
        others = ", ".join(version for release, version in packages.items() if release != wanted)
        return _told(what, wanted, packages[wanted] + (f"; also {others}" if others else ""))
    if packages:
        return _told(what, wanted, ", ".join(packages.values()), "install it")
    if of_system := there.get("nvidia-cuda-toolkit"):
        return _told(what, wanted, "none", f"install it; the system's own nvidia-cuda-toolkit is {of_system}")
    if compiler.version:
        fits = _of_branch(compiler.version, wanted)
        return _told(what, wanted, f"{compiler.version}, from no package", "" if fits else "install it")
    return _told(what, wanted, "none", "install it")


def _nvcc(compiler: Reading, wanted: str) -> Mapping[str, object]:
    strange = bool(compiler.version) and not _of_branch(compiler.version, wanted)
    another = "PATH finds another one first" if strange else ""
    return _told("nvcc", wanted, compiler.version or compiler.problem, compiler.remedy or another)
