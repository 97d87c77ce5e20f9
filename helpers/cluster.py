"""Chapter 09: the Forwarder deployed into a cluster by YAML: its images, its secrets, its objects, the ways to it."""

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from helpers import airgap, display
from helpers.errors import TutorialError
from helpers.forwarder import Forwarder
from helpers.kind import Cluster
from helpers.processes import free_port
from helpers.settings import ROOT
from helpers.tools import find

FOLDER = ROOT / "deployments" / "forwarder"
NAMESPACE, IMPORTS = "forwarder", "forwarder-imports"
REPOSITORY = "multi-local-cloud-hpc-integration"
# Folder of applications/forwarder → the word in the image's tag.
PARTS = {"fastapi": "frontend", "celery": "backend", "flower": "monitor", "beat": "scheduler"}
UPSTREAM = ("redis:7", "postgres:15")
_VERSION = "v0.0.5"


def image(part: str) -> str:
    """Name the image of a part, as the reference tags it."""
    return f"{REPOSITORY}:study_forwarder_{PARTS[part]}_{_VERSION}"


def build_images(cluster: Cluster) -> list[Mapping[str, object]]:
    """Build the four images on the target, from what git tracks, and push them to its local registry.

    Args:
        cluster: The cluster whose machine builds.

    Returns:
        A row for each image: part, image, size.

    Raises:
        TutorialError: An image could not be built or pushed.
    """
    target, rows = cluster.target, list[Mapping[str, object]]()
    airgap.supply(target, ["python:3.11-slim"], "bases")
    target.sync(ROOT / "applications", "tutorial-applications")
    with display.progress("Building the images", len(PARTS)) as report:
        for done, part in enumerate(PARTS):
            report(done, image(part))
            words = ["docker", "build", "-q", "--label", "tutorial.chapter=09", "-t", image(part)]
            target.run(
                [*words, f"tutorial-applications/forwarder/{part}"], timeout=600, env={"DOCKER_BUILDKIT": "0"},
                repeatable=True,
            )  # fmt: skip
            name = cluster.push(image(part))
            size = target.run(["docker", "image", "inspect", "-f", "{{.Size}}", name], repeatable=True).stdout
            rows.append({"part": PARTS[part], "image": name, "MB": round(int(size) / 1e6)})
    return rows


def supply_node(cluster: Cluster) -> None:
    """Hand the node the upstream images that it could not pull."""
    if not airgap.needed():
        return
    airgap.supply(cluster.target, UPSTREAM, "bases")
    node = f"{cluster.name}-control-plane"
    there = cluster.target.run(["docker", "exec", node, "ctr", "-n", "k8s.io", "images", "ls", "-q"]).stdout
    missing = [name for name in UPSTREAM if f"docker.io/library/{name}" not in there]
    if missing:
        words = f"docker save {' '.join(missing)} | docker exec -i {node} ctr -n k8s.io images import --no-unpack -"
        cluster.target.run(["sh", "-c", words], timeout=300)


def make_secrets() -> None:
    """Write the stack's secrets, each unless it is there, readable only by their owner."""
    subprocess.run(["sh", str(FOLDER / "stack" / "secrets" / "generate.sh")], check=True, timeout=20)


def apply(cluster: Cluster, path: Path) -> list[str]:
    """Apply a file or a kustomization; what is as described already stays.

    Args:
        cluster: The cluster.
        path: A file, or a folder with a `kustomization.yaml`.

    Returns:
        What became of each object, as kubectl says it.
    """
    words = ["apply", "-k" if path.is_dir() else "-f", str(path)]
    return cluster.kubectl(*words, *([] if path.is_dir() else ["-n", NAMESPACE])).splitlines()


def deployments(cluster: Cluster) -> list[Mapping[str, object]]:
    """List the Forwarder's Deployments: name, state, how many are ready."""
    return [
        {
            "deployment": d["metadata"]["name"],
            "state": "ready" if _ready(d) else "starting",
            "ready": f"{d['status'].get('readyReplicas', 0)}/{d['spec']['replicas']}",
        }
        for d in cluster.get("deployments", "-n", NAMESPACE)
    ]


def _ready(deployment: Mapping[str, Mapping[str, int]]) -> bool:
    status, wanted = deployment["status"], deployment["spec"]["replicas"]
    current = status.get("observedGeneration") == deployment["metadata"]["generation"]
    return current and status.get("updatedReplicas", 0) == status.get("readyReplicas", 0) == wanted


def wait(cluster: Cluster, timeout: float = 300) -> None:
    """Wait until every Deployment is ready, with a table that moves.

    Raises:
        TutorialError: One isn't ready in time; the message has its pods' states and events.
    """
    deadline = time.monotonic() + timeout
    with display.live_table(lambda: deployments(cluster), title="The stack") as draw:
        while not all(row["state"] == "ready" for row in deployments(cluster)):
            if time.monotonic() > deadline:
                raise _not_ready(cluster, timeout)
            draw()
            time.sleep(1)


def _not_ready(cluster: Cluster, timeout: float) -> TutorialError:
    late = [row["deployment"] for row in deployments(cluster) if row["state"] != "ready"]
    pods = "\n".join(f"{p['pod']}: {p['state']}" for p in cluster.pods(NAMESPACE) if p["state"] != "ready")
    events = cluster.kubectl("get", "events", "-n", NAMESPACE, "--field-selector", "type=Warning", check=False)
    return TutorialError(
        f"{', '.join(map(str, late))} is not ready after {timeout:g} s",
        "see the pods' states and the events",
        "ImagePullBackOff: build and push the images; Pending: free resources; else kubectl logs tells more",
        target=cluster.target.name,
        output=f"{pods}\n{events[-1500:]}",
    )


def logs(cluster: Cluster, deployment: str, lines: int = 20) -> str:
    """Read the last lines that a Deployment's pod printed."""
    return cluster.kubectl("logs", f"deployment/{deployment}", "-n", NAMESPACE, f"--tail={lines}")


@contextmanager
def forwarded(cluster: Cluster, service: str, port: int, local_port: int = 0) -> Iterator[int]:
    """Make a Service reachable on this machine by `kubectl port-forward`, while the block runs.

    Args:
        cluster: The cluster.
        service: The Service's name.
        port: Its port.
        local_port: The port here; 0 takes a free one.

    Yields:
        The port here.

    Raises:
        TutorialError: kubectl ended.
    """
    cluster.connect()
    local = local_port or free_port()
    words = ["port-forward", "-n", NAMESPACE, f"svc/{service}", f"{local}:{port}"]
    argv = [str(find("kubectl")), "--kubeconfig", str(cluster.kubeconfig), *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        try:
            first = child.stdout.readline() if child.stdout else ""
            if "Forwarding from" not in first:
                raise TutorialError(
                    f"{service} can't be reached", "kubectl port-forward ended", "kubectl get pods -n forwarder",
                    target=cluster.target.name, command=["kubectl", *words], output=first,
                )  # fmt: skip
            yield local
        finally:
            child.terminate()


@contextmanager
def client(cluster: Cluster) -> Iterator[Forwarder]:
    """Give a client of the deployed Forwarder while the block runs."""
    with forwarded(cluster, "fastapi-service", 7600) as port:
        yield Forwarder("127.0.0.1", str(port))


def in_pod(cluster: Cluster, deployment: str, argv: Sequence[str]) -> str:
    """Run a command in a Deployment's pod."""
    return cluster.kubectl("exec", "-n", NAMESPACE, f"deployment/{deployment}", "--", *argv)
