"""Chapter 10: Airflow's REST API v2, as notebooks use it; the same for an Airflow in a cluster and one on this machine.

Facts: https://airflow.apache.org/docs/apache-airflow/3.0.6/stable-rest-api-ref.html and
https://airflow.apache.org/docs/apache-airflow/3.0.6/security/api.html (tokens).
"""

import time
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import quote

import requests

from helpers import display, http
from helpers.errors import TutorialError

OVER = ("success", "failed")  # a run in one of these states changes no more
_PAGE = 100
_NOT_THERE = "see that Airflow runs and that the tunnel to it is open, then run the cell again"


class AirflowError(TutorialError):
    """Airflow answered with something else than success.

    Args:
        status: The HTTP status.
        what: What failed.
        why: Why, in Airflow's words.
        remedy: What to do.
    """

    def __init__(self, status: int, what: str, why: str, remedy: str) -> None:
        self.status = status
        super().__init__(f"{what} (HTTP {status})", why, remedy)


class Airflow:
    """Airflow's REST API v2. A token is fetched with the first call, and anew when Airflow refuses it.

    Args:
        url: Where its API server is: `http://127.0.0.1:8080`.
        username: The name to log in with.
        password: Its password; it is never shown.
        timeout: Seconds to wait for one answer.
    """

    def __init__(self, url: str, username: str, password: str, *, timeout: float = 15.0) -> None:
        self.url, self.timeout = url.rstrip("/"), timeout
        self._login = {"username": username, "password": password}
        self._session = http.session()

    def __repr__(self) -> str:
        return f"Airflow({self.url})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def version(self) -> str:
        """Tell Airflow's version.

        Raises:
            TutorialError: Nothing answers, or Airflow says why not; so it is with every method here.
        """
        return str(self._call("GET", "/version")["version"])

    def health(self) -> dict[str, str]:
        """Tell the state of Airflow's parts, `healthy` or not, by name; parts that don't run are left out."""
        parts = self._call("GET", "/monitor/health")
        return {name: str(part["status"]) for name, part in parts.items() if part.get("status")}

    def healthy(self) -> bool:
        """Tell whether database, scheduler and DAG processor are there; False where nothing answers."""
        try:
            parts = self.health()
        except TutorialError:
            return False
        return all(parts.get(name) == "healthy" for name in ("metadatabase", "scheduler", "dag_processor"))

    def dags(self) -> list[dict[str, Any]]:
        """List the DAGs."""
        return list(self._call("GET", "/dags", params={"limit": _PAGE})["dags"])

    def has(self, dag_id: str) -> bool:
        """Tell whether Airflow has read a DAG of that name."""
        return any(dag["dag_id"] == dag_id for dag in self.dags())

    def import_errors(self) -> list[dict[str, Any]]:
        """List the DAG files that could not be read: `filename` and `stack_trace` each."""
        return list(self._call("GET", "/importErrors", params={"limit": _PAGE})["import_errors"])

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, run_id: str = "") -> dict[str, Any]:
        """Start a run of a DAG.

        Args:
            dag_id: The DAG.
            conf: What the run is given (`dag_run.conf`).
            run_id: The run's name; Airflow chooses one where it is empty. A name can be used once (HTTP 409).

        Returns:
            The run.
        """
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        return self._dict("POST", _runs(dag_id), json=body | ({"dag_run_id": run_id} if run_id else {}))

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Give a run; its `state` is `queued`, `running`, `success` or `failed`."""
        return self._dict("GET", _runs(dag_id, run_id))

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """List the runs of a DAG, the newest first."""
        answer = self._call("GET", _runs(dag_id), params={"limit": _PAGE, "order_by": "-run_after"})
        return list(answer["dag_runs"])

    def wait(self, dag_id: str, run_id: str, timeout: float = 120.0) -> dict[str, Any]:
        """Wait until a run is over, and show meanwhile how far it is.

        Args:
            dag_id: The DAG.
            run_id: The run.
            timeout: Seconds to wait.

        Returns:
            The run.

        Raises:
            TutorialError: It isn't over in time; it goes on.
        """
        until, began = time.monotonic() + timeout, time.monotonic()
        with display.progress(f"Run of {dag_id}", timeout, "s") as report:
            while (run := self.run(dag_id, run_id))["state"] not in OVER:
                if time.monotonic() > until:
                    raise TutorialError(
                        f"The run {run_id} of {dag_id} is not over after {timeout:g} s",
                        f"it is {run['state']}",
                        "look whether the scheduler runs and the DAG isn't paused, then wait again",
                    )
                report(time.monotonic() - began, str(run["state"]))
                time.sleep(0.5)
        return run

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """List the tasks of a run: `task_id`, `state`, `try_number`, `duration` in seconds and more."""
        return list(self._call("GET", f"{_runs(dag_id, run_id)}/taskInstances")["task_instances"])

    def log(self, dag_id: str, run_id: str, task_id: str, attempt: int = 1) -> list[str]:
        """Give the lines of a task's log, what the task printed among them.

        Args:
            dag_id: The DAG.
            run_id: The run.
            task_id: The task.
            attempt: Which attempt, from 1 on.
        """
        path = f"{_runs(dag_id, run_id)}/taskInstances/{quote(task_id, safe='')}/logs/{attempt}"
        content = self._call("GET", path, headers={"Accept": "application/json"})["content"]
        return [str(line["event"] if isinstance(line, dict) else line) for line in content]

    def cancel(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """End a run: Airflow marks it `failed` and ends its tasks.

        Returns:
            The run.
        """
        body = {"state": "failed", "note": "cancelled"}
        return self._dict("PATCH", _runs(dag_id, run_id), json=body)

    def pause(self, dag_id: str, paused: bool = True) -> None:
        """Have a DAG's runs wait, or go on."""
        self._call("PATCH", f"/dags/{quote(dag_id, safe='')}", json={"is_paused": paused})

    def _dict(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        return dict(self._call(method, path, **how))

    def _call(self, method: str, path: str, **how: Any) -> Any:
        open_to_all = path in ("/version", "/monitor/health")
        if not open_to_all and "Authorization" not in self._session.headers:
            self._fetch_token()
        answer = self._ask(method, f"/api/v2{path}", **how)
        if answer.status_code in (401, 403):  # the token is over (401), or Airflow signs with another key now (403)
            self._fetch_token()
            answer = self._ask(method, f"/api/v2{path}", **how)
        if not answer.ok:
            raise AirflowError(answer.status_code, f"Airflow refused {method} {path}", _detail(answer), _remedy(answer))
        return answer.json()

    def _fetch_token(self) -> None:
        self._session.headers.pop("Authorization", None)
        answer = self._ask("POST", "/auth/token", json=self._login)
        if not answer.ok:
            raise AirflowError(
                answer.status_code,
                f"Airflow did not let {self._login['username']} in",
                _detail(answer),
                "give the name and the password that this Airflow was set up with",
            )
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def _ask(self, method: str, path: str, **how: Any) -> requests.Response:
        try:
            return self._session.request(method, self.url + path, timeout=self.timeout, **how)
        except requests.Timeout:
            why = f"nothing came within {self.timeout:g} s"
        except requests.RequestException as error:
            why = f"the connection was refused or cut ({type(error).__name__})"
        raise TutorialError(f"Airflow does not answer at {self.url}", why, _NOT_THERE) from None


def _runs(dag_id: str, run_id: str = "") -> str:
    path = f"/dags/{quote(dag_id, safe='')}/dagRuns"
    return f"{path}/{quote(run_id, safe='')}" if run_id else path


def _detail(answer: requests.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return answer.text[:500]
    return str(detail.get("reason") or detail) if isinstance(detail, dict) else str(detail)


def _remedy(answer: requests.Response) -> str:
    return {
        404: "compare the names with those that Airflow lists; a new DAG file takes some seconds to be read",
        409: "such a run is there already: ask for it, or choose another run id",
    }.get(answer.status_code, "read what Airflow says, correct it and run the cell again")
