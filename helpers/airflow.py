"""Chapter 10: Airflow's REST API v2, as notebooks use it; the same for an Airflow in a cluster and one on this machine.

Facts: https://airflow.apache.org/docs/apache-airflow/3.0.6/stable-rest-api-ref.html and
https://airflow.apache.org/docs/apache-airflow/3.0.6/security/api.html (tokens).
"""

import re
import time
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import quote

import requests

from helpers import display, http
from helpers.errors import TutorialError, mask

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
        return str(self._field("GET", "/version", "version", str))

    def health(self) -> dict[str, str]:
        """Tell the state of Airflow's parts, `healthy` or not, by name; parts that don't run are left out."""
        parts = self._dict("GET", "/monitor/health")
        known = {name: part["status"] for name, part in parts.items() if isinstance(part, dict) and part.get("status")}
        return {name: str(status) for name, status in known.items()}

    def healthy(self) -> bool:
        """Tell whether database, scheduler and DAG processor are there; False where nothing answers."""
        try:
            parts = self.health()
        except TutorialError:
            return False
        return all(parts.get(name) == "healthy" for name in ("metadatabase", "scheduler", "dag_processor"))

    def dags(self) -> list[dict[str, Any]]:
        """List the DAGs."""
        return self._all("/dags", "dags")

    def has(self, dag_id: str) -> bool:
        """Tell whether Airflow has read a DAG of that name."""
        return any(dag.get("dag_id") == dag_id for dag in self.dags())

    def import_errors(self) -> list[dict[str, Any]]:
        """List the DAG files that could not be read: `filename` and `stack_trace` each."""
        return self._all("/importErrors", "import_errors")

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
        return self._all(_runs(dag_id), "dag_runs", order_by="-run_after")

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
            while _part(run := self.run(dag_id, run_id), "state", str, "GET " + _runs(dag_id, run_id)) not in OVER:
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
        """List the tasks of a run: `task_id`, `map_index`, `state`, `try_number`, `duration` in seconds and more."""
        return self._all(f"{_runs(dag_id, run_id)}/taskInstances", "task_instances")

    def log(self, dag_id: str, run_id: str, task_id: str, attempt: int = 1, map_index: int = -1) -> list[str]:
        """Give the lines of a task's log, what the task printed among them.

        Airflow 3 also says where it looked for the log and why a place could not be read (`sources`), and how a task
        failed (`error_detail`). These are lines of their own, below the one that they belong to.

        Args:
            dag_id: The DAG.
            run_id: The run.
            task_id: The task.
            attempt: Which attempt, from 1 on.
            map_index: Which instance of a mapped task, from 0 on; -1 where the task is not mapped.
        """
        path = f"{_runs(dag_id, run_id)}/taskInstances/{quote(task_id, safe='')}/logs/{attempt}"
        how = {
            "headers": {"Accept": "application/json"},
            "params": {"map_index": map_index} if map_index >= 0 else None,
        }
        content = self._field("GET", path, "content", (list, str), **how)
        lines = (
            content.splitlines() if isinstance(content, str) else [text for line in content for text in _lines(line)]
        )
        return [mask(line) for line in lines]

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

    def _all(self, path: str, name: str, **params: str) -> list[dict[str, Any]]:
        """Read a list page by page: Airflow gives 50 entries where nothing is said, and 100 at most."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self._dict("GET", path, params={**params, "limit": _PAGE, "offset": len(found)})
            page = _part(answer, name, list, f"GET {path}")
            found += page
            total = answer.get("total_entries")
            over = len(found) >= total if isinstance(total, int) else len(page) < _PAGE
            if not page or over:
                return found

    def _dict(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        return dict(_part({"": self._call(method, path, **how)}, "", dict, f"{method} {path}"))

    def _field(self, method: str, path: str, name: str, kind: type | tuple[type, ...], **how: Any) -> Any:
        return _part(self._dict(method, path, **how), name, kind, f"{method} {path}")

    def _call(self, method: str, path: str, **how: Any) -> Any:
        """Ask Airflow, logged in where that is needed; give its JSON, None for an empty answer."""
        open_to_all = path in ("/version", "/monitor/health")
        if not open_to_all and "Authorization" not in self._session.headers:
            self._fetch_token()
        answer = self._ask(method, f"/api/v2{path}", **how)
        if answer.status_code in (401, 403):  # the token is over (401), or Airflow signs with another key now (403)
            self._fetch_token()
            answer = self._ask(method, f"/api/v2{path}", **how)
        if not answer.ok:
            self._refuse_others(answer)
            raise AirflowError(answer.status_code, f"Airflow refused {method} {path}", _detail(answer), _remedy(answer))
        return self._json(answer)

    def _json(self, answer: requests.Response) -> Any:
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError:
            self._refuse_others(answer)
            why = f"its answer of {len(answer.content)} bytes is not JSON, or not all of it came"
            raise AirflowError(
                answer.status_code, f"Airflow's answer can't be read at {self.url}", why, _NOT_THERE
            ) from None

    def _refuse_others(self, answer: requests.Response) -> None:
        """Say what answers in Airflow 3's place: a page for people, from a proxy or a login, or Airflow 2."""
        if answer.status_code in (404, 405) and not _is_of_airflow_3(answer) and self._is_airflow_2():
            why, remedy = "it has the REST API v1, and this client speaks v2", "install Airflow 3: chapter 10"
            raise AirflowError(answer.status_code, f"Airflow 2 answers at {self.url}", why, remedy)
        if "html" not in answer.headers.get("Content-Type", "") and answer.content.lstrip()[:1] != b"<":
            return
        title = re.search(r"(?is)<title[^>]*>\s*(.*?)\s*</title>", answer.text)
        what = f"a web page for people{f', {title[1]!r}' if title and title[1] else ''}"
        why = f"{answer.url.partition('?')[0]} gave {what}, as a proxy, a login or a wrong path does"
        raise AirflowError(
            answer.status_code, f"What answers at {self.url} is not Airflow's REST API", why,
            "give the address of Airflow's API server itself, and see that the tunnel leads there",
        )  # fmt: skip

    def _is_airflow_2(self) -> bool:
        try:
            found = self._ask("GET", "/api/v1/health").json()
        except (TutorialError, ValueError):
            return False
        return isinstance(found, dict) and "metadatabase" in found

    def _fetch_token(self) -> None:
        self._session.headers.pop("Authorization", None)
        answer = self._ask("POST", "/auth/token", json=self._login)
        if not answer.ok:
            self._refuse_others(answer)
            raise AirflowError(
                answer.status_code,
                f"Airflow did not let {self._login['username']} in",
                _detail(answer),
                "give the name and the password that this Airflow was set up with",
            )
        token = _part({"": self._json(answer)}, "", dict, "POST /auth/token")
        self._session.headers["Authorization"] = f"Bearer {_part(token, 'access_token', str, 'POST /auth/token')}"

    def _ask(self, method: str, path: str, **how: Any) -> requests.Response:
        try:
            return self._session.request(method, self.url + path, timeout=self.timeout, **how)
        except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema):
            why, remedy = "that is not the address of a server", "give an address such as http://127.0.0.1:8080"
            raise TutorialError(f"Airflow can't be asked at {self.url!r}", why, remedy) from None
        except requests.Timeout:
            why = f"nothing came within {self.timeout:g} s"
        except requests.RequestException as error:
            why = f"the connection was refused or cut ({type(error).__name__})"
        raise TutorialError(f"Airflow does not answer at {self.url}", why, _NOT_THERE) from None


