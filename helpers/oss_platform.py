"""Chapter 05: the platform's set-up script, run with its answers; then what runs of it, and in which versions."""

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any, Literal, get_args

from helpers import airgap, display, kind, oss_questions, shell, terminal, tools
from helpers.errors import TutorialError
from helpers.pods import explain
from helpers.processes import write_atomically
from helpers.settings import ROOT, settings
from helpers.target import Capability, Target, opened
from helpers.undo import Leftover

FOLDER = ROOT / "deployments" / "platform"
SCRIPT = "./integration-setup.sh"
REPOSITORY = "https://github.com/K123AsJ0k1/multi-cloud-hpc-oss-mlops-platform.git"
BRANCH = "studying"
Source = Literal["course", "upstream"]
_FOLDERS = {"course": "tutorial-platform", "upstream": "multi-cloud-hpc-oss-mlops-platform"}
_BLOCK = "#!/bin/bash\n\nset -eo pipefail\n"
_CLONED = ".git/tutorial"  # tells a clone of the tutorial's from one of the reader's
_SETTLED = {"ready", "succeeded"}
_EVENTS = 3  # of each pod that is stuck
_VERSIONS = {
    "docker": "docker version -f '{{.Server.Version}}'",
    "kind": "kind version | cut -d' ' -f2",
    "kubectl": "kubectl version --client | sed -n 's/Client Version: //p'",
    "helm": "helm version --short",
}


@dataclass(frozen=True)
class Platform:
    """Where the set-up script comes from.

    Attributes:
        source: `course`: `deployments/platform` of this repository; `upstream`: the OSS MLOps platform's repository.
        folder: Its folder on the target, below the home folder; empty means the usual one.
        repository: What is cloned for `upstream`.
        branch: The branch of it.
    """

    source: Source = "course"
    folder: str = ""
    repository: str = REPOSITORY
    branch: str = BRANCH

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise TutorialError(f"{self.source!r} is no platform", "", 'platform = "course" or "upstream"')
        for name in ("folder", "repository", "branch"):
            if getattr(self, name).startswith("-"):
                raise TutorialError(f"{name} = {getattr(self, name)!r} is not valid", "", "correct the parameters cell")

    @property
    def place(self) -> str:
        """The folder on the target that the platform is copied or cloned to."""
        return self.folder or _FOLDERS[self.source]

    @property
    def scripts(self) -> str:
        """The folder on the target that the set-up script is in."""
        return f"{self.place}/platform" if self.source == "course" else self.place


def answers(*, option: int = 4, registry: bool = True, gpu: bool = False, ray: bool = False) -> dict[str, str]:
    """Give the answers to all questions that the scripts ask, by words of each question.

    Args:
        option: The number of the deployment option.
        registry: Whether to install a local registry.
        gpu: Whether it is a cluster with GPUs.
        ray: Whether to install Ray.

    Returns:
        The answers. The course's script asks the first five; upstream's also those that depend on the machine.
        `explained` says why each is what it is.
    """
    return oss_questions.answers(option, registry, gpu, ray)


def explained(given: Mapping[str, str], platform: Platform) -> list[Mapping[str, object]]:
    """Say why each answer is what it is; see `oss_questions.explained`."""
    return oss_questions.explained(given, platform.source)


def unanswered(given: Mapping[str, str]) -> list[str]:
    """List the questions of the course's script that have no answer, or none of those that it takes."""
    asked = oss_questions.prompts((FOLDER / SCRIPT).read_text(encoding="utf-8"))
    fits = [(terminal.question_words(words), answer) for words, answer in given.items()]
    return [p.text for p in asked if not any(w.search(p.text) and a in p.choices for w, a in fits)]


def plan(target: Target, platform: Platform, given: Mapping[str, str]) -> None:
    """Show what `fetch` and `setup` would run, where there is no Docker."""
    commands: list[Sequence[str] | str] = [["rsync", "-a", "deployments/", f"MACHINE:{platform.place}/"]]
    if platform.source == "upstream":
        commands = [["git", "clone", "--branch", platform.branch, platform.repository, platform.place]]
    rows = explained(given, platform)
    said = [f"  {row['question has the words']} = {row['answer']}" for row in rows]
    commands += [["cd", platform.scripts], [SCRIPT], *said]
    commands += [["kubectl", "get", "pods", "-A"], ["kubectl", "describe", "nodes"]]
    where = "a machine with Docker: the target vm, host, or one of your own"
    display.plan("the platform", commands, f"the target {target.name} uses nothing but Python. It runs on {where}.")


