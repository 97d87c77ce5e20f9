"""Chapter 01: Host blocks in a file of our own, one `Include` line in the reader's configuration, and SSH's errors.

`ssh_config(5)` is the source of every keyword here (https://man.openbsd.org/ssh_config).
"""

import ipaddress
import os
import re
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers.errors import TutorialError
from helpers.processes import write_atomically
from helpers.settings import settings
from helpers.target import failed
from helpers.target_local import run_here
from helpers.undo import Leftover

ALIASES = ("cpouta", "GPU-cpouta")
KEY = "~/.ssh/local-cpouta.pem"
_MARK = "# Made by the tutorial; `tutorial clean` removes it."
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
# What ssh says, what it means, what to do: the first pattern that fits.
ERRORS = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "the host key changed: another machine answers at this address, or the "
     "VM was made anew", "if you have rebuilt the VM, remove its old key: ssh-keygen -R HOST; else do not connect"),
    ("Host key verification failed", "the machine's host key is not known yet",
     "compare its fingerprint with the one in the cloud console, then connect once by hand and accept it"),
    ("UNPROTECTED PRIVATE KEY FILE", "others may read your private key, so ssh ignores it", "chmod 600 the key file"),
    ("Permission denied", "the machine answers but does not accept this user with this key",
     "check User and IdentityFile, and that the public key is in the machine's ~/.ssh/authorized_keys"),
    ("Connection refused", "the machine is there but nothing listens on that port",
     "wait until it has booted, and check the port"),
    ("timed out", "nothing answers: a firewall drops the packets, the address is wrong or the VM is off",
     "check the address, that the VM runs, and that its security group lets your address in on port 22"),
    ("Could not resolve hostname", "no such host name", "check HostName; a floating IP needs no name"),
    ("No route to host", "the network does not lead there", "check the address and your network or VPN"),
    ("Bad owner or permissions", "others may write your SSH configuration", "chmod 600 ~/.ssh/config"),
)  # fmt: skip


