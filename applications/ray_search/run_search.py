"""A hyperparameter search over the workers of a Ray cluster, as a Ray job; its last line is the result, as JSON.

Each round trains the same networks on a given number of workers. A trial whose worker dies is started again elsewhere.
"""

import argparse
import ipaddress
import itertools
import json
import sys
import time
from typing import Any

import network
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
MOMENTA = (0.0, 0.9)
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


def names() -> dict[str, str]:
    """Give each node's name by its id: its own name, else that of its machine (in a cluster: the pod)."""
    found = {}
    for node in ray.nodes():
        try:
            ipaddress.ip_address(node["NodeName"])  # Ray's own choice for a node without a name
            found[node["NodeID"]] = node["NodeManagerHostname"]
        except ValueError:
            found[node["NodeID"]] = node["NodeName"]
    return found


def play(workers: int, grid: list[tuple[float, float]], epochs: int, journal: Any) -> dict[str, Any]:
    """Run all trials on a number of workers: one CPU of each is reserved, more workers than there are are asked for."""
    say(f"{SAID}asking for {workers} workers")
    group = placement_group([{"CPU": 1}] * workers, strategy="SPREAD")
    ray.get(group.ready())
    places = [PlacementGroupSchedulingStrategy(group, place) for place in range(workers)]
    ray.get([warm.options(scheduling_strategy=place).remote() for place in places])
    anywhere = trial.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group))
    began, starts = time.monotonic(), list[tuple[int, str]]()
    waiting = [anywhere.remote(n, rate, momentum, epochs, journal) for n, (rate, momentum) in enumerate(grid)]
    results = list(waiting)
    while waiting:
        done, waiting = ray.wait(waiting, timeout=0.25)
        known = names()
        for number, node in ray.get(journal.starts.remote()):
            again = " again" if number in dict(starts) else ""
            say(f"{SAID}trial {number} starts{again} on {known.get(node, node)}")
            starts.append((number, known.get(node, node)))
        if done:
            say(f"{SAID}{len(grid) - len(waiting)} of {len(grid)} trials are done")
    seconds = time.monotonic() - began
    accuracies = ray.get(results)
    remove_placement_group(group)
    return {"workers": workers, "seconds": seconds, "starts": starts, "accuracies": accuracies}


def main() -> None:
    """Read the options, play the rounds, print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="a round for each number")
    parser.add_argument("--epochs", type=int, default=400, help="how long each trial takes")
    options = parser.parse_args()
    ray.init(log_to_driver=False, logging_level="warning")
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    journal = Journal.options(scheduling_strategy=here).remote()
    grid = list(itertools.product(RATES, MOMENTA))
    rounds = [play(workers, grid, options.epochs, journal) for workers in options.workers]
    trials = [{"rate": rate, "momentum": momentum} for rate, momentum in grid]
    say(RESULT + json.dumps({"trials": trials, "rounds": rounds}))


if __name__ == "__main__":
    main()
