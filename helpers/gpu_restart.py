"""Chapter 04's restart: whether the kernel still runs without the driver that is installed."""

from collections.abc import Mapping

from helpers import gpu_devices
from helpers.errors import TutorialError
from helpers.shell import query
from helpers.target import Target

_PACKAGES = ("driver", "headless", "headless-no-dkms", "dkms", "kernel-source")
_KINDS = ("", "-server", "-open", "-server-open")
_CLOCK_SECONDS = 60
_QUESTIONS = {
    "loaded": "cat /sys/module/nvidia/version",
    "module": "modinfo -F version nvidia",
    "built": 'stat -L -c %Y "$(modinfo -F filename nvidia)"',
    "smi": f"{gpu_devices.PROGRAMS} nvidia-smi 2>&1; true",
    "now": "date +%s",
    "boot": "sed -n 's/^btime //p' /proc/stat",
    "process 1": "cat /proc/1/stat || sudo -n cat /proc/1/stat",  # another user's are hidden by hidepid
    "ticks": "getconf CLK_TCK",
}


def needs_restart(target: Target, driver: str) -> bool:
    """Tell whether the driver was installed, or updated, after the machine was started.

    The versions of the running and the installed kernel module decide, where both are known. Otherwise the times of
    the installation and of the start do.

    Args:
        target: The machine.
        driver: The driver's branch.

    Returns:
        Whether a restart is due.

    Raises:
        TutorialError: It isn't known: the machine does not show when it was started, or its clock was changed.
    """
    branch = driver.removesuffix("-open").removesuffix("-server")
    files = [f"/var/lib/dpkg/info/nvidia-{package}-{branch}{kind}.list" for package in _PACKAGES for kind in _KINDS]
    answers = query(target, {**_QUESTIONS, "installed": f"stat -c %Y {' '.join(files)}; true"})
    if "library version mismatch" in (answers["smi"] or ""):
        return True
    if answers["loaded"] and answers["module"]:
        return answers["loaded"] != answers["module"]
    times = [int(word) for name in ("installed", "built") for word in (answers[name] or "").split() if word.isdigit()]
    if not times:
        return False
    installed, started = max(times), _started(answers)
    if started is None:
        raise _unknown(target, "the machine does not show when it was started (is /proc hidden?)")
    if answers["now"] and installed > int(answers["now"]) + _CLOCK_SECONDS:
        raise _unknown(target, "the driver's files are from the future, so the machine's clock was changed")
    return installed > started


def _started(answers: Mapping[str, str | None]) -> float | None:
    """Give the time of the start: that of process 1, which in a container is later than the kernel's boot."""
    if not (boot := answers["boot"]) or not boot.isdigit():
        return None
    fields, ticks = (answers["process 1"] or "").rpartition(")")[2].split(), answers["ticks"] or "100"
    return int(boot) + (int(fields[19]) / int(ticks) if len(fields) > 19 else 0)


def _unknown(target: Target, why: str) -> TutorialError:
    return TutorialError(
        "It is not known whether a restart is due", why, "sudo systemctl reboot, to be sure; then run the cell again",
        target=target.name,
    )  # fmt: skip
