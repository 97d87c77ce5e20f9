"""The target `local`: this machine, nothing but Python; what would change the machine is planned."""

import os
import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import psutil

from helpers.errors import Overtime, TutorialError, mask
from helpers.shell import environment
from helpers.signals import let_children_hear
from helpers.target import Capability, Completed, Target, failed

_END_SECONDS = 5.0  # that a command has to end after SIGKILL; one that waits for a broken disk does not end


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
        stream: bool | Callable[[str], None] = False,
        repeatable: bool = False,
    ) -> Completed:
        """Run a command here, in the home folder, as it is over SSH; see `Target.run`."""
        return run_here(
            argv,
            check=check,
            timeout=timeout,
            input=input,
            env=env,
            stream=stream,
            target=self.name,
            cwd=Path.home(),
        )

    def pipe(self, source: Sequence[str], argv: Sequence[str], *, timeout: float = 600.0) -> Completed:
        """Run a command with another's output as its input; see `Target.pipe`."""
        return pipe_here(source, argv, timeout, self.name)

    def put(self, local: Path, remote: str) -> None:
        """Copy a file into the home folder or to an absolute path; see `Target.put`."""
        _copy(local, Path.home() / remote, self.name)

    def get(self, remote: str, local: Path) -> None:
        """Copy a file; see `Target.get`."""
        _copy(Path.home() / remote, local, self.name)

    def sync(self, folder: Path, remote: str) -> None:
        """Copy what git tracks; nothing to do where it is the same folder. See `Target.sync`."""
        there = Path.home() / remote
        if there.resolve() == folder.resolve():
            return
        there.mkdir(parents=True, exist_ok=True)
        names = "\0".join(git_tracked(folder, self.name))
        argv = ["rsync", "-a", "--from0", "--files-from=-", f"{folder}/", f"{there}/"]
        run_here(argv, input=names, timeout=600, target=self.name)

    @contextmanager
    def expose(self, local_port: int, address: str, remote_port: int) -> Iterator[None]:
        """Refuse: this machine's other addresses are not the target's to use; see `Target.expose`.

        Raises:
            TutorialError: Always.
        """
        raise TutorialError(
            "Nothing is exposed on the target local", "it uses the loopback address only", "use the target host or vm"
        )
        yield

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

    @contextmanager
    def inventory(self) -> Iterator[Sequence[str]]:
        """Name a fresh machine that is not there: what a dry run plans for; see `Target.inventory`."""
        from helpers.provision import FRESH_MACHINE

        yield [str(FRESH_MACHINE)]

    def capabilities(self) -> frozenset[Capability]:
        """Tell that steps may use nothing but Python here."""
        return frozenset()

    def facts(self) -> dict[str, str]:
        """Read what this machine is; see `Target.facts`."""
        facts = {
            "system": _system(),
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "cores": str(os.cpu_count() or "unknown"),
            "memory": _gib(lambda: psutil.virtual_memory().total),
            "disk free": _gib(lambda: shutil.disk_usage(Path.home()).free),
        }
        return {**facts, "python": platform.python_version()}


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:  # no such file, as on macOS
        return platform.platform()


def _gib(measure: Callable[[], int]) -> str:
    """Give a size in GiB; `unknown` where the system does not tell, such as without /proc."""
    try:
        return f"{measure() / 2**30:.0f} GiB"
    except (OSError, ValueError, RuntimeError):
        return "unknown"


