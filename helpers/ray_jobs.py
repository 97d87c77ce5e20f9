"""Ray at work: jobs by the Jobs API, their logs, and what a search for hyperparameters found; in a cluster or here.

Source: https://docs.ray.io/en/releases-2.44.1/cluster/running-applications/job-submission/sdk.html.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from shlex import join
from typing import TYPE_CHECKING, Any

from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_fixed

from helpers import display, http
from helpers.errors import TutorialError
from helpers.settings import ROOT

if TYPE_CHECKING:
    import requests
    from ray.job_submission import JobSubmissionClient

SEARCH = ROOT / "applications" / "ray_search"
_SAID, _RESULT = "search: ", "RESULT "  # begin run_search.py's own lines, and its last one
_AGENT_SECONDS = 60.0
_LONG_EPOCHS = 4000  # some seconds a trial: enough to kill its worker in the middle
_ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}


@dataclass(frozen=True)
class Round:
    """The same trials on a number of workers.

    Attributes:
        workers: How many.
        seconds: From the first trial's start to the last one's end.
        starts: Trial and worker of each start, in their order; a trial whose worker died has more than one.
        accuracies: What each trial reached, 0 to 1.
    """

    workers: int
    seconds: float
    starts: list[tuple[int, str]]
    accuracies: list[float]

    @property
    def retried(self) -> set[int]:
        """The trials that were started more than once."""
        trials = [trial for trial, _ in self.starts]
        return {trial for trial in trials if trials.count(trial) > 1}


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        trials: The hyperparameters of each trial.
        rounds: The rounds, in their order.
    """

    trials: list[dict[str, float]]
    rounds: list[Round]

    @property
    def best(self) -> dict[str, float]:
        """The best hyperparameters, with the accuracy that they reached."""
        accuracies = self.rounds[0].accuracies
        place = accuracies.index(max(accuracies))
        return {**self.trials[place], "accuracy": accuracies[place]}

    @property
    def speed_up(self) -> float:
        """How many times faster the last round was than the first."""
        return self.rounds[0].seconds / self.rounds[-1].seconds

    def rows(self) -> list[Mapping[str, object]]:
        """List the trials: hyperparameters and accuracy, the best first."""
        pairs = zip(self.trials, self.rounds[0].accuracies, strict=True)
        rows = [{**trial, "accuracy": f"{accuracy:.3f}"} for trial, accuracy in pairs]
        return sorted(rows, key=lambda row: str(row["accuracy"]), reverse=True)


