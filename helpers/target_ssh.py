"""Targets over the system's OpenSSH: the reader's configuration, agent, jump hosts and known hosts hold."""

import hashlib
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from shlex import join, quote, split
from typing import ClassVar

from helpers import machine, ssh
from helpers.errors import TutorialError, Unreachable
from helpers.processes import free_port, require_free
from helpers.shell import environment
from helpers.target import KINDS, Capability, Completed, Target, failed
from helpers.target_local import git_tracked, pipe_here, run_here
from helpers.undo import Leftover

_CONNECT_SECONDS = 60.0
_WATCH_SECONDS = 1.0
_IDLE_SECONDS = 60  # a connection that nobody uses ends then, whatever became of this process
# What a command starts carries the command's number in its environment, so that it is found when the client is gone.
MARK = "TUTORIAL_RUN"
_END = f"""for e in /proc/[0-9]*/environ; do
  if grep -qzxF "{MARK}=$0" "$e" 2>/dev/null; then p=${{e#/proc/}}; kill "${{p%/environ}}"; fi
done"""
LIST = f"""for e in /proc/[0-9]*/environ; do
  if grep -qz "^{MARK}=" "$e" 2>/dev/null && ! grep -qzxF "{MARK}=${MARK}" "$e"; then
    p=${{e#/proc/}}; p=${{p%/environ}}; echo "$p $(tr '\\0' ' ' <"/proc/$p/cmdline" | cut -c 1-60)"
  fi
done"""


