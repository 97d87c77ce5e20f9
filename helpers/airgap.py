"""Where no container registry can be reached: images and tools come from the lab, `tests/airgap`.

The lab makes them from package registries (Debian, Go modules, PyPI). Elsewhere nothing of this has an effect: the same
names are pulled.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from helpers import docker_engine
from helpers.errors import TutorialError
from helpers.settings import ROOT, settings
from helpers.shell import environment
from helpers.target import Target

LAB = ROOT / "tests" / "airgap" / "lab.py"
GROUPS = ("bases", "tools", "checks", "cluster", "nvidia", "vm", "ray", "airflow", "cloud")
_PROBE = "hello-world"
_PROBE_SECONDS = 20
_NO_DOCKER = {"tools", "checks", "nvidia"}  # groups of programs; charts-… are files


@dataclass(frozen=True)
class _Engine:
    """The Docker engine that pulls a target's images. Two targets of one name are the same machine."""

    name: str
    target: Target = field(compare=False)


def needed(target: Target | None = None) -> bool:
    """Tell whether images have to come from the lab: no registry answers, or `TUTORIAL_AIRGAP=1`.

    The machine that will pull the images is asked, once in a process. `needed.cache_clear()` forgets the answers.

    Args:
        target: The machine whose Docker engine will pull; by default this one.

    Raises:
        TutorialError: No Docker engine answers there, so that this can't be found out; or a registry answers and gives
            no image: its rate limit, a login, a proxy, a certificate, a full disk.
    """
    chosen = settings().airgap
    if chosen is not None:
        return chosen
    if target is None or target.kind in ("local", "host"):
        return _asked(_Engine("", target or Target.open("local")))
    return _asked(_Engine(target.name, target))


@cache
def _asked(engine: _Engine) -> bool:
    """Have an engine pull a small image, and tell whether no registry answers it."""
    target = engine.target
    docker_engine.version(target)
    argv = ["docker", "pull", "-q", _PROBE]
    try:
        done = target.run(argv, check=False, timeout=_PROBE_SECONDS, repeatable=True)
    except TutorialError as error:
        if "took too long" in error.what:
            return True
        raise
    if done.returncode == 0:
        return False
    said = done.stderr + done.stdout
    fault = docker_engine.explain(said)
    if fault and fault.why == docker_engine.NO_REGISTRY:
        return True
    if not fault and re.search(r"manifest|not found", said):  # a mirror that answers, and lacks this image
        return False
    raise TutorialError(
        "No image can be pulled",
        fault.why if fault else f"docker pull ended with exit code {done.returncode}",
        fault.remedy if fault else "correct the cause; TUTORIAL_AIRGAP=1 has the images made instead, =0 pulls them",
        target=target.name,
        command=argv,
        output=said,
    )


needed.cache_clear = _asked.cache_clear  # type: ignore[attr-defined]


def build(*names: str, quiet: bool = False) -> None:
    """Have the lab make what is missing; what is there takes a second.

    Args:
        names: Groups, of `GROUPS`, or single images; none means all.
        quiet: Show nothing but what fails.

    Raises:
        TutorialError: Something could not be made; the message names its log. Images take a Docker engine here.
    """
    if not all(name in _NO_DOCKER or name.startswith("charts-") for name in names) or not names:
        docker_engine.version(Target.open("local"))
    _lab("build", *names, quiet=quiet)


def missing(*names: str) -> list[str]:
    """List what `build` would make.

    Args:
        names: Groups, of `GROUPS`, or single products; none means all.

    Raises:
        TutorialError: No Docker engine answers.
    """
    docker_engine.version(Target.open("local"))
    return _lab("missing", *names, quiet=True).split()


def program(name: str) -> Path:
    """Tell where the lab has a program."""
    return Path(_lab("path", name, quiet=True).strip())


def _lab(*words: str, quiet: bool = False) -> str:
    argv = [sys.executable, str(LAB), *words]
    done = subprocess.run(
        argv,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment(argv[0]),
    )
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
    if not needed(target):
        return
    _require_engine_here(target)
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


def _require_engine_here(target: Target) -> None:
    """Make sure that this machine can make the images which a target can't pull."""
    try:
        docker_engine.version(Target.open("local"))
    except TutorialError as error:
        raise TutorialError(
            f"There is no way to bring images to {target.name}",
            f"{docker_engine.NO_REGISTRY} to its Docker, and here none can be made: {error.what}, {error.why}",
            f"let {target.name} reach a registry (directly, by a proxy or by a mirror), or install Docker here: "
            f"{error.remedy}",
            target=target.name,
        ) from None


def _image_id(name: str) -> str:
    argv = ["docker", "image", "inspect", "-f", "{{.Id}}", name]
    return Target.open("local").run(argv, check=False, repeatable=True).stdout.strip()
