"""Runs of workflows: submitting is recorded and left to the backend; the rest is asked of Airflow, with a deadline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from .airflow import Airflow, AirflowAway, reason, run_path
from .errors import ForwarderError, unavailable
from .keys import RUN_ID
from .models import OrchRequest
from .publishing import Publisher, Request
from .settings import AIRFLOW_SECONDS, Settings
from .store import Store

_HAND_OVER_SECONDS = 1.0  # for which `run` waits until Airflow has it
_CANCELLED = {"state": "failed", "note": "cancelled through the Forwarder"}


class Runs:
    """Runs, as the routes see them.

    Args:
        settings: Where Airflow is.
        store: What was submitted here.
        publisher: Accepts.
    """

    def __init__(self, settings: Settings, store: Store, publisher: Publisher) -> None:
        """Prepare connections; none is opened yet."""
        self._store, self._publisher, self._there = store, publisher, bool(settings.airflow.host)
        self._airflow = Airflow(settings.airflow, AIRFLOW_SECONDS)

    async def close(self) -> None:
        """Close all connections."""
        await self._airflow.close()

    def must_be_configured(self) -> None:
        """Make sure that there is an Airflow to speak of.

        Raises:
            ForwarderError: 503: none belongs to this Forwarder.
        """
        if not self._there:
            raise unavailable(
                "The workflow engine is not here",
                "No Airflow belongs to this Forwarder yet",
                "Set up an Airflow (chapter 10); AIRFLOW_HOST, AIRFLOW_USERNAME and AIRFLOW_PASSWORD tell of it",
                retry_after=60,
            )

    @asynccontextmanager
    async def _asking(self, what: str) -> AsyncIterator[Airflow]:
        """Bound a conversation with Airflow, and turn its failure into a 503."""
        why = f"Airflow at {self._airflow.place} does not answer in time"
        try:
            async with asyncio.timeout(AIRFLOW_SECONDS):
                yield self._airflow
            return
        except AirflowAway as error:
            why = str(error)
        except TimeoutError:
            pass
        raise unavailable(what, why, "See that Airflow runs, then ask again; what was submitted waits for it")

    async def submit(self, dag: str, values: OrchRequest, idempotency_key: str | None, *, at_once: bool) -> Any:
        """Accept a run.

        Args:
            dag: The workflow.
            values: The run's name and what it is given.
            idempotency_key: The same request under the same key is accepted once.
            at_once: Wait a moment, so that the answer can say what Airflow made of it.
        """
        content = json.dumps({"run-id": values.run_id, "conf": values.conf}, separators=(",", ":"))
        wish = Request("submit", "", dag, content, "run")
        if idempotency_key or values.run_id:  # the name of a run is as good as a key
            wish.remember(idempotency_key or f"run\0{dag}\0{values.run_id}")
        outcome, identity = await self._publisher.accept(wish)
        if outcome == "other":
            raise ForwarderError(
                409,
                "The request was refused",
                "This Idempotency-Key, or this run id, belongs to another request",
                "Send a new one",
            )
        state = await self._handed_over(identity) if at_once else {}
        return {"run-id": values.run_id or RUN_ID.format(identity), "state": "waiting"} | state

    async def _handed_over(self, identity: str) -> dict[str, Any]:
        """Wait a moment for Airflow's state of a run; it is accepted, whatever becomes of the look at it."""
        with suppress(TimeoutError, ForwarderError):
            async with asyncio.timeout(_HAND_OVER_SECONDS):
                while True:
                    row = await self._store.run(identity)
                    if row and (row["state"] != "waiting" or row["error"]):
                        return {"state": row["state"], "error": row["error"]}
                    await asyncio.sleep(0.02)
        return {}

    async def status(self, dag: str, run: str) -> Any:
        """Tell the state of a run; Airflow has the last word."""
        async with self._asking("The run cannot be looked up") as airflow:
            return (await self._find(airflow, dag, run))[1]

    async def cancel(self, dag: str, run: str) -> Any:
        """End a run; one that is over stays as it is."""
        async with self._asking("The run was not cancelled") as airflow:
            there, told = await self._find(airflow, dag, run)
            if there and told["state"] not in ("success", "failed"):
                status, answer = await airflow.call("PATCH", run_path(dag, run), _CANCELLED)
                if status != 200:
                    raise _refused(answer)
                told = _told(answer)
        if told["state"] == "waiting":
            raise unavailable(
                "The run was not cancelled", "It is on its way to Airflow", "Ask again when Airflow has it"
            )
        return told

    async def _find(self, airflow: Airflow, dag: str, run: str) -> tuple[bool, dict[str, Any]]:
        """Look a run up: whether Airflow has it, and what is told of it."""
        for _ in range(
            2
        ):  # what is handed over between the first look at Airflow and that at Redis, the next one finds
            status, answer = await airflow.call("GET", run_path(dag, run))
            if status == 200:
                return True, _told(answer)
            if status != 404:
                raise _refused(answer)
            mine = [r for r in await self._store.runs() if (r["dag-id"], r["run-id"]) == (dag, run)]
            if mine and mine[0]["state"] in ("waiting", "failed"):
                return False, {name: mine[0][name] for name in ("run-id", "state", "error")}
        raise ForwarderError(
            404, "There is no such run", f"Neither Airflow nor the Forwarder has {run} of {dag}", "Submit it first"
        )

    async def dags(self) -> Any:
        """List workflows, each with the runs that were submitted here."""
        dags: dict[str, dict[str, Any]] = {}
        rows, there = await self._store.runs(), "there"
        try:
            async with self._asking("The workflows cannot be listed") as airflow:
                _, answer = await airflow.call("GET", "/dags?limit=100")
        except ForwarderError:
            there, answer = "away", {}
        for dag in answer.get("dags", ()):
            dags[dag["dag_id"]] = {"dag-id": dag["dag_id"], "paused": dag["is_paused"], "runs": []}
        for row in rows:
            dag = dags.setdefault(row["dag-id"], {"dag-id": row["dag-id"], "paused": None, "runs": []})
            dag["runs"].append({name: row[name] for name in ("run-id", "state", "error")})
        return {"airflow": there, "dags": [dags[name] for name in sorted(dags)]}


def _told(run: Any) -> dict[str, Any]:
    """Return what is told of a run that Airflow has."""
    return {
        "run-id": run["dag_run_id"],
        "state": run["state"],
        "error": run["note"] if run["state"] == "failed" else None,
    }


def _refused(answer: Any) -> ForwarderError:
    """Return what is told where Airflow understands a question, and says no."""
    return ForwarderError(409, "Airflow refused it", reason(answer), "See what it says, and ask accordingly")
