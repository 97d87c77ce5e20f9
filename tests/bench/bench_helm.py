"""Chapter 07 against the plain tools: KubeRay's operator and a RayCluster from `helm upgrade` to ready; in a VM."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

os.environ["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
os.environ["HOME"] = tempfile.mkdtemp(prefix="bench-helm-")
os.environ["TUTORIAL_STATE"] = f"{os.environ['HOME']}/state"
os.environ["TUTORIAL_VM"] = "tutorial-bench-vm"

from helpers import airgap, helm_lab, kind, processes, tools, vm
from helpers import cluster as deployed
from helpers.helm import Chart, Helm
from helpers.target import Target

ROUNDS = 5
VERSION = tools.VERSIONS["kuberay"]["current"]
OPERATOR, RAY = (Chart("kuberay", name, VERSION) for name in ("kuberay-operator", "ray-cluster"))


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    with redirect_stdout(StringIO()):
        action()
    return time.perf_counter() - began


def _report(what: str, plain: str, chapter: list[float], bare: list[float]) -> None:
    ours, theirs = statistics.median(chapter), statistics.median(bare)
    print(f"{what:22} {ours:5.1f} s   {ours / theirs:.2f} × {plain} ({theirs:.1f} s)", flush=True)


def _installations(cluster: kind.Cluster) -> None:
    """Install the operator, then a RayCluster on it, by the chapter and by the bare tools in turn."""
    tag = tools.VERSIONS["ray"]["lab" if airgap.needed() else "cpu"]
    deployed.supply_node(cluster, [f"quay.io/kuberay/operator:v{VERSION}", f"rayproject/ray:{tag}"])
    helm = Helm(cluster)
    helm.add_repository("kuberay", helm_lab.repository("kuberay", "https://ray-project.github.io/kuberay-helm/",
                                                       cluster.target))  # fmt: skip
    small = {f"{part}.resources.requests.{what}": much for part in ("head", "worker")
             for what, much in (("cpu", "100m"), ("memory", "500M"))}  # fmt: skip
    values = {"image.tag": tag, **small}

    def bare(release: str, chart: Chart, condition: str, thing: str, **set: str) -> None:
        words = [word for path, value in set.items() for word in ("--set-string", f"{path}={value}")]
        helm._run("upgrade", "--install", release, *chart.words, *words, cluster=True, timeout=120)
        cluster.kubectl("wait", f"--for={condition}", thing, "--timeout=240s", timeout=250)

    rows = {
        "the operator, ready": (
            "kuberay-operator",
            lambda: helm.upgrade("kuberay-operator", OPERATOR),
            lambda: bare("kuberay-operator", OPERATOR, "condition=Available", "deployment/kuberay-operator"),
        ),
        "the RayCluster, ready": (
            "raycluster",
            lambda: helm.upgrade("raycluster", RAY, set=values),
            lambda: bare(
                "raycluster", RAY, "jsonpath={.status.state}=ready", "raycluster/raycluster-kuberay", **values
            ),
        ),
    }
    for what, (release, by_chapter, by_hand) in rows.items():
        chapter, plain = list[float](), list[float]()
        for _ in range(ROUNDS):
            for action, times in ((by_hand, plain), (by_chapter, chapter)):
                helm.uninstall(release)
                times.append(_timed(action))
        _report(what, "helm upgrade, kubectl wait", chapter, plain)


def main() -> None:
    """Print both figures; the VM is removed in the end."""
    vm.prepare()
    try:
        with Target.open("vm") as machine:
            kind.raise_inotify(machine)
            with kind.Cluster(machine) as made:
                made.create()
                _installations(made)
    finally:
        processes.stop_all("vm")
        vm.destroy()


if __name__ == "__main__":
    main()
