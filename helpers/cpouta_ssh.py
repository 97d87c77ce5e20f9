"""Who may reach the VM, and how this machine knows that it is the right one: own address, Host, host key."""

import ipaddress
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers import display, http, ssh
from helpers.errors import TutorialError
from helpers.processes import write_atomically
from helpers.target import failed
from helpers.target_local import run_here

# Each answers with the caller's IPv4 address and nothing else. The first that answers counts.
LOOK_UP = ("https://api.ipify.org", "https://ipv4.icanhazip.com", "https://v4.ident.me")
_LOOK_UP_SECONDS = 5
_INSIDE = [
    ipaddress.ip_network(n)
    for n in ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
              "192.168.0.0/16", "224.0.0.0/3")
]  # fmt: skip
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_BOOT_SECONDS = 360.0
USER = "ubuntu"  # of CSC's Ubuntu images: https://docs.csc.fi/cloud/pouta/images/


def own_address(by_hand: str = "", services: Sequence[str] = LOOK_UP) -> str:
    """Find out from which public address this machine is seen: the only one that may come in.

    Args:
        by_hand: The address, where the reader gives it.
        services: Addresses of pages that tell it, asked one after the other.

    Returns:
        An IPv4 address.

    Raises:
        TutorialError: What was given is not one that others can see, or no service answers.
    """
    if by_hand:
        return _public(by_hand.strip())
    said = []
    for service in services:
        try:
            page = http.get(service, timeout=_LOOK_UP_SECONDS)
            page.raise_for_status()
            return _public(page.content[:64].decode("ascii", "replace").strip())
        except (OSError, TutorialError) as error:
            said.append(f"{service}: {str(error).splitlines()[0]}")
    raise TutorialError(
        "Your public address could not be found out",
        "no look-up service gave one",
        "look it up in a browser on this machine, and give it by hand: my_address",
        output="\n".join(said),
    )


def _public(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise TutorialError(
            f"{text!r} is not an IP address", "", "give one address such as 198.51.100.7, not a network"
        ) from None
    if address.version != 4:
        raise TutorialError(f"{address} is an IPv6 address", "floating IPs are IPv4", "give the IPv4 address")
    if any(address in network for network in _INSIDE):
        raise TutorialError(
            f"{address} is not a public address",
            "it is one inside your own network, which the cloud never sees",
            "look up the public one in a browser on this machine",
        )
    return str(address)


@dataclass(frozen=True)
class Place:
    """Whose SSH configuration the VM goes into, under which name.

    Attributes:
        home: The home folder whose `.ssh` is written.
        alias: The Host: `cpouta`, or `GPU-cpouta`.
        key: The private key.
    """

    home: Path
    alias: str
    key: Path

    @property
    def config(self) -> ssh.SshConfig:
        """The configuration in that home folder."""
        return ssh.SshConfig(self.home)

    @property
    def known_hosts(self) -> Path:
        """The file that holds the VM's host key, and no other."""
        return self.home / ".ssh" / f"tutorial-{self.alias.lower()}.known_hosts"

    def write_host(self, address: str) -> bool:
        """Write the VM's Host block into the SSH chapter's file.

        Args:
            address: The VM's floating IP.

        Returns:
            Whether anything changed.
        """
        options = {"UserKnownHostsFile": f'"{self.known_hosts}"', "StrictHostKeyChecking": "yes"}
        return self.config.install([ssh.HostBlock(self.alias, address, USER, str(self.key), 22, options)])

    def forget(self) -> None:
        """Take the Host and the pinned key away."""
        if self.alias in self.config.aliases():
            self.config.drop([self.alias])
        self.known_hosts.unlink(missing_ok=True)


def pin_host_key(known_hosts: Path, server: str, address: str, console: str, port: int = 22) -> str:
    """Pin the VM's host key at the first connection, compared with what its console printed.

    cloud-init prints the fingerprints of the keys that it makes to the console, which the cloud shows over HTTPS.

    Args:
        known_hosts: The file to write.
        server: The server's id in the cloud; another server at the same address gets a new pin.
        address: Where it answers.
        console: The server's console log.
        port: The port of its sshd.

    Returns:
        How it was done: `pinned before`, `compared with the console`, or `on first use`.

    Raises:
        TutorialError: sshd does not answer, or shows another key than the console did: do not connect.
    """
    mark = f"# server {server}"
    before = known_hosts.read_bytes() if known_hosts.exists() else b""
    if before.startswith(f"{mark}\n".encode()):
        return "pinned before"
    if before.strip() and not before.startswith(b"# server "):
        raise TutorialError(
            f"{known_hosts} is a file of your own",
            "the tutorial keeps the VM's host key in a file of that name, and yours has other lines",
            f"give your file another name: mv {known_hosts} {known_hosts}.mine",
        )
    line = _scan(address, port)
    argv = ["ssh-keygen", "-l", "-f", "-"]
    shown = _FINGERPRINT.findall(run_here(argv, input=line).stdout)
    printed = _FINGERPRINT.findall(console)
    if printed and shown[0] not in printed:
        raise TutorialError(
            f"{address} shows a host key that the VM did not make",
            f"it shows {shown[0]}, the console printed others: another machine answers in its place",
            "do not connect; ask servicedesk@csc.fi",
        )
    write_atomically(known_hosts, f"{mark}\n{line}\n", 0o600)
    return "compared with the console" if printed else "on first use"


def _scan(address: str, port: int) -> str:
    argv = ["ssh-keyscan", "-T", "5", "-t", "ed25519", "-p", str(port), address]
    deadline = time.monotonic() + _BOOT_SECONDS
    with display.progress(f"First connection to {address}", _BOOT_SECONDS, "s") as report:
        while True:
            done = run_here(argv, check=False, timeout=30)
            if done.returncode == 127:
                raise failed("local", done)
            keys = [x for x in done.stdout.splitlines() if x and not x.startswith("#")]
            if keys:
                return keys[0]
            left = deadline - time.monotonic()
            if left < 0:
                raise TutorialError(
                    f"{address} does not answer on port {port}",
                    f"not within {_BOOT_SECONDS:g} s: it has not booted, or your address is not the one of the rule",
                    "vm.refresh_ssh_rule(), then run the cell again",
                )
            report(_BOOT_SECONDS - left, "it boots")
            time.sleep(2)
