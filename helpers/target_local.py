"""The target `local`: this machine, nothing but Python; what would change the machine is planned."""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import psutil

from helpers.errors import TutorialError
from helpers.target import Capability, Completed, Target, failed


class LocalTarget(Target):
    """This machine. What needs Docker or would change the machine is planned, never done (no capabilities)."""

    kind: ClassVar[str] = "local"

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 60.0,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        stream: bool = False,
    ) -> Completed:
        """Run a command here; see `Target.run`."""
        return run_here(argv, check=check, timeout=timeout, input=input, env=env, stream=stream, target=self.name)

    def put(self, local: Path, remote: str) -> None:
        """Copy a file into the home folder or to an absolute path; see `Target.put`."""
        _copy(local, Path.home() / remote, self.name)

    def get(self, remote: str, local: Path) -> None:
        """Copy a file; see `Target.get`."""
        _copy(Path.home() / remote, local, self.name)

    @contextmanager
    def tunnel(self, remote_port: int, local_port: int = 0) -> Iterator[int]:
        """Give the port itself: it is on this machine already; see `Target.tunnel`.

        Raises:
            TutorialError: Another local port was asked for.
        """
        if local_port not in (0, remote_port):
            raise TutorialError(
                f"Port {remote_port} is on this machine already",
                f"there is nothing to tunnel to port {local_port}",
                "leave the local port out",
                target=self.name,
            )
        yield remote_port

    def capabilities(self) -> frozenset[Capability]:
        """Tell that steps may use nothing but Python here."""
        return frozenset()

    def facts(self) -> dict[str, str]:
        """Read what this machine is; see `Target.facts`."""
        disk = shutil.disk_usage(Path.home())
        return {
            "system": platform.freedesktop_os_release()["PRETTY_NAME"]
            if Path("/etc/os-release").exists()
            else platform.platform(),
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "cores": str(os.cpu_count()),
            "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
            "disk free": f"{disk.free / 2**30:.0f} GiB",
            "python": platform.python_version(),
        }


def run_here(
    argv: Sequence[str],
    *,
    check: bool = True,
    timeout: float = 60.0,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
    stream: bool = False,
    target: str = "local",
) -> Completed:
    """Run a command on this machine in a process group of its own; parameters and result as in `Target.run`."""
    started = time.monotonic()
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=None if stream else subprocess.PIPE,
            stderr=None if stream else subprocess.PIPE,
            env={**os.environ, **(env or {})},
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError:
        raise TutorialError(
            f"The program {argv[0]} is not there",
            "it was not found on PATH",
            f"install it; `tutorial doctor --target {target}` says what for and how",
            target=target,
            command=argv,
        ) from None
    try:
        stdout, stderr = child.communicate(input, timeout)
    except subprocess.TimeoutExpired:
        _end_group(child)
        raise TutorialError(
            f"{argv[0]} took too long",
            f"it was ended after {timeout:g} s",
            "see why it hangs, or allow more time with timeout=",
            target=target,
            command=argv,
        ) from None
    except BaseException:
        _end_group(child)
        raise
    done = Completed(list(argv), child.returncode, stdout or "", stderr or "", time.monotonic() - started)
    if check and done.returncode != 0:
        raise failed(target, done)
    return done


def _end_group(child: "subprocess.Popen[str]") -> None:
    try:
        os.killpg(child.pid, 9)
    except ProcessLookupError:
        pass
    child.wait()


def _copy(source: Path, destination: Path, target: str) -> None:
    temporary = destination.with_name(f".{destination.name}.part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, temporary)
        os.replace(temporary, destination)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise TutorialError(
            f"{source} could not be copied", str(error), "check the path and your permissions", target=target
        ) from None