@dataclass(frozen=True)
class HostBlock:
    """One `Host` block.

    Attributes:
        alias: The name that the reader types: `ssh cpouta`.
        hostname: Host name or IP address.
        user: The user on that machine.
        identity_file: The private key.
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
        rows = {
            "HostName": self.hostname,
            "User": self.user,
            "Port": str(self.port),
            "IdentityFile": f'"{self.identity_file}"',
            "IdentitiesOnly": "yes",
            "ServerAliveInterval": "30",
            "ServerAliveCountMax": "3",
            **self.options,
        }
        return "\n".join([f"Host {self.alias}", *(f"  {k} {v}" for k, v in rows.items())]) + "\n"


def check_host_name(value: str) -> str:
    """Make sure that a value is a host name, an IPv4 or an IPv6 address (RFC 1123, section 2.1; RFC 4007 for zones).

    Args:
        value: What the reader gave.

    Returns:
        The same, without blanks around it.

    Raises:
        TutorialError: It is neither.
    """
    value = value.strip()
    try:
        ipaddress.ip_address(value)
    except ValueError:
        labels = value.rstrip(".").split(".")
        if len(value) > 253 or labels[-1].isdigit() or not all(_HOST_LABEL.fullmatch(label) for label in labels):
            raise TutorialError(
                f"{value!r} is not a host name or IP address",
                "it has characters or numbers that an address cannot have",
                "copy the VM's floating IP from the cloud console into the parameter hostname",
            ) from None
    return value


def check_user(value: str) -> str:
    """Make sure that a value can be a user name on a Linux machine.

    Args:
        value: What the reader gave.

    Returns:
        The same, without blanks around it.

    Raises:
        TutorialError: It cannot.
    """
    value = value.strip()
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,254}", value):
        raise TutorialError(
            f"{value!r} is not a user name", "", "CPouta's Ubuntu images have the user ubuntu; set the parameter user"
        )
    return value


def check_key(path: Path) -> Path:
    """Make sure that a file is a private key that ssh will use without asking.

    Args:
        path: The private key.

    Returns:
        Its path.

    Raises:
        TutorialError: It is missing, too open, a public key, not a key, or has a passphrase.
    """
    path = path.expanduser()
    if not path.is_file():
        raise TutorialError(f"There is no key {path}", "", f"make one: ssh-keygen -t ed25519 -f {path}")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise TutorialError(f"The key {path} is too open", "others may read it, so ssh refuses it", f"chmod 600 {path}")
    head = path.read_text(encoding="utf-8", errors="replace")[:64]
    if head.startswith(("ssh-", "ecdsa-", "sk-")):
        raise TutorialError(f"{path} is the public key", "", "name the file beside it without .pub")
    argv = ["ssh-keygen", "-y", "-P", "", "-f", str(path)]
    done = run_here(argv, check=False, timeout=20)
    if done.returncode == 127:
        raise failed("local", done)
    if done.returncode != 0 and "passphrase" in done.stderr:
        raise TutorialError(
            f"The key {path} has a passphrase",
            "notebooks cannot type it",
            f"give it to the agent once: eval $(ssh-agent); ssh-add {path}",
        )
    if done.returncode != 0:
        raise TutorialError(f"{path} is not a private key", done.stderr.strip(), "choose another file")
    return path


def make_key(path: Path) -> Path:
    """Make an ed25519 key without passphrase, unless there is one already.

    Args:
        path: The private key; the public one is beside it.

    Returns:
        Its path.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tutorial", "-f", str(path)]
        run_here(argv, timeout=30)
    return check_key(path)


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
        return f'Include "{self.ours}"'

    def install(self, blocks: Sequence[HostBlock]) -> bool:
        """Write the blocks, and the line that includes them.

        Args:
            blocks: Host blocks that our file shall hold; blocks of other names in it stay.

        Returns:
            Whether anything changed.

        Raises:
            TutorialError: The reader's file can't be used as it is, or ssh does not understand the result; nothing is
                changed then.
        """
        old = self._text()
        if old is None and self.ours.exists():
            raise TutorialError(
                f"{self.ours} is a file of your own",
                "the tutorial keeps its Host blocks in a file of that name, and yours has other lines",
                f"give your file another name: mv {self.ours} {self.ours.with_suffix('.mine.conf')}",
            )
        before, changed = self._read(), False
        mine = {**self._ours(), **{b.alias: b.text() for b in blocks}}
        text = "\n".join([_MARK, "", *mine.values()])
        new_folder, new_config = not self.folder.exists(), not self.config.exists()
        if not self._has_line(before):
            if not new_config and not self.backup.exists():
                self._write(self.backup, before)
            end = b"\r\n" if before.split(b"\n", 1)[0].endswith(b"\r") else b"\n"
            self._write(self.config, self.include.encode() + end + before)
            changed = True
        made = [name for name, new in (("folder", new_folder), ("config", new_config)) if new]
        kept = next((line for line in (old or "").splitlines() if line.startswith("# created:")), "")
        text = text.replace(_MARK, "\n".join([_MARK, kept or f"# created: {' '.join(made) or 'nothing else'}"]), 1)
        if text != old or stat.S_IMODE(self.ours.stat().st_mode) != 0o600:
            write_atomically(self.ours, text, 0o600)
            changed = True
        try:
            for block in blocks:
                self._verify(block)
        except TutorialError:
            if old is None:
                self.remove()
            else:
                write_atomically(self.ours, old, 0o600)
            raise
        return changed

    def drop(self, aliases: Sequence[str]) -> None:
        """Take some Host blocks away, and with the last one our line and files."""
        rest = {alias: text for alias, text in self._ours().items() if alias not in aliases}
        if not rest:
            self.remove()
            return
        head = (self._text() or "").splitlines()[:2]
        write_atomically(self.ours, "\n".join([*head, "", *rest.values()]), 0o600)

    def aliases(self) -> list[str]:
        """List the Hosts of our file."""
        return list(self._ours())

    def _text(self) -> str | None:
        """Read our file; None where there is none, or a file of the reader's own has its name."""
        content = self.ours.read_bytes() if self.ours.exists() else b""
        return content.decode("utf-8", "surrogateescape") if content.startswith(_MARK.encode()) else None

    def _ours(self) -> dict[str, str]:
        parts = re.split(r"(?m)^(?=Host )", self._text() or "")[1:]
        return {part.split()[1]: f"{part.rstrip()}\n" for part in parts}

    def remove(self) -> None:
        """Take our line and files away; the reader's file is as it was, byte for byte."""
        text = self._text()
        created = next((x for x in (text or "").splitlines() if "# created:" in x), "")
        if self.config.exists():
            rest = self.original()
            if not rest and "config" in created:
                self.config.unlink()
            elif rest != self.config.read_bytes():
                self._write(self.config, rest)
        if text is not None:
            self.ours.unlink()
        self.backup.unlink(missing_ok=True)
        if "folder" in created and self.folder.exists() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def original(self) -> bytes:
        """Give the reader's file without our line; nothing where there is none."""
        content = self.config.read_bytes() if self.config.exists() else b""
        return b"".join(x for x in content.splitlines(keepends=True) if x.strip() != self.include.encode())

    def made(self) -> bool:
        """Tell whether something of ours is there."""
        return self._text() is not None or (self.config.exists() and self._has_line(self.config.read_bytes()))

    def resolve(self, alias: str) -> dict[str, str]:
        """Ask OpenSSH what it makes of an alias (`ssh -G`).

        Args:
            alias: The alias.

        Returns:
            OpenSSH's own answer: keyword in small letters → value.

        Raises:
            TutorialError: OpenSSH does not understand the configuration; the message names the line.
        """
        argv = ["ssh", "-G", "-F", str(self.config), alias]
        done = run_here(argv, check=False, timeout=20)
        if done.returncode == 127:
            raise failed("local", done)
        if done.returncode != 0:
            raise TutorialError(
                "OpenSSH does not understand the configuration",
                "a line is wrong",
                "correct the line that it names",
                command=argv,
                output=done.stderr,
            )
        return {k: v for k, _, v in (line.partition(" ") for line in reversed(done.stdout.splitlines()))}

    def _has_line(self, content: bytes) -> bool:
        return any(line.strip() == self.include.encode() for line in content.splitlines())

    def _read(self) -> bytes:
        if not self.config.exists():
            return b""
        if self.config.stat().st_mode & 0o022:
            raise TutorialError(
                f"Others may write {self.config}", "OpenSSH refuses such a file", f"chmod 600 {self.config}"
            )
        try:
            content = self.config.read_bytes()
        except OSError as error:
            raise TutorialError(
                f"{self.config} can't be read", str(error.strerror), f"make it yours: chmod u+rw {self.config}"
            ) from None
        self.resolve("localhost")
        return content

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        real = path.resolve()  # a symlinked configuration stays a symlink
        mode = stat.S_IMODE(real.stat().st_mode) if real.exists() else 0o600
        real.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(real, content.decode("utf-8", "surrogateescape"), mode)

    def _verify(self, block: HostBlock) -> None:
        seen = self.resolve(block.alias)
        wanted = {"hostname": block.hostname.lower(), "user": block.user, "port": str(block.port)}
        wrong = {k: seen.get(k, "") for k, v in wanted.items() if seen.get(k, "").lower() != v.lower()}
        if wrong:
            raise TutorialError(
                f"ssh {block.alias} would not do what the block says",
                ", ".join(f"{k} is {v!r}" for k, v in wrong.items()),
                f"an earlier line of {self.config} wins; remove it",
            )


