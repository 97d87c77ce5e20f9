"""What the tutorial has made on a target, and how to take it away again: `tutorial clean`."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from helpers import processes

# Modules of chapters that leave something behind; each has `leftovers(target) -> list[Leftover]`.
CHAPTER_MODULES = (
    "helpers.target_ssh",
    "helpers.ssh",
    "helpers.forwarder_local",
    "helpers.cluster",
    "helpers.nvshare",
    "helpers.oss_platform",
    "helpers.kind",
    "helpers.gpu",
    "helpers.docker_host",
    "helpers.tools",
    "helpers.cpouta",
    "helpers.cpouta_lab",
    "helpers.vm",
)


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
        Running processes first, the youngest first, then what the chapters name.
    """
    found = [Leftover(f"process {p.name}", f"process id {p.pid}", p.stop) for p in reversed(processes.running(target))]
    for module in CHAPTER_MODULES:
        found += import_module(module).leftovers(target)
    return found