class Ray:
    """A Ray cluster, reached by its dashboard's port, which serves the Jobs API as well.

    Args:
        url: The dashboard's address, such as `http://127.0.0.1:8265`.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def version(self) -> str:
        """Give Ray's version."""
        return str(self._get("/api/version")["ray_version"])

    def workers(self) -> list[Mapping[str, object]]:
        """List the worker nodes that are alive: worker (its own name, or its pod's), CPUs."""
        rows = []
        for node in self._get("/nodes?view=summary")["data"]["summary"]:
            raylet = node["raylet"]
            if raylet["state"] == "ALIVE" and not raylet["isHeadNode"]:
                named = raylet["nodeName"] != raylet["nodeManagerAddress"]
                name = raylet["nodeName"] if named else raylet["nodeManagerHostname"]
                rows.append({"worker": name, "CPUs": raylet["resourcesTotal"].get("CPU", 0)})
        return sorted(rows, key=lambda row: str(row["worker"]))

    def _get(self, path: str) -> dict[str, Any]:
        answer = http.get(f"{self.url}{path}", timeout=10)
        answer.raise_for_status()
        content: dict[str, Any] = answer.json()
        return content

    def search(
        self,
        *workers: int,
        epochs: int = 400,
        trials: int = 12,
        watch: Callable[[str], None] = lambda line: None,
        timeout: float = 240,
    ) -> Search:
        """Search for hyperparameters as a Ray job (`applications/ray_search`), its log followed.

        Args:
            workers: A round for each number: how many workers do the trials.
            epochs: How often a network sees each point; 1000 take about a second.
            trials: How many networks, 12 at most.
            watch: Called with each line that the search says, as it comes; what Ray itself logs is left out.
            timeout: Seconds that the job may take; it is stopped then.

        Returns:
            What it found.

        Raises:
            TutorialError: The cluster can't be reached, or the job failed, with its last lines.
        """
        words = ["python", "run_search.py", "--epochs", str(epochs), "--trials", str(trials)]
        words += ["--workers", *map(str, workers)]

        def said(line: str) -> None:
            if line.startswith(_SAID):
                watch(line.removeprefix(_SAID))

        log = self.run(words, said, timeout)
        line = next(line for line in log[::-1] if line.startswith(_RESULT))
        content = json.loads(line.removeprefix(_RESULT))
        rounds = [Round(**{**r, "starts": [(t, w) for t, w in r["starts"]]}) for r in content["rounds"]]
        return Search(content["trials"], rounds)

    def run(self, words: list[str], watch: Callable[[str], None], timeout: float) -> list[str]:
        """Run a command in `applications/ray_search` as a job: `ray job submit --working-dir … -- COMMAND`.

        Args:
            words: The command.
            watch: Called with each line of its log as it comes.
            timeout: Seconds that it may take.

        Returns:
            Its log.

        Raises:
            TutorialError: The cluster can't be reached, the job failed, or took too long; it is stopped then.
        """
        client, command = self._client(), join(words)
        job = Retrying(  # a head that has just started has no agent yet to run a job
            retry=retry_if_exception_message(match=".*No available agent"),
            stop=stop_after_delay(_AGENT_SECONDS),
            wait=wait_fixed(0.5),
            reraise=True,
        )(client.submit_job, entrypoint=command, runtime_env={"working_dir": str(SEARCH)})
        log, state, deadline = list[str](), "PENDING", time.monotonic() + timeout
        with display.progress("The job") as report:
            while state not in _ENDED and time.monotonic() < deadline:
                time.sleep(0.5)
                state = str(client.get_job_status(job).value)
                log, before = client.get_job_logs(job).splitlines(), len(log)
                for line in log[before:]:
                    report(0.5, line)
                    watch(line)
        if state == "SUCCEEDED":
            return log
        client.stop_job(job)
        why = f"it took longer than {timeout:g} s" if state not in _ENDED else client.get_job_info(job).message or state
        raise TutorialError(
            "The Ray job failed", why.strip().splitlines()[0], "read its last lines, and mend the cause",
            command=words, output="\n".join(log),
        )  # fmt: skip

    def _client(self) -> "JobSubmissionClient":
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        from ray.job_submission import JobSubmissionClient

        class Client(JobSubmissionClient):
            """Ray's client, asking by a session of ours, so that no proxy comes between."""

            def _do_request(
                self, method: str, endpoint: str, *, data: Any = None, json_data: Any = None, **how: Any
            ) -> "requests.Response":
                return session.request(method, self._address + endpoint, data=data, json=json_data, **how)

        session, elsewhere = http.session(), os.environ.pop("RAY_ADDRESS", None)  # it would replace our address
        try:
            client = Client(self.url)
        except (ConnectionError, RuntimeError) as error:
            raise TutorialError(
                "Ray can't be reached", str(error).splitlines()[0], f"is {self.url} open? Open the way to it anew"
            ) from None
        finally:
            if elsewhere is not None:
                os.environ["RAY_ADDRESS"] = elsewhere
        for module in ("dashboard.modules.dashboard_sdk", "_private.runtime_env.packaging"):
            logging.getLogger(f"ray.{module}").setLevel(logging.WARNING)  # they tell of each upload
        return client


def lose_a_worker(
    ray: Ray, kill: Callable[[str], None], watch: Callable[[str], None] = lambda line: None
) -> tuple[Search, str]:
    """Search on two workers, and kill the first one that starts a trial.

    The node that the job's driver is on is spared: a driver that dies takes its job along. In a cluster that is the
    head; on one machine Ray takes any of the nodes, for all have the same address.

    Args:
        ray: Where.
        kill: Kills the worker of this name.
        watch: Called with each line that the search says, as it comes.

    Returns:
        What it found, and the name of the worker that was killed.
    """
    spared, killed = list[str](), list[str]()

    def said(line: str) -> None:
        watch(line)
        what, _, node = line.rpartition(" on ")
        if what == "the driver is":
            spared.append(node)
        elif what.endswith(" starts") and node not in spared and not killed:
            killed.append(node)
            kill(node)
            watch(f"{node} is killed")

    return ray.search(2, epochs=_LONG_EPOCHS, trials=4, watch=said), killed[0]


def draw(search: Search) -> None:
    """Show how the search's time goes down with more workers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.6))
    axes = figure.subplots()
    counts, seconds = [r.workers for r in search.rounds], [r.seconds for r in search.rounds]
    axes.bar(counts, seconds, width=0.5, color="#0f766e")
    axes.plot(counts, [seconds[0] * counts[0] / count for count in counts], "o--", color="#d97706", markersize=5)
    for count, value in zip(counts, seconds, strict=True):
        axes.text(count, value / 2, f"{value:.1f} s", ha="center", color="white", fontsize=9)
    axes.set(xticks=counts, xlabel="workers; orange: twice the workers, half the time", ylabel="seconds")
    axes.spines[["top", "right"]].set_visible(False)
    times = ", ".join(f"{value:.1f} s with {count}" for count, value in zip(counts, seconds, strict=True))
    display.figure(figure, f"The same search by workers: {times}; {search.speed_up:.2f} times as fast")
