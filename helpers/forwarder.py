"""The Forwarder's client: the two functions that the tutorial's readers know, and a small typed one for notebooks.

It speaks the routes that `applications/README.md` and the frontend's `/docs` describe, and imports nothing of them.
"""

import json
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self
from urllib.parse import quote

import requests
from tenacity import RetryCallState, Retrying, retry_if_exception
from urllib3.exceptions import ProtocolError

from helpers import display, http
from helpers.errors import TutorialError, mask

ROUTES = {
    "setup": "POST:/setup/config/mode",
    "task": "GET:/interaction/task/type/identity",
    "orch": "POST:/interaction/orch/type/key",
    "forw": "POST:/interaction/forw/type/user/key",
    "arti": "GET:/interaction/arti/type/target",
}
METHODS = ("GET", "POST")
_NOT_THERE = (
    "start the Forwarder (chapter 08, section “Start the Forwarder”), or correct the address and the port; "
    "`tutorial doctor` says who uses a port"
)


class Refused(TutorialError):
    """The Forwarder answered with something else than success.

    Args:
        status: The HTTP status.
        what: What failed.
        why: Why, in the frontend's words.
        remedy: What to do, in the frontend's words.
        retry_after: The seconds that the frontend asks to wait (header `Retry-After`); None where it doesn't.
        fields: The refused fields of the request (status 422).
    """

    def __init__(
        self, status: int, what: str, why: str, remedy: str, retry_after: float | None, fields: Sequence[str]
    ) -> None:
        self.status, self.retry_after, self.fields = status, retry_after, tuple(fields)
        super().__init__(f"{what} (HTTP {status})", why, remedy)


def _origin(address: str, port: int | str) -> str:
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _ask(
    session: requests.Session, method: str, url: str, timeout: Any, *, repeat: bool = False, **how: Any
) -> requests.Response:
    """Ask; where a repetition does no harm, once more when the connection was cut, as idle ones in a tunnel are."""
    try:
        try:
            return session.request(method, url, timeout=timeout, **how)
        except requests.ConnectionError as error:
            if not (repeat and isinstance(error.args[0], ProtocolError)):
                raise
        return session.request(method, url, timeout=timeout, **how)
    except requests.Timeout:
        raise TutorialError(
            f"The Forwarder did not answer {method} {url}",
            f"nothing came within {timeout} s",
            "allow more time with timeout=, or read its log: state folder, local/forwarder/logs/frontend.log",
        ) from None
    except requests.ConnectionError:
        raise TutorialError(f"Nothing answers at {url}", "the connection was refused or cut", _NOT_THERE) from None
    except (requests.RequestException, ValueError) as error:  # urllib3 has ValueErrors of its own for odd addresses
        raise TutorialError(f"{url} can't be asked", str(error), "correct the address and the port") from None


def get_forwarder_route(
    address: str,
    port: str,
    route_type: str,
    route_name: str,
    path_replacers: Mapping[str, str],
    path_names: Sequence[str],
) -> tuple[str, str]:
    """Build the method and the address of a route, and print `Used route: …`.

    Parameters, result and printed line are those of the tutorial's part 5, section "YAML Deployment".

    Args:
        address: Host name or IP address of the frontend.
        port: Its port.
        route_type: `GET` or `POST` in place of the route's own method; empty keeps that.
        route_name: `setup`, `task`, `orch`, `forw` or `arti`.
        path_replacers: What to put in place of a part of the route's path: `{'mode': 'init'}`. Empty values are left.
        path_names: Further parts for the end of the path.

    Returns:
        The method and the full address.

    Raises:
        TutorialError: There is no such route or method.
    """
    if route_name not in ROUTES:
        raise TutorialError(
            f"The Forwarder has no route {route_name!r}", "", f"route_name is one of: {', '.join(ROUTES)}"
        )
    method, _, path = ROUTES[route_name].partition(":")
    method = route_type or method
    if method not in METHODS:
        raise TutorialError(f"{method!r} is not a method of the Forwarder", "", "route_type is '', 'GET' or 'POST'")
    parts = [path_replacers.get(part, "") or part for part in path.split("/")] + list(path_names)
    sys.stdout.write(f"Used route: {method}:{'/'.join(parts)}\n")
    return method, _origin(address, port) + "/".join(quote(part, safe="") for part in parts)