@dataclass(frozen=True)
class Endpoint:
    """Where chapter 01 connects to, and whose configuration it writes.

    Attributes:
        home: The home folder whose `.ssh` is configured.
        hostname: Host name or address.
        port: TCP port.
        user: The user there.
        identity_file: The private key.
        options: Further keywords, such as where the pinned host key is.
        sandbox: Whether that home folder is a sandbox; the reader's own `~/.ssh/config` stays as it is then.
        target: The target's name.
        server_port: TCP port that the machine's sshd listens on; 0: the same as `port`, which may be a forwarded one.
    """

    home: Path
    hostname: str
    port: int
    user: str
    identity_file: Path
    options: dict[str, str]
    sandbox: bool
    target: str = "local"
    server_port: int = 0

    @property
    def folder(self) -> Path:
        """The folder for what the chapter makes on this machine outside of `home`."""
        return sandbox_folder(self.target)

    @property
    def config(self) -> SshConfig:
        """The configuration in that home folder."""
        return SshConfig(self.home)

    def blocks(self) -> list[HostBlock]:
        """The Host blocks of both VMs."""
        key = str(self.identity_file)
        return [HostBlock(alias, self.hostname, self.user, key, self.port, self.options) for alias in ALIASES]


def resolve_all(place: Endpoint) -> list[dict[str, str]]:
    """Ask OpenSSH what it makes of both aliases.

    Args:
        place: Whose configuration.

    Returns:
        A row an alias, with the keywords that the Host blocks set.
    """
    names = ("hostname", "port", "user", "identityfile", "identitiesonly", "serveraliveinterval")
    answers = {alias: place.config.resolve(alias) for alias in ALIASES}
    return [{"alias": alias, **{name: seen[name] for name in names}} for alias, seen in answers.items()]


def explain(said: str) -> tuple[str, str]:
    """Say what an error of ssh means.

    Args:
        said: What ssh wrote to standard error.

    Returns:
        What it means, and what to do.
    """
    for pattern, meaning, remedy in ERRORS:
        if pattern in said:
            return meaning, remedy
    return "ssh could not connect", "read what it said; `ssh -v` says more"


def sandbox_folder(target: str = "local") -> Path:
    """Give the folder of what chapter 01 makes for a target; on `local`, `vm` and `host` that is everything."""
    return settings().state / target / "ssh"


def leftovers(target: str) -> list[Leftover]:
    """List what chapter 01 made for a target."""
    folder, found = sandbox_folder(target), list[Leftover]()
    if folder.exists():
        found.append(Leftover("SSH sandbox", str(folder), lambda: shutil.rmtree(folder, ignore_errors=True)))
    if target in ("local", "vm"):
        return found
    config = SshConfig(Path.home())
    mine = [alias for alias in config.aliases() if alias in ALIASES]
    if mine:
        found.append(Leftover(f"Host blocks {', '.join(mine)}", str(config.ours), lambda: config.drop(mine)))
    return found


def key_fingerprint(path: Path) -> str:
    """Give a key's SHA256 fingerprint, as `ssh-keygen -l` shows it."""
    done = run_here(["ssh-keygen", "-l", "-f", str(path)], timeout=20)
    return done.stdout.split()[1]


def runtime_folder() -> Path:
    """Give a short private folder for control sockets: their paths may have at most 104 bytes (unix(7))."""
    session = os.environ.get("XDG_RUNTIME_DIR", "")  # `su` may leave the one of another user
    place = session if session and os.access(session, os.W_OK | os.X_OK) else "/tmp"  # noqa: S108
    folder = Path(place) / f"tutorial-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise TutorialError(f"{folder} is not private", "someone else made it", f"remove it: rm -r {folder}")
    return folder
