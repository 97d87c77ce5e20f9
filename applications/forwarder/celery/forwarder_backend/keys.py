"""The wire: names of the Redis keys and of the Celery tasks that the Forwarder's parts meet at."""

from __future__ import annotations

PREFIX = "forwarder:"
PENDING = PREFIX + "pending"
USERS = PREFIX + "users"
JOURNAL = PREFIX + "journal"
LOCK = PREFIX + "lock"
DIRTY = PREFIX + "dirty"
RELAY_SERVICES = PREFIX + "relay:services"
RELAY_ALIVE = PREFIX + "relay:alive"
BACKEND_LOGS = PREFIX + "logs:backend"
BACKEND_METRICS = PREFIX + "metrics:backend"
RUNS = PREFIX + "runs"
RUNS_WAITING = PREFIX + "runs:waiting"
RUNS_OPEN = PREFIX + "runs:open"
RUNS_FOLLOWED = PREFIX + "runs:followed"
RUNS_LOCK = PREFIX + "runs:lock"
AIRFLOW_AWAY = PREFIX + "airflow:away"

TASK_REQUESTS = "tasks.forwarder-requests"
TASK_TRIGGER = "tasks.forwarder-trigger"
QUEUE = "celery"

RUN_ID = "forwarder__{}"  # of a run that was submitted without a name; filled with the request's id


def request(identity: str) -> str:
    """Return the key of a request's record (hash)."""
    return f"{PREFIX}request:{identity}"


def opened(user: str) -> str:
    """Return the key of a user's accepted, not yet effected requests (hash: request id → forward key)."""
    return f"{PREFIX}open:{user}"


def desired(user: str) -> str:
    """Return the key of what a user wants (hash: `key/name` → JSON)."""
    return f"{PREFIX}desired:{user}"


def status(user: str) -> str:
    """Return the key of what the cluster has made of it (hash: `key/name` → JSON)."""
    return f"{PREFIX}status:{user}"
