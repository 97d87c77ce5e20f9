"""What a Helm release has in the cluster: its workloads and pods, until they are ready or it is clear why not."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helpers import display, go_yaml
from helpers.errors import TutorialError
from helpers.kind import Cluster, rolled_out
from helpers.pods import explain, pod_state

Key = tuple[str, str]  # kind and name of an object
# Workloads whose state is waited for, and how kubectl calls them.
WORKLOADS = {
    "Deployment": "deployments.apps",
    "StatefulSet": "statefulsets.apps",
    "Job": "jobs.batch",
    "RayCluster": "rayclusters.ray.io",
}
_HOPELESS = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}
_INTERVAL = 0.3  # seconds between two looks
_PATIENCE = 30.0  # seconds that a pull may fail before it is given up: a registry hiccups
# What to do in the values; `pods.explain` adds where to look.
_ADVICE = {
    "pending": "ask for less in the values, or free resources (uninstall something); then install it anew",
    "ImagePullBackOff": "correct the image's repository and tag in the values",
    "ErrImagePull": "correct the image's repository and tag in the values",
    "ErrImageNeverPull": "correct the image's repository and tag in the values, or its pullPolicy",
    "InvalidImageName": "correct the image's repository and tag in the values",
}


@dataclass(frozen=True)
class Rollout:
    """How far a release is.

    Attributes:
        rows: A row a pod: pod (without the random part of its name), state, why; of a workload without pods one, too.
        ready: Whether all of it is as described, and ready.
        hopeless: Whether a pod can't become ready unless somebody does something.
    """

    rows: Sequence[Mapping[str, object]]
    ready: bool
    hopeless: bool


def workloads(manifest: str) -> list[Key]:
    """List the workloads of a release, from what `helm get manifest` prints."""
    things = [thing for thing in go_yaml.documents(manifest.encode(), "the release's manifest") if thing]
    return [(t["kind"], t["metadata"]["name"]) for t in things if t["kind"] in WORKLOADS]


def look(cluster: Cluster, namespace: str, wanted: Sequence[Key]) -> Rollout:
    """Read how far some workloads are.

    Args:
        cluster: The cluster.
        namespace: Their namespace.
        wanted: The workloads, as `workloads` gives them.

    Returns:
        How far they are.
    """
    kinds = ",".join(["pods", *sorted({WORKLOADS[kind] for kind, _ in wanted})])
    things = {(t["kind"], t["metadata"]["name"]): t for t in cluster.get(kinds, "-n", namespace)}
    pods = {key: [p for k, p in things.items() if k[0] == "Pod" and key == _owner(p)] for key in wanted}
    rows = [_row(pod) for mine in pods.values() for pod in mine if _stays(pod)]
    rows += [_without_pods(key) for key in wanted if key in things and not _finished(things[key]) and not pods[key]]
    ready = all(_is_ready(things.get(key), key, pods[key]) for key in wanted)
    failed = any(key[0] == "Job" and key in things and _condition(things[key], "Failed") for key in wanted)
    hopeless = failed or any(str(row["state"]).removeprefix("Init:") in _HOPELESS for row in rows)
    return Rollout(sorted(rows, key=lambda row: str(row["pod"])), ready, hopeless)


def _owner(pod: Mapping[str, Any]) -> Key:
    """Give the workload that a pod belongs to; the ReplicaSet between it and a Deployment is named after that."""
    owner = next(iter(pod["metadata"].get("ownerReferences", [])), {"kind": "", "name": ""})
    if owner["kind"] != "ReplicaSet":
        return owner["kind"], owner["name"]
    return "Deployment", owner["name"].removesuffix(f"-{pod['metadata']['labels'].get('pod-template-hash', '')}")


def _stays(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


def _finished(thing: Mapping[str, Any]) -> bool:
    return thing["spec"].get("replicas") == 0 or _condition(thing, "Complete")


def _condition(thing: Mapping[str, Any], name: str) -> bool:
    return any(c["type"] == name and c["status"] == "True" for c in thing.get("status", {}).get("conditions", []))


def _is_ready(thing: Mapping[str, Any] | None, key: Key, pods: Sequence[Mapping[str, Any]]) -> bool:
    if thing is None:
        return key[0] == "Job"  # its time to live has passed
    if key[0] == "Job":
        return _condition(thing, "Complete")
    if key[0] == "RayCluster":
        states = [pod_state(pod) for pod in pods if _stays(pod)]
        return thing.get("status", {}).get("state") == "ready" and states == ["ready"] * _wanted_pods(thing)
    return rolled_out(thing)


def _wanted_pods(ray: Mapping[str, Any]) -> int:
    """Count a RayCluster's pods as its spec has them; its status is not brought up to date at each change."""
    groups: list[dict[str, int]] = ray["spec"].get("workerGroupSpecs", [])
    return 1 + sum(max(g["minReplicas"], min(g.get("replicas", 0), g["maxReplicas"])) for g in groups)