def request_forwarder_route(
    address: str,
    port: str,
    route_type: str,
    route_name: str,
    path_replacers: Mapping[str, str],
    path_names: Sequence[str],
    route_input: Any,
    timeout: float | None,
) -> tuple[int, Any]:
    """Call a route of the Forwarder.

    Parameters and result are those of the tutorial's part 5, section "YAML Deployment".

    Args:
        address: Host name or IP address of the frontend.
        port: Its port.
        route_type: `GET` or `POST` in place of the route's own method; empty keeps that.
        route_name: `setup`, `task`, `orch`, `forw` or `arti`.
        path_replacers: What to put in place of a part of the route's path.
        path_names: Further parts for the end of the path.
        route_input: What is sent as JSON.
        timeout: Seconds to wait for the answer.

    Returns:
        The status code and, when that is 200, the parsed answer; else an empty dictionary.

    Raises:
        TutorialError: There is no such route, or nothing answered in time.
    """
    method, url = get_forwarder_route(address, port, route_type, route_name, path_replacers, path_names)
    with http.session() as session:
        response = _ask(session, method, url, timeout, json=route_input)
    return response.status_code, json.loads(response.text) if response.status_code == 200 else {}


class Forwarder:
    """The Forwarder as notebooks use it: one method a route, results without their envelope, clear errors.

    Args:
        address: Host name or IP address of the frontend.
        port: Its port.
        token: The bearer token, where the frontend wants one (`FORWARDER_TOKEN`).
        timeout: Seconds to wait for one answer.
        patience: Seconds for which a call that is safe to repeat is repeated while the answer is 503; 0 never does.
    """

    def __init__(
        self,
        address: str = "127.0.0.1",
        port: int | str = 7600,
        token: str | None = None,
        *,
        timeout: float = 10.0,
        patience: float = 15.0,
    ) -> None:
        self.url, self.timeout, self.patience = _origin(address, port), timeout, patience
        self._session = http.session()
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def __repr__(self) -> str:
        return f"Forwarder({self.url})"

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def setup(self, mode: str, values: Mapping[str, str] | None = None) -> dict[str, str] | None:
        """Store, change, show or remove the configuration.

        Args:
            mode: `init`, `update`, `show` or `reset`.
            values: The ten keys for `init`, some of them for `update`.

        Returns:
            For `show` the configuration with its secrets masked, else None.

        Raises:
            Refused: The frontend says why; so it is with every method here.
        """
        output: dict[str, str] | None = self._call("POST", ("setup", "config", mode), body=dict(values or {}))
        return output

    def config(self) -> dict[str, str] | None:
        """Give the stored configuration, secrets masked."""
        return self.setup("show")

    def task(self, task_id: str, kind: str = "status") -> dict[str, Any]:
        """Tell how far an accepted request has come.

        Args:
            task_id: What `forward_import` and the like returned.
            kind: `status`, or `result` for the counts of what was applied as well.
        """
        return self._dict("GET", ("interaction", "task", kind, task_id))

    def wait(self, task_id: str, timeout: float = 30.0) -> dict[str, Any]:
        """Wait until an accepted request is done.

        Args:
            task_id: What `forward_import` and the like returned.
            timeout: Seconds to wait.

        Returns:
            The task with its `result`.

        Raises:
            TutorialError: It isn't done in time; it stays accepted and will be done later.
        """
        until, pause = time.monotonic() + timeout, 0.02
        while self.task(task_id)["state"] != "done":
            if time.monotonic() > until:
                raise TutorialError(
                    f"Task {task_id} is not done after {timeout:g} s",
                    "it is accepted, and no worker has come to it yet",
                    "see that the backend runs (the table of processes), then wait again",
                )
            time.sleep(pause)
            pause = min(2 * pause, 0.5)
        return self.task(task_id, "result")

    def forward_import(
        self, user: str, key: str, connections: Sequence[Mapping[str, Any]], idempotency_key: str = ""
    ) -> str:
        """Bring addresses from outside in.

        Args:
            user: Whose connections these are.
            key: The name of this group of connections.
            connections: `{"name": …, "address": …, "port": …}` each.
            idempotency_key: Sending a request again under the same key has no second effect; by default a new one.

        Returns:
            The id of the task that does it.
        """
        return self._accept("import", user, key, connections, idempotency_key)

    def forward_export(
        self, user: str, key: str, connections: Sequence[Mapping[str, Any]], idempotency_key: str = ""
    ) -> str:
        """Make services reachable from outside; parameters and result as in `forward_import`."""
        return self._accept("export", user, key, connections, idempotency_key)

    def forward_cancel(
        self, user: str, key: str, connections: Sequence[Mapping[str, Any]] = (), idempotency_key: str = ""
    ) -> str:
        """End connections, all of the key where none is named; parameters and result as in `forward_import`."""
        return self._accept("cancel", user, key, connections, idempotency_key)

    def forward_status(self, user: str, key: str) -> dict[str, Any]:
        """Tell the state of a key's connections: `{"state": the worst, "connections": […]}`."""
        return self._dict("POST", ("interaction", "forw", "status", user, key), body={})

    def orch(self, kind: str, key: str, values: Mapping[str, Any] | None = None) -> Any:
        """Drive a workflow of Airflow; a 503 is not repeated, for a second `run` would be a second run.

        Args:
            kind: `submit`, `run`, `status` or `cancel`.
            key: The id of the DAG.
            values: `run-id` and `conf`.
        """
        return self._call("POST", ("interaction", "orch", kind, key), body=dict(values or {}), repeat=False)

    def submit(
        self, key: str, conf: Mapping[str, Any] | None = None, run_id: str = "", idempotency_key: str = ""
    ) -> str:
        """Submit a run of a workflow: it is handed over to Airflow once, when that is there.

        Args:
            key: The id of the DAG.
            conf: What the run is given.
            run_id: The run's name; by default the frontend makes one.
            idempotency_key: Sending a request again under the same key has no second effect; by default the run's name,
                else a new one.

        Returns:
            The run's name.
        """
        body = {"conf": dict(conf or {})} | ({"run-id": run_id} if run_id else {})
        headers = {"Idempotency-Key": idempotency_key or f"{key}/{run_id or uuid.uuid4()}"}
        return str(self._dict("POST", ("interaction", "orch", "submit", key), body=body, headers=headers)["run-id"])

    def run_status(self, key: str, run_id: str) -> dict[str, Any]:
        """Tell the `state` of a run (`waiting`, `queued`, `running`, `success` or `failed`) and its `error`."""
        return self._dict("POST", ("interaction", "orch", "status", key), body={"run-id": run_id})

    def run_cancel(self, key: str, run_id: str) -> dict[str, Any]:
        """End a run; Airflow calls it `failed` then. One that is over stays as it is."""
        return self._dict("POST", ("interaction", "orch", "cancel", key), body={"run-id": run_id})

    def wait_run(self, key: str, run_id: str, timeout: float = 120.0) -> dict[str, Any]:
        """Wait until a run is over, also while Airflow is away.

        Args:
            key: The id of the DAG.
            run_id: The run's name.
            timeout: Seconds to wait.

        Returns:
            Its last state, as `run_status` gives it.

        Raises:
            TutorialError: It isn't over in time; it goes on, or will be handed over later.
        """
        began = time.monotonic()
        with display.progress(f"Run of {key}", timeout, "s") as report:
            while (run := self._run_or_wait(key, run_id))["state"] not in ("success", "failed"):
                if time.monotonic() - began > timeout:
                    raise TutorialError(
                        f"The run {run_id} of {key} is not over after {timeout:g} s",
                        str(run.get("error") or f"it is {run['state']}"),
                        "see that Airflow and the Forwarder's backend run and the DAG isn't paused, then wait again",
                    )
                report(time.monotonic() - began, str(run["state"]))
                time.sleep(0.5)
        return run

    def _run_or_wait(self, key: str, run_id: str) -> dict[str, Any]:
        try:
            return self.run_status(key, run_id)
        except Refused as error:
            if error.status != 503:
                raise
            return {"run-id": run_id, "state": "waiting", "error": error.why}

    def logs(self, target: str = "backend", lines: int = 100) -> list[str]:
        """Give the last lines of a log, secrets masked.

        Args:
            target: `frontend` or `backend`.
            lines: At most so many.
        """
        output: list[str] = self._artifact("logs", target, {"lines": lines})["logs"]
        return [mask(line) for line in output]

    def metrics(self, target: str = "backend") -> list[dict[str, Any]]:
        """Give the metrics of `frontend` or `backend`: `{"name": …, "labels": …, "value": …}` each."""
        output: list[dict[str, Any]] = self._artifact("metrics", target)["metrics"]
        return output

    def metric(self, name: str, target: str = "backend", **labels: str) -> float:
        """Give the sum of a metric's samples that have these labels; 0 where there is none."""
        return sum(
            float(sample["value"])
            for sample in self.metrics(target)
            if sample["name"] == name and labels.items() <= sample["labels"].items()
        )

    def forwards(self, user: str) -> list[dict[str, Any]]:
        """Give all connections of a user, as they are wanted and as they are."""
        output: list[dict[str, Any]] = self._artifact("forwards", user)["forwards"]
        return output

    def dags(self, user: str) -> list[dict[str, Any]]:
        """Give the workflows: `{"dag-id": …, "paused": …, "runs": what was submitted to the Forwarder}` each."""
        output: list[dict[str, Any]] = self._artifact("dags", user)["dags"]
        return output

    def health(self) -> bool:
        """Tell whether the frontend is alive."""
        return self._answers("/health")

    def ready(self) -> bool:
        """Tell whether the frontend can accept requests, which takes Redis as well."""
        return self._answers("/ready")

    def _answers(self, path: str) -> bool:
        try:
            return _ask(self._session, "GET", self.url + path, self.timeout).status_code == 200
        except TutorialError:
            return False

    def _artifact(self, kind: str, target: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._dict("GET", ("interaction", "arti", kind, target), params=dict(query or {}))

    def _accept(
        self, kind: str, user: str, key: str, connections: Sequence[Mapping[str, Any]], idempotency_key: str
    ) -> str:
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        body = {"connections": [dict(c) for c in connections]}
        path = ("interaction", "forw", kind, user, key)
        return str(self._dict("POST", path, body=body, headers=headers)["task-id"])

    def _dict(self, method: str, path: Sequence[str], **how: Any) -> dict[str, Any]:
        output: dict[str, Any] = self._call(method, path, **how)
        return output

    def _call(self, method: str, path: Sequence[str], *, body: Any = None, repeat: bool = True, **how: Any) -> Any:
        url = self.url + "".join("/" + quote(part, safe="") for part in path)

        def once() -> Any:
            response = _ask(self._session, method, url, self.timeout, repeat=repeat, json=body, **how)
            if not response.ok:
                raise _refusal(response)
            return response.json()["output"]

        until = time.monotonic() + (self.patience if repeat else 0)
        return Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, Refused) and error.status == 503),
            stop=lambda state: time.monotonic() + _wait(state) > until,
            wait=_wait,
            reraise=True,
        )(once)