class SshTarget(Target):
    """A machine behind a `Host` of an SSH configuration, over one multiplexed connection (ControlMaster).

    A connection that drops is opened again, with its tunnels; a command that it carried is run again only if it may be.

    Args:
        name: The target's name: the Host.
        config: The configuration file; by default the reader's own.
        host: The Host where the target has another name.
    """

    kind: ClassVar[str] = "ssh"

    def __init__(self, name: str, config: Path | None = None, host: str = "") -> None:
        super().__init__(name)
        self._host = host or name
        self._options = [*(["-F", str(config)] if config else []), "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
        place = hashlib.sha256(f"{self._host} {config}".encode()).hexdigest()[:16]
        self._socket = ssh.runtime_folder() / f"{os.getpid()}-{place}"
        self._options += ["-o", "ControlMaster=auto", "-o", f"ControlPath={self._socket}"]
        self._options += ["-o", f"ControlPersist={_IDLE_SECONDS}"]
        self._forwards: list[tuple[str, str]] = []
        self._connecting = threading.RLock()

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
        """Run a command there; see `Target.run`. Exit code 255 of ssh itself is told from the command's own."""
        self._connect()
        mark = uuid.uuid4().hex
        words = ["env", f"{MARK}={mark}", *(f"{k}={v}" for k, v in (env or {}).items()), *argv]
        command = ["ssh", *self._options, self._host, "--", join(words)]
        try:
            done = run_here(command, check=False, timeout=timeout, input=input, stream=stream, target=self.name)
        except BaseException:  # too late, or Ctrl-C: the client has ended, which ends nothing there
            end = ["ssh", *self._options, self._host, "--", join(["sh", "-c", _END, mark])]
            with suppress(TutorialError):
                run_here(end, check=False, timeout=10, target=self.name)
            raise
        if done.returncode == 255 and not self._alive():
            if repeatable:
                self._connect()
                done = run_here(command, check=False, timeout=timeout, input=input, stream=stream, target=self.name)
            if not repeatable or (done.returncode == 255 and not self._alive()):
                raise self._lost(argv, done.stderr)
        done = Completed(list(argv), done.returncode, done.stdout, done.stderr, done.seconds)
        if check and done.returncode != 0:
            raise failed(self.name, done)
        return done

    def _lost(self, argv: Sequence[str], said: str) -> TutorialError:
        meaning, remedy = ssh.explain(said)
        return TutorialError(
            "The SSH connection was lost",
            f"{meaning}; the command may have run or not",
            f"run the cell again: it looks before it acts. {remedy}",
            target=self.name,
            command=argv,
            output=said,
        )

    def pipe(self, source: Sequence[str], argv: Sequence[str], *, timeout: float = 600.0) -> Completed:
        """Run a command there with a local one's output as its input; see `Target.pipe`."""
        self._connect()
        return pipe_here(source, ["ssh", *self._options, self._host, "--", join(argv)], timeout, self.name)

    def put(self, local: Path, remote: str) -> None:
        """Copy a file there, under a temporary name first; see `Target.put`."""
        part = f"{remote}.part"
        self._copy([str(local), f"{self._host}:{part}"], str(local))
        self.run(["mv", "-f", part, remote])

    def terminal(self, argv: Sequence[str]) -> list[str]:
        """Ask for a terminal there, on the same connection; see `Target.terminal`."""
        self._connect()
        return ["ssh", *self._options, "-q", "-tt", self._host, "--", join(argv)]

    def get(self, remote: str, local: Path) -> None:
        """Copy a file from there; see `Target.get`."""
        part = local.with_name(f".{local.name}.part")
        try:
            self._copy([f"{self._host}:{remote}", str(part)], remote)
            os.replace(part, local)
        finally:
            part.unlink(missing_ok=True)

    def sync(self, folder: Path, remote: str) -> None:
        """Copy what git tracks by rsync, and remove there what an earlier sync brought and git has no more."""
        self._connect()
        names, manifest = git_tracked(folder, self.name), f"{remote}/.tutorial-sync"
        before = self.run(["sh", "-c", f"mkdir -p {quote(remote)}; cat {quote(manifest)} 2>/dev/null || true"]).stdout
        listed = "\0".join(dict.fromkeys([*names, *before.split("\n")])).strip("\0")
        shell = join(["ssh", *self._options])
        argv = ["rsync", "-a", "--from0", "--files-from=-", "--delete-missing-args", "-e", shell, f"{folder}/"]
        run_here([*argv, f"{self._host}:{remote}/"], input=listed, timeout=600, target=self.name)
        self.run(["sh", "-c", f"cat >{quote(manifest)}"], input="\n".join(names))

    @contextmanager
    def tunnel(self, remote_port: int, local_port: int = 0) -> Iterator[int]:
        """Open `ssh -L` on the connection, and again when the connection comes back; see `Target.tunnel`."""
        port = local_port or free_port()
        if local_port:  # the shared connection would take an equal tunnel for the same one
            require_free(port, "a tunnel")
        with self._forwarded("-L", f"127.0.0.1:{port}:127.0.0.1:{remote_port}", "choose another local port"):
            yield port

    @contextmanager
    def expose(self, local_port: int, address: str, remote_port: int) -> Iterator[None]:
        """Open `ssh -R` on the connection; see `Target.expose`. The server must allow that address (sshd_config(5)).

        Raises:
            TutorialError: The server refuses, or listens on its loopback address instead.
        """
        remedy = "set `GatewayPorts clientspecified` in the machine's sshd_config, and reload sshd"
        with self._forwarded("-R", f"{address}:{remote_port}:127.0.0.1:{local_port}", remedy):
            if (address, remote_port) not in machine.listening(self):
                raise TutorialError(
                    f"{address}:{remote_port} is not open on {self.name}",
                    "its sshd lets reverse tunnels listen on the loopback address only",
                    remedy,
                    target=self.name,
                )
            yield

    @contextmanager
    def _forwarded(self, flag: str, forward: str, remedy: str) -> Iterator[None]:
        self._connect()
        self._control("forward", flag, forward, remedy=remedy)
        self._forwards.append((flag, forward))
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over,), name="tunnel", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            self._forwards.remove((flag, forward))
            if self._connected():
                self._control("cancel", flag, forward)

    def _watch(self, over: threading.Event) -> None:
        """Bring a dropped connection back while a tunnel is in use, and keep an idle one from ending by itself."""
        used = time.monotonic()
        while not over.wait(_WATCH_SECONDS):
            with suppress(TutorialError):  # away still: ask again in a moment
                if not self._connected():
                    SshTarget._connect(self)  # it opens connections; a machine that was switched off stays off
                elif time.monotonic() - used > _IDLE_SECONDS / 2:
                    argv = ["ssh", *self._options, self._host, "--", "true"]
                    run_here(argv, check=False, timeout=20, target=self.name)
                    used = time.monotonic()

    @contextmanager
    def inventory(self) -> Iterator[Sequence[str]]:
        """Write what OpenSSH makes of the Host into a file for pyinfra, which has a client of its own.

        That client reads no `Match`, no quoted `Include` and no second known-hosts file; see `Target.inventory`.
        """
        self._connect()
        done = run_here(["ssh", *self._options, "-G", self._host], target=self.name)
        seen: dict[str, str] = {}
        for keyword, _, value in (line.partition(" ") for line in done.stdout.splitlines()):
            seen.setdefault(keyword, value)
        known_hosts = [Path(p).expanduser() for p in split(seen.get("userknownhostsfile", ""))]
        keys = [Path(seen["identityfile"].strip('"')).expanduser()] if "identityfile" in seen else []
        with tempfile.TemporaryDirectory(prefix="tutorial-pyinfra-") as folder:
            hosts = Path(folder) / "known_hosts"
            hosts.write_text("".join(p.read_text(encoding="utf-8") for p in known_hosts if p.exists()))
            rows = [
                f"Host {self._host}",
                f"HostName {seen['hostname']}",
                f"User {seen['user']}",
                f"Port {seen['port']}",
            ]
            rows += [f"IdentityFile {k}" for k in keys if k.exists()]
            if seen.get("proxyjump", "none") != "none" or seen.get("proxycommand", "none") != "none":
                rows.append(f"ProxyCommand {join(['ssh', *self._options, '-W', 'localhost:%p', self._host])}")
            config = Path(folder) / "config"
            config.write_text("\n".join(rows) + "\n")
            yield [
                f"@ssh/{self._host}", "--data", f"ssh_config_file={config}", "--data", f"ssh_known_hosts_file={hosts}",
                "--data", "ssh_strict_host_key_checking=yes",
            ]  # fmt: skip

    def facts(self) -> dict[str, str]:
        """Read what the machine is; see `Target.facts`."""
        return machine.facts(self)

    def capabilities(self) -> frozenset[Capability]:
        """Tell what steps may use there, found out by one remote command."""
        return machine.capabilities(self)

    def close(self) -> None:
        """End the connection."""
        with suppress(TutorialError):  # a connection that does not answer ends by itself
            run_here(["ssh", *self._options, "-O", "exit", self._host], check=False, timeout=20, target=self.name)

    def _connect(self) -> None:
        """Open the connection unless it is open; its errors are those of SSH, not of a command."""
        with self._connecting:
            if self._connected():
                return
            self._socket.unlink(missing_ok=True)  # a connection that was killed leaves it behind
            argv = ["ssh", *self._options, "-f", "-N", self._host]
            # A background ssh keeps its streams open: no pipe for standard error, or this would wait for its end.
            log = ssh.runtime_folder() / f"{os.getpid()}-{threading.get_ident()}.log"
            try:
                with log.open("w") as output:
                    code = subprocess.run(
                        argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=_CONNECT_SECONDS,
                        env=environment("ssh"),
                    ).returncode  # fmt: skip
            except FileNotFoundError:
                raise failed(self.name, Completed(argv, 127, "", "", 0.0)) from None
            except subprocess.TimeoutExpired:
                raise Unreachable(
                    "SSH could not connect", f"it was ended after {_CONNECT_SECONDS:g} s",
                    f"see where `ssh -v {self._host} true` stops", target=self.name, command=["ssh", self._host],
                ) from None  # fmt: skip
            finally:
                said = log.read_text(encoding="utf-8", errors="replace")
                log.unlink(missing_ok=True)
            if code != 0:
                meaning, remedy = ssh.explain(said)
                raise Unreachable(
                    "SSH could not connect", meaning, remedy, target=self.name, command=["ssh", self._host], output=said
                )
            for flag, forward in self._forwards:
                self._control("forward", flag, forward, remedy="choose another port")

    def _connected(self) -> bool:
        """Tell whether the connection's process listens; killed, it leaves its socket behind."""
        if not self._socket.exists():
            return False
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._socket)) == 0

    def _alive(self) -> bool:
        check = ["ssh", *self._options, "-O", "check", self._host]
        return run_here(check, check=False, timeout=20, target=self.name).returncode == 0

    def _copy(self, words: Sequence[str], what: str) -> None:
        self._connect()
        argv = ["scp", "-q", *self._options, *words]
        done = run_here(argv, check=False, timeout=600, target=self.name)
        if done.returncode != 0:
            raise failed(self.name, done, f"{quote(what)} was not copied", "check the path and the permissions")

    def _control(self, what: str, *words: str, remedy: str = "") -> None:
        argv = ["ssh", *self._options, "-O", what, *words, self._host]
        done = run_here(argv, check=False, timeout=20, target=self.name)
        if done.returncode != 0 and what == "forward":
            raise failed(self.name, done, "the tunnel was refused", remedy)


def leftovers(target: str) -> list[Leftover]:
    """List processes on a machine behind SSH that the tutorial's commands started there; the VM goes as a whole."""
    if target in KINDS:
        return []
    with Target.open(target) as there:
        said = there.run(["sh", "-c", LIST], repeatable=True).stdout
    rows = re.findall(r"^(\d+) (.*)$", said, re.MULTILINE)  # a login shell may greet first
    return [
        Leftover(f"process {what.strip()}", f"process id {pid} on {target}", partial(_kill, target, pid))
        for pid, what in rows
    ]


def _kill(target: str, pid: str) -> None:
    with Target.open(target) as there:
        there.run(["kill", pid], check=False)
