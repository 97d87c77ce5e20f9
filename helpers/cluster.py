"""Chapter 09: the Forwarder deployed into a cluster by YAML: its objects, its images, its secrets, the ways to it."""

import base64
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from helpers import airgap, display, go_yaml, port_forward
from helpers.errors import TutorialError, mask
from helpers.kind import REGISTRY_PORT, Cluster, rolled_out
from helpers.pods import explain
from helpers.processes import write_atomically
from helpers.settings import ROOT, settings
from helpers.target import Target, opened, with_docker
from helpers.tools import VERSIONS
from helpers.undo import Leftover

FOLDER = ROOT / "deployments" / "forwarder"
STACK, SCHEDULER = FOLDER / "stack", FOLDER / "scheduler"
NAMESPACE, IMPORTS = "forwarder", "forwarder-imports"
REPOSITORY = "multi-local-cloud-hpc-integration"
# Folder of applications/forwarder → the word in the image's tag.
PARTS = {"fastapi": "frontend", "celery": "backend", "flower": "monitor", "beat": "scheduler"}
AIRFLOW = "airflow"  # the part that chapter 10 builds, tagged by Airflow's own version
UPSTREAM = ("redis:7", "postgres:15")
# Service → its port, and the one that it gets on this machine.
PORTS = {"fastapi-service": 7600, "flower-service": 7601, "celery-service": 7602}
SECRETS = ("redis-secret", "flower-secret", "airflow-secret", "postgres-secret")
_VERSION = "v0.0.5"
_SOURCES = "tutorial-applications"  # in the home folder of the machine that builds
_LABEL = "tutorial.chapter=09"
_WITH_PODS = ("Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job")
_SUFFIX = f".{NAMESPACE}.svc.cluster.local"


def image(part: str, repository: str = "") -> str:
    """Name the image of a part, as the reference tags it.

    Args:
        part: One of `PARTS`, or `AIRFLOW`.
        repository: One's own image repository; by default the local registry's.
    """
    word, version = (part, f"v{VERSIONS['airflow']['version']}") if part == AIRFLOW else (PARTS[part], _VERSION)
    return f"{repository or f'localhost:{REGISTRY_PORT}/{REPOSITORY}'}:study_forwarder_{word}_{version}"


def objects(folder: Path = STACK) -> list[dict[str, Any]]:
    """Read the objects of a kustomization and of those that it names, without kubectl.

    Args:
        folder: A folder with a `kustomization.yaml`.

    Returns:
        The objects in their order, each with its namespace.

    Raises:
        TutorialError: A file is missing or is not YAML.
    """
    found = []
    content = next(iter(_yaml(folder / "kustomization.yaml")), {})
    for name in content.get("resources") or []:
        path = folder / str(name)
        for thing in objects(path) if path.is_dir() else _yaml(path):
            if missing := [word for word in ("apiVersion", "kind", "metadata") if not thing.get(word)]:
                why = f"it has no {missing[0]}"
                raise TutorialError(f"{path} has an object that Kubernetes does not take", why, "correct the file")
            if "namespace" in content and thing["kind"] != "Namespace":
                thing["metadata"].setdefault("namespace", content["namespace"])
            found.append(thing)
    return found


