"""Targets over the system's OpenSSH: the reader's configuration, agent, jump hosts and known hosts hold."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from shlex import join, quote
from typing import ClassVar

from helpers import ssh
from helpers.errors import TutorialError
from helpers.processes import free_port, require_free
from helpers.target import Capability, Completed, Target, failed
from helpers.target_local import run_here

_FACTS = """. /etc/os-release 2>/dev/null; echo "system=${PRETTY_NAME:-$(uname -s)}"; echo "kernel=$(uname -r)"
echo "architecture=$(uname -m)"; echo "cores=$(getconf _NPROCESSORS_ONLN)"
echo "docker=$(docker info >/dev/null 2>&1 && echo yes)"; echo "root=$(sudo -n true 2>/dev/null && echo yes)"
echo "systemd=$(test -d /run/systemd/system && echo yes)"; echo "gpu=$(nvidia-smi -L >/dev/null 2>&1 && echo yes)"
"""


class SshTarget(Target):
    """A machine behind a `Host` of an SSH configuration, over one multiplexed connection (ControlMaster).

    Args:
        name: The Host.
        config: The configuration file; by default the reader's own.
    """

    kind: ClassVar[str] = "ssh"

    def __init__(self, name: str, config: Path | None = None) -> None:
        super().__init__(name)
        self._options = [*(["-F", str(config)] if config else []), "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
        socket = ssh.runtime_folder() / f"{os.getpid()}-%C"
        self._options += ["-o", "ControlMaster=auto", "-o", f"ControlPath={socket}", "-o", "ControlPersist=60"]

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
        """Run a command there; see `Target.run`. Exit code 255 of ssh itself is told from the command's own."""
        self._connect()
        words = ["env", *(f"{k}={v}" for k, v in (env or {}).items()), *argv] if env else list(argv)
        command = ["ssh", *self._options, self.name, "--", join(words)]
        done = run_here(command, check=False, timeout=timeout, input=input, stream=stream, target=self.name)
        done = Completed(list(argv), done.returncode, done.stdout, done.stderr, done.seconds)
        if done.returncode == 255 and not self._alive():
            meaning, remedy = ssh.explain(done.stderr)
            raise TutorialError(
                "The SSH connection was lost", meaning, remedy, target=self.name, command=argv, output=done.stderr
            )
        if check and done.returncode != 0:
            raise failed(self.name, done)
        return done

    def put(self, local: Path, remote: str) -> None:
        """Copy a file there, under a temporary name first; see `Target.put`."""
        part = f"{remote}.part"
        self._copy([str(local), f"{self.name}:{part}"], str(local))
        self.run(["mv", "-f", part, remote])

    def get(self, remote: str, local: Path) -> None:
        """Copy a file from there; see `Target.get`."""
        part = local.with_name(f".{local.name}.part")
        try:
            self._copy([f"{self.name}:{remote}", str(part)], remote)
            os.replace(part, local)
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def tunnel(self, remote_port: int, local_port: int = 0) -> Iterator[int]:
        """Open `ssh -L` on the connection; see `Target.tunnel`."""
        self._connect()
        port = local_port or free_port()
        require_free(port, "a tunnel")  # the shared connection would take an equal tunnel for the same one
        forward = f"127.0.0.1:{port}:127.0.0.1:{remote_port}"
        self._control("forward", "-L", forward)
        try:
            yield port
        finally:
            self._control("cancel", "-L", forward)

    def facts(self) -> dict[str, str]:
        """Read what the machine is; see `Target.facts`."""
        known = self._facts()
        return {k: v for k, v in known.items() if k not in set(Capability)}

    def capabilities(self) -> frozenset[Capability]:
        """Tell what steps may use there, found out by one remote command."""
        known = self._facts()
        return frozenset(c for c in Capability if known.get(c) == "yes")

    def close(self) -> None:
        """End the connection."""
        argv = ["ssh", *self._options, "-O", "exit", self.name]
        subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=20)

    def _facts(self) -> dict[str, str]:
        lines = self.run(["/bin/sh"], input=_FACTS).stdout.splitlines()
        return {k: v for k, _, v in (line.partition("=") for line in lines)}

    def _connect(self) -> None:
        """Open the connection unless it is open; its errors are those of SSH, not of a command."""
        if self._socket.exists():  # the connection's process removes it when it ends
            return
        argv = ["ssh", *self._options, "-f", "-N", self.name]
        # A background ssh keeps its streams open: no pipe for standard error, or this would wait for its end.
        log = ssh.runtime_folder() / f"{os.getpid()}.log"
        with log.open("w") as output:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=60)
        said = log.read_text(encoding="utf-8", errors="replace")
        log.unlink(missing_ok=True)
        if done.returncode != 0:
            meaning, remedy = ssh.explain(said)
            raise TutorialError(
                "SSH could not connect", meaning, remedy, target=self.name, command=["ssh", self.name], output=said
            )

    def _alive(self) -> bool:
        check = ["ssh", *self._options, "-O", "check", self.name]
        return subprocess.run(check, capture_output=True, timeout=20).returncode == 0

    @cached_property
    def _socket(self) -> Path:
        """The control socket: OpenSSH puts a hash into its name."""
        lines = run_here(["ssh", *self._options, "-G", self.name], target=self.name).stdout.splitlines()
        return Path(next(line.split(" ", 1)[1] for line in lines if line.startswith("controlpath ")))

    def _copy(self, words: Sequence[str], what: str) -> None:
        self._connect()
        argv = ["scp", "-q", *self._options, *words]
        done = run_here(argv, check=False, timeout=600, target=self.name)
        if done.returncode != 0:
            raise failed(self.name, done, f"{quote(what)} was not copied", "check the path and the permissions")

    def _control(self, what: str, *words: str) -> None:
        argv = ["ssh", *self._options, "-O", what, *words, self.name]
        done = run_here(argv, check=False, timeout=20, target=self.name)
        if done.returncode != 0 and what == "forward":
            raise failed(self.name, done, "the tunnel was refused", "choose another local port")
