"""What chapter 06 shows: an app behind a NodePort, and what it costs to add a port to a cluster that runs."""

from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from helpers import http
from helpers.errors import TutorialError
from helpers.kind import FOLDER, Cluster, busy_ports
from helpers.processes import write_atomically
from helpers.settings import settings
from helpers.target import Target

_LESSON = "tutorial-lesson"


def deploy_hello(cluster: Cluster) -> None:
    """Put the hello app into the cluster, its image from the local registry, and wait until it is ready."""
    cluster.push("python:3.11-slim")
    cluster.kubectl("apply", "-f", str(FOLDER / "hello.yaml"))
    cluster.kubectl("-n", "hello", "rollout", "status", "deployment/hello", "--timeout=120s", timeout=130)


def read_page(target: Target, port: int, path: str = "/") -> str:
    """Read a page from a port of the machine, through a tunnel.

    Args:
        target: The machine.
        port: The port there.
        path: The page's path.

    Returns:
        Its text.
    """
    with target.tunnel(port) as local:
        page = http.get(f"http://127.0.0.1:{local}{path}", timeout=10)
    page.raise_for_status()
    return page.content.decode().strip()


def lesson_configuration(name: str, host_port: int | None) -> Path:
    """Write a configuration of the throw-away cluster, with or without one mapped port."""
    node: dict[str, object] = {"role": "control-plane"}
    if host_port:
        node["extraPortMappings"] = [{"containerPort": 31002, "hostPort": host_port, "protocol": "TCP"}]
    content = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "name": name, "nodes": [node]}
    patches = yaml.safe_load((FOLDER / "cluster.yaml").read_text(encoding="utf-8"))["containerdConfigPatches"]
    path = settings().state / f"{name}-{host_port or 'closed'}.yaml"
    write_atomically(path, yaml.safe_dump({**content, "containerdConfigPatches": patches}))
    return path


def add_a_port(course: Cluster, host_port: int = 7002) -> list[Mapping[str, object]]:
    """Add a port to a cluster that runs, which means making it anew; on a small cluster of its own, removed in the end.

    Args:
        course: The course's cluster, on whose machine it is done.
        host_port: The port to add.

    Returns:
        What was tried, and what came of it.
    """
    closed = Cluster(course.target, lesson_configuration(_LESSON, None))
    wider = Cluster(course.target, lesson_configuration(_LESSON, host_port))
    try:
        closed.create(recreate=True)
        closed.kubectl("create", "configmap", "note", "--from-literal=text=keep me")
        rows = [_row("a cluster without the port, with a note in it", _note(closed), "the note is there")]
        closed.close()
        rows.append(_row("create it with the port added", refusal(wider.create), "refused"))
        wider.create(recreate=True)
        opened = host_port in busy_ports(course.target, wider.content)
        rows.append(_row("create it with recreate=True", opened, f"port {host_port} is open"))
        rows.append(_row("look for the note", not _note(wider), "gone, with all that the old cluster held"))
        return rows
    finally:
        closed.close()
        wider.delete()
        course.choose()


def _note(cluster: Cluster) -> str:
    return cluster.kubectl("get", "configmap", "note", "--ignore-not-found", "-o", "name").strip()


def _row(what: str, came: object, outcome: str) -> Mapping[str, object]:
    return {"tried": what, "outcome": outcome if came else "something else"}


def refusal(attempt: Callable[[], object]) -> str:
    """Give the message of the error that an attempt ends in; empty when there was none."""
    try:
        attempt()
    except TutorialError as error:
        return str(error)
    return ""
