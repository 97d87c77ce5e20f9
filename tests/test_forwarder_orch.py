"""Workflows: the client of Airflow, an Airflow on this machine, and the Forwarder's `orch` routes in front of it."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fault_proxy import BadDay, Fault, proxy
from forwarder_stack import Stack, stack, wait_until

from helpers.airflow import Airflow, AirflowError
from helpers.airflow_local import LocalAirflow
from helpers.errors import TutorialError
from helpers.forwarder import Forwarder, Refused
from helpers.processes import free_port
from helpers.settings import settings

pytestmark = [pytest.mark.component, pytest.mark.timeout(300)]
DAGS = Path(__file__).parent / "data" / "dags"


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTORIAL_STATE", str(tmp_path_factory.mktemp("airflow")))
        settings.cache_clear()
        try:
            with LocalAirflow(dags=DAGS) as made:
                wait_until(lambda: made.client.has("quick") and made.client.has("slow"), 60, "the DAGs are read")
                yield made
        finally:
            settings.cache_clear()


@pytest.fixture
def day() -> BadDay:
    return BadDay()


@pytest.fixture
def door(airflow: LocalAirflow, day: BadDay) -> Iterator[str]:
    """The way to Airflow, on which a bad day can happen."""
    with proxy(int(airflow.url.rpartition(":")[2]), day) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def made(airflow: LocalAirflow, door: str, tmp_path: Path) -> Iterator[Stack]:
    with stack(tmp_path, **airflow.credentials() | {"AIRFLOW_HOST": door}) as running:
        running.frontend()
        yield running


def _submit(made: Stack, dag: str = "quick", kind: str = "submit", **body: object) -> str:
    answer = made.post(f"interaction/orch/{kind}/{dag}", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["output"]["state"] == "waiting" or kind == "run"
    return str(answer.json()["output"]["run-id"])


def _state(made: Stack, run: str, dag: str = "quick") -> dict[str, object]:
    answer = made.post(f"interaction/orch/status/{dag}", {"run-id": run})
    return dict(answer.json()["output"]) if answer.status_code == 200 else {"state": answer.status_code}


def _listed(made: Stack, run: str, dag: str = "quick") -> dict[str, object]:
    dags = made.get("interaction/arti/dags/reader").json()["output"]["dags"]
    rows = [row for found in dags if found["dag-id"] == dag for row in found["runs"] if row["run-id"] == run]
    return dict(rows[0]) if rows else {}


def _posts(day: BadDay, dag: str = "quick") -> int:
    return day.seen.count(f"POST /api/v2/dags/{dag}/dagRuns")


def test_the_client_runs_reads_and_cancels(airflow: LocalAirflow) -> None:
    with airflow.client as client:
        assert client.version() == "3.0.6" and client.healthy() and client.import_errors() == []
        run = client.trigger("quick", {"word": "swordfish"}, "first")
        with pytest.raises(AirflowError, match="409"):
            client.trigger("quick", run_id="first")
        assert client.wait("quick", run["dag_run_id"])["state"] == "success"
        assert [(t["task_id"], t["state"]) for t in client.tasks("quick", "first")] == [("say", "success")]
        assert "swordfish" in client.log("quick", "first", "say")
        assert "first" in {r["dag_run_id"] for r in client.runs("quick")}
        client.trigger("slow", run_id="ended")
        wait_until(lambda: [t["state"] for t in client.tasks("slow", "ended")] == ["running"], 40)
        with pytest.raises(TutorialError, match="not over after 0"):
            client.wait("slow", "ended", timeout=0)
        assert client.cancel("slow", "ended")["state"] == "failed"
        client.pause("slow")
        assert next(d for d in client.dags() if d["dag_id"] == "slow")["is_paused"]
        client.pause("slow", False)
        with pytest.raises(AirflowError, match="404"):
            client.run("quick", "none")
        client._session.headers["Authorization"] = "Bearer over"
        assert client.dags(), "a new token is fetched"
    assert oct((settings().state / "local/airflow/passwords.json").stat().st_mode)[-3:] == "600"


def test_the_client_s_refusals_are_clear_and_hold_no_password(airflow: LocalAirflow) -> None:
    with pytest.raises(AirflowError, match="did not let admin in") as caught:
        Airflow(airflow.url, "admin", "swordfish").dags()
    assert caught.value.status == 401 and "swordfish" not in str(caught.value)
    nobody = Airflow(f"http://127.0.0.1:{free_port()}", "admin", "x")
    assert not nobody.healthy()
    with pytest.raises(TutorialError, match="does not answer"):
        nobody.version()


def test_a_run_is_handed_over_followed_and_listed(made: Stack, airflow: LocalAirflow, day: BadDay) -> None:
    made.backend()
    run = _submit(made, conf={"word": "tuna"})
    wait_until(lambda: _state(made, run)["state"] == "success", 40)
    assert "tuna" in airflow.client.log("quick", run, "say")
    wait_until(lambda: _listed(made, run) == {"run-id": run, "state": "success", "error": None}, 20, "without Beat")
    task = made.get(f"interaction/task/result/{run.removeprefix('forwarder__')}").json()["output"]
    assert (task["state"], task["type"], task["key"], task["result"]["applied"]) == ("done", "submit", "quick", 1)

    named = _submit(made, kind="run", **{"run-id": "my-run"})
    assert named == "my-run"
    wait_until(lambda: _posts(day) == 2, 20)
    assert _submit(made, **{"run-id": "my-run"}) == "my-run", "a repetition is the same run"
    assert made.post("interaction/orch/submit/quick", {"run-id": "my-run", "conf": {"x": 1}}).status_code == 409
    header = {"Idempotency-Key": "k1"}
    first, again = (made.post("interaction/orch/submit/quick", {}, headers=header).json()["output"] for _ in range(2))
    assert first == again
    made.client.delete(*made.client.keys("forwarder:idempotency:*"))  # they are remembered for a day only
    _submit(made, **{"run-id": "my-run"})
    wait_until(lambda: not made.client.hlen("forwarder:runs:waiting"), 20)
    assert [r["dag_run_id"] for r in airflow.client.runs("quick")].count("my-run") == 1


def test_what_airflow_refuses_is_failed_with_the_reason(made: Stack) -> None:
    made.backend()
    _submit(made, "none", **{"run-id": "r"})
    wait_until(lambda: _state(made, "r", "none")["state"] == "failed", 20)
    error = str(_state(made, "r", "none")["error"])
    assert "not found" in error and "404" in error
    again = made.post("interaction/orch/run/none", {"run-id": "r"}).json()["output"]
    assert again == {"run-id": "r", "state": "failed", "error": error}, "`run` says what became of it"
    assert _listed(made, "r", "none")["state"] == "failed"
    for kind in ("status", "cancel"):
        assert made.post(f"interaction/orch/{kind}/quick", {"run-id": "none"}).status_code == 404
        assert made.post(f"interaction/orch/{kind}/quick").status_code == 422
    for body in ({"run-id": "a/b"}, {"run-id": ".."}, {"run_id": "x"}, {"conf": [1]}):
        assert made.post("interaction/orch/submit/quick", body).status_code == 422, body
    assert made.post("interaction/orch/submit/..%2fx").status_code == 404


def test_a_running_run_is_cancelled_and_a_finished_one_is_left(made: Stack, airflow: LocalAirflow) -> None:
    made.backend()
    run = _submit(made, "slow")
    wait_until(lambda: _state(made, run, "slow")["state"] == "running", 40)
    # Until its task runs, Airflow's scheduler may write over the state: SQLite knows no locks of rows.
    wait_until(lambda: [t["state"] for t in airflow.client.tasks("slow", run)] == ["running"], 40)
    answer = made.post("interaction/orch/cancel/slow", {"run-id": run}).json()["output"]
    assert answer == {"run-id": run, "state": "failed", "error": "cancelled through the Forwarder"}
    assert airflow.client.run("slow", run)["state"] == "failed"
    done = _submit(made, kind="run")
    wait_until(lambda: _state(made, done)["state"] == "success", 40)
    assert made.post("interaction/orch/cancel/quick", {"run-id": done}).json()["output"]["state"] == "success"


def test_while_airflow_is_away_runs_wait_and_are_sent_once_when_it_is_back(
    made: Stack, airflow: LocalAirflow, day: BadDay
) -> None:
    backend = made.backend()
    airflow.stop("api-server")
    try:
        submitted = [_submit(made) for _ in range(3)]
        for kind in ("status", "cancel"):
            began = time.monotonic()
            answer = made.post(f"interaction/orch/{kind}/quick", {"run-id": submitted[0]})
            assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1
            assert time.monotonic() - began < 2
        assert made.post("interaction/orch/run/quick", {"run-id": "at-once"}).json()["output"]["state"] == "waiting"
        wait_until(lambda: "does not answer" in str(_listed(made, submitted[0]).get("error")), 15)
        assert made.get("interaction/arti/dags/reader").json()["output"]["airflow"] == "away"
        backend.kill()
    finally:
        airflow.start("api-server")
    made.backend()
    wait_until(lambda: not made.client.hlen("forwarder:runs:waiting"), 40)
    names = [run["dag_run_id"] for run in airflow.client.runs("quick")]
    assert [names.count(run) for run in [*submitted, "at-once"]] == [1] * 4


def test_the_course_s_client_submits_waits_and_cancels(made: Stack, airflow: LocalAirflow, day: BadDay) -> None:
    made.backend()
    with Forwarder(port=made.env["FASTAPI_PORT"], patience=0) as client:
        run = client.submit("quick", {"word": "cod"}, "named")
        assert run == client.submit("quick", {"word": "cod"}, "named") == "named"
        day.faults.append(Fault("GET", "dagRuns/named$", 2))
        assert client.wait_run("quick", run, 60)["state"] == "success", "also while Airflow was away"
        with pytest.raises(Refused, match="409"):
            client.submit("quick", {"word": "hake"}, "named")
        endless = client.submit("slow")
        with pytest.raises(TutorialError, match="not over after 0"):
            client.wait_run("slow", endless, timeout=0)
        wait_until(lambda: client.run_status("slow", endless)["state"] == "running", 30)
        assert client.run_cancel("slow", endless)["state"] == "failed"
        assert {"quick", "slow"} <= {dag["dag-id"] for dag in client.dags("reader") if dag["paused"] is False}


def test_a_run_that_is_handed_over_while_it_is_looked_up_is_found(
    made: Stack, airflow: LocalAirflow, day: BadDay
) -> None:
    made.backend()
    run = _submit(made)
    wait_until(lambda: not made.client.hlen("forwarder:runs:waiting"), 40)
    day.faults.append(Fault("GET", f"dagRuns/{run}$", 1, 404))  # as Airflow answered just before
    assert made.post("interaction/orch/status/quick", {"run-id": run}).status_code == 200
    assert day.faults[0].times == 0


def test_a_lost_answer_and_a_silent_airflow_do_no_harm(made: Stack, airflow: LocalAirflow, day: BadDay) -> None:
    made.backend()
    day.faults += [Fault("POST", "dagRuns$", 1, 0, reaches=True), Fault("POST", "dagRuns$", 1, 500)]
    run = _submit(made, **{"run-id": "lost-answer"})
    wait_until(lambda: _state(made, run)["state"] in ("running", "success"), 40)
    wait_until(lambda: not made.client.hlen("forwarder:runs:waiting"), 20)
    assert [r["dag_run_id"] for r in airflow.client.runs("quick")].count(run) == 1
    assert _posts(day) == 3


def test_a_token_that_is_over_is_fetched_anew_and_the_password_is_in_no_log(
    made: Stack, airflow: LocalAirflow, day: BadDay
) -> None:
    backend = made.backend(AIRFLOW_PASSWORD="swordfish-1")
    run = _submit(made)
    wait_until(lambda: "AIRFLOW_PASSWORD" in str(_listed(made, run).get("error")), 20, "it waits, and says for what")
    backend.stop()
    backend = made.backend()
    wait_until(lambda: _state(made, run)["state"] == "success", 60)
    fetched = day.seen.count("POST /auth/token")
    day.faults.append(Fault("GET", f"dagRuns/{run}$", 1, 401))
    assert _state(made, run)["state"] == "success"
    assert day.seen.count("POST /auth/token") == fetched + 1
    texts = [path.read_text(errors="replace") for path in made.folder.rglob("*") if path.suffix in (".log", ".out")]
    password = airflow.credentials()["AIRFLOW_PASSWORD"]
    assert texts and not any(password in text or "swordfish" in text or "Bearer ey" in text for text in texts)


def test_airflow_s_silence_holds_up_no_other_request(airflow: LocalAirflow, tmp_path: Path) -> None:
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and never answers
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with stack(tmp_path, AIRFLOW_HOST=host, AIRFLOW_PASSWORD="x") as made:
            made.frontend()
            codes: list[int] = []

            def ask() -> None:
                codes.append(made.post("interaction/orch/status/quick", {"run-id": "r"}).status_code)

            began = time.monotonic()
            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
            time.sleep(0.2)
            asked = time.monotonic()
            assert requests.get(f"{made.url}/health", timeout=5).status_code == 200
            assert time.monotonic() - asked < 1
            for thread in threads:
                thread.join()
            assert codes == [503] * 8 and time.monotonic() - began < 2.5
            assert re.search("does not answer", made.post("interaction/orch/status/quick", {"run-id": "r"}).text)