def _yaml(path: Path) -> list[dict[str, Any]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TutorialError(f"{path} can't be read", str(error), "correct the path to it") from None
    found = [thing for thing in go_yaml.documents(content, str(path), strict=True) if thing]
    if wrong := next((thing for thing in found if not isinstance(thing, dict)), None):
        why = f"a document in it is not a mapping but begins with {str(wrong)[:40]!r}"
        raise TutorialError(f"{path} has no objects of Kubernetes", why, "correct the file, or the path to it")
    return found


def mismatches(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Find names and ports that must fit and don't; Kubernetes itself accepts them, and nothing answers then.

    Args:
        found: Objects, as `objects` reads them.

    Returns:
        A sentence for each: a Service that leads to no pod or port, an address or a Secret that nobody makes.
    """
    services = {s["metadata"]["name"]: s["spec"] for s in found if s["kind"] == "Service"}
    pods = [o if o["kind"] == "Pod" else o["spec"]["template"] for o in found if o["kind"] in _WITH_PODS]
    wrong = []
    for name, service in services.items():
        wanted = service.get("selector") or {}  # without one, somebody else says where it leads
        fitting = [p for p in pods if wanted.items() <= (p["metadata"].get("labels") or {}).items()]
        if wanted and not fitting:
            wrong.append(f"{name} selects {wanted}, and no pod has that label")
        elif wanted:
            opened = {p[key] for p in _ports(fitting[0]) for key in ("containerPort", "name") if key in p}
            ports = [port.get("targetPort", port["port"]) for port in service.get("ports") or ()]
            wrong += [f"{name} leads to port {p}, which its pods do not open" for p in ports if p not in opened]
    containers = [c for p in pods for c in p["spec"]["containers"]]
    made = {words.split()[0]: words for c in containers for words in c.get("args") or () if "-secret " in str(words)}
    for variable in (e for c in containers for e in c.get("env") or ()):
        address = re.search(rf"([a-z-]+){re.escape(_SUFFIX)}", str(variable.get("value") or ""))
        if address and address[1] not in services and not address[1].startswith("airflow"):  # chapter 10 brings that
            wrong.append(f"{variable['name']} names {address[1]}, and there is no such Service")
        wanted = (variable.get("valueFrom") or {}).get("secretKeyRef", {})
        if wanted and not wanted.get("optional") and f" {wanted['key']}=" not in made.get(wanted["name"], ""):
            wrong.append(f"{variable['name']} needs {wanted['key']} of {wanted['name']}, which nobody makes")
    return wrong


def _ports(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [port for container in pod["spec"]["containers"] for port in container.get("ports") or ()]


def plan(target: Target) -> None:
    """Show what the chapter would run, where there is no Docker."""
    commands = [["docker", "build", "-t", image(p), f"applications/forwarder/{p}"] for p in PARTS]
    commands += [["docker", "push", image(p)] for p in PARTS]
    commands += [["kubectl", "apply", "-k", "deployments/forwarder/stack"]]
    commands += [
        ["kubectl", "port-forward", f"svc/{service}", f"{port}:{port}", "-n", NAMESPACE]
        for service, port in PORTS.items()
    ]
    where = "a machine with Docker and chapter 06's cluster: the target vm, host, or one of your own"
    why = f"the target {target.name} uses nothing but Python. It runs on {where}."
    display.plan("the Forwarder in a cluster", commands, why)


def show_file(name: str) -> None:
    """Show one of the deployment's files as it is.

    Args:
        name: Its path below `deployments/forwarder/`.
    """
    display.show((FOLDER / name).read_text(encoding="utf-8"))


def build_images(
    cluster: Cluster, repository: str = "", parts: Sequence[str] = tuple(PARTS)
) -> list[Mapping[str, object]]:
    """Build images on the target, from what git tracks, and push them.

    Args:
        cluster: The cluster whose machine builds.
        repository: One's own image repository, which the machine is logged in to; by default the local registry's.
        parts: Whose images; by default the four of the Forwarder.

    Returns:
        A row for each image: part, image, size.

    Raises:
        TutorialError: An image could not be built or pushed.
    """
    target, rows = cluster.target, list[Mapping[str, object]]()
    airgap.supply(target, sorted({_base(part) for part in parts}))
    target.sync(ROOT / "applications", _SOURCES)
    with display.progress("Build the images", len(parts)) as report:
        for done, part in enumerate(parts):
            name = image(part, repository)
            report(done, name)
            words = ["docker", "build", "-q", "--label", _LABEL, "-t", name]
            target.run(
                [*words, f"{_SOURCES}/forwarder/{part}"], timeout=600, env={"DOCKER_BUILDKIT": "0"}, repeatable=True
            )
            target.run(["docker", "push", "-q", name], timeout=600, repeatable=True)
            size = target.run(["docker", "image", "inspect", "-f", "{{.Size}}", name], repeatable=True).stdout
            rows.append({"part": PARTS.get(part, part), "image": name, "MB": round(int(size) / 1e6)})
    return rows


def _base(part: str) -> str:
    """Read which image a part's own is built on."""
    first = (ROOT / "applications" / "forwarder" / part / "Dockerfile").read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("FROM ")


def supply_node(cluster: Cluster, images: Sequence[str] = UPSTREAM) -> None:
    """Hand the node upstream images that it could not pull; where a registry answers it pulls them itself.

    Args:
        cluster: The cluster.
        images: Their names.
    """
    if not airgap.needed(cluster.target):
        return
    airgap.supply(cluster.target, images)
    missing = set[str]()
    for node in cluster.node_names:
        look = ["docker", "exec", node, "ctr", "-n", "k8s.io", "images", "ls", "-q"]
        there = cluster.target.run(look, repeatable=True).stdout.split()
        missing |= {name for name in images if _full_name(name) not in there}
    if missing:
        load(cluster, [name for name in images if name in missing])


def load(cluster: Cluster, images: Sequence[str]) -> None:
    """Copy images of the machine's Docker into the cluster's nodes."""
    for node in cluster.node_names:
        words = f"docker save {' '.join(images)} | docker exec -i {node} ctr -n k8s.io images import --no-unpack -"
        cluster.target.run(["sh", "-c", words], timeout=300)


def _full_name(image: str) -> str:
    """Give an image's name with its registry and owner, as containerd has it."""
    if "/" not in image:
        return f"docker.io/library/{image}"
    return image if "." in image.partition("/")[0] else f"docker.io/{image}"


def overlay(folder: Path, repository: str = "") -> Path:
    """Give the folder to apply, or an overlay of it that takes its images from one's own repository.

    Args:
        folder: `STACK`, a folder in it, or `SCHEDULER`.
        repository: The image repository, such as `docker.io/me/forwarder`; empty means the local registry.

    Returns:
        A folder with a `kustomization.yaml`; the overlay's is written into the state folder.
    """
    if not repository:
        return folder
    made = settings().state / "own-images" / folder.name
    content = _yaml(FOLDER / "own-images" / "stack" / "kustomization.yaml")[0]
    content["resources"] = [os.path.relpath(folder, made.resolve())]  # kustomize takes no absolute path
    content["images"][0]["newName"] = repository
    write_atomically(made / "kustomization.yaml", yaml.safe_dump(content))
    return made


def apply(cluster: Cluster, path: Path) -> dict[str, int]:
    """Apply a file or a kustomization; what is as described already stays.

    Args:
        cluster: The cluster.
        path: A file of an object of the namespace `forwarder`, or a folder with a `kustomization.yaml`.

    Returns:
        How many objects were created, configured and unchanged.

    Raises:
        TutorialError: The cluster refused an object; the message has its words.
    """
    where = ["-k", str(path)] if path.is_dir() else ["-f", str(path), "-n", NAMESPACE]
    said = cluster.kubectl("apply", *where).split()
    return {word: said.count(word) for word in ("created", "configured", "unchanged")}


def restart_outdated(cluster: Cluster, repository: str = "") -> list[str]:
    """Restart the Deployments whose image was built anew under the same tag; nothing else would.

    Args:
        cluster: The cluster.
        repository: The image repository, as `build_images` takes it.

    Returns:
        Their names.
    """
    restarted = []
    for part in PARTS:
        inspect = ["docker", "image", "inspect", "-f", "{{json .RepoDigests}}", image(part, repository)]
        digests = json.loads(cluster.target.run(inspect, repeatable=True).stdout)
        for thing in cluster.get("pods", "-n", NAMESPACE, "-l", f"app={part}-server"):
            running = [c["imageID"] for c in thing["status"].get("containerStatuses", []) if c["imageID"]]
            if running and running[0] not in digests:
                restarted.append(f"{part}-server")
    for name in sorted(set(restarted)):
        cluster.kubectl("rollout", "restart", f"deployment/{name}", "-n", NAMESPACE)
    return sorted(set(restarted))


def delete(cluster: Cluster, path: Path) -> None:
    """Delete what `apply` made, and wait until it is gone; what is gone already is no error."""
    where = ["-k", str(path)] if path.is_dir() else ["-f", str(path), "-n", NAMESPACE]
    cluster.kubectl("delete", *where, "--ignore-not-found", "--timeout=180s", timeout=200)


def secrets_made(cluster: Cluster) -> bool:
    """Tell whether the four Secrets are there."""
    return set(SECRETS) <= {s["metadata"]["name"] for s in cluster.get("secrets", "-n", NAMESPACE)}


def secret(cluster: Cluster, name: str, key: str) -> str:
    """Read a value of a Secret; never show it."""
    content = cluster.get("secret", name, "-n", NAMESPACE)[0]["data"]
    return base64.b64decode(content[key]).decode()


def deployments(cluster: Cluster) -> list[Mapping[str, object]]:
    """List the Forwarder's Deployments: name, state, how many pods are ready."""
    return [
        {
            "deployment": d["metadata"]["name"],
            "state": "ready" if rolled_out(d) else "starting",
            "ready": f"{d['status'].get('readyReplicas', 0)}/{d['spec']['replicas']}",
        }
        for d in cluster.get("deployments", "-n", NAMESPACE)
    ]


def stack_ready(cluster: Cluster) -> bool:
    """Tell whether all Deployments of the stack are ready; others in the namespace don't matter."""
    wanted = {o["metadata"]["name"] for o in objects() if o["kind"] == "Deployment"}
    return wanted <= {row["deployment"] for row in deployments(cluster) if row["state"] == "ready"}


def wait(cluster: Cluster, timeout: float = 240) -> None:
    """Wait until every Deployment is ready, with a table that moves.

    Args:
        cluster: The cluster.
        timeout: Seconds to wait.

    Raises:
        TutorialError: One isn't ready in time; the message has its pods' states and the warnings.
    """
    deadline = time.monotonic() + timeout
    rows = deployments(cluster)
    with display.live_table(lambda: rows, title="The stack") as draw:
        while not rows or any(row["state"] != "ready" for row in rows):
            if time.monotonic() > deadline:
                raise _not_ready(cluster, timeout)
            draw()
            time.sleep(0.5)
            rows = deployments(cluster)


def _not_ready(cluster: Cluster, timeout: float) -> TutorialError:
    late = [row["deployment"] for row in deployments(cluster) if row["state"] != "ready"]
    events = cluster.get("events", "-n", NAMESPACE, "--sort-by=.lastTimestamp")
    warnings = [
        f"{e['reason']}: {' '.join(str(e.get('message')).split())}" for e in events if e.get("type") == "Warning"
    ]
    found = [(pod["metadata"]["name"], explain(pod, events)) for pod in cluster.get("pods", "-n", NAMESPACE)]
    stuck = [(name, state) for name, state in found if state.remedy]
    remedies = [state.remedy for _, state in stuck]
    if any("Image" in state.state for _, state in stuck):
        remedies.insert(0, "build and push the images: build_images(cluster)")
    return TutorialError(
        f"{', '.join(map(str, late)) or 'The stack'} is not ready after {timeout:g} s",
        "; ".join(f"{name}: {state.state} {state.why}".rstrip() for name, state in stuck) or "see the warnings",
        "; ".join(remedies[:2]) or "see the warnings, then run the cell again",
        target=cluster.target.name,
        output="\n".join(warnings[-6:]),
    )


def logs(cluster: Cluster, deployment: str, lines: int = 20) -> str:
    """Read the last lines that a Deployment's pod printed, secrets masked; -1 means all."""
    return mask(cluster.kubectl("logs", f"deployment/{deployment}", "-n", NAMESPACE, f"--tail={lines}"))


def forward(cluster: Cluster, service: str, local_port: int = 0) -> int:
    """Make a Service reachable on this machine: `kubectl port-forward`, started again whenever it ends.

    Args:
        cluster: The cluster.
        service: One of `PORTS`.
        local_port: The port here; 0 takes a free one.

    Returns:
        The port here. It is open until `stop_forwards`, `tutorial clean`, or the end of a headless run.

    Raises:
        TutorialError: The port is taken, or the Service can't be reached.
    """
    return port_forward.start(cluster, service, PORTS[service], local_port, NAMESPACE)


def stop_forwards(cluster: Cluster) -> None:
    """Close what `forward` opened."""
    for service in PORTS:
        port_forward.stop(cluster, service)


def effects(cluster: Cluster) -> list[str]:
    """Give the id of each request that had its effect, once for each time, from the backend's journal in Redis."""
    said = in_pod(cluster, "redis-server", ["redis-cli", "--raw", "xrange", "forwarder:journal", "-", "+"]).split()
    return [value for key, value in zip(said, said[1:], strict=False) if key == "id"]


def in_pod(cluster: Cluster, deployment: str, argv: Sequence[str]) -> str:
    """Run a command in a Deployment's pod."""
    return cluster.kubectl("exec", "-n", NAMESPACE, f"deployment/{deployment}", "--", *argv)


def delete_pod(cluster: Cluster, deployment: str) -> str:
    """Delete a Deployment's pod at once, as if its machine had died.

    Returns:
        Its name; the Deployment makes another one.
    """
    name = pod(cluster, deployment)
    cluster.kubectl("delete", "pod", name, "-n", NAMESPACE, "--grace-period=0", "--force")
    return name


def pod(cluster: Cluster, deployment: str) -> str:
    """Give the name of a Deployment's pod; empty when there is none at the moment."""
    pods = cluster.get("pods", "-n", NAMESPACE, "-l", f"app={deployment}")
    return next((str(p["metadata"]["name"]) for p in pods if "deletionTimestamp" not in p["metadata"]), "")


def leftovers(target: str) -> list[Leftover]:
    """List the images and their sources on a target; what is in the cluster goes with that, the VM goes as a whole."""
    with with_docker(target) as machine:
        if not machine:
            return []
        words = ["docker", "images", "-q", "--filter", f"label={_LABEL}"]
        there = machine.run(words, repeatable=True).stdout.split()
        found = [Leftover("the Forwarder's images", f"{len(set(there))} images", lambda: _delete_images(target))]
        return found if there else []


def _delete_images(target: str) -> None:
    with opened(target) as machine:
        words = ["docker", "images", "-q", "--filter", f"label={_LABEL}"]
        there = sorted(set(machine.run(words, repeatable=True).stdout.split()))
        if there:
            machine.run(["docker", "image", "rm", "-f", *there], check=False)
        machine.run(["sh", "-c", f"rm -rf ~/{_SOURCES}"])
