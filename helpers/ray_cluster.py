"""Chapter 07: Ray in the cluster, by KubeRay's two charts: values that fit the node, the way to it, its workers."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

from kubernetes.utils import parse_quantity  # type: ignore[import-untyped]

from helpers import airgap, allocated, display, port_forward, tools
from helpers.cluster import supply_node
from helpers.errors import TutorialError
from helpers.helm import Chart
from helpers.helm_values import Setting, merged, read
from helpers.kind import Cluster
from helpers.pods import explain
from helpers.ray_jobs import Ray
from helpers.settings import ROOT
from helpers.target import Target

FOLDER = ROOT / "deployments" / "ray"
REPOSITORY, URL = "kuberay", "https://ray-project.github.io/kuberay-helm/"
OPERATOR, RELEASE = "kuberay-operator", "raycluster"
SERVICE, PORT = f"{RELEASE}-kuberay-head-svc", 8265
_PODS = ("pods", "-l", f"ray.io/cluster={RELEASE}-kuberay")
# What a small machine gets: enough for chapter 07's search, and nearly nothing kept from others.
_SMALL = {"requests.cpu": "50m", "requests.memory": "1G", "limits.cpu": "1", "limits.memory": "2G"}
_SMALL_AUTOSCALER = {"requests.cpu": "50m", "requests.memory": "200M", "limits.cpu": "500m", "limits.memory": "1G"}
_AUTOSCALER = {"cpu": "500m", "memory": "512Mi"}  # what KubeRay gives it where nothing is said
_WORKERS = 2


def charts(version: str) -> tuple[Chart, Chart]:
    """Give the charts of the operator and of a Ray cluster.

    Args:
        version: Their version; KubeRay has one for both.
    """
    return Chart(REPOSITORY, "kuberay-operator", version), Chart(REPOSITORY, "ray-cluster", version)


def values(gpu: bool = False) -> Path:
    """Give the values file for a Ray cluster on CPUs, or on shares of a GPU."""
    return FOLDER / f"{'gpu' if gpu else 'cpu'}-kuberay-cluster-values.yaml"


def show_values(gpu: bool = False) -> None:
    """Show the values file as it is."""
    display.show(values(gpu).read_text(encoding="utf-8"))


def plan(target: Target, version: str, gpu: bool = False) -> None:
    """Show what the chapter would run, where there is no Docker."""
    file, wanted = f"deployments/ray/{values(gpu).name}", ["--version", version]
    cluster = ["helm", "upgrade", "--install", RELEASE, f"{REPOSITORY}/ray-cluster", *wanted]
    commands = [
        ["helm", "repo", "add", REPOSITORY, URL],
        ["helm", "repo", "update"],
        ["helm", "install", OPERATOR, f"{REPOSITORY}/kuberay-operator", *wanted],
        [*cluster, "-f", file],
        ["kubectl", "get", "pods"],
        ["kubectl", "port-forward", f"svc/{SERVICE}", f"{PORT}:{PORT}"],
        [*cluster, "--reuse-values", "--set", "worker.maxReplicas=2"],
        ["helm", "list", "-A"],
        ["helm", "rollback", RELEASE, "1"],
        ["helm", "uninstall", RELEASE],
        ["helm", "uninstall", OPERATOR],
    ]
    where = "chapter 06's cluster: the target vm, host, or one of your own"
    display.plan("Ray in a cluster", commands, f"the target {target.name} uses nothing but Python. It runs on {where}.")


def image_tag(chosen: str = "", gpu: bool = False, target: Target | None = None) -> str:
    """Choose the tag of the image `rayproject/ray`.

    Args:
        chosen: The reader's choice; empty means the values file's, or the lab's where no registry can be reached.
        gpu: Whether Ray uses GPUs.
        target: The machine whose Docker pulls the image; by default this one.
    """
    if chosen or not airgap.needed(target):
        return chosen or str(read(values(gpu))["image"]["tag"])
    return str(tools.VERSIONS["ray"]["lab"])


def supply(cluster: Cluster, version: str, tag: str) -> None:
    """Hand the node the images of operator and Ray, where it can't pull them.

    Args:
        cluster: The cluster.
        version: The charts' version, which is the operator's as well.
        tag: The tag of Ray's image.
    """
    owner = "kuberay" if version.startswith("1.0.") else "quay.io/kuberay"  # it moved with 1.1
    supply_node(cluster, [f"{owner}/operator:v{version}", f"rayproject/ray:{tag}"])


def fitting(cluster: Cluster, gpu: bool = False) -> dict[str, Setting]:
    """Find values that fit the node: the values file's, or small ones where the head and two workers have no room.

    Args:
        cluster: The cluster.
        gpu: Whether Ray uses GPUs.

    Returns:
        What to set over the values file; nothing where that fits as it is.
    """
    wanted, free = merged([read(values(gpu))]), allocated.read(cluster)
    room = {row.resource: row.allocatable - row.requests for row in free}
    need = {resource: parse_quantity(amount) for resource, amount in _AUTOSCALER.items()}
    for part, count in (("head", 1), ("worker", _WORKERS)):
        for resource, amount in wanted[part]["resources"]["limits"].items():
            need[resource] = need.get(resource, Decimal()) + parse_quantity(amount) * count
    if all(room.get(resource, 0) >= amount for resource, amount in need.items()):
        return {}
    small: dict[str, Setting] = {f"{part}.resources.{k}": v for part in ("head", "worker") for k, v in _SMALL.items()}
    return small | {f"head.autoscalerOptions.resources.{k}": v for k, v in _SMALL_AUTOSCALER.items()}


def too_large(memory: str) -> dict[str, Setting]:
    """Give values that ask for a lot of memory, for the head and for each worker."""
    return {f"{part}.resources.{k}.memory": memory for part in ("head", "worker") for k in ("requests", "limits")}


def pods(cluster: Cluster) -> list[Mapping[str, object]]:
    """List Ray's pods: pod, role, state, and why, in the words of the scheduler or the kubelet."""
    rows = list[Mapping[str, object]]()
    for pod in cluster.get(*_PODS):
        found, metadata = explain(pod), pod["metadata"]
        role = metadata["labels"]["ray.io/node-type"]
        rows.append({"pod": metadata["name"], "role": role, "state": found.state, "why": found.why})
    return rows


