"""Docker on a machine: whether its engine answers, and what Docker's errors mean.

Source of the messages: the Docker CLI (https://github.com/docker/cli), Moby (https://github.com/moby/moby), and the
registries' status codes (https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers import shell
from helpers.errors import TutorialError

if TYPE_CHECKING:
    from helpers.target import Target

ANSWERS = "answers"  # what stands for the version where the engine does not tell it
NO_REGISTRY = "no container registry answers"


@dataclass(frozen=True)
class Fault:
    """What an error of Docker means.

    Attributes:
        pattern: A regular expression for the error, without regard to case.
        why: What it means.
        remedy: What to do.
    """

    pattern: str
    why: str
    remedy: str


ENGINE_FAULTS = (
    Fault(
        r"permission denied while trying to connect|dial unix [^\n]*permission denied",
        "your user may not use Docker's socket",
        "sudo usermod -aG docker $USER, then log out and in again",
    ),
    Fault(
        r"context [^\n]*(not found|does not exist)|unable to (resolve|parse) docker (endpoint|host)",
        "DOCKER_HOST, DOCKER_CONTEXT or the chosen context names no engine",
        "unset DOCKER_HOST DOCKER_CONTEXT, then: docker context use default",
    ),
    Fault(
        r"client version [^\n]* is too (new|old)|maximum supported api version",
        "Docker's client and its engine have versions that do not fit together",
        "update the older of the two: docker version shows both",
    ),
    Fault(
        r"podman|nil pointer evaluating",
        "the command docker is Podman's, which this course does not use",
        "install Docker Engine in place of the package podman-docker",
    ),
    Fault(
        r"cannot connect to the docker daemon|docker daemon (is not|isn't) running|error during connect|dial unix",
        "Docker's client is installed, but its engine does not run",
        "start Docker: sudo systemctl start docker (with Docker Desktop: start the application)",
    ),
)
PULL_FAULTS = (
    Fault(
        r"toomanyrequests|too many requests|\b429\b|rate.?limit",
        "the registry's rate limit is reached: it gives this address no more images for a while",
        "docker login (an account has a higher limit), wait some hours, or use a mirror (daemon.json)",
    ),
    Fault(
        r"no space left on device|disk quota exceeded|not enough space",
        "the disk of Docker's data is full",
        "docker system df shows what takes the space; free some, or move Docker's data to a volume (chapter 03)",
    ),
    Fault(
        r"proxyconnect|proxy authentication required|\b407\b|socks connect|get \"?https?://[^\n]*?\"?: "
        r"(forbidden|bad gateway|service unavailable|gateway timeout|method not allowed)\s*$",
        "the proxy that Docker's engine uses does not let it through",
        "correct the proxy in Docker's systemd unit or daemon.json (docker info | grep -i proxy shows it)",
    ),
    Fault(
        r"x509|certificate|\btls: (?!.*timeout)|server gave http response to https client|ssl routines",
        "the registry's TLS certificate is not accepted",
        "install the network's certificate authority (update-ca-certificates), check the clock (date), restart Docker",
    ),
    Fault(
        r"docker-credential-|error getting credentials",
        "the program that keeps Docker's passwords fails",
        "remove credsStore from ~/.docker/config.json, then docker login if you have an account",
    ),
    Fault(
        r"unauthorized|authentication required|no basic auth credentials|incorrect username or password|"
        r"access denied|access to the resource is denied|\bdenied:|\b40[13]\b",
        "the registry does not accept the login, or wants one",
        "docker logout, then docker login with an account that may read the image",
    ),
    Fault(
        r"\b50[0-4]\b|internal server error|bad gateway|service unavailable",
        "the registry has a fault of its own",
        "run it again in some minutes, or use a mirror (registry-mirrors in daemon.json)",
    ),
    Fault(
        r"no such host|name resolution|name or service not known|server misbehaving|timed? ?out|timeout|refused|"
        r"unreachable|no route to host|deadline exceeded|connection reset|\beof\b|request canceled|host is down",
        NO_REGISTRY,
        "connect the machine to the internet, or have the images made: TUTORIAL_AIRGAP=1",
    ),
)


def explain(said: str, faults: Sequence[Fault] = (*ENGINE_FAULTS, *PULL_FAULTS)) -> Fault | None:
    """Say what an error of Docker means.

    Args:
        said: What Docker printed.
        faults: What to look for; the first that fits counts.

    Returns:
        The fault; None where the error is another one.
    """
    return next((f for f in faults if re.search(f.pattern, said, re.IGNORECASE | re.MULTILINE)), None)


def explain_command(argv: Sequence[str], said: str) -> Fault | None:
    """Say what the error of a `docker` command means.

    Args:
        argv: The command.
        said: What it printed. A registry's errors count only where they are the registry's: the steps of a build, and
            a container, may print the same words.

    Returns:
        The fault; None where the command is another one, or its error is.
    """
    words = [word for word in argv if word not in ("sudo", "-n")]
    verb = words[1] if words[0] == "docker" and len(words) > 1 else ""
    if fault := explain(said, ENGINE_FAULTS) if verb else None:
        return fault
    if verb == "build" and re.search(r"returned a non-zero code|did not complete successfully", said):
        return None
    if verb == "run" and not re.search(r"unable to find image", said, re.IGNORECASE):
        return None
    if verb == "push":
        return explain(said, [fault for fault in PULL_FAULTS if fault.why != NO_REGISTRY])
    return explain(said, PULL_FAULTS) if verb in ("pull", "build", "run") else None


def version(target: "Target") -> str:
    """Ask for the version of the Docker engine that a machine's `docker` reaches.

    Args:
        target: The machine.

    Returns:
        The version; `answers` where the engine does not tell it.

    Raises:
        TutorialError: Docker is not installed, its engine does not answer, or this user may not use it.
    """
    asked = {"program": "command -v docker", "said": "docker version -f '{{.Server.Version}}' 2>&1; echo \" code=$?\""}
    found = shell.query(target, asked)
    here = target.kind in ("local", "host")
    where, name = ("on this machine", "") if here else (f"on {target.name}", target.name)
    if not found["program"]:
        raise TutorialError(
            f"Docker is not installed {where}",
            "the command docker was not found",
            "sudo apt install docker.io (elsewhere: https://docs.docker.com/engine/install/); on a VM, chapter 03",
            target=name,
        )
    if found["said"] is None:
        raise TutorialError(
            f"The Docker engine {where} hangs",
            f"docker version gave no answer within {shell.ANSWER_SECONDS:g} s",
            "sudo systemctl restart docker (with Docker Desktop: restart the application)",
            target=name,
        )
    said, _, code = found["said"].rpartition("code=")
    if code != "0":
        fault = explain(said, ENGINE_FAULTS) or Fault("", f"docker version ended with exit code {code}", "docker info")
        raise TutorialError(f"No Docker engine answers {where}", fault.why, fault.remedy, target=name, output=said)
    number = re.search(r"\d+(\.\d+)+\S*", said.strip().rpartition("\n")[2])  # warnings come before it
    return number.group() if number else ANSWERS
