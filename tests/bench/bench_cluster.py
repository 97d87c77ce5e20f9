"""Chapters 06 and 09 against the plain tools: a cluster's creation, and the stack from `apply` to ready; in a VM."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

os.environ["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
os.environ["HOME"] = tempfile.mkdtemp(prefix="bench-cluster-")
os.environ["TUTORIAL_STATE"] = f"{os.environ['HOME']}/state"
os.environ["TUTORIAL_VM"] = "tutorial-bench-vm"

from helpers import cluster as deployed
from helpers import kind, vm
from helpers.target import Target

ROUNDS = 5  # kind itself takes three seconds more or less


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    with redirect_stdout(StringIO()):
        action()
    return time.perf_counter() - began


def _report(what: str, plain: str, chapter: list[float], bare: list[float]) -> None:
    ours, theirs = statistics.median(chapter), statistics.median(bare)
    print(f"{what:22} {ours:5.1f} s   {ours / theirs:.2f} × {plain} ({theirs:.1f} s)", flush=True)


def _creation(machine: Target) -> None:
    """Create the cluster by the chapter and by bare kind in turn; images are there, and the last one stays."""
    made = kind.Cluster(machine)
    made.create()
    program, text = made._kind, made.path.read_text(encoding="utf-8")
    chapter, bare = list[float](), list[float]()
    for _ in range(ROUNDS):
        made.delete()
        bare.append(_timed(lambda: machine.run(kind._create_words(program, "-"), input=text, timeout=300)))
        machine.run([program, "delete", "cluster", "--name", made.name], timeout=120)
        chapter.append(_timed(made.create))
    _report("create the cluster", "kind create cluster", chapter, bare)


def _deployment(machine: Target) -> None:
    """Apply the stack by the chapter and by bare kubectl in turn; images are in the registry and on the node."""
    with kind.Cluster(machine) as made:
        with redirect_stdout(StringIO()):
            deployed.build_images(made)
            deployed.supply_node(made)
        stack = str(deployed.STACK)

        def by_chapter() -> None:
            deployed.apply(made, deployed.STACK)
            deployed.wait(made)

        def by_hand() -> None:
            made.kubectl("apply", "-k", stack)
            words = ["wait", "--for=condition=Available", "deployment", "--all", "-n", deployed.NAMESPACE]
            made.kubectl(*words, "--timeout=240s", timeout=250)

        by_chapter()  # the node has pulled the images then
        chapter, bare = list[float](), list[float]()
        for _ in range(ROUNDS):
            for action, times in ((by_hand, bare), (by_chapter, chapter)):
                deployed.delete(made, deployed.STACK)
                times.append(_timed(action))
        _report("apply the stack, ready", "kubectl apply -k, kubectl wait", chapter, bare)


def main() -> None:
    """Print both figures; the VM is removed in the end."""
    vm.prepare()
    try:
        with Target.open("vm") as machine:
            kind.raise_inotify(machine)
            _creation(machine)
            _deployment(machine)
    finally:
        vm.destroy()


if __name__ == "__main__":
    main()
