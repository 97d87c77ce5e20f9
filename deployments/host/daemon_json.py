"""The part that the deploys share: settings in Docker's daemon.json, merged with what is there.

Source of the keys: https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file.
"""

import json
from base64 import b64decode
from dataclasses import dataclass
from io import StringIO
from shlex import join, quote
from typing import Any

from pyinfra import host, state
from pyinfra.api import DeployError
from pyinfra.facts.server import Command
from pyinfra.operations import files, server

from deployments.host import rights
from helpers.docker_data import DAEMON_JSON, SCRIPT, DaemonJson, NotUnderstood, read_daemon_json
from helpers.shell import read_facts

PATH = str(host.data.get("daemon_json", DAEMON_JSON))
BEFORE = str(host.data.get("daemon_json_before", "/run/tutorial-daemon.json"))  # kept while Docker is restarted
_LEFT = "correct it by hand, it was left as it is"


def facts(*words: str, names: str) -> dict[str, str | None]:
    """Ask the machine for facts of Docker's data, as root; a plan for a machine that is not there has none.

    Args:
        words: What to ask `docker_data.sh` for, and about what.
        names: The names of the facts, with blanks between.

    Raises:
        DeployError: The machine did not answer in full: nothing may be concluded from half an answer.
    """
    command = join(["sh", "-c", SCRIPT.read_text(encoding="utf-8"), SCRIPT.name, *words])
    found = read_facts(str(host.get_fact(Command, command, _sudo=rights.needed()) or ""), [*names.split(), "end"])
    if not found["end"] and host.get_fact(Command, "uname -s"):
        raise DeployError(f"the machine could not be asked about Docker ({words[0]}); nothing was changed")
    return found


@dataclass(frozen=True)
class _File:
    """The machine's daemon.json: what it says, where it really is, whether it is there, its mode, owner and group."""

    says: DaemonJson
    real: str
    there: bool
    owner: tuple[str, str, str]


def _look() -> _File:
    seen = facts("daemon_json", PATH, names="kind real owner content read")
    real, owner = seen["real"] or PATH, (seen["owner"] or "644 root root").split()
    if seen["kind"] == "dangling":
        raise DeployError(f"{PATH} is a symbolic link to {real}, which is not there; {_LEFT}")
    if seen["kind"] not in ("file", "none", None):
        raise DeployError(f"{PATH} is not a file but a {seen['kind']}; {_LEFT}")
    if seen["kind"] == "file" and not seen["read"]:
        raise DeployError(f"{PATH} can't be read; {_LEFT}")
    try:
        says = read_daemon_json(b64decode(seen["content"] or ""))
    except NotUnderstood as error:
        raise DeployError(f"{PATH} {error}; {_LEFT}") from None
    return _File(says, real, seen["kind"] == "file", (owner[0], owner[1], owner[2]))


def read() -> dict[str, Any]:
    """Read the machine's daemon.json; one that dockerd would not take stops the deploy before anything is changed."""
    return dict(_look().says.settings)


def write(content: dict[str, Any], plain: bool = False) -> Any:
    """Write daemon.json, unless that is its content already: through a link, with the mode and owner that it has.

    Args:
        content: Its settings.
        plain: Also write it where only a byte order mark or UTF-16 goes: programs other than Docker don't read those.
    """
    file = _look()
    if content == file.says.settings and (file.says.plain or not plain):
        return None
    keep()
    mode, user, group = file.owner
    differences, state.config.DIFF = state.config.DIFF, state.config.DIFF and file.says.plain
    try:
        return files.put(
            name="Write daemon.json", src=StringIO(json.dumps(content, indent=2) + "\n"), dest=file.real,
            mode=mode, user=user, group=group, create_remote_dir=not file.there, _sudo=rights.needed(),
        )  # fmt: skip
    finally:
        state.config.DIFF = differences


def keep() -> None:
    """Keep a copy of daemon.json until Docker runs with a new one; one that can't be written without a loss stops."""
    file = _look()
    if file.says.repeated:
        names = ", ".join(file.says.repeated)
        raise DeployError(f"{PATH} gives {names} more than once, and Docker takes the last one only; {_LEFT}")
    if file.there:
        copy = f"cp -pL {quote(PATH)} {quote(BEFORE)}"
        server.shell(
            name="Keep daemon.json as it was, until Docker runs with the new one",
            commands=[copy],
            _sudo=rights.needed(),
        )


def put_back() -> str:
    """Give the shell command that restores daemon.json as it was at `keep`, and starts Docker with it."""
    file, kept = _look(), quote(BEFORE)
    restore = f"if [ -f {kept} ]; then cat {kept} >{quote(file.real)}; rm -f {kept}; fi"
    restore = restore if file.there else f"rm -f {quote(PATH)}"
    return f"{restore}; systemctl reset-failed docker; systemctl start containerd docker"


def start(written: Any, kept: bool = True) -> None:
    """Restart Docker with a new daemon.json; what it says of a wrong one is shown, and the one kept is put back."""
    if written is not None:
        failed = f"journalctl -q -n 15 -o cat -u docker >&2; {f'{put_back()}; ' if kept else ''}exit 1"
        server.shell(
            name="Restart Docker",
            commands=[f"systemctl restart docker && rm -f {quote(BEFORE)} || {{ {failed}; }}"],
            _sudo=rights.needed(),
        )