def pipe_here(source: Sequence[str], argv: Sequence[str], timeout: float, target: str) -> Completed:
    """Run `source | argv` on this machine; exit code and standard error are those of whichever failed."""
    started = time.monotonic()
    try:
        first = subprocess.Popen(
            list(source), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(source[0]), start_new_session=True, preexec_fn=let_children_hear(),
        )  # fmt: skip
    except OSError as error:
        raise failed(target, _not_started(source, error)) from None
    with first:
        try:
            done = subprocess.run(
                list(argv), stdin=first.stdout, capture_output=True, encoding="utf-8", errors="replace",
                timeout=timeout, env=environment(argv[0]), preexec_fn=let_children_hear(),
            )  # fmt: skip
        except BaseException as error:
            _end_group(first)
            if isinstance(error, OSError):
                raise failed(target, _not_started(argv, error)) from None
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise TutorialError(
                f"{argv[0]} took too long", f"it was ended after {timeout:g} s", "see why it hangs", target=target
            ) from None
        if first.stdout:
            first.stdout.close()
        said = first.stderr.read().decode(errors="replace") if first.stderr else ""
    code = done.returncode or first.returncode
    return Completed(list(argv), code, done.stdout, done.stderr + said, time.monotonic() - started)


def git_tracked(folder: Path, target: str = "local") -> list[str]:
    """List the files of a folder that git tracks and that are there.

    Args:
        folder: A folder of a git repository.
        target: The target that an error names.

    Returns:
        Their paths, relative to the folder.

    Raises:
        TutorialError: It is not in a git repository, or there is no git.
    """
    done = run_here(["git", "-C", str(folder), "ls-files", "-z"], check=False, target=target)
    if "dubious ownership" in done.stderr:
        raise failed(target, done, f"{folder} belongs to another user", "run the command that git names")
    if done.returncode != 0:
        raise failed(target, done, f"{folder} is not in a git repository", "clone the repository with git")
    return [name for name in done.stdout.split("\0") if name and (folder / name).is_file()]


def run_here(
    argv: Sequence[str],
    *,
    check: bool = True,
    timeout: float = 60.0,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
    stream: bool | Callable[[str], None] = False,
    target: str = "local",
    cwd: Path | None = None,
) -> Completed:
    """Run a command on this machine in a process group of its own; parameters and result as in `Target.run`."""
    started = time.monotonic()
    told: Callable[[str], None] | None = stream if callable(stream) else _tell if stream else None
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if told else subprocess.PIPE,
            env={**environment(argv[0]), **(env or {})},
            cwd=cwd,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            preexec_fn=let_children_hear(),
        )
    except OSError as error:
        done = _not_started(argv, error)
        if check:
            raise failed(target, done) from None
        return done
    try:
        stdout, stderr = _streamed(child, input, timeout, told) if told else child.communicate(input, timeout)
    except subprocess.TimeoutExpired:
        _end_group(child)
        raise Overtime(
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


def _not_started(argv: Sequence[str], error: OSError) -> Completed:
    """Give a command that could not be started the exit code that a shell gives it."""
    missing = isinstance(error, FileNotFoundError) and error.filename == argv[0]
    return Completed(list(argv), 127 if missing else 126, "", str(error), 0.0)


def _tell(line: str) -> None:
    print(mask(line))  # noqa: T201 - that is what `stream` asks for


def _streamed(
    child: "subprocess.Popen[str]", input: str | None, timeout: float, told: Callable[[str], None]
) -> tuple[str, str]:
    """Tell each line as it comes; both streams are one then."""
    lines: list[str] = []
    timer = threading.Timer(timeout, _end_group, (child,))
    timer.start()
    try:
        if child.stdin:
            with suppress(BrokenPipeError):  # it ended without reading
                child.stdin.write(input or "")
                child.stdin.close()
        for line in child.stdout or ():
            lines.append(line)
            told(line.rstrip("\n"))
        child.wait()
    finally:
        expired = not timer.is_alive()
        timer.cancel()
    if expired:
        raise subprocess.TimeoutExpired(child.args, timeout)
    return "".join(lines), ""


def _end_group(child: "subprocess.Popen[Any]") -> None:
    """End a command and what it started; where it runs as root (sudo), root rights are needed for that, too."""
    try:
        os.killpg(child.pid, 9)
    except ProcessLookupError:
        pass
    except PermissionError:
        argv = ["sudo", "-n", "kill", "-9", "--", f"-{child.pid}"]
        with suppress(OSError):
            subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=environment(argv[0]))
    with suppress(subprocess.TimeoutExpired):
        child.wait(_END_SECONDS)


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
