"""The routes: they validate, ask `Store` or hand over to `Publisher`, and answer. Nothing blocks the event loop."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse

from . import answers, metrics, models
from .errors import FieldProblem, ForwarderError, documented, invalid, wrong_value
from .logs import keep_last, logger, read_tail
from .models import (
    DAG_ID,
    LABEL,
    ArtiType,
    Configuration,
    ForwardRequest,
    ForwType,
    Mode,
    OrchRequest,
    OrchType,
    TaskType,
)
from .publishing import Request as Accepted
from .settings import LOG_BYTES

router = APIRouter()
_STATES = ("failed", "pending", "cancelling", "active", "cancelled")  # the worst first
User = Annotated[str, Path(description="Whose connections these are", pattern=LABEL, examples=["reader"])]
Key = Annotated[str, Path(description="The name of a group of connections", pattern=LABEL, examples=["lab"])]

IdempotencyKey = Annotated[
    str | None, Header(description="The same request under the same key is accepted once", max_length=255)
]


def _output(value: Any, status: int = 200) -> JSONResponse:
    return JSONResponse({"output": value}, status)


@router.post(
    "/setup/config/{mode}",
    tags=["setup"],
    summary="Store, change, show or remove the configuration",
    response_model=answers.SetupOutput,
    responses=documented(404, 409, 422, 503),
)
async def setup(
    request: Request,
    mode: Annotated[Mode, Path(description="`init` stores all ten keys, `update` changes some, `show`, `reset`")],
    values: Annotated[Configuration | None, Body(description="All keys for `init`, some for `update`")] = None,
) -> Response:
    """Keep what the Forwarder has to know of the object store.

    `init` and `update` answer `{"output": null}`, as does `reset`; `show` answers the ten keys, the token masked.
    """
    store, given = request.app.state.store, values.given() if values else {}
    if mode is Mode.init:
        missing = [name for name in Configuration.wire_names() if name not in given]
        if missing:
            raise invalid([FieldProblem(field=f"body.{name}", problem="`init` wants all ten keys") for name in missing])
        await store.set_configuration(given)
    elif mode is Mode.update:
        if not given:
            raise invalid([FieldProblem(field="body", problem="`update` wants at least one of the ten keys")])
        if not await store.update_configuration(given):
            raise _not_configured()
    elif mode is Mode.reset:
        await store.reset_configuration()
    else:
        configuration = await store.configuration()
        if not configuration:
            raise _not_configured()
        return _output(models.masked(configuration))
    logger.info("Configuration: %s", mode.value)
    return _output(None)


def _not_configured() -> ForwarderError:
    return ForwarderError(409, "There is no configuration", "None was stored", "POST /setup/config/init first")


@router.get(
    "/interaction/task/{type}/{identity}",
    tags=["task"],
    summary="Tell how far an accepted request has come",
    response_model=answers.TaskOutput,
    responses=documented(404, 422, 503),
)
async def task(
    request: Request,
    type: Annotated[TaskType, Path(description="`status`, or `result` for the counts as well")],
    identity: Annotated[str, Path(description="The `task-id` of the answer that accepted it", max_length=64)],
) -> Response:
    """Say `accepted` or `done`. Ids of requests are known for a week after they are done."""
    record = await request.app.state.store.request(identity)
    if not record:
        raise ForwarderError(
            404,
            "There is no such task",
            "No accepted request has this id",
            "Use the task-id that the request was answered with",
        )
    answer: dict[str, Any] = {"task-id": identity} | {name: record[name] for name in ("state", "type", "user", "key")}
    if type is TaskType.result:
        done = record["state"] == "done"
        counts = {name: int(record.get(name, 0)) for name in ("applied", "superseded")}
        answer["result"] = counts if done else None
    return _output(answer)


@router.post(
    "/interaction/orch/{type}/{key}",
    tags=["orch"],
    summary="Submit, show or cancel a run of a workflow",
    response_model=answers.OrchOutput,
    responses=documented(404, 409, 422, 503),
)
async def orch(
    request: Request,
    type: Annotated[OrchType, Path(description="What to do")],
    key: Annotated[
        str, Path(description="The id of the DAG", pattern=DAG_ID, max_length=250, examples=["tutorial-hello-world"])
    ],
    values: Annotated[OrchRequest | None, Body()] = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Accept a run of a workflow, tell its state, or end it.

    `submit` answers at once: the run is durably recorded in state `waiting`, and is handed over to Airflow once, when
    Airflow is there. `run` does the same and waits up to a second, so that its answer can say what Airflow made of it.
    `status` and `cancel` ask Airflow; while it is away they answer 503.
    """
    runs, values = request.app.state.runs, values or OrchRequest()
    runs.must_be_configured()
    if type in (OrchType.submit, OrchType.run):
        return _output(await runs.submit(key, values, idempotency_key, at_once=type is OrchType.run))
    if not values.run_id:
        raise invalid([FieldProblem(field="body.run-id", problem=f"`{type.value}` wants a run id")])
    return _output(await (runs.status if type is OrchType.status else runs.cancel)(key, values.run_id))


