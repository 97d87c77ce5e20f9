"""What a machine is, what it can do, and which ports are taken there: asked in one way over SSH and on this machine."""

import re
import socket

from helpers import shell
from helpers.errors import TutorialError
from helpers.target import Capability, Target

# In bytes; Linux, then macOS.
MEMORY = "{ awk '/^MemTotal/ {printf \"%.0f\", $2 * 1024}' /proc/meminfo || sysctl -n hw.memsize; } | grep ."
_FACTS = {
    "system": '[ -r /etc/os-release ] && . /etc/os-release; echo "${PRETTY_NAME:-$(uname -s)}"',
    "kernel": "uname -r",
    "architecture": "uname -m",
    "cores": "getconf _NPROCESSORS_ONLN",
    "memory": f"{MEMORY} | awk '{{printf \"%.0f GiB\", $1 / 1073741824}}'",
    "disk free": "df -Pk ~ | awk 'NR == 2 && $4 ~ /^[0-9]+$/ {printf \"%.0f GiB\", $4 / 1048576}'",
}
# Podman answers to the name `docker`, too, but has no engine, and neither units nor a daemon.json.
_CAPABILITIES: dict[str, str] = {
    Capability.DOCKER: "docker info >/dev/null && ! docker --version | grep -qi podman && echo yes",
    Capability.ROOT: '{ [ "$(id -u)" = 0 ] || sudo -n true; } && echo yes',
    Capability.SYSTEMD: """[ -d /run/systemd/system ] && command -v systemctl >/dev/null &&
      [ "$(systemctl is-system-running)" != offline ] && echo yes""",
    # Of two GPUs one may be lost: the other is listed then, and the exit code is not 0.
    Capability.GPU: """said=$(nvidia-smi -L); case $?/$said in 0/*GPU*|*"GPU "[0-9]*": "*) echo yes ;; esac""",
}
_LISTENING = {
    "ss": "ss -Hltn && echo .",
    "proc": "cat /proc/net/tcp && { cat /proc/net/tcp6 || true; }",
    "netstat": "netstat -an && echo .",
}
_PROC_LISTENS = re.compile(r"^\s*\d+: ([0-9A-F]+):([0-9A-F]{4}) \S+ 0A ", re.MULTILINE)


def facts(target: Target) -> dict[str, str]:
    """Read what a machine is; what it does not tell is `unknown`. See `Target.facts`."""
    return {name: value or "unknown" for name, value in shell.query(target, _FACTS).items()}


def capabilities(target: Target) -> frozenset[Capability]:
    """Find out what steps may use on a machine, by one command; a program that hangs counts as missing."""
    known = shell.query(target, _CAPABILITIES)
    return frozenset(capability for capability in Capability if known.get(capability) == "yes")


def listening(target: Target) -> set[tuple[str, int]]:
    """List the TCP ports that programs on a machine listen on.

    Args:
        target: The machine.

    Returns:
        Address and port of each, such as `("127.0.0.1", 22)`; all addresses are `0.0.0.0`, `::` or `*`.

    Raises:
        TutorialError: The machine does not tell.
    """
    told = shell.query(target, _LISTENING)
    if told["ss"]:
        places = [row[3] for row in map(str.split, told["ss"].splitlines()) if len(row) > 3]
    elif told["proc"]:
        return {(_address(address), int(port, 16)) for address, port in _PROC_LISTENS.findall(told["proc"])}
    elif told["netstat"]:
        rows = (line.split() for line in told["netstat"].splitlines())
        places = [row[3] for row in rows if len(row) > 4 and row[0].startswith("tcp") and row[-1] == "LISTEN"]
    else:
        raise TutorialError(
            "The machine does not tell which of its ports are taken", "it has neither ss nor netstat",
            "install the program ss on it: sudo apt install iproute2", target=target.name,
        )  # fmt: skip
    # Old programs print a line of headings, whatever they are told; none of its words ends in a port.
    pairs = (found.groups() for place in places if (found := re.fullmatch(r"(.*)[.:](\d+)", place)))
    return {(address.strip("[]").partition("%")[0], int(port)) for address, port in pairs}


def _address(words: str) -> str:
    """Read an address of /proc/net/tcp: words of four bytes, each with the last byte first (proc(5))."""
    packed = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
