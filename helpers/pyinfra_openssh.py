"""pyinfra's connector `@openssh/HOST`: the system's OpenSSH, so that a deploy reaches every machine that `ssh` reaches.

pyinfra's own `@ssh` has a client of its own, which knows part of ssh_config(5) only: no `Match`, no IdentityAgent, no
HostKeyAlias. pyinfra finds this class by the entry point in pyproject.toml, and runs it in its own process.

    pyinfra @openssh/cpouta deployments/host/docker.py

Source of the interface: https://docs.pyinfra.com/en/3.x/api/connectors.html, and pyinfra/connectors/ssh.py.
"""

import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from io import IOBase
from pathlib import Path
from shlex import quote, split
from typing import TYPE_CHECKING, Any, TypedDict

from pyinfra import logger
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.output import echo
from pyinfra.api.util import get_file_io
from pyinfra.connectors.base import BaseConnector, DataMeta
from pyinfra.connectors.util import CommandOutput, OutputLine, make_unix_command_for_host, read_output_buffers

from helpers import openssh

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

# Write standard input to $0, which has $1 bytes; whoever reads $0 sees the old or the new content, never a part. A file
# that exists keeps its owner and mode, a link stays one. What is mounted (in containers) can't be renamed over.
_WRITE = """d=$0; if [ -L "$d" ]; then d=$(readlink -f "$d"); fi; t=$d.$$.part
[ ! -d "$d" ] || { echo "$d is a folder" >&2; exit 1; }
trap 'rm -f "$t"' EXIT
if [ -e "$d" ]; then cp -p "$d" "$t" || exit 1; fi
cat >"$t" || exit 1
[ "$(wc -c <"$t")" -eq "$1" ] || { echo "$d did not arrive whole" >&2; exit 1; }
mv -f "$t" "$d" 2>/dev/null || cat "$t" >"$d" """
_SECONDS = 100.0  # for opening a connection
_LOST = 255  # what ssh itself returns


class Data(TypedDict):
    """What `--data` may hold for this connector."""

    openssh_host: str
    openssh_options: str


