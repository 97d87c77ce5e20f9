"""Chapter 10: Airflow in the cluster, by Helm: its image, its keys, its release, and the ways to it.

Names and ports are those of apache-airflow's chart: https://airflow.apache.org/docs/helm-chart/stable/parameters-ref.html.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from helpers import cluster as deployed
from helpers import display, port_forward
from helpers.airflow import Airflow
from helpers.airflow_git import Source
from helpers.errors import TutorialError
from helpers.helm import Chart, Helm
from helpers.kind import Cluster
from helpers.target import Target
from helpers.tools import VERSIONS

FOLDER = deployed.FOLDER / "airflow"
VALUES = FOLDER / "values.yaml"
CHART = Chart("apache-airflow", "airflow", VERSIONS["airflow"]["chart"])
CHARTS = "https://airflow.apache.org"
GIT_SYNC = f"registry.k8s.io/git-sync/git-sync:{VERSIONS['airflow']['git-sync']}"
RELEASE, SERVICE, PORT = "airflow", "airflow-api-server", 8080
DEPLOYMENTS = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor")
_KEYS = "airflow-keys"
_LINK = "/opt/airflow/dags/repo"  # what git-sync leads to the newest commit
_MIB = 2**20


def plan(target: Target) -> None:
    """Show what the chapter would run, where there is no Docker."""
    name, values = deployed.image(deployed.AIRFLOW), "deployments/forwarder/airflow/values.yaml"
    commands = [
        ["docker", "build", "-t", name, "applications/forwarder/airflow"],
        ["docker", "push", name],
        ["kubectl", "apply", "-k", "deployments/forwarder/airflow"],
        ["helm", "repo", "add", CHART.repository, CHARTS],
        ["helm", "upgrade", "--install", RELEASE, *CHART.words, "-n", deployed.NAMESPACE, "-f", values],
        ["kubectl", "port-forward", f"svc/{SERVICE}", "8080:8080", "-n", deployed.NAMESPACE],
    ]
    where = "a machine with Docker and chapter 09's stack: the target vm, host, or one of your own"
    display.plan("Airflow in the cluster", commands, f"the target {target.name} has no cluster. It runs on {where}.")


def build_image(cluster: Cluster, repository: str = "") -> list[Mapping[str, object]]:
    """Build Airflow's image with the course's DAGs on the target, and push it; as `cluster.build_images` does."""
    return deployed.build_images(cluster, repository, (deployed.AIRFLOW,))


def prepare(cluster: Cluster, repository: str = "") -> None:
    """Apply what the chart's values name: the pod that makes the keys, the volume of the logs, the policies.

    Args:
        cluster: The cluster, with the stack in it.
        repository: One's own image repository; by default the local registry's.
    """
    deployed.apply(cluster, deployed.overlay(FOLDER, repository))


def keys_made(cluster: Cluster) -> bool:
    """Tell whether the Secret with the keys is there."""
    return _KEYS in {s["metadata"]["name"] for s in cluster.get("secrets", "-n", deployed.NAMESPACE)}


def settings_for(cluster: Cluster, source: Source, sync_seconds: int, repository: str = "") -> dict[str, str | int]:
    """Give the single values that differ from `VALUES` here: image, git repository, and how often it is looked at.

    Args:
        cluster: The cluster, whose machine has built the image.
        source: Where the DAGs are.
        sync_seconds: Seconds between two looks.
        repository: One's own image repository; by default the local registry's.

    Returns:
        Paths of values, and the values. The image's digest is among them: an image that was built anew under the same
        tag restarts the pods, and nothing else would.

    Raises:
        TutorialError: The image was not built and pushed.
    """
    name = deployed.image(deployed.AIRFLOW, repository)
    inspect = ["docker", "image", "inspect", "-f", "{{json .RepoDigests}}", name]
    done = cluster.target.run(inspect, check=False, repeatable=True)
    digests = [d for d in json.loads(done.stdout or "[]") if d.startswith(name.rpartition(":")[0])]
    if not digests:
        raise TutorialError(f"There is no image {name} to install", "", "build and push it first: build_image(cluster)")
    return {
        "defaultAirflowRepository": name.rpartition(":")[0],
        "airflowPodAnnotations.image-digest": digests[0].partition("@")[2],
        "dags.gitSync.wait": sync_seconds,
        **source.values(),
    }


def install(helm: Helm, chosen: Mapping[str, str | int], timeout: float = 280) -> int:
    """Install Airflow, or bring it to these values, and wait until it is ready, with a table that moves.

    Args:
        helm: Helm for the cluster; the repository of `CHART` is known to it.
        chosen: What `settings_for` gives.
        timeout: Seconds to wait.

    Returns:
        The release's new revision.

    Raises:
        TutorialError: A value has a wrong name, or the pods don't get ready, with their reasons.
    """
    deployed.supply_node(helm.cluster, [GIT_SYNC])
    # Jobs can't be changed: those of the revision before go, unless they are gone by themselves already.
    jobs = ["delete", "jobs", "-l", f"tier=airflow,release={RELEASE}", "-n", deployed.NAMESPACE]
    helm.cluster.kubectl(*jobs)
    return helm.upgrade(RELEASE, CHART, VALUES, set=chosen, namespace=deployed.NAMESPACE, timeout=timeout)


def forward(cluster: Cluster, *ports: int) -> None:
    """Open ways to Airflow's API and user interface, each at a port of this machine."""
    for port in ports:
        port_forward.start(cluster, SERVICE, PORT, port, deployed.NAMESPACE, _way(port))


