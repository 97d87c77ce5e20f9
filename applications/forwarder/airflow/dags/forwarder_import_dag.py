"""A DAG that uses the Forwarder: it imports connections, waits until they are active, and tells their addresses."""

import os
from datetime import timedelta
from typing import Any

import requests
from airflow.exceptions import AirflowFailException
from airflow.sdk import Param, PokeReturnValue, dag, get_current_context, task

URL = os.environ.get("FORWARDER_URL", "http://fastapi-service.forwarder.svc.cluster.local:7600")
TOKEN = os.environ.get("FORWARDER_TOKEN", "")
SECONDS = 30
CONNECTION = {
    "type": "object",
    "required": ["name", "address", "port"],
    "properties": {"name": {"type": "string"}, "address": {"type": "string"}, "port": {"type": "integer"}},
}
# What a run is triggered with, its conf; Airflow refuses one that does not fit.
PARAMS = {
    "user": Param("reader", type="string", description="whose connections these are"),
    "key": Param("airflow", type="string", description="the name under which they are kept"),
    "connections": Param(
        [{"name": "web", "address": "10.0.0.1", "port": 80}],
        type="array",
        items=CONNECTION,
        minItems=1,
        description="what is to be reached from inside the cluster",
    ),
}


def ask(action: str, params: dict[str, Any], **headers: str) -> dict[str, Any]:
    """Call a route of the Forwarder; what it refuses fails the task at once, what is away is tried again."""
    if TOKEN:
        headers["Authorization"] = f"Bearer {TOKEN}"
    with requests.Session() as session:
        session.trust_env = False  # the Forwarder is near: no proxy, to which the token would go as well
        answer = session.post(
            f"{URL}/interaction/forw/{action}/{params['user']}/{params['key']}",
            json={"connections": params["connections"]} if action == "import" else {},
            headers=headers,
            timeout=SECONDS,
        )
    if 400 <= answer.status_code < 500:
        raise AirflowFailException(f"The Forwarder refuses to {action}: {answer.text}")
    answer.raise_for_status()
    output: dict[str, Any] = answer.json()["output"]
    return output


@dag(
    dag_id="tutorial-forwarder-import",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    params=PARAMS,
    tags=["tutorial", "forwarder"],
    default_args={"retries": 3, "retry_delay": timedelta(seconds=5)},
)
def forwarder_import_dag() -> None:
    """Import connections through the Forwarder and wait until they are active."""

    @task
    def request_import() -> str:
        """Ask for the import; the run's own id makes a repetition harmless."""
        context = get_current_context()
        output = ask("import", context["params"], **{"Idempotency-Key": context["run_id"]})
        return str(output["task-id"])

    @task.sensor(poke_interval=2, timeout=180)
    def wait_until_active(request: str) -> PokeReturnValue:
        """Ask for the state until all connections are active; give where they are reached."""
        status = ask("status", get_current_context()["params"])
        print(f"request {request}: {status['state']}")
        reached = {c["name"]: c["reachable"] for c in status["connections"]}
        return PokeReturnValue(is_done=status["state"] == "active", xcom_value=reached)

    @task
    def tell(reached: dict[str, str]) -> dict[str, str]:
        """Print where each connection is reached, for the log."""
        for name, address in reached.items():
            print(f"{name} is reached at {address}")
        return reached

    tell(wait_until_active(request_import()))


forwarder_import_dag()
