"""Chapter 07: values and their diff, the lab's charts, a repository that is away; releases in the tests' cluster."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers import helm_rollout, helm_values, kind, processes
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
    defaults = {"head": {"cpu": "1", "volumes": []}, "same": True, "gone": 1}
    here = helm_values.merged([defaults, {"head": {"cpu": "3"}, "haed": {"cpu": 2}, "gone": None}])
    assert helm_values.differences(defaults, here) == [
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