def stop_forwards(cluster: Cluster, *ports: int) -> None:
    """Close what `forward` opened."""
    for port in ports:
        port_forward.stop(cluster, _way(port))


def _way(port: int) -> str:
    return f"{SERVICE}-{port}"


def client(cluster: Cluster, port: int) -> Airflow:
    """Give a client of the deployed Airflow; name and password come from its Secret and are never shown.

    Args:
        cluster: The cluster.
        port: The port here that leads to it.
    """
    username, password = (deployed.secret(cluster, "airflow-secret", key) for key in ("username", "password"))
    return Airflow(f"http://127.0.0.1:{port}", username, password)


def synced(cluster: Cluster) -> set[str]:
    """Tell which commits the pods have that read DAGs: one when all have the same."""
    commits = set()
    for part in ("scheduler", "dag-processor"):
        words = ["exec", "-n", deployed.NAMESPACE, f"deployment/{RELEASE}-{part}", "-c", part, "--", "readlink", _LINK]
        commits.add(Path(cluster.kubectl(*words).strip()).name)
    return commits


def processor_log(cluster: Cluster, lines: int = 20) -> str:
    """Read the last lines of the log of the processor of DAG files; -1 means all."""
    words = ["logs", f"deployment/{RELEASE}-dag-processor", "-c", "dag-processor", "-n", deployed.NAMESPACE]
    return cluster.kubectl(*words, f"--tail={lines}")


def memory(cluster: Cluster) -> list[Mapping[str, object]]:
    """Read what the namespace's pods use, from the kubelet: pod, and MiB that can't be given back (its working set)."""
    node = cluster.get("nodes")[0]["metadata"]["name"]
    told = json.loads(cluster.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
    return [
        {"pod": pod["podRef"]["name"], "MiB": round(pod.get("memory", {}).get("workingSetBytes", 0) / _MIB)}
        for pod in told["pods"]
        if pod["podRef"]["namespace"] == deployed.NAMESPACE
    ]


def remove(helm: Helm) -> None:
    """Uninstall Airflow with its keys and logs; what it wrote into the stack's Postgres stays there."""
    helm.uninstall(RELEASE, deployed.NAMESPACE)
    deployed.delete(helm.cluster, FOLDER)
    helm.cluster.kubectl("delete", "secret", _KEYS, "-n", deployed.NAMESPACE, "--ignore-not-found")
