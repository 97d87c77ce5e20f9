"""Runs of workflows: handed over to Airflow, each once, and followed until they are over."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery import Celery
from redis.exceptions import LockError

from . import keys
from .airflow import Airflow, AirflowAway, Login, NoAnswer, reason, run_path
from .settings import AIRFLOW_SECONDS, FOLLOW_SECONDS, KEEP_SECONDS, RETRY_SECONDS

Ask = Callable[..., tuple[int, dict[str, Any]]]  # (method, path, body) → status, answer
OVER = ("success", "failed")
_FOLLOW_AT_MOST = 20.0  # seconds at a time; the lock lives longer

# What came of handing a run over, in one step. A run that was refused is over; the others are followed from now on.
# KEYS: request, pending, waiting, journal, runs, open; ARGV: id, now, seconds to keep it, state, error, `1` if taken
_SETTLE = """
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HGET', KEYS[1], 'state') ~= 'accepted' then return 0 end
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('HSET', KEYS[1], 'state', 'done', 'done', ARGV[2], 'run-state', ARGV[4], 'error', ARGV[5],
  'applied', ARGV[6], 'superseded', 0)
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', 100000, '*', 'id', ARGV[1])
redis.call('ZADD', KEYS[5], ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', ARGV[2] - ARGV[3])
if ARGV[6] == '1' then redis.call('SADD', KEYS[6], ARGV[1]) end
return 1
"""
# Has a request sent again later, unless it was taken back. KEYS: request, pending; ARGV: id, next time, why
_PUT_OFF = """
if redis.call('HGET', KEYS[1], 'state') ~= 'accepted' then return redis.call('ZREM', KEYS[2], ARGV[1]) end
redis.call('HSET', KEYS[1], 'error', ARGV[3])
return redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
"""
# Notes what became of a run that is still known. KEYS: request, open; ARGV: id, state, error, `1` if it is over
_NOTE = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'run-state', ARGV[2], 'error', ARGV[3]) end
if ARGV[4] == '1' then redis.call('SREM', KEYS[2], ARGV[1]) end
"""


def connect(login: Login) -> Ask:
    """Return a function that asks Airflow and waits for the answer; for one thread of one process.

    Args:
        login: Where Airflow is; without one the function raises AirflowAway.
    """
    if not login.host:

        def nobody(*_: object) -> tuple[int, dict[str, Any]]:
            raise AirflowAway("The backend has no AIRFLOW_HOST")

        return nobody
    runner, airflow = asyncio.Runner(), Airflow(login, AIRFLOW_SECONDS)
    return lambda method, path, body=None: runner.run(airflow.call(method, path, body))


def hand_over(client: Any, ask: Ask, identity: str) -> str:
    """Hand a submitted run over to Airflow; doing it twice is harmless, for a run's name is taken once.

    Args:
        client: Redis.
        ask: Airflow.
        identity: The id of the request that submitted it.

    Returns:
        What became of it, for the log.

    A run that Airflow refuses for good, because it has no such workflow for one, is `failed`; one that it can't take
    now waits, and is sent again.
    """
    dag, text = client.hmget(keys.request(identity), "key", "run")
    if not text:
        return "gone"  # it was taken back; its client heard 503
    asked = json.loads(text)
    run = asked["run-id"] or keys.RUN_ID.format(identity)
    try:
        away = client.get(keys.AIRFLOW_AWAY)  # somebody found out just now: many that wait don't all have to
        if away:
            raise AirflowAway(away)
        body = {"dag_run_id": run, "logical_date": None, "conf": asked["conf"]}
        status, answer = ask("POST", run_path(dag), body)
        if status == 409:  # it was handed over before, and the word of that was lost
            status, answer = ask("GET", run_path(dag, run))
    except AirflowAway as error:
        if isinstance(error, NoAnswer):
            client.set(keys.AIRFLOW_AWAY, str(error), ex=RETRY_SECONDS)
        places = [keys.request(identity), keys.PENDING]
        client.eval(_PUT_OFF, len(places), *places, identity, time.time() + RETRY_SECONDS, str(error))
        return f"waits: {error}"
    taken = status == 200
    outcome = (answer["state"], "", 1) if taken else ("failed", f"{reason(answer)} (HTTP {status})", 0)
    places = [keys.request(identity), keys.PENDING, keys.RUNS_WAITING, keys.JOURNAL, keys.RUNS, keys.RUNS_OPEN]
    client.eval(_SETTLE, len(places), *places, identity, time.time(), KEEP_SECONDS, *outcome)
    return "handed over" if taken else f"refused: {outcome[1]}"


def follow(client: Any, ask: Ask) -> None:
    """Look up the states of the runs that go on; one process at a time.

    Args:
        client: Redis.
        ask: Airflow.
    """
    lock = client.lock(keys.RUNS_LOCK, timeout=2 * _FOLLOW_AT_MOST, thread_local=False)
    if not lock.acquire(blocking=False):
        return
    until = time.monotonic() + _FOLLOW_AT_MOST
    try:
        client.set(keys.RUNS_FOLLOWED, "1", ex=FOLLOW_SECONDS)
        with suppress(AirflowAway):
            for identity in client.srandmember(keys.RUNS_OPEN, 100):
                if time.monotonic() < until:
                    _look(client, ask, identity)
    finally:
        with suppress(LockError):
            lock.release()


def _look(client: Any, ask: Ask, identity: str) -> None:
    dag, text = client.hmget(keys.request(identity), "key", "run")
    state, error = "failed", "Airflow has it no more"
    if text:  # else it went on for longer than its record was kept
        run = json.loads(text)["run-id"] or keys.RUN_ID.format(identity)
        status, answer = ask("GET", run_path(dag, run))
        if status == 200:
            state, error = answer["state"], (answer.get("note") or "") if answer["state"] == "failed" else ""
        elif status != 404:
            raise AirflowAway(reason(answer))
    places = [keys.request(identity), keys.RUNS_OPEN]
    client.eval(_NOTE, len(places), *places, identity, state, error, int(state in OVER))


def follow_soon(client: Any, app: Celery) -> None:
    """Send a trigger where runs go on and nobody has looked after them for a while: no scheduler need run.

    Args:
        client: Redis.
        app: Sends.
    """
    if client.exists(keys.RUNS_OPEN) and client.set(keys.RUNS_FOLLOWED, "1", nx=True, ex=FOLLOW_SECONDS):
        app.send_task(keys.TASK_TRIGGER, ignore_result=True)
