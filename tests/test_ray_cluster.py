"""Chapter 07: Ray at work, in the tests' cluster and on this machine; and the values that it gets."""

import json
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from helpers import allocated, kind, processes, ray_cluster, ray_jobs
from helpers.errors import TutorialError
from helpers.helm import Helm
from helpers.ray_jobs import Ray, Round, Search
from helpers.ray_local import LocalRay
from helpers.settings import ROOT
from helpers.tools import VERSIONS

unit = pytest.mark.unit


# ------------------------------------------------------------------------------------------------ values and results


@unit
@pytest.mark.parametrize(
    ("gpu", "tag", "resources", "most"),
    [(False, "cpu", {"cpu": "1", "memory": "10G"}, 1), (True, "gpu", {"cpu": "3", "memory": "30G"}, 2)],
)
def test_the_values_are_the_references(gpu: bool, tag: str, resources: dict[str, str], most: int) -> None:
    content = yaml.safe_load(ray_cluster.values(gpu).read_text())
    assert content["image"] == {
        "repository": "rayproject/ray", "tag": VERSIONS["ray"][tag], "pullPolicy": "IfNotPresent",
    }  # fmt: skip
    for part in ("head", "worker"):
        share = {"nvshare.com/gpu": "1"} if gpu else {}
        assert content[part]["resources"] == {"limits": resources | share, "requests": resources}
        assert content[part]["volumes"] == [{"name": "log-volume", "emptyDir": {}}]
        assert content[part]["volumeMounts"] == [{"mountPath": "/tmp/ray", "name": "log-volume"}]
    worker = content["worker"]
    assert [worker[f"{word}eplicas"] for word in ("r", "minR", "maxR")] == [1, 1, most]


@unit
@pytest.mark.parametrize(("cores", "memory", "small"), [(2, 24, True), (64, 20, True), (8, 64, False)])
def test_a_small_node_gets_small_requests(
    monkeypatch: pytest.MonkeyPatch, cores: int, memory: int, small: bool
) -> None:
    rows = [
        allocated.Allocated("cpu", Decimal("0.95"), Decimal(0), Decimal(cores)),
        allocated.Allocated("memory", Decimal(2**28), Decimal(0), Decimal(memory * 2**30)),
    ]
    monkeypatch.setattr(allocated, "read", lambda found: rows)
    chosen = ray_cluster.fitting(None)  # type: ignore[arg-type]
    assert bool(chosen) == small
    assert chosen.get("worker.resources.requests.cpu", "") == ("50m" if small else "")


@unit
def test_the_operators_image_is_where_its_version_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()
    monkeypatch.setattr(ray_cluster, "supply_node", lambda cluster, images: asked.extend(images))
    for version in ("1.0.0", "1.4.2"):
        ray_cluster.supply(None, version, "x")  # type: ignore[arg-type]
    assert asked[::2] == ["kuberay/operator:v1.0.0", "quay.io/kuberay/operator:v1.4.2"]
    assert set(asked[1::2]) == {"rayproject/ray:x"}


@unit
def test_the_results_say_what_was_best_and_what_was_tried_again() -> None:
    one = Round(1, 6.0, [(0, "a"), (1, "a")], [0.7, 0.9])
    two = Round(2, 4.0, [(0, "a"), (1, "b"), (0, "b")], [0.7, 0.9])
    found = Search([{"rate": 1.0}, {"rate": 0.1}], [one, two])
    assert found.best == {"rate": 0.1, "accuracy": 0.9}
    assert (found.speed_up, one.retried, two.retried) == (1.5, set(), {0})
    assert [row["rate"] for row in found.rows()] == [0.1, 1.0]


@unit
def test_the_network_learns_and_is_the_same_in_every_run() -> None:
    script = "import network; print(network.train(0.1, 0.0, 1), network.train(0.1, 0.0, 60))"
    runs = [
        subprocess.run([sys.executable, "-c", script], cwd=ray_jobs.SEARCH, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    before, after = map(float, runs[0].stdout.split())
    assert before < after > 0.95
    assert runs[0].stdout == runs[1].stdout


@unit
def test_a_ray_that_is_away_is_a_clear_error() -> None:
    with pytest.raises(TutorialError, match="Ray can't be reached"):
        Ray(f"http://127.0.0.1:{processes.free_port()}").search(1)


# ------------------------------------------------------------------------------------------------ on this machine


@pytest.fixture
def local(sandbox: Path) -> Iterator[LocalRay]:
    """Give a Ray of the test's own on this machine; none of its processes and files is left afterwards."""
    ray = LocalRay()
    try:
        ray.start()
        yield ray
    finally:
        record = processes.find("ray")
        family = psutil.Process(record.pid).children(recursive=True) if record else []
        ray.stop()
        assert not psutil.wait_procs(family, timeout=10)[1]


@pytest.mark.component
@pytest.mark.timeout(600)
def test_a_local_ray_searches_and_a_killed_workers_trial_is_done_again(local: LocalRay) -> None:
    assert local.start().url == local.ray.url, "the one that runs is used"
    inside = psutil.Process(processes.find("ray").pid).children(recursive=True)  # type: ignore[union-attr]
    doors = [c.laddr.ip for p in inside for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert doors and {ip.removeprefix("::ffff:") for ip in doors} == {"127.0.0.1"}, "strangers can't reach it"

    lines: list[str] = []
    found, killed = ray_jobs.lose_a_worker(local.ray, local.kill, lines.append)

    (only,) = found.rounds
    assert only.retried and len(only.accuracies) == len(found.trials) == 4
    assert any("again" in line for line in lines)
    assert killed in {name for _, name in only.starts}
    with pytest.raises(TutorialError, match="no worker worker-9"):
        local.kill("worker-9")
    with pytest.raises(TutorialError, match=r"unrecognized arguments: --sceonds"):
        local.ray.run(["python", "run_search.py", "--sceonds"], lambda line: None, timeout=120)


# ------------------------------------------------------------------------------------------------ in the tests' VM


def in_vm(test: Any) -> Any:
    """Mark a test that needs the tests' VM."""
    for mark in (pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(3600)):
        test = mark(test)
    return test


@in_vm
def test_chapter_07_installs_ray_and_puts_it_to_work(cluster: kind.Cluster) -> None:
    version = VERSIONS["kuberay"]["current"]
    words = ["run", "07", "--target", "vm", "--param", f"kuberay_version={version}"]
    argv = [sys.executable, "-m", "helpers.cli", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=1800, cwd=ROOT)

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    report = done.stdout.partition("report: ")[2].split()[0]
    (chapter,) = json.loads(Path(report).read_text())["chapters"]
    assert set(chapter["green"]) >= {
        "The scheduler says why nothing starts", "Head and worker are ready", "Two workers shared the second",
        "There are two workers now", "The trial of the killed worker was started again", "There are two workers again",
        "One worker is left", "Both releases are gone",
    }  # fmt: skip
    cluster.target.run(["true"], repeatable=True)  # the chapter has ended the connection that it shared with us
    cluster.close()
    assert ray_cluster.pods(cluster) == []
    assert Helm(cluster).state(ray_cluster.OPERATOR) == ""
