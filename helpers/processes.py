"""Background processes that the tutorial starts on this machine: found again, and ended, by whoever comes next.

Each has a record `<state>/<target>/processes/<name>.json`. It holds the process id *and* its start time, so that a
stale record is never taken for a stranger's process that got the same id (`psutil.Process` compares both as well).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from helpers.errors import TutorialError, mask
from helpers.settings import settings
from helpers.shell import environment
from helpers.signals import let_children_hear

GRACE = 10.0  # seconds that a process has to end by itself before it is killed


@dataclass(frozen=True)
class Background:
    """A process that was started in the background.

    Attributes:
        name: What it is called; one of that name at a time a target.
        target: The name of the target that it belongs to.
        pid: Its process id.
        created: When it started, in seconds since the epoch, as the operating system has it.
        argv: Its command.
        log: The file that its output goes to.
        owner: The chapter whose headless run started it; empty in a live session.
        started_by: Process id of the kernel or program that started it.
        ports: The ports that it listens on, by name.
    """

    name: str
    target: str
    pid: int
    created: float
    argv: list[str]
    log: str
    owner: str = ""
    started_by: int = 0
    ports: dict[str, int] = field(default_factory=dict)

    def alive(self) -> bool:
        """Tell whether this very process still runs (not merely one with its id)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1.0
            return same and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # another user's process has its id now
            return False

    def last_lines(self, count: int = 12) -> str:
        """Give the last lines of its log, secrets masked."""
        path = Path(self.log)
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        return mask("\n".join(text.splitlines()[-count:]))

    def stop(self, grace: float = GRACE) -> None:
        """End it and its children: SIGTERM, after `grace` seconds SIGKILL; then forget its record."""
        if self.alive():
            process = psutil.Process(self.pid)
            family = [process, *process.children(recursive=True)]
            process.terminate()
            _, left = psutil.wait_procs(family, timeout=grace)
            for survivor in left:
                survivor.kill()
            psutil.wait_procs(left, timeout=5)
        _record(self.target, self.name).unlink(missing_ok=True)


def _record(target: str, name: str) -> Path:
    return settings().state / target / "processes" / f"{name}.json"


def find(name: str, target: str = "local") -> Background | None:
    """Find a running process by name; a stale record is removed.

    Args:
        name: The name that it was started with.
        target: The name of its target.

    Returns:
        The process, or None where none of that name runs.
    """
    return next((p for p in running(target) if p.name == name), None)


def running(target: str = "local", owner: str | None = None) -> list[Background]:
    """List the processes that run, oldest first; stale records are removed.

    Args:
        target: The name of their target.
        owner: Only those that this chapter's headless run started.

    Returns:
        The running processes.
    """
    found = []
    for path in (settings().state / target / "processes").glob("*.json"):
        try:
            process = Background(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, FileNotFoundError):
            path.unlink(missing_ok=True)
            continue
        if not process.alive():
            path.unlink(missing_ok=True)
        elif owner is None or process.owner == owner:
            found.append(process)
    return sorted(found, key=lambda p: p.created)


def start(
    name: str,
    argv: Sequence[str],
    *,
    ready: Callable[[], bool],
    target: str = "local",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    ports: Mapping[str, int] | None = None,
    timeout: float = 30.0,
) -> Background:
    """Start a process in a session of its own and wait until it is ready.

    Args:
        name: What to call it.
        argv: Its command.
        ready: Says whether it is ready; asked every 0.1 s. An exception of the network counts as not yet.
        target: The name of the target that it belongs to.
        cwd: The folder that it runs in.
        env: Variables on top of the program's environment (`helpers.shell.environment`).
        ports: The ports that it will listen on, by name; each must be free.
        timeout: Seconds until it must be ready.

    Returns:
        The running process.

    Raises:
        TutorialError: One of that name runs, a port is taken, or it ended or was not ready in time. Nothing is left
            running then.
    """
    existing = find(name, target)
    if existing:
        raise TutorialError(
            f"{name} already runs",
            f"process {existing.pid}, started by process {existing.started_by}",
            f"use that one, or end it: tutorial clean --target {target}",
            target=target,
        )
    for label, port in (ports or {}).items():
        require_free(port, f"{name} ({label})")
    log = settings().state / target / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("wb") as output:
            child = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env={**environment(argv[0]), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the kernel must not end it
                preexec_fn=let_children_hear(),
            )
    except OSError as error:
        remedy = f"see that {argv[0]} is installed and may be executed; `tutorial doctor` says how"
        raise TutorialError(f"{name} can't be started", str(error), remedy, target=target, command=argv) from None
    process = Background(
        name,
        target,
        child.pid,
        psutil.Process(child.pid).create_time(),
        list(argv),
        str(log),
        settings().chapter,
        os.getpid(),
        dict(ports or {}),
    )
    write_atomically(_record(target, name), json.dumps(asdict(process)))
    try:
        _wait(process, child, ready, timeout)
    except BaseException:
        process.stop()
        raise
    return process


def _wait(process: Background, child: "subprocess.Popen[bytes]", ready: Callable[[], bool], timeout: float) -> None:
    def settled() -> bool:
        if child.poll() is not None:
            return True
        try:
            return ready()
        except OSError:
            return False

    try:
        Retrying(retry=retry_if_result(lambda ok: not ok), stop=stop_after_delay(timeout), wait=wait_fixed(0.1))(
            settled
        )
    except RetryError:
        why = f"it runs, but was not ready within {timeout:g} s"
    else:
        if child.poll() is None:
            return
        why = f"it ended with exit code {child.returncode}"
    raise TutorialError(
        f"{process.name} did not start",
        why,
        f"read its log {process.log}, correct the cause and run the cell again",
        target=process.target,
        command=process.argv,
        output=process.last_lines(),
    )


def stop_all(target: str = "local", owner: str | None = None) -> list[str]:
    """Stop processes, the youngest first.

    Args:
        target: The name of their target.
        owner: Only those that this chapter's headless run started.

    Returns:
        The names of those that were stopped.
    """
    stopped = running(target, owner)[::-1]
    for process in stopped:
        process.stop()
    return [p.name for p in stopped]


def answers(address: str) -> bool:
    """Tell whether something listens on `HOST:PORT`."""
    import socket

    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, int(port))) == 0


def free_port() -> int:
    """Give a TCP port of the loopback address that is free at the moment."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def is_free(port: int) -> bool:
    """Tell whether nothing listens on a TCP port of the loopback address."""
    import socket

    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


def require_free(port: int, purpose: str) -> None:
    """Make sure that a TCP port on loopback is free.

    Args:
        port: The port, 1 to 65535.
        purpose: What it is wanted for; the error names it.

    Raises:
        TutorialError: Something listens there; the error says what, where the system tells.
    """
    if not is_free(port):
        raise TutorialError(
            f"Port {port}, wanted for {purpose}, is taken",
            f"by {_listener(port)}",
            "stop that program, or choose another port in the notebook's parameters cell",
        )


def _listener(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})" if connection.pid else "…"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        pass
    return "another program (the system does not tell which)"


def write_atomically(path: Path, text: str, permissions: int = 0o644) -> None:
    """Write a file by way of a temporary one beside it, so that nobody ever sees half of it.

    Args:
        path: The file.
        text: Its whole new content; line ends are kept as they are.
        permissions: The file's mode.
    """
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, permissions)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


PYTHON = sys.executable  # of the tutorial's environment
