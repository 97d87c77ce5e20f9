"""The part that the deploys share: an apt source that only one key may sign, listed only when it was read."""

from io import StringIO
from pathlib import Path
from shlex import join, quote

from pyinfra import host
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.files import FileContents
from pyinfra.facts.server import Command
from pyinfra.operations import apt, files, server

from deployments.host import rights

LISTS = "/etc/apt/sources.list.d"
TOOLS = ("ca-certificates", "curl", "gpg")


def tools() -> None:
    """Have what fetches a file and reads a key; the package lists are read anew only where one is missing."""
    missing = sorted(set(TOOLS) - set(host.get_fact(DebPackages) or {}))
    if missing:
        apt.packages(name=f"Install {', '.join(missing)}", packages=missing, update=True, _sudo=rights.needed())


def script(name: str, file: str, *words: str) -> None:
    """Run a script that lies beside the deploys, as root."""
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    server.shell(name=name, commands=[join(["sh", "-c", text, file, *words])], _sudo=rights.needed())


def key(whose: str, address: str, fingerprint: str, keyring: str) -> bool:
    """Fetch a key into a keyring, unless that holds it; one with another fingerprint is refused. Tell if it is new."""
    look = f"gpg --show-keys --with-colons {quote(keyring)} 2>/dev/null | grep -c ':{fingerprint}:' || true"
    missing = (host.get_fact(Command, look) or "0").strip() == "0"
    if missing:
        script(f"Add {whose}'s key", "fetch_key.sh", address, fingerprint, keyring)
    return missing


def source(what: str, name: str, line: str, new_key: bool = False) -> None:
    """Read a source by itself, then list it: one that can't be read, or is signed by another key, is never listed."""
    path = f"{LISTS}/{name}.list"
    if new_key or host.get_fact(FileContents, path=path) != [line]:
        read(what, line)
    files.put(name=f"Add {what}", src=StringIO(f"{line}\n"), dest=path, mode="644", _sudo=rights.needed())


def read(what: str, line: str) -> None:
    """Fetch the index of one source, and of nothing else; apt keeps it for when the source is listed."""
    options = "-o Dir::Etc::sourcelist=$w/one.list -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0"
    command = f"apt-get update -q {options} -o APT::Update::Error-Mode=any"
    server.shell(
        name=f"Read {what}",
        commands=[f"w=$(mktemp -d); trap 'rm -rf $w' EXIT; echo {quote(line)} >$w/one.list; {command}"],
        _sudo=rights.needed(),
    )
