"""Targets over the system's OpenSSH: the reader's configuration, agent, jump hosts and known hosts hold."""

import hashlib
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from shlex import join, quote
from typing import ClassVar

from helpers import machine, openssh, ssh
from helpers.errors import Overtime, TutorialError, Unreachable
from helpers.processes import free_port, require_free
from helpers.target import KINDS, Capability, Completed, Target, failed
from helpers.target_local import git_tracked, pipe_here, run_here
from helpers.undo import Leftover

_WATCH_SECONDS = 1.0
_CONNECT_SECONDS = 60.0  # for a connection as a whole, on top of the reader's ConnectTimeout
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
        self._config = ["-F", str(config)] if config else []
        place = hashlib.sha256(f"{self._host} {config}".encode()).hexdigest()[:16]
        self._own = ssh.runtime_folder() / f"{os.getpid()}-{place}"
        self._socket = self._own  # or the reader's own connection's, where only that one gets through
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
        command = [*self._ssh(), self._host, "--", join(words)]
        try:
            done = run_here(command, check=False, timeout=timeout, input=input, stream=stream, target=self.name)
        except BaseException:  # too late, or Ctrl-C: the client has ended, which ends nothing there
            end = [*self._ssh(), self._host, "--", join(["sh", "-c", _END, mark])]
            with suppress(TutorialError):
                run_here(end, check=False, timeout=10, target=self.name)
            raise
        if done.returncode == 255:
            said = done.stderr or done.stdout
            not_sent = openssh.NOT_SENT in said
            if openssh.REFUSED in said:
                raise self._full(argv, said)
            if not_sent or not self._alive():
                if repeatable or not_sent:
                    self._connect()
                    done = run_here(command, check=False, timeout=timeout, input=input, stream=stream, target=self.name)
                if not (repeatable or not_sent) or (done.returncode == 255 and not self._alive()):
                    raise self._lost(argv, done.stderr)
        done = Completed(list(argv), done.returncode, done.stdout, done.stderr, done.seconds)
        if check and done.returncode != 0:
            raise failed(self.name, done)
        return done

    def _full(self, argv: Sequence[str], said: str) -> TutorialError:
        return TutorialError(
            "The machine accepts no further command on this connection",
            "its sshd limits how many run at a time (MaxSessions in sshd_config)",
            "wait until other commands have ended, or ask for a larger MaxSessions",
            target=self.name,
            command=argv,
            output=said,
        )

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
        return pipe_here(source, [*self._ssh(), self._host, "--", join(argv)], timeout, self.name)

    def put(self, local: Path, remote: str) -> None:
        """Copy a file there, under a temporary name first; see `Target.put`."""
        part = f"{remote}.part"
        self._copy([str(local), f"{self._host}:{part}"], str(local))
        self.run(["mv", "-f", part, remote])

    def terminal(self, argv: Sequence[str]) -> list[str]:
        """Ask for a terminal there, on the same connection; see `Target.terminal`."""
        self._connect()
        return [*self._ssh(), "-q", "-tt", self._host, "--", join(argv)]

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
        shell = join(self._ssh())
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
                elif time.monotonic() - used > openssh.IDLE_SECONDS / 2:
                    run_here([*self._ssh(), self._host, "--", "true"], check=False, timeout=20, target=self.name)
                    used = time.monotonic()

    @contextmanager
    def inventory(self) -> Iterator[Sequence[str]]:
        """Name this machine for the connector `@openssh`, which uses the open connection; see `Target.inventory`."""
        self._connect()
        yield [f"@openssh/{self._host}", "--data", f"openssh_options={join(openssh.over(self._socket))}"]

    def facts(self) -> dict[str, str]:
        """Read what the machine is; see `Target.facts`."""
        return machine.facts(self)

    def capabilities(self) -> frozenset[Capability]:
        """Tell what steps may use there, found out by one remote command."""
        return machine.capabilities(self)

    def close(self) -> None:
        """End the connection; one that the reader has opened stays."""
        if self._socket != self._own:
            self._socket = self._own
            return
        if not self._connected():
            return
        with suppress(TutorialError):  # a connection that does not answer ends by itself
            run_here([*self._ssh(), "-O", "exit", self._host], check=False, timeout=20, target=self.name)

    def _connect(self) -> None:
        """Open the connection unless it is open; its errors are those of SSH, not of a command."""
        with self._connecting:
            if self._connected():
                return
            self._socket = self._own
            self._socket.unlink(missing_ok=True)  # a connection that was killed leaves it behind
            answers = self._ask()
            failure = self._open(answers)
            if failure and not self._borrow(answers):
                raise failure
            for flag, forward in self._forwards:
                self._control("forward", flag, forward, remedy="choose another port")

    def _ask(self) -> dict[str, list[str]]:
        """Ask ssh what it makes of the Host; it runs the commands of `Match exec` for that."""
        try:
            done = run_here(["ssh", *self._config, "-G", self._host], check=False, timeout=20, target=self.name)
        except Overtime as error:
            why = "a command in it, such as that of `Match exec`, takes too long"
            raise self._unreachable(
                str(error.why), why, "run `ssh -vG HOST`: its last line shows what it waits for"
            ) from None
        if done.returncode in (126, 127):
            raise failed(self.name, done)
        if done.returncode != 0:
            raise self._unreachable(done.stderr)
        return openssh.read_answers(done.stdout)

    def _open(self, answers: dict[str, list[str]]) -> Unreachable | None:
        """Open a connection of our own; return the error where ssh does not get through."""
        seconds = answers.get("connecttimeout", ["none"])[0]
        limit = _CONNECT_SECONDS + (int(seconds) if seconds.isdigit() else 0)
        # A background ssh keeps its streams open: no pipe for them, or this would wait for its end.
        log = ssh.runtime_folder() / f"{os.getpid()}-{threading.get_ident()}.log"
        argv = ["sh", "-c", 'log=$0; exec "$@" >"$log" 2>&1', str(log), "ssh", *self._config]
        argv += [*openssh.opening(self._own, answers), "-f", "-N", self._host]
        try:
            done = run_here(argv, check=False, timeout=limit, target=self.name)
            said = log.read_text(encoding="utf-8", errors="replace")
            return self._unreachable(said) if done.returncode != 0 else None
        except Overtime:
            said = log.read_text(encoding="utf-8", errors="replace")
            return self._unreachable(
                said, f"it did not get through within {limit:g} s", "run `ssh -v HOST` to see where it waits"
            )
        finally:
            log.unlink(missing_ok=True)

    def _borrow(self, answers: dict[str, list[str]]) -> bool:
        """Use the connection that the reader has open (their own ControlPath): it may have needed a one-time code."""
        path = answers.get("controlpath", ["none"])[0]
        self._socket = Path(path)
        if path != "none" and self._connected() and self._alive():
            return True
        self._socket = self._own
        return False

    def _unreachable(self, said: str, why: str = "", remedy: str = "") -> Unreachable:
        meaning, advice = ssh.explain(said)
        return Unreachable(
            "SSH could not connect",
            why or meaning,
            remedy or advice,
            target=self.name,
            command=["ssh", self._host],
            output=said,
        )

    def _ssh(self) -> list[str]:
        """Give the command that uses the open connection."""
        return ["ssh", *openssh.over(self._socket)]

    def _connected(self) -> bool:
        """Tell whether the connection's process listens; killed, it leaves its socket behind."""
        if not self._socket.exists():
            return False
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._socket)) == 0

    def _alive(self) -> bool:
        check = [*self._ssh(), "-O", "check", self._host]
        return run_here(check, check=False, timeout=20, target=self.name).returncode == 0

    def _copy(self, words: Sequence[str], what: str) -> None:
        self._connect()
        argv = ["scp", "-q", *openssh.over(self._socket), *words]
        done = run_here(argv, check=False, timeout=600, target=self.name)
        if done.returncode != 0:
            raise failed(self.name, done, f"{quote(what)} was not copied", "check the path and the permissions")

    def _control(self, what: str, *words: str, remedy: str = "") -> None:
        argv = [*self._ssh(), "-O", what, *words, self._host]
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
