"""Chapter 05: pods that share a GPU (nvshare), checked on a GPU, or rehearsed without one.

The rehearsal advertises the resource on the node as Kubernetes documents it
(https://kubernetes.io/docs/tasks/administer-cluster/extended-resource-node/): the scheduler counts shares for real, and
there is no GPU behind them.
"""

import copy
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers import airgap, cluster, display
from helpers.errors import TutorialError
from helpers.kind import REGISTRY_PORT, Cluster
from helpers.pods import explain, pod_state
from helpers.settings import ROOT
from helpers.target import Target, opened, with_docker
from helpers.undo import Leftover

FOLDER = ROOT / "deployments" / "platform" / "nvshare"
RESOURCE, SHARES = "nvshare.com/gpu", 10
REHEARSAL = "nvshare-rehearsal"  # its namespace
IMAGE = f"localhost:{REGISTRY_PORT}/nvshare-matmul:v1"
PODS = ("nvshare-tf-matmul-1", "nvshare-tf-matmul-2")
UPSTREAM = tuple(
    f"https://raw.githubusercontent.com/grgalex/nvshare/main/tests/kubernetes/manifests/nvshare-tf-pod-{n}.yaml"
    for n in (1, 2)
)
_SOURCES = "tutorial-matmul"  # in the home folder of the machine that builds
_LABEL = "tutorial.chapter=05"
_MARK = "tutorial.rehearsal"  # annotation of the node: the shares are advertised by us, no device plugin
_PATH = RESOURCE.replace("/", "~1")  # JSON pointer, RFC 6901


def shares(found: Cluster) -> int:
    """Tell how many shares of a GPU the node has for pods; 0 where nobody offers any."""
    return int(_node(found)["status"]["allocatable"].get(RESOURCE, 0))


def rehearsed(found: Cluster) -> bool:
    """Tell whether the shares are the rehearsal's, not a device plugin's."""
    return _MARK in _node(found)["metadata"].get("annotations", {})


def _node(found: Cluster) -> Mapping[str, Any]:
    return found.get("nodes")[0]


def advertise(found: Cluster, count: int = SHARES, timeout: float = 60.0) -> None:
    """Advertise shares of a GPU on the node although there is none, and wait until they count.

    Args:
        found: The cluster.
        count: How many.
        timeout: Seconds that the kubelet may take.

    Raises:
        TutorialError: A device plugin offers real ones; or the kubelet does not take them over.
    """
    node = _node(found)
    if RESOURCE in node["status"]["capacity"] and not rehearsed(found):
        raise TutorialError(
            f"{RESOURCE} is offered already", "nvshare's device plugin runs: the shares are real",
            "run the check on the GPU; there is nothing to rehearse", target=found.target.name,
        )  # fmt: skip
    found.kubectl("annotate", "node", node["metadata"]["name"], f"{_MARK}=yes", "--overwrite")
    _patch_status(found, {"op": "add", "path": f"/status/capacity/{_PATH}", "value": str(count)})
    _wait_for_shares(found, count, timeout)


def withdraw(found: Cluster, timeout: float = 60.0) -> None:
    """Take the rehearsal away: its pods, and the advertised shares; real ones stay."""
    mine, node = rehearsed(found), _node(found)
    if mine and RESOURCE in node["status"]["capacity"]:
        _patch_status(found, {"op": "remove", "path": f"/status/capacity/{_PATH}"})
    found.kubectl("delete", "namespace", REHEARSAL, "--ignore-not-found", "--timeout=120s", timeout=130)
    if mine:
        _wait_for_shares(found, 0, timeout)
        found.kubectl("annotate", "node", node["metadata"]["name"], f"{_MARK}-")


def _patch_status(found: Cluster, change: Mapping[str, str]) -> None:
    name = _node(found)["metadata"]["name"]
    found.kubectl("patch", "node", name, "--subresource=status", "--type=json", "-p", json.dumps([change]))


