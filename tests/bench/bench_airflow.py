"""From submitting a DAG run to its success: through the Forwarder, against Airflow's REST API called directly.

The same DAG (one task that prints) in the same Airflow on this machine, one run at a time. Rounds alternate, each state
is asked for every 0.1 s; the median of the rounds' ratios counts.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from forwarder_stack import stack, wait_until

from helpers.airflow_local import LocalAirflow
from helpers.forwarder import Forwarder
from helpers.settings import settings

ROUNDS, DAG = 7, "quick"
DAGS = Path(__file__).parents[1] / "data" / "dags"


def _until_success(submit: Callable[[], str], state: Callable[[str], str]) -> float:
    began = time.perf_counter()
    run = submit()
    while (now := state(run)) != "success":
        if now == "failed":
            sys.exit(f"run {run} failed")
        time.sleep(0.1)
    return time.perf_counter() - began


def _measure(folder: Path, airflow: LocalAirflow) -> None:
    with stack(folder / "forwarder", **airflow.credentials()) as made, airflow.client as direct:
        made.frontend()
        made.backend()
        wait_until(lambda: direct.has(DAG), 60)
        with Forwarder(port=made.env["FASTAPI_PORT"]) as forwarder:
            ways = {
                "Airflow directly": (
                    lambda: str(direct.trigger(DAG)["dag_run_id"]),
                    lambda run: str(direct.run(DAG, run)["state"]),
                ),
                "through the Forwarder": (
                    lambda: forwarder.submit(DAG),
                    lambda run: str(forwarder.run_status(DAG, run)["state"]),
                ),
            }
            times: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(ROUNDS + 1):
                for name, way in ways.items():
                    seconds = _until_success(*way)
                    if number:  # the first round warms up
                        times[name].append(seconds)
    for name, measured in times.items():
        ratio = statistics.median(a / b for a, b in zip(measured, times["Airflow directly"], strict=True))
        print(
            f"{name:22} {statistics.median(measured):5.2f} s from submit to success   {ratio:.2f} of calling directly"
        )


def main() -> None:
    """Print the times and the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TUTORIAL_STATE"] = f"{folder}/state"
        settings.cache_clear()
        with LocalAirflow(dags=DAGS) as airflow:
            _measure(Path(folder), airflow)


if __name__ == "__main__":
    main()
