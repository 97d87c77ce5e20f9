"""Chapter 07: values and their diff, the lab's charts, a repository that is away; releases in the tests' cluster."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers import airgap, helm_lab, helm_rollout, helm_values, kind, oss_platform, processes, tools
from helpers import cluster as deployed
from helpers.errors import TutorialError
from helpers.helm import Chart, Helm
from helpers.settings import ROOT
from helpers.target import Target

unit = pytest.mark.unit
CHARTS = ROOT / "tests" / "airgap" / "charts"


# ------------------------------------------------------------------------------------------------ the values


@unit
def test_values_are_merged_as_helm_does() -> None:
    defaults = {"image": {"tag": "1", "pullPolicy": "Always"}, "ports": [1, 2], "gone": {"deep": 1}}
    here = helm_values.merged([defaults, {"image": {"tag": "2"}, "ports": [3], "gone": None}], {"worker.replicas": 2})
    assert here == {"image": {"tag": "2", "pullPolicy": "Always"}, "ports": [3], "worker": {"replicas": 2}}
    assert defaults["gone"] == {"deep": 1}


@unit
def test_the_diff_names_each_value_by_its_path_and_what_the_chart_does_not_have() -> None:
    defaults = {"head": {"cpu": "1", "volumes": []}, "same": True, "gone": 1, "empty": {}}
    here = helm_values.merged([defaults, {"head": {"cpu": "3"}, "haed": {"cpu": 2}, "gone": None, "empty": {"a": 1}}])
    assert helm_values.differences(defaults, here) == [
        {"value": "empty.a", "default": helm_values.NOT_THERE, "here": 1},
        {"value": "gone", "default": 1, "here": "(taken away)"},
        {"value": "haed.cpu", "default": helm_values.NOT_THERE, "here": 2},
        {"value": "head.cpu", "default": "1", "here": "3"},
    ]


@unit
def test_a_name_with_a_dot_is_one_name() -> None:
    made = helm_values.merged([{}], {r"worker.resources.limits.nvshare\.com/gpu": 1})
    assert made == {"worker": {"resources": {"limits": {"nvshare.com/gpu": 1}}}}
    assert helm_values.differences({}, made)[0]["value"] == r"worker.resources.limits.nvshare\.com/gpu"


@unit
@pytest.mark.parametrize(("text", "said"), [("a: [", "can't be read"), ("- a", "no values file")])
def test_a_values_file_that_is_none_is_a_clear_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(text)
    with pytest.raises(TutorialError, match=said):
        helm_values.read(path)


@unit
def test_values_that_are_wrong_are_said_before_helm_runs(tmp_path: Path) -> None:
    helm = Helm(kind.Cluster(Target.open("local")))
    path = tmp_path / "values.yaml"
    path.write_text("a: 1\nb:\n\tc: 2\n")
    with pytest.raises(TutorialError, match="line 3: it is indented by a tab"):
        helm.upgrade("x", Chart("y", "z"), path)
    with pytest.raises(TutorialError, match="not the path of a value"):
        helm.upgrade("x", Chart("y", "z"), set={"a[x]": 1})


@unit
def test_a_manifest_with_words_that_only_go_reads_has_its_workloads() -> None:
    """CRDs of well-known charts list `=` among the operators of a selector; Python's own YAML stops there."""
    manifest = "kind: CRD\nmetadata: {name: a}\nenum:\n- =\n- '!='\n---\n---\nkind: Job\nmetadata: {name: b}\n"
    assert helm_rollout.workloads(manifest) == [("Job", "b")]


# ------------------------------------------------------------------------------------ the real helm, no cluster


@pytest.fixture
def helm(require: Callable[[str], str], sandbox: Path) -> Helm:
    require("docker")  # without a way out the lab makes the program
    return Helm(kind.Cluster(Target.open("local")))


