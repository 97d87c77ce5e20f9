"""Where no container registry can be reached: images and tools come from the lab, `tests/airgap`.

The lab makes them from package registries (Debian, Go modules, PyPI). Elsewhere nothing of this has an effect: the same
names are pulled.
"""

import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from helpers.errors import TutorialError
from helpers.settings import ROOT, settings
from helpers.target import Target

LAB = ROOT / "tests" / "airgap" / "lab.py"
GROUPS = ("bases", "tools", "checks", "cluster", "nvidia", "vm", "ray", "airflow", "cloud")
_PROBE = "hello-world"
_PROBE_SECONDS = 15


@cache
def needed() -> bool:
    """Tell whether images have to come from the lab: no registry answers, or `TUTORIAL_AIRGAP=1`.

    Raises:
        TutorialError: No Docker engine answers, so that this can't be found out.
    """
    chosen = settings().airgap
    if chosen is not None:
        return chosen
    if subprocess.run(["docker", "info"], capture_output=True, timeout=30).returncode != 0:
        raise TutorialError("No Docker engine answers here", "", "start Docker, or choose another target")
    try:
        pulled = subprocess.run(["docker", "pull", "-q", _PROBE], capture_output=True, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return pulled.returncode != 0


def build(*names: str, quiet: bool = False) -> None:
    """Have the lab make what is missing; what is there takes a second.

    Args:
        names: Groups, of `GROUPS`, or single images; none means all.
        quiet: Show nothing but what fails.

    Raises:
        TutorialError: Something could not be made; the message names its log.
    """
    _lab("build", *names, quiet=quiet)


def program(name: str) -> Path:
    """Tell where the lab has a program."""
    return Path(_lab("path", name, quiet=True).strip())


def _lab(*words: str, quiet: bool = False) -> str:
    argv = [sys.executable, str(LAB), *words]
    done = subprocess.run(argv, stdout=subprocess.PIPE if quiet else None, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise TutorialError(
            "The air-gapped lab could not be built",
            "",
            "read the log named above, mend the cause, and run `tutorial airgap build`",
            command=["tutorial", "airgap", *words],
            output=done.stderr,
        )
    return done.stdout or ""


def show(action: str) -> None:
    """Run `status` or `clean` of the lab, its output shown."""
    _lab(action)


def supply(target: Target, images: Sequence[str]) -> None:
    """Hand images to a target's own Docker which it could not pull.

    Args:
        target: A target with Docker.
        images: Their names.

    Raises:
        TutorialError: They could not be made, or not be copied.
    """
    if not needed():
        return
    build(*images, quiet=True)
    wanted = {name: _image_id(name) for name in images}
    argv = ["docker", "image", "inspect", "-f", "{{.Id}}"]
    missing = [n for n, i in wanted.items() if target.run([*argv, n], check=False, repeatable=True).stdout.strip() != i]
    if not missing:
        return
    done = target.pipe(["docker", "save", *missing], ["docker", "load", "-q"])
    if done.returncode != 0:
        full = "no space left" in done.stderr
        raise TutorialError(
            "Images could not be copied",
            "the disk is full" if full else f"exit code {done.returncode}",
            "free some, or move Docker's data to a volume (chapter 03)" if full else "read what Docker says",
            target=target.name,
            command=["docker", "load"],
            output=done.stderr,
        )


def _image_id(name: str) -> str:
    done = subprocess.run(["docker", "image", "inspect", "-f", "{{.Id}}", name], capture_output=True, text=True)
    return done.stdout.strip()
