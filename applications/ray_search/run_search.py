"""A hyperparameter search over the workers of a Ray cluster, as a Ray job; its last line is the result, as JSON.

Each round trains the same networks on a given number of workers. A trial whose worker dies is started again elsewhere.
"""

import argparse
import itertools
import json
import sys
import time
from typing import Any

import network
import ray
from ray.autoscaler.sdk import request_resources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
MOMENTA = (0.0, 0.9)
PAUSE_SECONDS = 0.25
SAID, RESULT = "search: ", "RESULT "  # begin our own lines, and the last one, in a log that Ray writes to as well


@ray.remote(num_cpus=0)
class Journal:
    """Remembers which trial was started on which node; it lives beside the driver, which outlives a worker."""

    def __init__(self) -> None:
        self._starts: list[tuple[int, str]] = []

    def note(self, trial: int, node: str) -> None:
        """Note a start."""
        self._starts.append((trial, node))

    def starts(self) -> list[tuple[int, str]]:
        """Give all starts of this round, in their order, and forget them."""
        starts, self._starts = self._starts, []
        return starts


@ray.remote(num_cpus=1)
def warm() -> None:
    """Do nothing: what comes next on this worker needn't wait for a process to start."""


@ray.remote(num_cpus=1, max_retries=5)
def trial(number: int, rate: float, momentum: float, epochs: int, journal: Any) -> float:
    """Train one network; Ray runs this again on another worker when its worker dies."""
    journal.note.remote(number, ray.get_runtime_context().get_node_id())  # a task that waits would give its CPU away
    return network.train(rate, momentum, epochs)


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def nodes() -> dict[str, dict[str, Any]]:
    """Give the nodes that are alive by their names: a node's own, else that of its machine (in a cluster: the pod)."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    named = [node["NodeName"] != node["NodeManagerAddress"] for node in alive]
    return {
        node["NodeName"] if own else node["NodeManagerHostname"]: node for node, own in zip(alive, named, strict=True)
    }


def gather(count: int) -> dict[str, str]:
    """Ask the autoscaler for workers, wait for them, and have a process started on each; give their ids by name."""
    say(f"{SAID}asking for workers: {count}")
    request_resources(bundles=[{"CPU": 1}] * count)
    workers: list[tuple[str, dict[str, Any]]] = []
    while len(workers) < count:
        time.sleep(PAUSE_SECONDS)
        workers = sorted((name, node) for name, node in nodes().items() if node["Resources"].get("CPU"))[:count]
    chosen = {name: str(node["NodeID"]) for name, node in workers}
    ray.get([warm.options(scheduling_strategy=on(identity)).remote() for identity in chosen.values()])
    return chosen


def on(identity: str) -> NodeAffinitySchedulingStrategy:
    """Say that a task is for this node, and for any other when that one is gone."""
    return NodeAffinitySchedulingStrategy(identity, soft=True)


def play(count: int, grid: list[tuple[float, float]], epochs: int, journal: Any) -> dict[str, Any]:
    """Do all trials on a number of workers, and tell of each start."""
    workers = gather(count)
    names = {identity: name for name, identity in workers.items()}
    places = [trial.options(scheduling_strategy=on(identity)) for identity in workers.values()]
    began, starts = time.monotonic(), list[tuple[int, str]]()
    results = [places[n % count].remote(n, *chosen, epochs, journal) for n, chosen in enumerate(grid)]
    waiting = results
    while waiting:
        done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=PAUSE_SECONDS)
        for number, identity in ray.get(journal.starts.remote()):
            if identity not in names:  # it has come in the place of one that died
                names |= {str(node["NodeID"]): name for name, node in nodes().items()}
            again = " again" if number in dict(starts) else ""
            starts.append((number, names.get(identity, identity)))
            say(f"{SAID}trial {number} starts{again} on {starts[-1][1]}")
    seconds = time.monotonic() - began
    return {"workers": count, "seconds": seconds, "starts": starts, "accuracies": ray.get(results)}


def main() -> None:
    """Read the options, play the rounds, print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="a round for each number")
    parser.add_argument("--epochs", type=int, default=400, help="how long each trial takes")
    parser.add_argument("--trials", type=int, default=len(RATES) * len(MOMENTA), help="how many of them")
    options = parser.parse_args()
    ray.init(log_to_driver=False, logging_level="warning")
    here = ray.get_runtime_context().get_node_id()
    say(f"{SAID}the driver is on {next(name for name, node in nodes().items() if node['NodeID'] == here)}")
    journal = Journal.options(scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False)).remote()
    grid = list(itertools.product(RATES, MOMENTA))[: options.trials]
    rounds = [play(count, grid, options.epochs, journal) for count in options.workers]
    request_resources(bundles=[])  # the autoscaler may let workers go again
    trials = [{"rate": rate, "momentum": momentum} for rate, momentum in grid]
    say(RESULT + json.dumps({"trials": trials, "rounds": rounds}))


if __name__ == "__main__":
    main()