def _wait_for_shares(found: Cluster, count: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    with display.progress(f"The kubelet takes over {count} × {RESOURCE}", timeout, "s") as report:
        while shares(found) != count:
            if time.monotonic() > deadline:
                raise TutorialError(
                    f"The node does not have {count} × {RESOURCE}", f"the kubelet did not follow in {timeout:g} s",
                    "kubectl describe nodes shows what it has; run the cell again", target=found.target.name,
                )  # fmt: skip
            report(timeout - (deadline - time.monotonic()))
            time.sleep(0.5)


def build_image(found: Cluster) -> str:
    """Build the rehearsal's image on the target and push it: a matrix multiplication on the CPU.

    Args:
        found: The cluster whose machine builds.

    Returns:
        Its name.

    Raises:
        TutorialError: It could not be built or pushed.
    """
    target = found.target
    airgap.supply(target, ["python:3.11-slim"])
    target.sync(ROOT / "applications" / "matmul", _SOURCES)
    with display.progress("Build the image", 2) as report:
        words = ["docker", "build", "-q", "--label", _LABEL, "-t", IMAGE, _SOURCES]
        target.run(words, timeout=600, env={"DOCKER_BUILDKIT": "0"}, repeatable=True)
        report(1, "push it")
        target.run(["docker", "push", "-q", IMAGE], timeout=600, repeatable=True)
    return IMAGE


def run_check(found: Cluster, manifests: Sequence[str] = (), timeout: float = 1800.0) -> list[Mapping[str, object]]:
    """Run the two pods that multiply matrices at the same time, and read from their logs whether they passed.

    Args:
        found: The cluster.
        manifests: Addresses of the manifests for a real GPU (`UPSTREAM`); none means the rehearsal's.
        timeout: Seconds that they may take.

    Returns:
        A row for each pod: pod, result, seconds.

    Raises:
        TutorialError: One did not pass, or not in time; the message has its last lines.
    """
    namespace = "default" if manifests else REHEARSAL
    where = [word for m in manifests for word in ("-f", m)] or ["-k", str(FOLDER)]
    found.kubectl("delete", "pods", *PODS, "-n", namespace, "--ignore-not-found", "--timeout=120s", timeout=130)
    found.kubectl("apply", *where)
    deadline = time.monotonic() + timeout
    rows: list[Mapping[str, object]] = [_result(found, name, namespace) for name in PODS]
    with display.live_table(lambda: rows, title="Two pods, one GPU" if manifests else "Rehearsal: two pods") as draw:
        while {row["result"] for row in rows} != {"PASS"}:
            late = time.monotonic() > deadline
            wrong = [row for row in rows if row["result"] == "failed" or late and row["result"] != "PASS"]
            if wrong:
                raise _not_passed(found, str(wrong[0]["pod"]), namespace, timeout if late else 0)
            draw()
            time.sleep(0.5)
            rows = [_result(found, name, namespace) for name in PODS]
    return rows


def _result(found: Cluster, name: str, namespace: str) -> Mapping[str, object]:
    pod = found.get("pod", name, "-n", namespace)[0]
    state = pod_state(pod)
    if pod["status"]["phase"] not in ("Succeeded", "Failed"):
        return {"pod": name, "result": state, "seconds": ""}
    passed, seconds = verdict(found.kubectl("logs", name, "-n", namespace))
    return {"pod": name, "result": "PASS" if passed else "failed", "seconds": seconds}


def verdict(log: str) -> tuple[bool, str]:
    """Read nvshare's verdict in a pod's log: whether a line says PASS, and the seconds after it."""
    found = re.search(r"^PASS\s*\n--- ([\d.]+) seconds ---", log, re.MULTILINE)
    return bool(found), f"{float(found[1]):.1f}" if found else ""


def _not_passed(found: Cluster, name: str, namespace: str, waited: float) -> TutorialError:
    events = found.get("events", "-n", namespace, "--field-selector", f"involvedObject.name={name}")
    lines = [f"{e['reason']}: {' '.join(e['message'].split())}" for e in events[-3:]]
    lines += found.kubectl("logs", name, "-n", namespace, "--tail=8", check=False).splitlines()
    return TutorialError(
        f"{name} did not pass", f"it is not done after {waited:g} s" if waited else "it ended without PASS",
        "read its events and its last lines: is a share free, and the image there?", target=found.target.name,
        output="\n".join(lines),
    )  # fmt: skip


def start_sharers(found: Cluster, first: int, last: int, timeout: float = 120.0) -> list[Mapping[str, object]]:
    """Start pods that hold one share each, and wait until each is ready, or the scheduler has said why not.

    Args:
        found: The cluster, with the rehearsal's namespace.
        first: The number of the first pod.
        last: The number of the last one.
        timeout: Seconds that they may take.

    Returns:
        A row for every such pod: pod, state, why.

    Raises:
        TutorialError: One is neither in time.
    """
    pods = []
    for number in range(first, last + 1):
        pod = copy.deepcopy(_sharer())
        pod["metadata"]["name"] = _name(number)
        pods.append(pod)
    found.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))
    return wait_for_sharers(found, timeout)


