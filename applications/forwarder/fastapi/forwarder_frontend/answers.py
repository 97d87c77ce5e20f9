"""What the routes answer: everything lies in an envelope, `{"output": …}`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


def _hyphenated(name: str) -> str:
    return name.replace("_", "-")


class Answer(BaseModel):
    """A part of an answer; its keys are written with hyphens."""

    model_config = ConfigDict(alias_generator=_hyphenated, populate_by_name=True)


class StateOutput(BaseModel):
    """`state` of the frontend itself."""

    class State(BaseModel):
        """One word."""

        state: str = Field(examples=["ready"])

    output: State


class SetupOutput(BaseModel):
    """`null`, or for `show` the ten keys with their values, secrets masked."""

    output: dict[str, str] | None = Field(examples=[None])


class TaskState(Answer):
    """A request as far as it has come."""

    task_id: str = Field(examples=["01b1db6d-b72e-4a90-a519-a36ed02dc75e"])
    state: Literal["accepted", "done"] = Field(description="`accepted`: durably recorded; `done`: it has had effect")
    type: str = Field(examples=["import"])
    user: str = Field(examples=["reader"])
    key: str = Field(examples=["lab"])


class TaskResult(TaskState):
    """A request with what came out of it."""

    result: dict[str, int] | None = Field(
        description="`null` until done; then how many connections were `applied`, and how many not because a request "
        "accepted later had already decided about them (`superseded`)",
        examples=[{"applied": 1, "superseded": 0}],
    )


class TaskOutput(BaseModel):
    """A task."""

    output: TaskResult | TaskState


class Accepted(Answer):
    """A request that will be done."""

    task_id: str = Field(examples=["01b1db6d-b72e-4a90-a519-a36ed02dc75e"])
    state: Literal["accepted"]


class Forward(Answer):
    """One connection of a user, as it is wanted and as it is."""

    user: str
    key: str
    name: str
    type: Literal["import", "export"]
    address: str
    port: int
    state: Literal["pending", "active", "failed", "cancelling", "cancelled"]
    reachable: str | None = Field(description="Where to connect to, once it is active", examples=["127.0.0.1:8265"])
    bytes_in: int = Field(description="Bytes sent by clients to the address")
    bytes_out: int = Field(description="Bytes sent back by the address")
    error: str | None = Field(description="Why it failed or is still pending", examples=[None])


class Forwards(Answer):
    """The state of all connections of a key; `state` is the worst of them."""

    state: Literal["pending", "active", "failed", "cancelling", "cancelled"]
    connections: list[Forward]


class ForwOutput(BaseModel):
    """`import`, `export`, `cancel`: the task's id. `status`: the connections."""

    output: Accepted | Forwards


class Logs(BaseModel):
    """The last lines of a log."""

    logs: list[str] = Field(
        examples=[["2025-09-30 13:31:39,078 - INFO - forwader-frontend - Frontend ready"]],
    )


class Sample(BaseModel):
    """One value of a metric."""

    name: str = Field(examples=["forwarder_tasks_total"])
    labels: dict[str, str] = Field(examples=[{"task": "tasks.forwarder-requests", "outcome": "SUCCESS"}])
    value: float = Field(examples=[12])


class Metrics(BaseModel):
    """A snapshot of all metrics."""

    time: float | None = Field(description="When it was taken, in seconds since 1970; `null`: never yet")
    metrics: list[Sample]


class UserForwards(BaseModel):
    """All connections of a user."""

    forwards: list[Forward]


class RunState(Answer):
    """A run of a workflow."""

    run_id: str = Field(examples=["forwarder__01b1db6d-b72e-4a90-a519-a36ed02dc75e"])
    state: Literal["waiting", "queued", "running", "success", "failed"] = Field(
        description="`waiting`: durably recorded, Airflow does not have it yet; the others are Airflow's own words"
    )
    error: str | None = Field(
        default=None, description="Why it waits, was refused or was ended, where that is known", examples=[None]
    )


class Dag(Answer):
    """A workflow, with the runs that were submitted here."""

    dag_id: str = Field(examples=["tutorial-hello-world"])
    paused: bool | None = Field(description="`null`: Airflow could not be asked, or has no such workflow")
    runs: list[RunState] = Field(description="As they were when the backend looked last; at most 10 s ago")


class Dags(BaseModel):
    """All workflows; those without runs are known only while Airflow is there."""

    airflow: Literal["there", "away"]
    dags: list[Dag]


class ArtiOutput(BaseModel):
    """The artifact, under its own name."""

    output: Logs | Metrics | UserForwards | Dags


class OrchOutput(BaseModel):
    """The run."""

    output: RunState
