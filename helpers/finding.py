"""One prerequisite as `tutorial doctor` found it, and the commands that install what is missing."""

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from helpers.errors import TutorialError

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One prerequisite as it was found.

    Attributes:
        name: What it is.
        found: Its version, value or state; empty where it is missing.
        purpose: What it is for.
        needed: Whether the target can't do without it.
        remedy: What to do where it is missing: a command to paste, or a sentence.
        need: The value that is needed, such as `4 GiB`.
        enough: Whether what was found is enough; None means that anything found is.
    """

    name: str
    found: str
    purpose: str
    needed: bool
    remedy: str
    need: str = ""
    enough: bool | None = None

    @property
    def state(self) -> str:
        """`ok`, `missing` (the target needs it), `optional` (it doesn't), or `unknown`: the machine does not tell."""
        if self.found.startswith(UNKNOWN):
            return UNKNOWN
        enough = bool(self.found) if self.enough is None else self.enough
        return "ok" if enough else "missing" if self.needed else "optional"


def asked(name: str, look: Callable[[], str], purpose: str, needed: bool, remedy: str, need: str = "") -> Finding:
    """Make the finding of something that a function looks for.

    Args:
        name: What it is.
        look: Gives its value; empty where it is missing. Its `TutorialError` says why it is not usable.
        purpose: What it is for.
        needed: Whether the target can't do without it.
        remedy: What to do where it is missing; an error has a remedy of its own.
        need: The value that is needed.
    """
    try:
        return Finding(name, look(), purpose, needed, remedy, need)
    except TutorialError as error:
        return Finding(name, f"no: {error.why or error.what}", purpose, needed, error.remedy or remedy, need, False)
    except (OSError, ValueError, RuntimeError) as error:  # a tool that works by half is as good as none
        return Finding(name, f"no: {error}", purpose, needed, remedy, need, False)


def at_least(
    name: str, value: float | None, need: float, unit: str, purpose: str, needed: bool, remedy: str
) -> Finding:
    """Make the finding of something that is measured.

    Args:
        name: What it is.
        value: How much there is; None where the machine does not tell.
        need: How much is needed.
        unit: Of both, such as `GiB`; may be empty.
        purpose: What it is for.
        needed: Whether the target can't do without it.
        remedy: What to do where it is too little.
    """
    found = UNKNOWN if value is None else f"{value:.0f} {unit}".strip()
    return Finding(name, found, purpose, needed, remedy, f"{need:.0f} {unit}".strip(), value is None or value >= need)


def install(debian: str, fedora: str = "", mac: str = "") -> str:
    """Give the command that installs a package on this computer.

    Args:
        debian: The package's name on Debian and Ubuntu.
        fedora: Its name on Fedora and its kin, where that is another one.
        mac: Its name in Homebrew, where that is another one.
    """
    if platform.system() == "Darwin":
        return f"brew install {mac or debian}"
    if shutil.which("dnf") and not shutil.which("apt-get"):
        return f"sudo dnf install {fedora or debian}"
    return f"sudo apt install {debian}"
