"""Reconciling: making the cluster what users want, one process at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import LockError, RedisError

from . import keys
from .cluster import Cluster, Service

LOCK_SECONDS = 30.0
# Forgets that a reconcile is due, unless another effect came meanwhile. KEYS: dirty; ARGV: its value before
_CLEAN = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class LockLost(Exception):
    """The lock expired or went to somebody else: the work stops at once."""


@contextmanager
def alone(client: Any, seconds: float = LOCK_SECONDS) -> Iterator[threading.Event | None]:
    """Hold the reconciler's lock, and extend it while it is held.

    Args:
        client: Redis.
        seconds: Its expiry, in case this process dies.

    Yields:
        An event that is set when the lock is lost; None when somebody else holds it.
    """
    lock = client.lock(keys.LOCK, timeout=seconds, thread_local=False)
    if not lock.acquire(blocking=False):
        yield None
        return
    lost, over = threading.Event(), threading.Event()

    def extend() -> None:
        while not over.wait(seconds / 3):
            try:
                lock.extend(seconds, replace_ttl=True)
            except (LockError, RedisError):
                lost.set()
                return

    keeper = threading.Thread(target=extend, name="lock", daemon=True)
    keeper.start()
    try:
        yield lost
    finally:
        over.set()
        keeper.join()
        try:
            lock.release()
        except (LockError, RedisError):
            lost.set()


def reconcile(client: Any, cluster: Cluster) -> int:
    """Reconcile while one is due, unless somebody else is at it: then that one will see that it is due.

    Args:
        client: Redis.
        cluster: What to change.

    Returns:
        How many services were made, changed or removed.

    Raises:
        LockLost: The lock was lost; a reconcile is still due.
    """
    changes = 0
    # Asked again after the lock is released: an effect may have come between the last look and the release.
    while client.exists(keys.DIRTY):
        with alone(client) as lost:
            if lost is None:
                return changes
            version = client.get(keys.DIRTY)
            changes += _once(client, cluster, lost)
            client.eval(_CLEAN, 1, keys.DIRTY, version or "")
    return changes


def _once(client: Any, cluster: Cluster, lost: threading.Event) -> int:
    wanted, there = desired(client), cluster.services()
    steps = [(cluster.apply, service) for service in wanted - there]
    names = {(service.user, service.place) for service in wanted}
    steps += [(cluster.remove, service) for service in there if (service.user, service.place) not in names]
    for step, service in steps:
        if lost.is_set():
            raise LockLost
        step(service)
    return len(steps)


def desired(client: Any) -> set[Service]:
    """Return all services that users want."""
    found = set()
    for user in client.smembers(keys.USERS):
        for place, text in client.hgetall(keys.desired(user)).items():
            entry = json.loads(text)
            if entry["wanted"]:
                found.add(Service(user, place, entry["type"], entry["address"], int(entry["port"])))
    return found