def fetch(target: Target, platform: Platform, ray: bool = False) -> None:
    """Have the platform's files on the machine, with the tools and the images that the course's script needs.

    Args:
        target: A target with Docker.
        platform: Where they come from.
        ray: Whether the script will be asked to install Ray, too.

    Raises:
        TutorialError: They can't be copied or cloned; there is no Docker.
    """
    if Capability.DOCKER not in target.capabilities():
        raise TutorialError(
            "No Docker engine answers", "the platform runs in containers", "start Docker on that machine (chapter 03)",
            target=target.name,
        )  # fmt: skip
    if platform.source == "upstream":
        _clone(target, platform)
        return
    tools.install(target, "kind", "kubectl", *(["helm"] if ray else []))
    kind.raise_inotify(target)
    airgap.supply(target, [kind.NODE_IMAGE, kind.REGISTRY_IMAGE, "python:3.11-slim"])
    target.sync(ROOT / "deployments", platform.place)


def _clone(target: Target, platform: Platform) -> None:
    there = target.run(["test", "-d", f"{platform.place}/.git"], check=False, repeatable=True).returncode == 0
    git = ["git", "-C", platform.place]
    words = ["git", "clone", "--branch", platform.branch, "--", platform.repository, platform.place]
    for argv in (
        [[*git, "fetch", "origin", platform.branch], [*git, "checkout", platform.branch]]
        if there
        else [words, ["touch", f"{platform.place}/{_CLONED}"]]
    ):
        done = target.run(argv, check=False, timeout=900, env={"GIT_TERMINAL_PROMPT": "0"})
        if done.returncode != 0:
            raise TutorialError(
                "The platform can't be had", f"git ended with exit code {done.returncode}",
                'check repository and branch, and that the machine reaches them; platform = "course" needs neither',
                target=target.name, command=argv, output=done.stderr,
            )  # fmt: skip


def setup(
    target: Target, platform: Platform, given: Mapping[str, str], *, timeout: float = 1800.0, quiet: float = 10.0
) -> list[str]:
    """Run the set-up script with its answers, its output shown as it comes, with the seconds.

    Args:
        target: The machine, on which `fetch` was.
        platform: Which script.
        given: The answers, as `answers` gives them; add what else the script asks.
        timeout: Seconds that it may take in all.
        quiet: Seconds after which output that stands still in mid-line is a question.

    Returns:
        The lines that it printed.

    Raises:
        TutorialError: It would ask something unknown (it has not run then), it failed, or it took too long. Nothing of
            it runs then.
    """
    text = oss_questions.read_script(target, platform.scripts, SCRIPT)
    given = oss_questions.fitting(text, given)
    mine = {str(row["question has the words"]): "" for row in explained(given, platform)}
    if idle := oss_questions.unasked(text, mine):
        display.show(f"This script does not ask: {', '.join(idle)}.")
    began = time.monotonic()
    with display.progress(SCRIPT, len(kind.SETUP_STEPS)) as report:

        def told(line: str) -> None:
            sys.stdout.write(f"{time.monotonic() - began:6.1f} s  {line}\n")
            if step := re.match(r"\[(\d+)/10\] (.*)", line):
                report(int(step[1]) - 1, step[2])

        path = _tool_folders(target) if platform.source == "course" else _local_bin(target)
        runs = f"cd && cd {quote(platform.scripts)} && test -x {SCRIPT} && echo yes"
        argv = [SCRIPT] if shell.query(target, {"runs": runs})["runs"] else ["bash", SCRIPT]
        return terminal.converse(
            target, argv, given, folder=platform.scripts, path=path, timeout=timeout, quiet=quiet, watch=told
        )


def _tool_folders(target: Target) -> list[str]:
    """Give the folders on the machine that kind and kubectl are in; they need not be on PATH."""
    return sorted({str(Path(path).parent) for path in tools.install(target, "kind", "kubectl").values()})


def _local_bin(target: Target) -> list[str]:
    """Give the folder that upstream's script puts its tools into: on PATH in a login shell only, and not over SSH."""
    home = shell.query(target, {"home": "cd && pwd"})["home"]
    return [f"{home}/.local/bin"] if home else []


def changes(lines: Sequence[str]) -> list[str]:
    """List what the course's script has changed, from the lines that it printed."""
    return [line.removeprefix("changed: ") for line in lines if line.startswith("changed: ")]


def cluster(target: Target, platform: Platform, gpu: bool = False) -> kind.Cluster:
    """Give the cluster that the script has set up.

    Args:
        target: The machine.
        platform: Which script it was.
        gpu: Whether it is the course's cluster with GPUs.

    Raises:
        TutorialError: The machine's kubectl speaks to no cluster of kind's.
    """
    if platform.source == "course":
        return kind.Cluster(target, kind.FOLDER / ("gpu-cluster.yaml" if gpu else "cluster.yaml"))
    asked = shell.query(target, {"context": "kubectl config current-context"}, _local_bin(target))
    context = asked["context"] or ""
    name = context.removeprefix("kind-")
    if name == context:
        raise TutorialError(
            "There is no cluster of kind's", f"the machine's kubectl speaks to {context or 'nothing'}",
            "run the set-up first", target=target.name,
        )  # fmt: skip
    path = settings().state / target.name / f"{name}.yaml"
    content = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "name": name}
    write_atomically(path, json.dumps(content))  # JSON is YAML
    return kind.Cluster(target, path)