def _sharer() -> dict[str, Any]:
    (pod,) = cluster.objects(FOLDER / "sharing")
    return pod


def _name(number: int) -> str:
    return f"nvshare-share-{number:02d}"


def wait_for_sharers(found: Cluster, timeout: float = 120.0) -> list[Mapping[str, object]]:
    """Wait until each of the sharing pods is ready, or the scheduler has said why not; see `start_sharers`."""
    deadline, rows = time.monotonic() + timeout, _sharers(found)
    with display.live_table(lambda: rows, title="Who holds a share") as draw:
        while any(row["state"] != "ready" and not row["why"] for row in rows):
            if time.monotonic() > deadline:
                late = [str(row["pod"]) for row in rows if row["state"] != "ready" and not row["why"]]
                raise TutorialError(
                    f"Not started after {timeout:g} s: {', '.join(late)}", "", f"kubectl get events -n {REHEARSAL}",
                    target=found.target.name,
                )  # fmt: skip
            draw()
            time.sleep(0.5)
            rows = _sharers(found)
    return rows


def _sharers(found: Cluster) -> list[Mapping[str, object]]:
    rows = list[Mapping[str, object]]()
    for pod in found.get("pods", "-n", REHEARSAL, "-l", "app=nvshare-share"):
        found_state = explain(pod)
        rows.append({"pod": pod["metadata"]["name"], "state": found_state.state, "why": found_state.why})
    return rows


def let_go(found: Cluster, number: int) -> None:
    """Delete one of the sharing pods, and wait until it is gone: its share is free."""
    found.kubectl("delete", "pod", _name(number), "-n", REHEARSAL, "--timeout=60s", timeout=70)


def files() -> list[Path]:
    """List the manifests, for who wants to read them."""
    return sorted(FOLDER.rglob("*.yaml"))


def leftovers(target: str) -> list[Leftover]:
    """List the rehearsal's image and its sources; what is in the cluster goes with that, the VM goes as a whole."""
    with with_docker(target) as machine:
        if not machine or not _images(machine):
            return []
    return [Leftover("the rehearsal's image", f"image {IMAGE}", lambda: _delete(target))]


def _images(machine: Target) -> list[str]:
    words = ["docker", "images", "-q", "--filter", f"label={_LABEL}"]
    return sorted(set(machine.run(words, repeatable=True).stdout.split()))


def _delete(target: str) -> None:
    with opened(target) as machine:
        if found := _images(machine):
            machine.run(["docker", "image", "rm", "-f", *found], check=False)
        machine.run(["rm", "-rf", _SOURCES])
