"""The failure bundle: all that one needs to find out why a chapter failed, in one folder, secrets masked."""

import json
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path

from helpers.masking import mask, mask_command, mask_notebook
from helpers.processes import Background
from helpers.settings import settings

LOG_TAIL = 200_000  # bytes of each log


def make(folder: Path, target: str, notebook: str, log: Path, state: Sequence[Background]) -> Path:
    """Collect a failure bundle.

    Args:
        folder: Where to put it; it is made.
        target: The target's name.
        notebook: The executed notebook; it may not exist.
        log: The log of papermill.
        state: The processes that ran when the chapter failed.

    Returns:
        The folder, with the executed notebook, `logs/`, `processes.json`, `versions.txt` and `environment.txt`.
    """
    logs = folder / "logs"
    logs.mkdir(parents=True)
    for source in (log, *sorted((settings().state / target).rglob("*.log"))):
        tail = source.read_bytes()[-LOG_TAIL:].decode(errors="replace")
        (logs / source.name).write_text(mask(tail), encoding="utf-8")
    if Path(notebook).exists():
        (folder / Path(notebook).name).write_text(
            mask_notebook(Path(notebook).read_text(encoding="utf-8")), encoding="utf-8"
        )
    rows = [{**asdict(p), "argv": mask_command(p.argv), "alive": p.alive()} for p in state]
    (folder / "processes.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    (folder / "versions.txt").write_text("\n".join(_versions()) + "\n", encoding="utf-8")
    variables = sorted(k for k in os.environ if k.startswith("TUTORIAL_") or k in ("PATH", "LANG", "CI"))
    text = "".join(f"{name}={os.environ[name]}\n" for name in variables)
    (folder / "environment.txt").write_text(mask(text), encoding="utf-8")
    return folder


def _versions() -> list[str]:
    tools = {name: shutil.which(name) or "not on PATH" for name in ("ssh", "git", "docker", "redis-server")}
    packages = sorted(f"{d.metadata['Name']}=={d.version}" for d in distributions())
    return [
        f"Python {platform.python_version()}",
        platform.platform(),
        *(f"{k}: {v}" for k, v in tools.items()),
        "",
        *packages,
    ]