def add_script(target: Target, platform: Platform, script: Path) -> None:
    """Add a script to the course's set-up on the machine: step 5 runs it from then on.

    Args:
        target: The machine, on which `fetch` was.
        platform: The course's.
        script: The script, here.

    Raises:
        TutorialError: It does not begin with the block that makes it stop at an error.
    """
    if not script.read_text(encoding="utf-8").startswith(_BLOCK):
        raise TutorialError(
            f"{script.name} does not begin with the block of a set-up script",
            "without `set -eo pipefail` it would go on after an error", f"begin it with these lines:\n{_BLOCK}",
        )  # fmt: skip
    target.put(script, _added(platform, script))


def remove_script(target: Target, platform: Platform, script: Path) -> None:
    """Take a script out of the set-up again; what it has made stays."""
    target.run(["rm", "-f", _added(platform, script)])


def _added(platform: Platform, script: Path) -> str:
    return f"{platform.scripts}/scripts/added/{script.name}"


def wait_for_pods(found: kind.Cluster, timeout: float = 900.0) -> None:
    """Wait until no pod is in error or starting, with a table that moves.

    Args:
        found: The cluster.
        timeout: Seconds to wait.

    Raises:
        TutorialError: Some are stuck; the message names them with their events.
    """
    deadline, rows = time.monotonic() + timeout, found.pods()
    with display.live_table(lambda: rows, title="Pods") as draw:
        while not rows or {row["state"] for row in rows} - _SETTLED:
            if time.monotonic() > deadline:
                raise _stuck(found, [row for row in rows if row["state"] not in _SETTLED], timeout)
            draw()
            time.sleep(0.5)
            rows = found.pods()


def _stuck(found: kind.Cluster, rows: Sequence[Mapping[str, object]], timeout: float) -> TutorialError:
    late, lines, remedies = {(row["namespace"], row["pod"]) for row in rows}, list[str](), list[str]()
    for pod in found.get("pods", "-A"):
        space, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        if (space, name) in late:
            events = found.get("events", "-n", space, "--field-selector", f"involvedObject.name={name}")
            state = explain(pod, events)
            lines.append(f"{space}/{name}: {state.state} {state.why}".rstrip())
            lines += [f"    {e['reason']}: {' '.join(e['message'].split())}" for e in events[-_EVENTS:]]
            remedies += [state.remedy] if state.remedy else []
    names = ", ".join(str(row["pod"]) for row in rows) or "no pod"
    return TutorialError(
        f"Not ready after {timeout:g} s: {names}", "see the state and the last events of each",
        f"{next(iter(remedies), 'free resources')}; then run the cell again",
        target=found.target.name, output="\n".join(lines),
    )  # fmt: skip


def versions(found: kind.Cluster) -> list[Mapping[str, object]]:
    """Record what is installed, for the day on which something does not fit.

    Args:
        found: The cluster.

    Returns:
        A row for each part: part, version.
    """
    told = shell.query(found.target, _VERSIONS, [*_local_bin(found.target), *_tool_folders(found.target)])
    nodes, pods = found.get("nodes"), found.get("pods", "-A")
    info = nodes[0]["status"]["nodeInfo"] if nodes else {}
    known = {
        "Kubernetes": info.get("kubeletVersion"), "container runtime": info.get("containerRuntimeVersion"),
        "kernel": info.get("kernelVersion"), **told, "helm": told["helm"] or "not installed",
        "GPU operator": images(pods, "gpu-operator"), "nvshare": images(pods, "nvshare-system"),
    }  # fmt: skip
    return [{"part": part, "version": version or "unknown"} for part, version in known.items()]


def images(pods: Sequence[Mapping[str, Any]], namespace: str) -> str:
    """Name the images that the pods of a namespace run, each once."""
    mine = [p for p in pods if p["metadata"]["namespace"] == namespace]
    found = {c["image"].rpartition("/")[2] for p in mine for c in p["spec"]["containers"]}
    return ", ".join(sorted(found)) or "not installed"


def leftovers(target: str) -> list[Leftover]:
    """List the platform's files on a target; its cluster is chapter 06's, the VM goes as a whole."""
    if target in ("local", "vm"):
        return []
    with opened(target) as machine:
        return list(_leftovers(machine))


def _leftovers(machine: Target) -> Iterator[Leftover]:
    for source, folder in _FOLDERS.items():
        sign = f"{folder}/platform" if source == "course" else f"{folder}/{_CLONED}"
        look = machine.run(["sh", "-c", f"cd && test -e {quote(sign)}"], check=False, repeatable=True)
        if look.returncode == 0:
            yield Leftover("the platform's set-up script", f"folder {folder}", partial(_remove, machine.name, folder))


def _remove(target: str, folder: str) -> None:
    with opened(target) as machine:
        machine.run(["rm", "-rf", folder])
