"""The part that the deploys share: settings in Docker's daemon.json, merged with what is there.

Source of the keys: https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file.
"""

import json
from io import StringIO
from typing import Any

from pyinfra import host
from pyinfra.api import DeployError
from pyinfra.facts.files import FileContents
from pyinfra.operations import files, server

from deployments.host import rights

PATH = "/etc/docker/daemon.json"


def read() -> dict[str, Any]:
    """Read the machine's daemon.json; one that dockerd would not take stops the deploy before anything is changed."""
    lines = host.get_fact(FileContents, path=PATH, _sudo=rights.needed())
    text = "\n".join(lines or [])
    try:
        content = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise DeployError(f"{PATH} is not valid JSON: {error}; correct it by hand, it was left as it is") from None
    if not isinstance(content, dict):
        raise DeployError(f"{PATH} holds no JSON object; correct it by hand, it was left as it is")
    return content


def write(content: dict[str, Any]) -> Any:
    """Write daemon.json, unless that is its content already."""
    if content == read():
        return None
    text = json.dumps(content, indent=2) + "\n"
    return files.put(
        name="Write daemon.json",
        src=StringIO(text),
        dest=PATH,
        mode="644",
        create_remote_dir=True,
        _sudo=rights.needed(),
    )


def start(written: Any) -> None:
    """Restart Docker with a new daemon.json; what it says of a wrong one is shown."""
    if written is not None:
        server.shell(
            name="Restart Docker",
            commands=["systemctl restart docker || { journalctl -q -n 15 -o cat -u docker >&2; exit 1; }"],
            _sudo=rights.needed(),
        )
