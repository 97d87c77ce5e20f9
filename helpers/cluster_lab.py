"""What chapter 09 shows: the deployed Forwarder asked, something outside brought in, something inside led out."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import requests

from helpers import http
from helpers.cluster import IMPORTS, image, in_pod, secret
from helpers.errors import TutorialError, mask
from helpers.kind import Cluster
from helpers.pods import explain

_CALLER, _CALLER_SECONDS = "tutorial-caller", 60.0
_FETCH = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"


def gateway(cluster: Cluster) -> str:
    """Give the IPv4 address at which pods reach the machine that the cluster runs on: the gateway of kind's network."""
    words = ["docker", "network", "inspect", "kind", "-f", "{{range .IPAM.Config}}{{.Gateway}} {{end}}"]
    found = [a for a in cluster.target.run(words, repeatable=True).stdout.split() if ":" not in a]
    if not found:
        raise TutorialError(
            "kind's network has no IPv4 gateway", "", "make the cluster anew: chapter 06, recreate=True"
        )
    return found[0]


def node_address(cluster: Cluster) -> str:
    """Give the node's own IPv4 address, which the machine reaches."""
    addresses = cluster.get("nodes")[0]["status"]["addresses"]
    return next(str(a["address"]) for a in addresses if a["type"] == "InternalIP" and ":" not in a["address"])


def read_from_pod(cluster: Cluster, url: str) -> str:
    """Read a page from a pod that is made for it in the namespace `default`, and removed.

    Args:
        cluster: The cluster.
        url: The page's address, as a pod knows it.

    Returns:
        The page's text.

    Raises:
        TutorialError: The pod could not read it in time.
    """
    run = ["run", _CALLER, "--image", image("celery"), "--restart=Never", "--command", "--"]
    try:
        cluster.kubectl(*run, "python3", "-c", _FETCH, url)
        pod, deadline = dict[str, Any](), time.monotonic() + _CALLER_SECONDS
        while pod.get("status", {}).get("phase") not in ("Succeeded", "Failed") and time.monotonic() < deadline:
            time.sleep(0.5)
            pod = cluster.get("pod", _CALLER)[0]
        said, found = cluster.kubectl("logs", _CALLER, check=False).strip(), explain(pod)
        if found.state != "succeeded":
            why = f"the pod is {found.state} {found.why}".rstrip()
            raise TutorialError(f"A pod can't read {url}", why, "check that the server runs", output=said)
        return said
    finally:
        cluster.kubectl("delete", "pod", _CALLER, "--ignore-not-found", "--grace-period=0", "--force", check=False)


def read_from_machine(cluster: Cluster, status: Mapping[str, Any], path: str = "/") -> str:
    """Read a page of an exported Service from the cluster's machine, which is outside the cluster.

    Args:
        cluster: The cluster.
        status: What `Forwarder.forward_status` tells of the export; its connection is at `NODE:port`.
        path: The page's path.

    Returns:
        The page's text.
    """
    connection = status["connections"][0]
    if not connection["reachable"]:
        raise TutorialError(
            "The export has no address", str(connection["error"] or connection["state"]), "wait a second"
        )
    url = f"http://{connection['reachable'].replace('NODE', node_address(cluster))}{path}"
    argv = ["python3", "-c", _FETCH, url]
    return cluster.target.run(argv, repeatable=True).stdout.strip()


def connections(cluster: Cluster) -> list[dict[str, str]]:
    """List the objects that the backend made for imports and exports: service, type, port, where it leads."""
    slices = {s["metadata"]["name"]: s for s in cluster.get("endpointslices", "-n", IMPORTS)}
    rows = []
    for service in cluster.get("services", "-n", IMPORTS):
        name, part = service["metadata"]["name"], slices.get(service["metadata"]["name"])
        leads = f"{part['endpoints'][0]['addresses'][0]}:{part['ports'][0]['port']}" if part else "nowhere"
        rows.append(
            {
                "service": name,
                "type": service["spec"]["type"],
                "port": str(service["spec"]["ports"][0]["port"]),
                "to": leads,
            }
        )
    return rows


def flower(cluster: Cluster, port: int, path: str = "", *, login: bool = True) -> requests.Response:
    """Ask the deployed Flower.

    Args:
        cluster: The cluster.
        port: The port here that leads to it.
        path: The path after its address, for example `api/tasks`.
        login: Whether to give name and password; they come from its Secret and are never shown.
    """
    who = (secret(cluster, "flower-secret", "username"), secret(cluster, "flower-secret", "password"))
    return http.get(f"http://127.0.0.1:{port}/{path}", auth=who if login else None, timeout=10)


def backend_log(cluster: Cluster, lines: int = 5) -> Sequence[str]:
    """Read the end of `logs/backend.log` in the backend's pod, as `kubectl exec … -- /bin/bash` would show it."""
    script = f"cd logs && tail -n {lines} backend.log"
    return mask(in_pod(cluster, "celery-server", ["/bin/bash", "-c", script])).splitlines()