def workers(cluster: Cluster, *states: str) -> list[str]:
    """Name the worker pods that are in one of these states; without any, all that stay."""
    rows = [row for row in pods(cluster) if row["role"] == "worker" and row["state"] != "terminating"]
    return sorted(str(row["pod"]) for row in rows if not states or row["state"] in states)


def forward(cluster: Cluster, local_port: int = 0) -> Ray:
    """Open the way to the head's dashboard, which serves the Jobs API as well.

    Args:
        cluster: The cluster.
        local_port: The port here; 0 takes a free one.

    Returns:
        Ray, reached on this machine's loopback address.

    Raises:
        TutorialError: The port is taken, or the head does not answer.
    """
    return Ray(f"http://127.0.0.1:{port_forward.start(cluster, SERVICE, PORT, local_port)}")


def stop_forward(cluster: Cluster) -> None:
    """Close the way that `forward` opened."""
    port_forward.stop(cluster, SERVICE)


def kill(cluster: Cluster, worker: str) -> None:
    """Delete a worker's pod at once, as if its machine had died; the operator makes another one.

    Args:
        cluster: The cluster.
        worker: The pod's name.

    Raises:
        TutorialError: There is no such worker.
    """
    if worker not in workers(cluster):
        raise TutorialError(f"There is no worker {worker}", "", "ray_cluster.workers(cluster) lists them")
    cluster.kubectl("delete", "pod", worker, "--grace-period=0", "--force")
