"""Chapter 01: where it connects to, the checks of its parameters, and what SSH's errors mean.

The configuration is written by `ssh_config`, keys are checked by `ssh_keys`; their names are here, too.
"""

import ipaddress
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import TutorialError
from helpers.settings import settings
from helpers.ssh_config import KEY as KEY
from helpers.ssh_config import HostBlock as HostBlock
from helpers.ssh_config import SshConfig as SshConfig
from helpers.ssh_keys import check_key as check_key
from helpers.ssh_keys import key_fingerprint as key_fingerprint
from helpers.ssh_keys import make_key as make_key
from helpers.ssh_keys import public_key as public_key
from helpers.undo import Leftover

ALIASES = ("cpouta", "GPU-cpouta")
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
# What ssh says, what it means, what to do: the first pattern that fits.
ERRORS = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "the host key changed: another machine answers at this address, or the "
     "VM was made anew", "if you have rebuilt the VM, remove its old key: ssh-keygen -R HOST; else do not connect"),
    ("Host key verification failed", "the machine's host key is not known yet",
     "compare its fingerprint with the one in the cloud console, then connect once by hand and accept it"),
    ("UNPROTECTED PRIVATE KEY FILE", "others may read your private key, so ssh ignores it", "chmod 600 the key file"),
    ("Bad configuration option", "a line of your SSH configuration is wrong", "correct the line that it names"),
    ("Too many authentication failures", "your agent offered several keys, and the machine stopped early",
     "set IdentityFile and `IdentitiesOnly yes` for this Host"),
    ("agent refused operation", "the agent holds the key but does not sign with it",
     "confirm it in the agent's window or touch the security key, and try again"),
    ("Permission denied", "the machine answers but does not accept this user with this key",
     "check User and IdentityFile, and that the public key is in the machine's ~/.ssh/authorized_keys. A key with a "
     "passphrase must be in your agent: ssh-add -l"),
    ("Connection refused", "the machine is there but nothing listens on that port",
     "wait until it has booted, and check the port"),
    ("timed out", "nothing answers: a firewall drops the packets, the address is wrong or the VM is off",
     "check the address, that the VM runs, and that its security group lets your address in on port 22"),
    (
        "Could not resolve hostname",
        "no such host name: neither a Host of ~/.ssh/config nor a name that the network knows",
        "correct the name, or let chapter 01 write the Host: tutorial run 01 with hostname and user",
    ),
    ("No route to host", "the network does not lead there", "check the address and your network or VPN"),
    ("Bad owner or permissions", "others may write your SSH configuration", "chmod 600 ~/.ssh/config"),
)  # fmt: skip


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


@dataclass(frozen=True)
class Endpoint:
    """Where chapter 01 connects to, and whose configuration it writes.

    Attributes:
        home: The home folder whose `.ssh` is configured.
        hostname: Host name or address.
        port: TCP port.
        user: The user there.
        identity_file: The private key; `Path()` where ssh tries whatever the agent holds.
        options: Further keywords, such as where the pinned host key is.
        sandbox: Whether that home folder is a sandbox; the reader's own `~/.ssh/config` stays as it is then.
        target: The target's name.
        server_port: TCP port that the machine's sshd listens on; 0: the same as `port`, which may be a forwarded one.
        agent: The agent that the reader's configuration names for the machine; see `ssh_keys`.
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
    agent: str = ""

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
        key = "" if self.identity_file == Path() else str(self.identity_file).replace("%", "%%")
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


def runtime_folder() -> Path:
    """Give a short private folder for control sockets: their paths may have at most 104 bytes (unix(7))."""
    session = os.environ.get("XDG_RUNTIME_DIR", "")  # `su` may leave the one of another user
    place = session if session and os.access(session, os.W_OK | os.X_OK) else "/tmp"  # noqa: S108
    folder = Path(place) / f"tutorial-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise TutorialError(f"{folder} is not private", "someone else made it", f"remove it: rm -r {folder}")
    return folder
