"""Chapter 06: configurations, and the cluster itself in the tests' VM: made, reached, refused, broken."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from helpers import kind, kind_lab, tools
from helpers.errors import TutorialError
from helpers.settings import ROOT
from helpers.target import Target

unit = pytest.mark.unit
e2e = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(3600)]


def _marked(marks: list[pytest.MarkDecorator]) -> pytest.MarkDecorator:
    def mark(test):  # type: ignore[no-untyped-def]
        for one in marks:
            test = one(test)
        return test

    return mark  # type: ignore[return-value]


in_vm = _marked(e2e)


@unit
@pytest.mark.parametrize("name", ["cluster.yaml", "gpu-cluster.yaml"])
def test_the_shipped_configurations_open_the_ports_of_the_reference(name: str) -> None:
    content = kind.configuration(kind.FOLDER / name)
    assert {(p["machine"], p["node"]) for p in kind.ports(content)} >= {(80, 80), (443, 443), (7001, 31001)}


@unit
def test_the_gpu_configuration_is_the_plain_one_with_its_mount() -> None:
    plain, gpu = (kind.configuration(kind.FOLDER / n) for n in ("cluster.yaml", "gpu-cluster.yaml"))
    mounts = gpu["nodes"][0].pop("extraMounts")
    assert mounts == [{"hostPath": "/dev/null", "containerPath": "/var/run/nvidia-container-devices/all"}]
    assert gpu == plain


@unit
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "can't be read"),
        ("[]", "not a configuration of kind"),
        ("apiVersion: v1", "not a configuration of kind"),
        (
            "{apiVersion: kind.x-k8s.io/v1alpha4, name: x, nodes: [{extraPortMappings: "
            "[{containerPort: 1, hostPort: 2}, {containerPort: 3, hostPort: 2}]}]}",
            "maps a port twice",
        ),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(TutorialError, match=message):
        kind.configuration(path)


@unit
def test_without_docker_nothing_is_created() -> None:
    with Target.open("local") as target, pytest.raises(TutorialError, match="No Docker engine answers"):
        kind.Cluster(target).create()


@unit
def test_the_lab_builds_the_versions_that_are_pinned() -> None:
    """The node's storage manifest and the comments that a reader copies name the same versions as the table."""
    versions = tools.VERSIONS
    storage = (ROOT / "tests/airgap/node/default-storage.yaml").read_text()
    assert f"local-path-provisioner:{versions['node']['local-path-provisioner']}" in storage
    assert f"kube-apiserver:{versions['cluster']['kubernetes']}" in storage
    assert kind.NODE_IMAGE in (kind.FOLDER / "cluster.yaml").read_text()


@in_vm
def test_a_second_create_changes_nothing(cluster: kind.Cluster) -> None:
    before = cluster.get("nodes")[0]["metadata"]["uid"]
    assert cluster.create() is False
    assert cluster.get("nodes")[0]["metadata"]["uid"] == before


@in_vm
def test_the_kubeconfig_leads_through_the_tunnel_and_is_private(cluster: kind.Cluster) -> None:
    cluster.connect()
    assert cluster.kubeconfig.stat().st_mode & 0o077 == 0
    server = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    assert server.startswith("https://127.0.0.1:")
    assert [n["state"] for n in cluster.nodes()] == ["ready"]


