"""Chapter 04's GPUs: which a machine has, and the compute capability of each.

Four sources are asked, the best first: the driver (nvidia-smi), the PCI bus with names (lspci), the PCI bus with
numbers (the kernel), and the tables `deployments/gpu/chips.toml` and `[gpus]` of `versions.toml`.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from helpers.settings import ROOT

_FOLDER = ROOT / "deployments/gpu"
CHIPS: dict[str, Any] = tomllib.loads((_FOLDER / "chips.toml").read_text(encoding="utf-8"))
TABLE: dict[str, Any] = tomllib.loads((_FOLDER / "versions.toml").read_text(encoding="utf-8"))
_BY_ID = {number: chip for chip, row in CHIPS.items() for number in row["ids"].split()}
_CHIP = re.compile(rf"\b({'|'.join(sorted(CHIPS, key=len, reverse=True))})[A-Z]{{0,4}}\b")
_PCI_ID = re.compile(r"\[10de:([0-9a-f]{4})\]|\bdevice (?:0x)?([0-9a-f]{4})\b", re.IGNORECASE)

PROGRAMS = "PATH=$PATH:/usr/lib/wsl/lib"  # WSL keeps Windows' nvidia-smi there
# compute_cap is known to drivers since 510: https://developer.nvidia.com/nvidia-system-management-interface.
_SMI = "nvidia-smi --query-gpu=name,{}driver_version --format=csv,noheader 2>&1"
# The kernel's list: display controllers (class 03) of NVIDIA (vendor 10de), no virtual functions of a shared card.
_KERNEL = """for d in /sys/bus/pci/devices/*; do [ ! -e "$d/physfn" ] || continue
grep -qs 0x10de "$d/vendor" && grep -qs "^0x03" "$d/class" && echo "${d##*/} NVIDIA, device $(cat "$d/device")"
done; true"""
# What must be asked of a machine, for `named` and `driver`.
QUESTIONS = {
    "driver": "cat /proc/driver/nvidia/version",
    "smi": f"{PROGRAMS} {_SMI.format('compute_cap,')} || {PROGRAMS} {_SMI.format('')}; true",
    "lspci": "lspci",
    "kernel's list": _KERNEL,
}
_CONTROLLER = re.compile(r"\b(VGA compatible|3D|Display) controller\b.*nvidia", re.IGNORECASE)
_NONE = r"\[[^\]]*\]|N/A|ERR!|Unknown(?: Error)?"  # in place of a value
_ROW = re.compile(
    rf"(?P<name>[^,]+?), (?:(?P<capability>\d+\.\d+|{_NONE}), )?(?P<driver>\d+\.\d[\d.]*|{_NONE})", re.IGNORECASE
)
_LOST = re.compile(r"device handle|GPU is lost|fallen off", re.IGNORECASE)


def named(answers: Mapping[str, str | None]) -> list[str]:
    """Name the NVIDIA GPUs of a machine; each card counts once, whatever else is on it (audio, USB, NVSwitch).

    Args:
        answers: What the machine answered to `QUESTIONS`.

    Returns:
        A line for each GPU. It names the GPU as well as its source can: `NVIDIA A30 (compute capability 8.0)` of the
        driver, the line of lspci, or the PCI device number.
    """
    said = answers["smi"] or ""
    by_driver = [_line(row) for row in _rows(said)]
    bus = _one_a_slot([line for line in (answers["lspci"] or "").splitlines() if _CONTROLLER.search(line)])
    bus = bus or _one_a_slot((answers["kernel's list"] or "").splitlines())
    if by_driver and not _LOST.search(said) and (all(map(capability, by_driver)) or not bus):
        return by_driver
    return max(bus, by_driver, key=lambda lines: sum(bool(capability(line)) for line in lines))


def _rows(said: str) -> list[re.Match[str]]:
    return [row for line in said.splitlines() if (row := _ROW.fullmatch(line.strip()))]


def _line(row: re.Match[str]) -> str:
    """Write a row of the driver's as a line; a GPU that does not answer has words in brackets for its name."""
    has = row["capability"] or ""
    return row["name"] + (f" (compute capability {has})" if re.fullmatch(r"\d+\.\d+", has) else "")


def _one_a_slot(lines: Sequence[str]) -> list[str]:
    """Keep the first line of each slot of the bus: what differs in the function only is the same card."""
    return list({line.partition(" ")[0].partition(".")[0]: line for line in reversed(lines)}.values())[::-1]


def driver(answers: Mapping[str, str | None]) -> str:
    """Give the version of the driver that runs; empty when none is known to run.

    Args:
        answers: What the machine answered to `QUESTIONS`. /proc has the running module's version, also for the open
            modules (`Open Kernel Module for x86_64  580.159.04`); nvidia-smi has that of Windows' driver under WSL.
    """
    from_proc = module_version(answers["driver"] or "")
    return from_proc or next((row["driver"] for row in _rows(answers["smi"] or "") if row["driver"][0].isdigit()), "")


def module_version(text: str) -> str:
    """Read the version in `/proc/driver/nvidia/version`; empty when there is none."""
    found = re.search(r"^NVRM version:.*?\s(\d+\.\d[\d.]*)(?:\s|$)", text, re.MULTILINE)
    return found[1] if found else ""


def capability(device: str) -> str:
    """Give a GPU's compute capability.

    Args:
        device: Its name, or its line of `named`, lspci or the kernel.

    Returns:
        The capability, such as 9.0. It is empty where no table knows the GPU: then it is unknown what fits it.
    """
    if stated := re.search(r"compute capability (\d+\.\d+)", device):
        return stated[1]
    if chip := chip_of(device):
        return str(CHIPS[chip]["capability"])
    found = [
        (len(m[0]), value) for name, value in TABLE["gpus"].items() if (m := re.search(rf"\b(?:{name})\b", device))
    ]
    return str(max(found)[1]) if found else ""


def chip_of(device: str) -> str:
    """Give the chip that a line names by its code (GH100) or by its PCI device number; empty where it names none."""
    if chip := _CHIP.search(device):
        return chip[1]
    number = _PCI_ID.search(device)
    return _BY_ID.get((number[1] or number[2]).lower(), "") if number else ""


def short(device: str) -> str:
    """Give a GPU's name without what surrounds it: `Tesla P100 PCIe 16GB`."""
    if re.match(r"\[|ERR!|N/A|Unknown", device):
        return "a GPU that does not answer"
    device = device.partition(" (compute capability")[0]
    names = [name for name in re.findall(r"\[(.*?)\]", device) if not re.fullmatch(r"[0-9a-f]{4}(:[0-9a-f]{4})?", name)]
    if names:
        return str(names[0])
    chip = chip_of(device)
    return f"{device} ({chip})" if chip and chip not in device else device
