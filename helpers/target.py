"""The target: where a chapter's steps take effect. A chapter takes a `Target` and never asks which kind it has."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self, cast

from helpers import docker_engine
from helpers.errors import TutorialError

if TYPE_CHECKING:
    from helpers.provision import Changes

# Names with a kind of their own; every other name is a Host of the reader's SSH configuration.
KINDS = {
    "local": "helpers.target_local:LocalTarget",
    "host": "helpers.target_host:HostTarget",
    "vm": "helpers.vm:VmTarget",
}
SSH_KIND = "helpers.target_ssh:SshTarget"
_SHELLS = ("sh", "/bin/sh", "bash")  # their exit code is that of a script's last command


def valid_name(name: str) -> str:
    """Make sure that a target can have this name; it becomes an argument of ssh and part of paths.

    Args:
        name: `local`, `vm`, `host`, or a `Host` of the reader's SSH configuration.

    Returns:
        The name.

    Raises:
        TutorialError: It is empty, or holds other characters than a host alias has.
    """
    if not re.fullmatch(r"\w[\w.@:+-]*", name):
        raise TutorialError(
            f"{name!r} is not the name of a target", "", "use local, vm, host, or the name of a Host of ~/.ssh/config"
        )
    return name


class Capability(StrEnum):
    """What a step may need of a target; where it is missing, the step plans instead of acting."""

    DOCKER = "docker"
    ROOT = "root"
    SYSTEMD = "systemd"
    GPU = "gpu"
    INTERNET = "internet"


@dataclass(frozen=True)
class Completed:
    """A command that has ended.

    Attributes:
        argv: The command.
        returncode: Its exit code.
        stdout: What it wrote to standard output.
        stderr: What it wrote to standard error.
        seconds: How long it took.
    """

    argv: Sequence[str]
    returncode: int
    stdout: str
    stderr: str
    seconds: float


class Target(ABC):
    """A machine that commands run on and files are copied to.

    A kind of target is a subclass in a module of its own, named in `KINDS`.

    Args:
        name: The name that the reader gave: `local`, `vm`, `host`, or a Host of their SSH configuration.
    """

    kind: ClassVar[str]

    def __init__(self, name: str) -> None:
        self.name = name
        self._is_root: bool | None = None

    @staticmethod
    def open(name: str) -> "Target":
        """Make the target of a name.

        Args:
            name: `local`, `vm`, `host`, or a `Host` of the reader's SSH configuration.

        Returns:
            The target; nothing has been started or connected to yet.

        Raises:
            TutorialError: It is not the name of a target.
        """
        valid_name(name)
        module, _, kind = KINDS.get(name, SSH_KIND).partition(":")
        return cast(Target, getattr(import_module(module), kind)(name))

    @abstractmethod
    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 60.0,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        stream: bool | Callable[[str], None] = False,
        repeatable: bool = False,
    ) -> Completed:
        """Run a command and wait for it.

        Args:
            argv: The command as a list; no shell takes part.
            check: Raise when its exit code is not 0; it is 127 where there is no such program.
            timeout: Seconds until it is ended and counts as failed.
            input: Text for its standard input; without it there is none.
            env: Variables on top of the target's environment.
            stream: Show its output while it runs, or hand each line to a function; both streams are one then.
            repeatable: Running it twice does no harm: it is run again when the connection drops meanwhile.

        Returns:
            The completed command.

        Raises:
            TutorialError: It failed, was not found, took too long, or the target could not be reached.
        """

    @abstractmethod
    def pipe(self, source: Sequence[str], argv: Sequence[str], *, timeout: float = 600.0) -> Completed:
        """Run a command on the target with the output of a command of this machine as its standard input.

        Args:
            source: The command here.
            argv: The command there.
            timeout: Seconds until both are ended.

        Returns:
            The command there, completed; its exit code is not 0 when either failed.
        """

    def terminal(self, argv: Sequence[str]) -> list[str]:
        """Give the command of this machine that runs a command on the target in a terminal (a pty).

        Args:
            argv: The command there.

        Returns:
            The words for a program that opens a terminal here, such as pexpect.
        """
        return list(argv)

    @abstractmethod
    def put(self, local: Path, remote: str) -> None:
        """Copy a file to the target.

        Args:
            local: The file here.
            remote: Its path there; a relative one starts at the home folder.

        Raises:
            TutorialError: It could not be copied; nothing half-written is left under that name.
        """

    @abstractmethod
    def get(self, remote: str, local: Path) -> None:
        """Copy a file from the target; the counterpart of `put`."""

    @abstractmethod
    def sync(self, folder: Path, remote: str) -> None:
        """Make a folder on the target the same as one here, as far as git tracks it.

        Args:
            folder: A folder of a git repository here.
            remote: Its path there; a relative one starts at the home folder.

        Raises:
            TutorialError: It is not in a git repository, or rsync failed.
        """

    @abstractmethod
    def expose(self, local_port: int, address: str, remote_port: int) -> AbstractContextManager[None]:
        """Make a TCP port of this machine reachable on the target, at one of the target's own addresses.

        Args:
            local_port: The port on this machine's loopback address.
            address: The target's address to listen on, such as that of a Docker network's gateway.
            remote_port: The port there.
        """

    @abstractmethod
    def tunnel(self, remote_port: int, local_port: int = 0) -> AbstractContextManager[int]:
        """Make a TCP port of the target's loopback address reachable here, while the block runs.

        Args:
            remote_port: The port on the target.
            local_port: The port here; 0 takes a free one.

        Returns:
            A context manager that gives the local port.
        """

    @abstractmethod
    def inventory(self) -> AbstractContextManager[Sequence[str]]:
        """Give pyinfra's words for this machine, while the block runs: its connector's name, with options.

        Raises:
            TutorialError: The machine can't be reached.
        """

    def apply(
        self,
        deploy: str,
        data: Mapping[str, object] | None = None,
        *,
        dry: bool = False,
        watch: Callable[[str], None] | None = None,
    ) -> "Changes":
        """Run a pyinfra deploy on the machine; a second run finds nothing to change.

        Args:
            deploy: The name of a file in `deployments/host/`, without `.py`.
            data: Values for its `host.data`.
            dry: Change nothing, and tell what would change. The target `local` knows this only, for a fresh machine.
            watch: Called with each line that commands on the machine print; the caller shows the progress then.

        Returns:
            What would change, or has changed.

        Raises:
            TutorialError: There is no such deploy, it failed, the user has no root rights, or this target is not to be
                changed.
        """
        from helpers import provision

        if not dry and self.kind == "local":
            raise TutorialError(
                f"The deploy {deploy} is not for the target local", "it would change this machine", "use the target "
                "host for that, vm, or the name of a Host", target=self.name,
            )  # fmt: skip
        if self.kind != "local":
            self.run(self.sudo("true"), repeatable=True)  # without root rights it says why there are none
        with self.inventory() as words:
            return provision.apply(self, words, deploy, data or {}, dry, watch)

    @abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """Tell what steps may use here."""

    @abstractmethod
    def facts(self) -> dict[str, str]:
        """Read what the machine is: system, kernel, architecture, cores, memory, disk, Python."""

    def sudo(self, *argv: str) -> list[str]:
        """Put `sudo` before a command, unless the target's user is root already: root need not have sudo."""
        if self._is_root is None:
            self._is_root = self.run(["id", "-u"], repeatable=True).stdout.strip() == "0"
        return list(argv) if self._is_root else ["sudo", "-n", *argv]

    def close(self) -> None:
        """Let go of connections; what runs on the target goes on."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def failed(target: str, done: Completed, why: str = "", remedy: str = "") -> TutorialError:
    """Make the error of a command that failed on a target; what has another cause than the command is told as such."""
    program, what = done.argv[0], f"{done.argv[0]} failed"
    if done.returncode == 127 and program not in _SHELLS:
        what, why = f"The program {program} is not there", "it was not found on PATH"
        remedy = f"install it; `tutorial doctor --target {target}` says what for and how"
    elif done.returncode == 126 and program not in _SHELLS:
        what, why = f"The program {program} can't be started", done.stderr.strip()
        remedy = "see that the file is a program for this machine, and that you may execute it"
    elif list(done.argv[:2]) == ["sudo", "-n"] and done.stderr.startswith("sudo:") and done.argv[2] not in done.stderr:
        what, why = (
            "sudo does not run commands for this user",
            "it asks for a password, or the user is no administrator",
        )
        remedy = "log in as root, or let the user use sudo without a password (NOPASSWD, sudoers(5))"
    elif not why and (fault := docker_engine.explain_command(done.argv, done.stderr or done.stdout)):
        why, remedy = fault.why, fault.remedy
    return TutorialError(
        what,
        why or f"exit code {done.returncode}",
        remedy or "read what it said, correct the cause and run the cell again",
        target=target,
        command=done.argv,
        output=done.stderr or done.stdout,
    )


@contextmanager
def opened(name: str) -> Iterator[Target]:
    """Open a target for a block and close it afterwards."""
    with Target.open(name) as target:
        yield target


@contextmanager
def with_docker(name: str) -> Iterator[Target | None]:
    """Open a machine for what its Docker holds; None without one, for `local`, and for `vm`, which goes as a whole."""
    if name in ("local", "vm"):
        yield None
        return
    with opened(name) as machine:
        yield machine if Capability.DOCKER in machine.capabilities() else None