def _wait(state: RetryCallState) -> float:
    """Give the seconds that the frontend asked to wait (RFC 9110, section 10.2.3)."""
    error = state.outcome.exception() if state.outcome else None
    return (error.retry_after if isinstance(error, Refused) else None) or 1.0


def _refusal(response: requests.Response) -> Refused:
    """Read the frontend's one shape of errors: `{"detail": {"what", "why", "remedy", "errors"}}`."""
    try:
        detail = dict(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = {"what": f"{response.url} answered", "why": response.text[:500], "remedy": _NOT_THERE}
    after = response.headers.get("Retry-After", "")
    return Refused(
        response.status_code,
        str(detail.get("what", "")),
        str(detail.get("why", "")),
        str(detail.get("remedy", "")),
        float(after) if after.isdigit() else None,
        [str(error["field"]) for error in detail.get("errors", ())],
    )


def refusal(call: Callable[[], object]) -> Refused:
    """Make a call that the Forwarder is to refuse, and show its answer as a reader meets it.

    Args:
        call: The call.

    Returns:
        What the Forwarder said.

    Raises:
        TutorialError: It was not refused.
    """
    try:
        call()
    except Refused as error:
        rows = {"status": error.status, "what": error.what, "why": error.why, "remedy": error.remedy}
        if error.retry_after:
            rows["Retry-After"] = f"{error.retry_after:g} s"
        display.table([{"answer": k, "text": v} for k, v in rows.items()])
        return error
    raise TutorialError("The Forwarder accepted what it was to refuse", "", "tell the authors: this is a bug")


def accept_many(
    client: Forwarder,
    user: str,
    key: str,
    connection: Mapping[str, Any],
    count: int,
    halfway: Callable[[], object] | None = None,
) -> list[str]:
    """Send many requests, one after the other, and go on while something happens.

    Args:
        client: The Forwarder.
        user: Whose connections these are.
        key: The name of the group of connections.
        connection: What each request imports; the same one, so that only one connection is made.
        count: How many requests.
        halfway: Called once, after half of them.

    Returns:
        The ids of the accepted tasks.
    """
    tasks = []
    with display.progress(f"Send {count} requests", count) as report:
        for number in range(count):
            if halfway and number == count // 2:
                halfway()
            tasks.append(client.forward_import(user, key, [connection]))
            if number % 10 == 9:
                report(number + 1)
    return tasks
