"""The SSH configuration in a home folder: the reader's own file, and ours beside it, which theirs includes by one line.

`ssh_config(5)` is the source of every keyword here (https://man.openbsd.org/ssh_config). What counts is what OpenSSH
makes of a configuration (`ssh -G`): it is asked before anything is written, and a copy is tried first.
"""

import os
import re
import shlex
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from helpers import display, openssh
from helpers.errors import TutorialError
from helpers.processes import write_atomically
from helpers.ssh_ask import NO_HOST, Answers, ask, notes_on

KEY = "~/.ssh/local-cpouta.pem"
_MARK = "# Made by the tutorial; `tutorial clean` removes it."


@dataclass(frozen=True)
class HostBlock:
    """One `Host` block.

    Attributes:
        alias: The name that the reader types: `ssh cpouta`.
        hostname: Host name or IP address.
        user: The user on that machine.
        identity_file: The private key; empty where ssh tries whatever the agent holds.
        port: The TCP port.
        options: Further keywords of ssh_config(5).
    """

    alias: str
    hostname: str
    user: str
    identity_file: str = KEY
    port: int = 22
    options: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Write the block as ssh_config(5) has it."""
        key = {"IdentityFile": openssh.quoted(self.identity_file), "IdentitiesOnly": "yes"}
        rows = {
            "HostName": self.hostname.replace("%", "%%"),  # the zone of an IPv6 address
            "User": self.user,
            "Port": str(self.port),
            **(key if self.identity_file else {}),
            "ServerAliveInterval": "30",
            "ServerAliveCountMax": "3",
            **self.options,
        }
        return "\n".join([f"Host {self.alias}", *(f"  {k} {v}" for k, v in rows.items())]) + "\n"


class SshConfig:
    """The SSH configuration in a home folder: the reader's file, and ours which it includes.

    Args:
        home: The home folder.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home / ".ssh"
        self.config = self.folder / "config"
        self.ours = self.folder / "tutorial.conf"
        self.backup = self.folder / "config.before-tutorial"

    @property
    def include(self) -> str:
        """The one line that the reader's file gains."""
        return f"Include {openssh.pattern(self.ours)}"

    def install(self, blocks: Sequence[HostBlock], tell: bool = True) -> bool:
        """Write the blocks, and the line that includes them.

        Args:
            blocks: Host blocks that our file shall hold; blocks of other names in it stay.
            tell: Show what of the reader's own Hosts of these names stays in force, and what no longer is.

        Returns:
            Whether anything changed.

        Raises:
            TutorialError: The reader's file can't be used as it is or can't be written, or ssh does not understand the
                result; nothing is changed then.
        """
        before, old = self._read(), self._text()
        if old is None and self.ours.exists():
            raise TutorialError(
                f"{self.ours} is a file of your own",
                "the tutorial keeps its Host blocks in a file of that name, and yours has other lines",
                f"give your file another name: mv {self.ours} {self.ours.with_suffix('.mine.conf')}",
            )
        text = self._with(blocks, old)
        content = before
        if not self._is_included(before):
            end = b"\r\n" if before.split(b"\n", 1)[0].endswith(b"\r") else b"\n"
            content = self.include.encode() + end + self._without(before)
        notes = self._rehearse(blocks, text, before)
        is_private = old is not None and stat.S_IMODE(self.ours.stat().st_mode) == 0o600
        if content == before and text == old and is_private:
            return False
        try:
            with self._rolled_back():
                self._require_writable(content != before)
                if content != before and self.config.exists() and not self.backup.exists():
                    self._write(self.backup, before)
                self._write(self.ours, text.encode("utf-8", "surrogateescape"), 0o600)
                if content != before:
                    self._write(self.config, content)
        except OSError as error:
            if all(self._is_in_force(block) for block in blocks):
                return False  # the reader has written them by hand
            raise self._read_only(error, blocks) from None
        if tell and notes:
            display.show("\n".join(notes))
        return True

    def drop(self, aliases: Sequence[str]) -> None:
        """Take some Host blocks away, and with the last one our line and files."""
        rest = {alias: text for alias, text in self._ours().items() if alias not in aliases}
        if not rest:
            self.remove()
            return
        head = (self._text() or "").splitlines()[:2]
        try:
            self._write(self.ours, "\n".join([*head, "", *rest.values()]).encode("utf-8", "surrogateescape"), 0o600)
        except OSError as error:
            remedy = f"make {self.folder} writable, or remove them by hand: Host {', '.join(aliases)}"
            raise TutorialError(f"{self.ours} can't be changed", str(error.strerror), remedy) from None

    def aliases(self) -> list[str]:
        """List the Hosts of our file."""
        return list(self._ours())

    def remove(self) -> None:
        """Take our line and files away; the reader's file is as it was, byte for byte.

        Raises:
            TutorialError: The reader's file can't be written; our files are gone then, and ssh passes over the line.
        """
        text, failure = self._text(), None
        created = self._created(text)
        try:
            if self.config.exists():
                rest = self.original()
                if not rest and "config" in created:
                    self.config.unlink()
                elif rest != self.config.read_bytes():
                    self._write(self.config, rest)
        except OSError as error:
            failure = error
        try:
            if text is not None:
                self.ours.unlink()
            self.backup.unlink(missing_ok=True)
            if "folder" in created and self.folder.exists() and not any(self.folder.iterdir()):
                self.folder.rmdir()
        except OSError as error:
            failure = failure or error
        if failure:
            raise TutorialError(
                f"{self.config} can't be changed",
                str(failure.strerror),
                f"remove this line by hand: {self.include}. It does no harm: ssh passes over a missing file",
            )

    def original(self) -> bytes:
        """Give the reader's file without our line; nothing where there is none."""
        return self._without(self.config.read_bytes() if self.config.exists() else b"")

    def made(self) -> bool:
        """Tell whether something of ours is there."""
        return self._text() is not None or (self.config.exists() and self._is_included(self.config.read_bytes()))

    def resolve(self, alias: str) -> dict[str, str]:
        """Ask OpenSSH what it makes of an alias (`ssh -G`).

        Args:
            alias: The alias.

        Returns:
            OpenSSH's own answer: keyword in small letters → its first value.

        Raises:
            TutorialError: OpenSSH does not understand the configuration; the message names the line. Or it takes too
                long.
        """
        return {keyword: values[0] for keyword, values in ask(self.config, alias).items()}

    def agent(self, alias: str) -> str:
        """Give the agent that the reader's configuration names for a Host (IdentityAgent); see `ssh_keys`."""
        named = self.resolve(alias).get("identityagent", "") if self.config.exists() else ""
        if named.startswith("$"):
            return os.environ.get(named.strip("${}"), "none")
        return "" if named == "SSH_AUTH_SOCK" else named

    def _text(self) -> str | None:
        """Read our file; None where there is none, or a file of the reader's own has its name."""
        content = self.ours.read_bytes() if self.ours.exists() else b""
        return content.decode("utf-8", "surrogateescape") if content.startswith(_MARK.encode()) else None

    def _ours(self) -> dict[str, str]:
        parts = re.split(r"(?m)^(?=Host \S)", self._text() or "")[1:]
        return {part.split()[1]: f"{part.rstrip()}\n" for part in parts}

    def _with(self, blocks: Sequence[HostBlock], old: str | None) -> str:
        """Give our file's text with these blocks; its second line says what else the tutorial has created."""
        made = [name for name, path in (("folder", self.folder), ("config", self.config)) if not path.exists()]
        created = self._created(old) or f"# created: {' '.join(made) or 'nothing else'}"
        mine = {**self._ours(), **{b.alias: b.text() for b in blocks}}
        return "\n".join([_MARK, created, "", *mine.values()])

    @staticmethod
    def _created(text: str | None) -> str:
        return next((line for line in (text or "").splitlines() if line.startswith("# created:")), "")

    def _is_included(self, content: bytes) -> bool:
        """Tell whether a configuration includes our file for every Host, in whatever spelling."""
        for line in content.splitlines():
            if re.match(rb"(?i)\s*(host|match)[\s=]", line):
                return False
            if any(map(self._is_ours, _included(line))):
                return True
        return False

    def _is_ours(self, word: str) -> bool:
        path = f"{self.folder.parent}/{word[2:]}" if word.startswith("~/") else word
        path = path if path.startswith("/") else f"{self.folder}/{path}"
        return path == str(self.ours) or fnmatchcase(str(self.ours), path)

    def _without(self, content: bytes) -> bytes:
        return b"".join(x for x in content.splitlines(keepends=True) if x.strip() != self.include.encode())

    def _theirs(self, content: bytes) -> bytes:
        """Give a configuration without our file, in whatever spelling the reader includes it."""
        lines = content.splitlines(keepends=True)
        return b"".join(x for x in lines if not (words := _included(x)) or not all(map(self._is_ours, words)))

    def _read(self) -> bytes:
        """Read the reader's file, provided that ssh would."""
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise TutorialError(f"{self.folder} is not a folder", "", "move it away; a link must lead to a folder")
        if not os.path.lexists(self.config):
            return b""
        try:
            info = self.config.stat()
            if not stat.S_ISREG(info.st_mode):
                raise TutorialError(f"{self.config} is not a file", "", "move it away, or make it a file")
            content = self.config.read_bytes()
        except FileNotFoundError:
            why = f"it leads to {self.config.readlink()}, which does not exist"
            raise TutorialError(f"{self.config} can't be read", why, "remove the link, or mend it") from None
        except OSError as error:
            remedy = f"make it yours: chmod u+rw {self.config}. By hand, its first line would be: {self.include}"
            raise TutorialError(f"{self.config} can't be read", str(error.strerror), remedy) from None
        with tempfile.TemporaryDirectory() as scratch:  # an included file is checked as ssh checks ~/.ssh/config
            whole = Path(scratch) / "config"
            whole.write_text(f"Include {openssh.pattern(self.config)}\n")
            try:
                ask(whole, "localhost")
            except TutorialError as error:
                if "Bad owner or permissions" not in error.output or str(self.config) not in error.output:
                    raise
                what = "Others may write" if info.st_mode & 0o022 else "Another user owns"
                remedy = f"chmod 600 {self.config}" if info.st_mode & 0o022 else f"chown {os.getuid()} {self.config}"
                raise TutorialError(f"{what} {self.config}", "OpenSSH refuses such a file", remedy) from None
        return content

    def _rehearse(self, blocks: Sequence[HostBlock], text: str, before: bytes) -> list[str]:
        """Try the new configuration on a copy; say what it makes of Hosts that the reader has, too."""
        notes = []
        with tempfile.TemporaryDirectory() as scratch:
            ours, whole, theirs = (Path(scratch) / name for name in ("tutorial.conf", "config", "before"))
            ours.write_bytes(text.encode("utf-8", "surrogateescape"))
            theirs.write_bytes(self._theirs(before))
            whole.write_bytes(f"Include {openssh.pattern(ours)}\n".encode() + self._theirs(before))
            for path in (ours, whole, theirs):
                path.chmod(0o600)
            general = ask(theirs, NO_HOST)
            for block in blocks:
                answers = ask(whole, block.alias)
                self._verify(block, answers)
                own = ask(theirs, block.alias)
                notes += notes_on(block.alias, own, answers, ask(ours, block.alias), general, before)
        return notes

    def _verify(self, block: HostBlock, answers: Answers) -> None:
        wanted = {"hostname": block.hostname.lower(), "user": block.user, "port": str(block.port)}
        wrong = {k: answers.get(k, [""])[0] for k, v in wanted.items() if answers.get(k, [""])[0].lower() != v.lower()}
        if wrong:
            raise TutorialError(
                f"ssh {block.alias} would not do what the block says",
                ", ".join(f"{k} is {v!r}" for k, v in wrong.items()),
                f"an earlier line of {self.config} wins; remove it",
            )

    def _is_in_force(self, block: HostBlock) -> bool:
        with suppress(TutorialError):
            self._verify(block, ask(self.config, block.alias))
            return True
        return False

    def _require_writable(self, config_changes: bool) -> None:
        """Take files and folders without any write permission for read-only, which root's rights would pass over."""
        real = self.config.resolve()
        paths = [self.folder, *([real, real.parent] if config_changes else [])]
        for path in paths:
            if path.exists() and not stat.S_IMODE(path.stat().st_mode) & 0o222:
                raise PermissionError(13, "it is read-only", str(path))

    def _read_only(self, error: OSError, blocks: Sequence[HostBlock]) -> TutorialError:
        """Make the error that says what to write by hand; Home Manager and the like keep such files read-only."""
        real = self.config.resolve()
        place = next((p for p in (real, self.folder) if str(p) == error.filename), real.parent)
        remedy = f"add this line by hand, as the first one, and run this again: {self.include}"
        if place == self.folder:
            texts = "\n".join(block.text() for block in blocks)
            remedy = f"make the folder writable, and run this again: it adds {self.include}. Or add by hand:\n{texts}"
        return TutorialError(f"{self.config} can't be changed", f"{place}: {error.strerror}", remedy)

    @staticmethod
    def _write(path: Path, content: bytes, mode: int = 0) -> None:
        real = path.resolve()  # a symlinked configuration stays a symlink
        mode = mode or (stat.S_IMODE(real.stat().st_mode) if real.exists() else 0o600)
        real.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(real, content.decode("utf-8", "surrogateescape"), mode)

    @contextmanager
    def _rolled_back(self) -> Iterator[None]:
        """Give every file its old content back where the block fails, by Ctrl-C as well."""
        paths = (self.config, self.ours, self.backup)
        saved = {p: (p.read_bytes(), stat.S_IMODE(p.stat().st_mode)) if p.exists() else None for p in paths}
        is_new = not self.folder.exists()
        try:
            yield
        except BaseException:
            for path, state in saved.items():
                with suppress(OSError):
                    if state is None:
                        path.unlink(missing_ok=True)
                    elif path.read_bytes() != state[0]:
                        self._write(path, *state)
            if is_new:
                with suppress(OSError):
                    self.folder.rmdir()
            raise


def _included(line: bytes) -> list[str]:
    """Give the files that a line of a configuration includes."""
    found = re.match(rb"(?i)\s*include(?:\s*=\s*|\s+)(.*)", line)
    try:
        return shlex.split(found[1].decode("utf-8", "surrogateescape")) if found else []
    except ValueError:  # a quotation mark without its partner
        return []