def _runs(dag_id: str, run_id: str = "") -> str:
    path = f"/dags/{quote(dag_id, safe='')}/dagRuns"
    return f"{path}/{quote(run_id, safe='')}" if run_id else path


def _part(answer: Any, name: str, kind: type | tuple[type, ...], question: str) -> Any:
    """Give a part of an answer; Airflow always has it, and what is not Airflow has not."""
    if isinstance(answer.get(name), kind):
        return answer[name]
    what = f"Airflow's answer to {question} is not what its REST API v2 gives"
    why = f"it has no {name}" if name else "it is empty, or no JSON object"
    raise TutorialError(what, why, "see that it is Airflow 3 that answers there, then run the cell again")


def _is_of_airflow_3(answer: requests.Response) -> bool:
    """Tell whether an error is one of Airflow 3: JSON without a `title`, which those of Airflow 2 have."""
    return "json" in answer.headers.get("Content-Type", "") and b'"title"' not in answer.content


def _lines(line: Any) -> list[str]:
    """Give the lines of an entry of a log: what happened, where Airflow looked, and how the task failed."""
    if not isinstance(line, dict):
        return [str(line)]
    sources, errors = line.get("sources") or (), line.get("error_detail") or ()
    found = [str(line.get("event") or "")]
    found += [str(source) for source in ([sources] if isinstance(sources, str) else sources)]
    errors = [errors] if isinstance(errors, str) else errors
    return found + [f"{e.get('exc_type')}: {e.get('exc_value')}" if isinstance(e, dict) else str(e) for e in errors]


def _detail(answer: requests.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return answer.text[:500]
    if detail is None:
        return answer.text[:500]
    if isinstance(detail, list):  # a field that does not fit (422): each with its place and what is wrong with it
        return "; ".join(
            f"{'.'.join(map(str, d.get('loc', ())))}: {d.get('msg')}" for d in detail if isinstance(d, dict)
        )
    return str(detail.get("reason") or detail) if isinstance(detail, dict) else str(detail)


def _remedy(answer: requests.Response) -> str:
    return {
        404: "compare the names with those that Airflow lists; a new DAG file takes some seconds to be read",
        409: "such a run is there already: ask for it, or choose another run id",
    }.get(answer.status_code, "read what Airflow says, correct it and run the cell again")
