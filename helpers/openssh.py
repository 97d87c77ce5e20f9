"""The words for the system's OpenSSH: one connection is opened as the reader configured it, and all else goes over it.

The module needs the standard library only, because pyinfra's connector imports it, too. `ssh_config(5)` is the source
of every keyword (https://man.openbsd.org/ssh_config).
"""

from pathlib import Path

IDLE_SECONDS = 60  # a connection that nobody uses ends then, even when the program that opened it is gone
CONNECT_SECONDS = 10  # for the TCP connection and the server's first line
PROXY_SECONDS = 30  # the same through a jump host or a ProxyCommand, which may have to start first

# What a client of `over` prints when it found no connection, so that its command never started …
NOT_SENT = "UNKNOWN port 65535"
# … and when the machine accepts no further session on it.
REFUSED = "Session open refused by peer"


def quoted(path: Path | str) -> str:
    """Write a path as one word of an SSH configuration."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def pattern(path: Path) -> str:
    """Write a path as one word of `Include`, which expands `*`, `?` and `[`."""
    return quoted("".join(f"\\{c}" if c in "\\*?[" else c for c in str(path)))


def opening(socket: Path, answers: dict[str, list[str]]) -> list[str]:
    """Give the options that open a shared connection; everything else is as the reader's configuration says.

    What their Host asks for an interactive login does not count: forwarded ports may be taken by their own login, a
    local command is meant for it, and a quiet log would hide why a connection failed.

    Args:
        socket: The control socket that the connection gets.
        answers: What `ssh -G` says of the Host.

    Returns:
        Options of ssh. The caller adds its own configuration file, `-f -N` and the Host.
    """
    options = {
        "BatchMode": "yes",
        "ControlMaster": "auto",
        "ControlPath": quoted(socket).replace("%", "%%"),
        "ControlPersist": str(IDLE_SECONDS),
        "ClearAllForwardings": "yes",
        "Tunnel": "no",
        "PermitLocalCommand": "no",
        "LogLevel": "INFO",
    }
    if answers.get("connecttimeout", ["none"]) == ["none"]:
        options["ConnectTimeout"] = str(PROXY_SECONDS if is_proxied(answers) else CONNECT_SECONDS)
    return [word for keyword, value in options.items() for word in ("-o", f"{keyword}={value}")]


def over(socket: Path | str) -> list[str]:
    """Give the options of a client that uses an open connection.

    It reads no configuration, so that a `RemoteCommand`, `LocalForward` or slow `Match exec` of the reader's Host has
    no effect on it. When the connection is gone it fails, since its ProxyCommand does: it never opens another one.

    Args:
        socket: The control socket of the connection.

    Returns:
        Options of ssh and scp.
    """
    path = quoted(socket).replace("%", "%%")
    return [
        "-F", "none", "-o", f"ControlPath={path}", "-o", "ControlMaster=no", "-o", "ProxyCommand=false",
        "-o", "BatchMode=yes",
    ]  # fmt: skip


def is_proxied(answers: dict[str, list[str]]) -> bool:
    """Tell whether a Host is reached through another machine or program."""
    return any(answers.get(keyword, ["none"]) != ["none"] for keyword in ("proxyjump", "proxycommand"))


def read_answers(text: str) -> dict[str, list[str]]:
    """Read what `ssh -G` prints: keyword in small letters → its values, in their order."""
    answers: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _, value = line.partition(" ")
        answers.setdefault(keyword, []).append(value)
    return answers
