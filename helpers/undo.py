"""What the tutorial has made on a target, and how to take it away again: `tutorial clean`."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from helpers import processes, shell
from helpers.errors import TutorialError, Unreachable
from helpers.target import opened

# Modules of chapters that leave something behind; each has `leftovers(target) -> list[Leftover]`.
ON_THE_MACHINE = (
    "helpers.target_ssh",
    "helpers.forwarder_local",
    "helpers.airflow_local",
    "helpers.cluster",
    "helpers.nvshare",
    "helpers.oss_platform",
    "helpers.kind",
    "helpers.gpu",
    "helpers.docker_host",
    "helpers.tools",
)
# What is asked without the machine, and goes after what needs the way to it.
AROUND_IT = ("helpers.cpouta", "helpers.cpouta_lab", "helpers.ssh", "helpers.vm")


@dataclass(frozen=True)
class Leftover:
    """One thing that the tutorial made.

    Attributes:
        what: What it is, in a few words.
        where: Its path, process id or address.
        remove: Takes it away; doing so twice does no harm. None where that can't be undone.
        stays: Why it stays, where it can't be undone, and how a person would take it away.
    """

    what: str
    where: str
    remove: Callable[[], None] | None
    stays: str = ""


def leftovers(target: str) -> list[Leftover]:
    """List what the tutorial made for a target, in the order in which it is to be removed.

    Args:
        target: The target's name.

    Returns:
        Running processes first, the youngest first, then what the chapters name. Of a machine that can't be
        reached, and of a part that can't be asked, one row says so.
    """
    found = [Leftover(f"process {p.name}", f"process id {p.pid}", p.stop) for p in reversed(processes.running(target))]
    try:
        for module in ON_THE_MACHINE:
            found += _of(module, target)
        found += _silent_engine(target)
    except Unreachable as error:
        found.append(Leftover("what is on the machine", target, None, f"it can't be reached: {error.why}"))
    for module in AROUND_IT:
        found += _of(module, target)
    return found


def _silent_engine(target: str) -> list[Leftover]:
    """Name what can't be asked for where Docker is installed and does not answer: no answer is not `nothing`."""
    if target in ("local", "vm"):
        return []
    answers = "{ ! command -v docker || docker --version | grep -qi podman || docker info; } >/dev/null && echo yes"
    with opened(target) as machine:
        if shell.query(machine, {"Docker": answers})["Docker"] == "yes":
            return []
    stays = "Docker does not answer, so it can't be listed; start it (`tutorial doctor` says more), and clean again"
    return [Leftover("what is in Docker", target, None, stays)]


def _of(module: str, target: str) -> list[Leftover]:
    """List what a module names; one that can't ask costs the reader no other's."""
    try:
        return list(import_module(module).leftovers(target))
    except Unreachable:
        raise
    except TutorialError as error:
        why = ": ".join(filter(None, (error.what, error.why)))
        stays = f"it can't be listed. {why}. {error.remedy}".strip()
        return [Leftover(f"what {module} looks for", target, None, stays)]