def _row(pod: Mapping[str, Any]) -> Mapping[str, object]:
    found = explain(pod)
    return {"pod": _stable_name(pod), "state": found.state, "why": found.why}


def _without_pods(key: Key) -> Mapping[str, object]:
    why = "its operator makes them: does that run?" if key[0] == "RayCluster" else ""
    return {"pod": f"{key[0]} {key[1]}", "state": "no pods yet", "why": why}


def _stable_name(pod: Mapping[str, Any]) -> str:
    kind, owner = _owner(pod)
    metadata = pod["metadata"]
    return owner if kind == "Deployment" else str(metadata.get("generateName", metadata["name"])).rstrip("-")


def wait(cluster: Cluster, release: str, namespace: str, manifest: str, timeout: float) -> None:
    """Wait until all of a release is ready, with a table of its pods that moves.

    Args:
        cluster: The cluster.
        release: The release's name, for what is shown.
        namespace: Its namespace.
        manifest: Its objects, as `helm get manifest` prints them.
        timeout: Seconds to wait.

    Raises:
        TutorialError: It isn't ready in time, or can't become so; the message has the pods' reasons.
    """
    wanted = workloads(manifest)
    if not wanted:
        return
    began = hoped = time.monotonic()
    now = look(cluster, namespace, wanted)
    with display.live_table(lambda: now.rows, title=f"The pods of {release}") as draw:
        while not now.ready:
            late, at = time.monotonic() - began > timeout, time.monotonic()
            hoped = hoped if now.hopeless else at
            if late or at - hoped > _PATIENCE:
                raise _not_ready(cluster, release, namespace, wanted, now, at - began)
            draw()
            time.sleep(_INTERVAL)
            now = look(cluster, namespace, wanted)


def _not_ready(
    cluster: Cluster, release: str, namespace: str, wanted: Sequence[Key], now: Rollout, seconds: float
) -> TutorialError:
    late = [row for row in now.rows if row["state"] not in ("ready", "succeeded")]
    lines = [f"{row['pod']}: {row['state']} {row['why']}".rstrip() for row in late]
    words = ["get", "events", "-n", namespace, "--field-selector", "type=Warning", "--sort-by=.lastTimestamp"]
    columns = "custom-columns=:.involvedObject.name,:.reason,:.message"
    events = cluster.kubectl(*words, "-o", columns, "--no-headers", check=False).splitlines()
    mine = [event for event in events if event.startswith(tuple(name for _, name in wanted))]
    things = cluster.get("pods", "-n", namespace)
    found = [explain(pod) for pod in things if _owner(pod) in wanted and _stays(pod)]
    looks = [part for part in found if part.remedy]
    advice = [_ADVICE[state] for part in looks if (state := part.state.removeprefix("Init:")) in _ADVICE]
    remedy = "; ".join([*advice[:1], *(part.remedy for part in looks[:1])])
    return TutorialError(
        f"{release} is not ready after {seconds:.0f} s",
        "; ".join(lines) or "its pods are ready; the operator has not said so of what it made them for",
        remedy or "see the pods' states and the warnings; `kubectl describe pod` tells more. Then run the cell again",
        target=cluster.target.name,
        output="\n".join(mine[-6:]),
    )