class OpenSshConnector(BaseConnector):
    """Run a deploy's commands by `ssh`, over one shared connection.

    Its data: `openssh_options` are the options of a connection that is open already, as one line of a shell. Without
    them the connector opens a connection, as the reader's SSH configuration says, and closes it in the end.
    """

    handles_execution = True
    data_cls = Data
    data_meta = {
        "openssh_host": DataMeta("Host of the SSH configuration"),
        "openssh_options": DataMeta("options for ssh that lead over an open connection"),
    }

    def __init__(self, state: "State", host: "Host") -> None:
        super().__init__(state, host)
        self._name = str(self.data["openssh_host"])
        self._options = split(self.data["openssh_options"] or "")
        self._shell: _Shell | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @staticmethod
    def make_names_data(name: str) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        """Give the one machine that `@openssh/HOST` means."""
        yield f"@openssh/{name}", {"openssh_host": name}, []

    def connect(self) -> None:
        """Use the connection that is open, or open one.

        Raises:
            ConnectError: ssh does not get through; it holds what ssh printed.
        """
        if not self._options:
            self._open()
        done = subprocess.run(
            self._ssh("true"), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
        if done.returncode != 0:
            raise ConnectError(f"the SSH connection is gone ({done.stderr.strip()})")

    def disconnect(self) -> None:
        """Close the connection, unless someone else opened it."""
        if self._shell:
            self._shell.close()
        if self._folder:
            argv = ["ssh", *self._options, "-O", "exit", self._name]
            subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True)
            self._folder.cleanup()
            self._folder = None

    def _open(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tutorial-pyinfra-", dir="/tmp")  # sockets: short paths
        socket, log = Path(self._folder.name) / "ssh", Path(self._folder.name) / "log"
        asked = subprocess.run(
            ["ssh", "-G", self._name], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
        words = openssh.opening(socket, openssh.read_answers(asked.stdout))
        with log.open("w") as output:  # no pipe: the connection goes on in the background, and would hold it open
            done = subprocess.run(
                ["ssh", *words, "-f", "-N", self._name],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=_SECONDS,
            )  # fmt: skip
        if done.returncode != 0:
            said = log.read_text(errors="replace").strip()
            self._folder.cleanup()
            raise ConnectError(f"ssh {self._name} failed ({said})")
        self._options = openssh.over(socket)

    def _ssh(self, command: str) -> list[str]:
        return ["ssh", *self._options, "-T", self._name, "--", command]

    def run_shell_command(
        self,
        command: StringCommand,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> tuple[bool, CommandOutput]:
        """Run a command there; see `BaseConnector`."""
        timeout, stdin = arguments.pop("_timeout", None), arguments.pop("_stdin", None)
        right_codes = arguments.pop("_success_exit_codes", None) or [0]
        whole = self._whole(command, print_input, arguments)
        if stdin:
            lines = [stdin] if isinstance(stdin, str) else list(stdin)
            done = self._transfer(whole, "".join(f"{line.rstrip(chr(10))}\n" for line in lines).encode())
            told = [OutputLine("stdout", x) for x in done.stdout.decode(errors="replace").splitlines()]
            told += [OutputLine("stderr", x) for x in done.stderr.decode(errors="replace").splitlines()]
            return done.returncode in right_codes, CommandOutput(told)
        if self._shell is None or not self._shell.is_open():
            self._shell = _Shell(self._ssh("exec sh"))
        code, output = self._shell.run(whole, timeout, print_output, self.host.print_prefix)
        return code in right_codes, output

    def put_file(
        self,
        filename_or_io: str | IOBase,
        remote_filename: str,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        """Write a file there, as the user whom the operation names; see `BaseConnector`."""
        with get_file_io(filename_or_io) as file:  # type: ignore[arg-type]
            content = file.read()
        data = content.encode() if isinstance(content, str) else content
        command = StringCommand("sh", "-c", quote(_WRITE), quote(remote_filename), str(len(data)))
        done = self._transfer(self._whole(command, print_input, arguments), data)
        if done.returncode != 0:
            raise OSError(f"{remote_filename} was not written: {done.stderr.decode(errors='replace').strip()}")
        if print_output:
            echo(f"{self.host.print_prefix}file uploaded: {remote_filename}", err=True)
        return True

    def get_file(
        self,
        remote_filename: str,
        filename_or_io: str | IOBase,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        """Read a file there, as the user whom the operation names; see `BaseConnector`."""
        done = self._transfer(self._whole(StringCommand("cat", quote(remote_filename)), print_input, arguments), b"")
        if done.returncode != 0:
            raise OSError(f"{remote_filename} was not read: {done.stderr.decode(errors='replace').strip()}")
        with get_file_io(filename_or_io, "wb") as file:  # type: ignore[arg-type]
            file.write(done.stdout)
        if print_output:
            echo(f"{self.host.print_prefix}file downloaded: {remote_filename}", err=True)
        return True

    def _transfer(self, command: str, data: bytes) -> "subprocess.CompletedProcess[bytes]":
        """Run a command whose input or output is a file's content, in a session of its own."""
        return subprocess.run(self._ssh(command), input=data, capture_output=True)

    def _whole(self, command: StringCommand, print_input: bool, arguments: dict[str, Any]) -> str:
        """Give the command as the machine's shell runs it, with `sudo -n` where the operation asks for it."""
        other = ("_get_pty", "_timeout", "_stdin", "_success_exit_codes")
        wrapping = {k: v for k, v in arguments.items() if k not in other}
        whole = make_unix_command_for_host(self.state, self.host, command, **wrapping)
        logger.debug("Running command on %s: %s", self.host.name, whole)
        if print_input:
            echo(f"{self.host.print_prefix}>>> {whole}", err=True)
        return str(whole.get_raw_value())


class _Shell:
    """A shell on the machine, which runs one command after the other.

    A process and a session for each command would take more time than most commands of a deploy do.

    Args:
        argv: The command of this machine that starts the shell there.
    """

    def __init__(self, argv: list[str]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe)
        self._code = _LOST

    def is_open(self) -> bool:
        """Tell whether it takes another command."""
        return self._process.poll() is None

    def run(self, command: str, timeout: int | None, print_output: bool, prefix: str) -> tuple[int, CommandOutput]:
        """Run a command.

        Args:
            command: A command of a POSIX shell.
            timeout: Seconds; None waits as long as it takes.
            print_output: Print each line when it comes.
            prefix: What each printed line begins with.

        Returns:
            Its exit code, 255 where the connection was lost, and what it printed.

        Raises:
            TimeoutError: It took longer; the shell is closed then.
        """
        process, mark = self._process, uuid.uuid4().hex
        script = f"sh -c {quote(command)} </dev/null; printf '\\n{mark} %s\\n' $?; printf '\\n{mark} 0\\n' >&2\n"
        self._code = _LOST
        with suppress(BrokenPipeError):
            process.stdin.write(script.encode())  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        streams = self._lines(process.stdout, mark, True), self._lines(process.stderr, mark, False)
        try:
            output = read_output_buffers(*streams, timeout, print_output, prefix)
        except BaseException:
            self.close()
            raise
        if self._code == _LOST:
            self.close()
        return self._code, output

    def _lines(self, stream: Any, mark: str, counts: bool) -> Iterator[str]:
        """Give a command's lines, up to the mark; the line end before it is ours.

        A byte of another encoding than UTF-8 does not end the deploy.
        """
        is_empty = False
        while raw := stream.readline():
            line = raw.decode(errors="replace").rstrip("\n")
            if line.startswith(mark):
                if counts:
                    self._code = int(line.split()[1])
                return
            if is_empty:
                yield ""
            is_empty = not line
            if line:
                yield line

    def close(self) -> None:
        """End it; a command that still runs there is not ended."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]