@router.post(
    "/interaction/forw/{type}/{user}/{key}",
    tags=["forw"],
    summary="Import, export, show or cancel connections",
    response_model=answers.ForwOutput,
    responses=documented(404, 409, 422, 503),
)
async def forw(
    request: Request,
    type: Annotated[ForwType, Path(description="What to do")],
    user: User,
    key: Key,
    values: Annotated[ForwardRequest | None, Body()] = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Accept a wish and answer with its task id; it will be done, even if a process is killed meanwhile.

    `import` makes outside addresses reachable here, `export` makes services reachable from outside, `cancel` ends what
    is named, or all of the key. `status` answers at once, with each connection as it is now.
    """
    connections = [c.model_dump() for c in values.connections] if values else []
    if type is ForwType.status:
        rows = await request.app.state.store.forwards(user)
        names = {c["name"] for c in connections}
        rows = [row for row in rows if row["key"] == key and (not names or row["name"] in names)]
        if not rows:
            raise ForwarderError(
                404,
                "There are no such connections",
                f"{user} has none under the key {key}",
                "POST …/forw/import/… first",
            )
        state = next(state for state in _STATES if state in {row["state"] for row in rows})
        return _output({"state": state, "connections": rows})
    if type is not ForwType.cancel and not connections:
        raise invalid([FieldProblem(field="body.connections", problem=f"`{type.value}` wants at least one connection")])
    wish = Accepted(type.value, user, key, json.dumps(connections, separators=(",", ":")))
    if idempotency_key:
        wish.remember(idempotency_key)
    outcome, identity = await request.app.state.publisher.accept(wish)
    if outcome == "other":
        raise ForwarderError(
            409,
            "The request was refused",
            "This Idempotency-Key belongs to another request",
            "Send a new Idempotency-Key",
        )
    return _output({"task-id": identity, "state": "accepted"})


@router.get(
    "/interaction/arti/{type}/{target}",
    tags=["arti"],
    summary="Fetch logs, metrics, forwards or workflows",
    response_model=answers.ArtiOutput,
    responses=documented(404, 422, 503),
)
async def arti(
    request: Request,
    type: Annotated[ArtiType, Path(description="Which artifact")],
    target: Annotated[
        str,
        Path(
            description="`frontend` or `backend` for logs and metrics, else a user",
            max_length=63,
            examples=["frontend"],
        ),
    ],
    lines: Annotated[int, Query(description="For logs: at most so many lines", ge=1, le=10_000)] = 100,
) -> Response:
    """Give the last lines of a log (at most 1 MiB), a snapshot of the metrics, a user's connections, or workflows."""
    logger.info("Artifact interaction")
    store = request.app.state.store
    if type is ArtiType.dags:
        request.app.state.runs.must_be_configured()
        return _output(await request.app.state.runs.dags())
    if type is ArtiType.forwards:
        return _output({"forwards": await store.forwards(target)})
    if target not in ("frontend", "backend"):
        raise wrong_value("target", target, ("frontend", "backend"))
    if type is ArtiType.logs:
        if target == "backend":
            return _output({"logs": keep_last(await store.backend_logs(lines), LOG_BYTES)})
        file = request.app.state.settings.log_file
        return _output({"logs": await asyncio.to_thread(read_tail, file, lines, LOG_BYTES)})
    if target == "backend":
        return _output(await store.backend_metrics())
    return _output({"time": None, "metrics": metrics.samples()} | {"time": metrics.now()})


@router.get("/health", tags=["state"], summary="Is the process alive?", response_model=answers.StateOutput)
async def health() -> Response:
    """Answer 200 while the event loop turns, whatever becomes of Redis."""
    return _output({"state": "alive"})


@router.get(
    "/ready", tags=["state"], summary="Can it accept requests?", response_model=answers.StateOutput,
    responses={503: documented(503)[503]},
)  # fmt: skip
async def ready(request: Request) -> Response:
    """Answer 200 when Redis answers, else 503."""
    await request.app.state.store.ping()
    return _output({"state": "ready"})


@router.get("/metrics", tags=["state"], summary="Metrics for Prometheus", response_class=Response,
            responses={200: {"content": {"text/plain": {"example": "forwarder_accepted_total 12.0"}}}})  # fmt: skip
async def prometheus() -> Response:
    """Give all metrics in Prometheus's text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