def component(test: Any) -> Any:
    """Mark a test that runs the real helm."""
    for mark in (pytest.mark.component, pytest.mark.docker):
        test = mark(test)
    return test


def _local(name: str) -> Chart:
    return Chart(str(CHARTS), name)


def _render(helm: Helm, name: str, *words: str) -> list[dict[str, Any]]:
    return [t for t in yaml.safe_load_all(helm._checked("template", "raycluster", f"{CHARTS}/{name}", *words)) if t]


@pytest.fixture
def template(helm: Helm, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Give a function that renders a chart of the lab; `helm template` needs no cluster."""
    run = helm._run
    monkeypatch.setattr(helm, "_run", lambda *words, **how: run(*words, **{**how, "cluster": False}))
    return lambda name, *words: _render(helm, name, *words)


@component
def test_a_charts_own_values_and_what_a_file_changes(helm: Helm, tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text("head: {resources: {limits: {memory: 3G}}}\n")
    chart = _local("ray-cluster")
    assert helm.defaults(chart)["nameOverride"] == "kuberay"
    rows = helm.diff(chart, path, set={"worker.replicas": 2, "image.tag": "x", "worker.minReplica": 1})
    assert [tuple(row.values()) for row in rows] == [
        ("head.resources.limits.memory", "2G", "3G"),
        ("image.tag", "2.44.1-py311", "x"),
        ("worker.minReplica", helm_values.NOT_THERE, 1),
        ("worker.replicas", 1, 2),
    ]


@component
def test_the_charts_render_what_kuberay_takes(template: Callable[..., list[dict[str, Any]]]) -> None:
    words = ["--set", "worker.groupName=small,head.enableInTreeAutoscaling=true"]
    words += ["--set", "additionalWorkerGroups.big.replicas=2"]
    (cluster,) = template("ray-cluster", *words)
    assert (cluster["kind"], cluster["metadata"]["name"]) == ("RayCluster", "raycluster-kuberay")
    assert cluster["spec"]["enableInTreeAutoscaling"] is True
    assert {g["groupName"]: g["replicas"] for g in cluster["spec"]["workerGroupSpecs"]} == {"small": 1, "big": 2}
    objects = template("kuberay-operator", "--set", "image.repository=r,image.tag=t")
    (deployment,) = [o for o in objects if o["kind"] == "Deployment"]
    assert deployment["metadata"]["name"] == "kuberay-operator"
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "r:t"
    assert helm_rollout.workloads(yaml.safe_dump_all(objects)) == [("Deployment", "kuberay-operator")]


@component
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "worker.replica=2"], "worker.replica: the chart knows no such value"),
        (["--set", "wroker.replicas=2"], "wroker: the chart knows no such value"),
        (["--set-string", "worker.replicas=two"], "worker.replicas: got string, want integer"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(
    template: Callable[..., list[dict[str, Any]]], words: list[str], said: str
) -> None:
    with pytest.raises(TutorialError, match="helm template failed") as error:
        template("ray-cluster", *words)
    assert error.value.why == said and "defaults(chart)" in error.value.remedy


@component
def test_a_repository_that_is_away_or_none_is_said_within_seconds(helm: Helm) -> None:
    began = time.monotonic()
    url = f"http://127.0.0.1:{processes.free_port()}"
    with pytest.raises(TutorialError, match="The chart repository kuberay can't be had") as error:
        helm.add_repository("kuberay", url)
    assert time.monotonic() - began < 10
    assert url in error.value.why and "connection refused" in error.value.output
    with pytest.raises(TutorialError, match="helm show failed") as error:
        helm.defaults(Chart("kuberay", "ray-cluster", "1.0.0"))
    assert error.value.remedy.startswith("add_repository")


# ---------------------------------------------------------------------------------------------- the cluster

UPSTREAM = "https://ray-project.github.io/kuberay-helm/"
REFERENCE, CURRENT = (tools.VERSIONS["kuberay"][name] for name in ("reference", "current"))
RAY = Chart("kuberay", "ray-cluster", REFERENCE)
CLUSTER = "raycluster-kuberay"
SMALL: dict[str, Any] = {
    "image": {"repository": "rayproject/ray"},
    "head": {"resources": {"limits": {"cpu": "1", "memory": "2G"}, "requests": {"cpu": "100m", "memory": "500M"}}},
    "worker": {"resources": {"limits": {"cpu": "1", "memory": "2G"}, "requests": {"cpu": "100m", "memory": "500M"}}},
}


def _operator(version: str) -> Chart:
    return Chart("kuberay", "kuberay-operator", version)


def in_vm(test: Any) -> Any:
    """Mark a test that needs the tests' VM."""
    for mark in (pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(3600)):
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def charts(session_cluster: kind.Cluster) -> str:
    """Have the images on the node, and give the address of the chart repository."""
    ray = tools.VERSIONS["ray"]["lab" if airgap.needed() else "cpu"]
    operators = [f"kuberay/operator:v{REFERENCE}", f"quay.io/kuberay/operator:v{CURRENT}"]
    deployed.supply_node(session_cluster, [*operators, f"rayproject/ray:{ray}"])
    SMALL["image"]["tag"] = ray
    return helm_lab.repository("kuberay", UPSTREAM, session_cluster.target)


@pytest.fixture
def kuberay(cluster: kind.Cluster, charts: str) -> Iterator[Helm]:
    """Give Helm with the repository known; what a test installs is gone in the end."""
    made = Helm(cluster)
    made.add_repository("kuberay", charts)
    for release in ("raycluster", "kuberay-operator"):
        made.uninstall(release)  # as another test may have left it
    yield made
    for release in ("raycluster", "kuberay-operator"):
        made.uninstall(release)


@pytest.fixture
def small(tmp_path: Path, charts: str) -> Path:
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


def _image(cluster: kind.Cluster) -> str:
    (found,) = cluster.get("deployment", "kuberay-operator")
    return str(found["spec"]["template"]["spec"]["containers"][0]["image"])


@in_vm
def test_an_operator_is_installed_upgraded_rolled_back_lost_and_recovered(kuberay: Helm) -> None:
    cluster = kuberay.cluster
    assert kuberay.upgrade("kuberay-operator", _operator(REFERENCE)) == 1
    assert "rayclusters.ray.io" in kuberay.update_crds(_operator(CURRENT))
    assert kuberay.upgrade("kuberay-operator", _operator(CURRENT)) == 2
    assert _image(cluster).endswith(f":v{CURRENT}")
    kuberay.rollback("kuberay-operator", 1)
    assert _image(cluster).endswith(f":v{REFERENCE}")
    states = [(row["revision"], row["state"]) for row in kuberay.history("kuberay-operator")]
    assert states == [(1, "superseded"), (2, "superseded"), (3, "deployed")]

    cluster.kubectl("delete", "deployment", "kuberay-operator")
    assert kuberay.state("kuberay-operator") == "deployed", "helm does not look at what became of it"
    kuberay.upgrade("kuberay-operator", _operator(REFERENCE))
    assert helm_rollout.look(cluster, "default", [("Deployment", "kuberay-operator")]).ready

    kuberay.uninstall("kuberay-operator")
    kuberay.uninstall("kuberay-operator")
    assert kuberay.state("kuberay-operator") == ""
    assert "rayclusters.ray.io" in cluster.kubectl("get", "crds", "-o", "name"), "CRDs stay"


@in_vm
def test_what_can_not_become_ready_is_named_with_its_reason(kuberay: Helm, small: Path) -> None:
    with pytest.raises(TutorialError) as error:
        kuberay.upgrade("kuberay-operator", _operator(CURRENT), set={"image.repository": "localhost:5001/none"})
    assert re.search("ErrImagePull|ImagePullBackOff", error.value.why) and "localhost:5001/none" in error.value.why
    assert "repository and tag" in error.value.remedy
    kuberay.upgrade("kuberay-operator", _operator(CURRENT))  # corrected

    sizes = {"head.resources.requests.memory": "900G", "head.resources.limits.memory": "900G"}
    with pytest.raises(TutorialError) as error:
        kuberay.upgrade("raycluster", RAY, small, set=sizes, timeout=15)
    assert "pending" in error.value.why and "Insufficient memory" in error.value.why
    assert "ask for less" in error.value.remedy

    with pytest.raises(TutorialError, match="helm upgrade failed") as error:
        kuberay.upgrade("raycluster", RAY, small, set={"worker.replica": 2})
    assert error.value.why == "worker.replica: the chart knows no such value"


@in_vm
def test_releases_go_on_while_their_repository_is_away(kuberay: Helm) -> None:
    kuberay.upgrade("kuberay-operator", _operator(CURRENT))
    with pytest.raises(TutorialError, match="can't be had"):
        kuberay.add_repository("kuberay", f"http://127.0.0.1:{processes.free_port()}")
    assert kuberay.state("kuberay-operator") == "deployed"
    assert kuberay.history("kuberay-operator")[-1]["state"] == "deployed"


@pytest.fixture
def charts_on_the_vm(machine: Target, charts: str) -> Iterator[str]:
    """Give the repository's address on the VM."""
    port = int(charts.rpartition(":")[2].strip("/")) if charts != UPSTREAM else 0
    with machine.expose(port, "127.0.0.1", port) if port else nullcontext():
        yield charts


@in_vm
def test_the_lines_of_the_reference_typed_by_hand(
    kuberay: Helm, machine: Target, charts_on_the_vm: str, small: Path
) -> None:
    tools.install(machine, "helm")
    machine.run(["bash", "-c", "helm repo remove kuberay || true"])
    machine.put(small, "cpu-kuberay-cluster-values.yaml")
    lines = f"""
        helm repo add kuberay {charts_on_the_vm}
        helm repo update
        helm install kuberay-operator kuberay/kuberay-operator --version {REFERENCE}
        helm install raycluster kuberay/ray-cluster --version {REFERENCE} -f cpu-kuberay-cluster-values.yaml
        helm list -A"""
    said = machine.run(["bash", "-ec", lines], timeout=120).stdout
    assert said.count("deployed") == 4, said
    manifest = kuberay._checked("get", "manifest", "raycluster")
    helm_rollout.wait(kuberay.cluster, "raycluster", "default", manifest, 240)
    assert {row["pod"]: row["state"] for row in kuberay.cluster.pods("default")}
    words = "helm uninstall raycluster; helm uninstall kuberay-operator; helm list -A -q; helm repo remove kuberay"
    said = machine.run(["bash", "-ec", words], timeout=120).stdout
    assert said.count("uninstalled") == 2


@in_vm
def test_the_set_up_script_of_chapter_05_installs_ray_once(
    kuberay: Helm, machine: Target, charts_on_the_vm: str, small: Path
) -> None:
    oss_platform.fetch(machine, oss_platform.Platform(), ray=True)
    machine.put(small, "ray.yaml")
    words = f"""cd tutorial-platform/platform && INSTALL_RAY=y DEPLOYMENT_OPTION=1 KUBERAY_CHARTS={charts_on_the_vm} \\
        RAY_VALUES=$HOME/ray.yaml RAY_SECONDS=240 ./integration-setup.sh --defaults"""

    def changed() -> list[str]:
        return oss_platform.changes(machine.run(["bash", "-c", words], timeout=400).stdout.splitlines())

    assert changed() == [f"kuberay-operator {REFERENCE} installed", f"ray-cluster {REFERENCE} installed"]
    (ray,) = kuberay.cluster.get("rayclusters", CLUSTER)
    assert ray["status"]["state"] == "ready"
    assert changed() == []
