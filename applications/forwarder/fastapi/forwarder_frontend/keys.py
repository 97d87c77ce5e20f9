"""The wire: names of the Redis keys and of the Celery tasks that the Forwarder's parts meet at."""

from __future__ import annotations

PREFIX = "forwarder:"
CONFIG = PREFIX + "config"
PENDING = PREFIX + "pending"
SEQUENCE = PREFIX + "sequence"
RELAY_ALIVE = PREFIX + "relay:alive"
BACKEND_LOGS = PREFIX + "logs:backend"
BACKEND_METRICS = PREFIX + "metrics:backend"
RUNS = PREFIX + "runs"
RUNS_WAITING = PREFIX + "runs:waiting"

TASK_REQUESTS = "tasks.forwarder-requests"

RUN_ID = "forwarder__{}"  # of a run that was submitted without a name; filled with the request's id


def request(identity: str) -> str:
    """Return the key of a request's record (hash)."""
    return f"{PREFIX}request:{identity}"


def idempotency(user: str, digest: str) -> str:
    """Return the key that remembers an `Idempotency-Key` of a user (hash)."""
    return f"{PREFIX}idempotency:{user}:{digest}"


def opened(user: str) -> str:
    """Return the key of a user's accepted, not yet effected requests (hash: request id → forward key)."""
    return f"{PREFIX}open:{user}"


def desired(user: str) -> str:
    """Return the key of what a user wants (hash: `key/name` → JSON)."""
    return f"{PREFIX}desired:{user}"


def status(user: str) -> str:
    """Return the key of what the cluster has made of it (hash: `key/name` → JSON)."""
    return f"{PREFIX}status:{user}"