@in_vm
def test_a_claimed_volume_binds_and_is_listed(cluster: kind.Cluster) -> None:
    manifest = [
        {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "kept"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
        },
        {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "writer"},
            "spec": {
                "containers": [{
                    "name": "writer", "image": cluster.push("python:3.11-slim"), "command": ["sleep", "infinity"],
                    "volumeMounts": [{"name": "kept", "mountPath": "/kept"}],
                }],
                "volumes": [{"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}}],
                "terminationGracePeriodSeconds": 0,
            },
        },
    ]  # fmt: skip
    text = yaml.safe_dump_all(manifest)
    try:
        cluster.kubectl("apply", "-f", "-", input=text)
        cluster.kubectl("wait", "--for=condition=Ready", "pod/writer", "--timeout=120s", timeout=130)
        assert cluster.kubectl("exec", "writer", "--", "sh", "-c", "echo x >/kept/x; cat /kept/x") == "x\n"
        assert {"namespace": "default", "volume": "kept", "size": "1Mi"} in cluster.data()
    finally:
        cluster.kubectl("delete", "-f", "-", "--ignore-not-found", input=text)


@in_vm
def test_a_cluster_that_somebody_else_made_is_left_alone(cluster: kind.Cluster) -> None:
    cluster.kubectl("label", "nodes", "--all", "tutorial-configuration-")
    try:
        with pytest.raises(TutorialError, match="There is a cluster tutorial already") as error:
            cluster.create()
        assert "recreate=True" in error.value.remedy
        assert cluster.exists()
    finally:
        cluster.kubectl("label", "nodes", "--all", f"tutorial-configuration={cluster.fingerprint()}")


@in_vm
def test_a_taken_port_is_named_before_anything_is_made(cluster: kind.Cluster, machine: Target) -> None:
    other = kind.Cluster(machine, kind_lab.lesson_configuration("tutorial-busy", 7001))
    with pytest.raises(TutorialError, match="Port 7001 of the machine is taken"):
        other.create()
    assert not other.exists()


@in_vm
def test_an_image_that_is_not_there_is_an_error_with_nothing_left(
    machine: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, "NODE_IMAGE", "kindest/node:v0.0.0")
    monkeypatch.setattr("helpers.airgap.supply", lambda *_: None)
    other = kind.Cluster(machine, kind_lab.lesson_configuration("tutorial-none", None))
    with pytest.raises(TutorialError, match="kind could not create the cluster") as error:
        other.create()
    assert "node image" in error.value.why
    assert not other.exists()


@in_vm
def test_a_creation_that_is_cut_off_is_found_by_the_next_run(cluster: kind.Cluster, machine: Target) -> None:
    """The laptop dies while kind works: kind goes on, and the cluster is used, or made anew on demand."""
    path = kind_lab.lesson_configuration("tutorial-cut", None)
    script = (
        "import sys; from pathlib import Path; from helpers import kind; from helpers.target import Target; "
        "kind.Cluster(Target.open('vm'), Path(sys.argv[1])).create()"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        look = ["docker", "ps", "-q", "--filter", "name=tutorial-cut-control-plane"]
        deadline = time.monotonic() + 60
        while not machine.run(look).stdout.strip():
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.5)
        child.kill()
        child.wait()
        with kind.Cluster(machine, path) as again:
            assert again.create() is False
            assert [n["state"] for n in again.nodes()] in (["ready"], ["not ready"])
    finally:
        kind.Cluster(machine, path).delete()
        cluster.choose()


@pytest.fixture
def broken_machine(other_vm: str) -> Iterator[Target]:
    """Give a VM of its own to break."""
    with Target.open("vm") as other:
        yield other


@in_vm
def test_no_docker_and_a_full_disk_are_named_and_mended_the_cluster_is_made(broken_machine: Target) -> None:
    def root(*argv: str) -> None:
        broken_machine.run(broken_machine.sudo(*argv), timeout=60)

    root("systemctl", "stop", "docker.socket", "docker")
    with pytest.raises(TutorialError, match="No Docker engine answers") as error:
        kind.Cluster(broken_machine).create()
    assert "start Docker" in error.value.remedy

    root("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", "/var/lib/docker")
    root("systemctl", "start", "docker")
    with pytest.raises(TutorialError, match="the disk is full") as error:
        kind.Cluster(broken_machine).create()
    assert "chapter 03" in error.value.remedy

    root("systemctl", "stop", "docker.socket", "docker")
    root("umount", "-l", "/var/lib/docker")
    root("systemctl", "start", "docker")
    with kind.Cluster(broken_machine, kind.FOLDER / "cluster.yaml") as made:
        assert made.create() is True
        assert made.nodes()[0]["node"] == "tutorial-control-plane"
