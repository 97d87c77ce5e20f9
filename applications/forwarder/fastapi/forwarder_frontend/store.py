"""What the frontend reads from Redis, and its one direct write, the configuration. Every call has a deadline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis import asyncio as redis_async
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from . import keys
from .errors import unavailable
from .settings import ANSWER_SECONDS, CONNECT_SECONDS, DEADLINE_SECONDS, Settings

# Sets keys of the configuration only where there is one. KEYS: config; ARGV: field, value, …
_UPDATE = "if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end redis.call('HSET', KEYS[1], unpack(ARGV)) return 1"

NO_RELAY = "Nothing makes connections at present: start applications/forwarder/celery/run_relay.py"

_RUN_FIELDS = ("key", "run", "run-state", "error")
_RUNS = 500  # of them are listed


class Store:
    """Redis, as the routes see it.

    Args:
        settings: Where Redis is.
    """

    def __init__(self, settings: Settings) -> None:
        """Prepare connections; none is opened yet."""
        self._place = settings.redis_place
        pool = redis_async.BlockingConnectionPool(
            host=settings.redis_host,
            port=settings.redis_port,
            db=settings.redis_db,
            password=settings.redis_password or None,
            max_connections=32,
            timeout=DEADLINE_SECONDS,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            socket_keepalive=True,
            decode_responses=True,
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        self._redis: Any = redis_async.Redis(connection_pool=pool)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    @asynccontextmanager
    async def _asking(self, what: str) -> AsyncIterator[Any]:
        """Bound a conversation with Redis, and turn its failure into a 503."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                yield self._redis
        except (RedisError, OSError, TimeoutError) as error:
            raise unavailable(
                what, f"Redis at {self._place} does not answer ({type(error).__name__})", "See that Redis runs"
            ) from error

    async def ping(self) -> None:
        """Ask whether Redis is there.

        Raises:
            ForwarderError: 503 when it is not; so does every other method.
        """
        async with self._asking("The frontend is not ready") as client:
            await client.ping()

    async def configuration(self) -> dict[str, str]:
        """Return the configuration; empty when there is none."""
        async with self._asking("The configuration cannot be read") as client:
            return dict(await client.hgetall(keys.CONFIG))

    async def set_configuration(self, values: Mapping[str, str]) -> None:
        """Replace the configuration."""
        asking = self._asking("The configuration was not stored")
        async with asking as client, client.pipeline(transaction=True) as pipe:
            pipe.delete(keys.CONFIG)
            pipe.hset(keys.CONFIG, mapping=dict(values))
            await pipe.execute()

    async def update_configuration(self, values: Mapping[str, str]) -> bool:
        """Change some keys; return False when there is no configuration yet."""
        pairs = [part for item in values.items() for part in item]
        async with self._asking("The configuration was not changed") as client:
            return bool(await client.eval(_UPDATE, 1, keys.CONFIG, *pairs))

    async def reset_configuration(self) -> None:
        """Forget the configuration."""
        async with self._asking("The configuration was not removed") as client:
            await client.delete(keys.CONFIG)

    async def request(self, identity: str) -> dict[str, str]:
        """Return the record of a request; empty when it is unknown."""
        async with self._asking("The task cannot be looked up") as client:
            return dict(await client.hgetall(keys.request(identity)))

    async def forwards(self, user: str) -> list[dict[str, Any]]:
        """Return all connections of a user as they are wanted and as they are, ordered by key and name."""
        async with self._asking("The forwards cannot be looked up") as client:
            async with client.pipeline(transaction=False) as pipe:
                # In this order: a request leaves `open` in the same step in which it enters `desired`.
                pipe.hgetall(keys.opened(user))
                pipe.hgetall(keys.desired(user))
                pipe.hgetall(keys.status(user))
                pipe.exists(keys.RELAY_ALIVE)
                opened, desired, status, relay = await pipe.execute()
            records: list[list[str | None]] = []
            if opened:
                async with client.pipeline(transaction=False) as pipe:
                    for identity in opened:
                        pipe.hmget(keys.request(identity), "state", "type", "key", "connections", "sequence")
                    records = await pipe.execute()
        return merge(user, records, desired, status, bool(relay))

    async def run(self, identity: str) -> dict[str, Any] | None:
        """Return a run that was submitted here, as far as the backend knows; None when there is none of that id."""
        async with self._asking("The run cannot be looked up") as client:
            return run_row(identity, await client.hmget(keys.request(identity), *_RUN_FIELDS))

    async def runs(self) -> list[dict[str, Any]]:
        """Return the runs that were submitted here: those that wait, then the others, the newest first."""
        async with self._asking("The runs cannot be looked up") as client:
            waiting = list(await client.hkeys(keys.RUNS_WAITING))[:_RUNS]
            identities = waiting + list(await client.zrevrange(keys.RUNS, 0, _RUNS - 1))
            async with client.pipeline(transaction=False) as pipe:
                for identity in identities:
                    pipe.hmget(keys.request(identity), *_RUN_FIELDS)
                records = await pipe.execute()
        rows = (run_row(identity, record) for identity, record in zip(identities, records, strict=True))
        return [row for row in rows if row]

    async def backend_logs(self, lines: int) -> list[str]:
        """Return the last lines that the backend has shipped."""
        async with self._asking("The backend's log cannot be read") as client:
            return list(await client.lrange(keys.BACKEND_LOGS, -lines, -1))

    async def backend_metrics(self) -> dict[str, Any]:
        """Return the last metrics that the backend has shipped."""
        async with self._asking("The backend's metrics cannot be read") as client:
            text = await client.get(keys.BACKEND_METRICS)
        return dict(json.loads(text)) if text else {"time": None, "metrics": []}


def run_row(identity: str, record: Sequence[str | None]) -> dict[str, Any] | None:
    """Return what is told of a run.

    Args:
        identity: The id of the request that submitted it.
        record: The values of `_RUN_FIELDS`.
    """
    key, asked, state, error = record
    if not asked:
        return None
    name = json.loads(asked)["run-id"] or keys.RUN_ID.format(identity)
    return {"dag-id": key, "run-id": name, "state": state or "waiting", "error": error or None}


def merge(
    user: str,
    records: list[list[str | None]],
    desired: Mapping[str, str],
    status: Mapping[str, str],
    relay: bool,
) -> list[dict[str, Any]]:
    """Put together what a user wants and what there is.

    Args:
        user: Whose forwards these are.
        records: State, type, key, connections and sequence of the requests that were open when we looked.
        desired: `key/name` → what is wanted (JSON).
        status: `key/name` → what is there (JSON).
        relay: Whether a relay, or whatever else makes the connections, is running.
    """
    wanted = {place: entry for place, text in desired.items() if "type" in (entry := json.loads(text))}
    for state, kind, key, connections, sequence in records:
        # `done`: it had its effect after `desired` was read; what it wants is known all the same.
        if state not in ("accepted", "done") or kind == "cancel" or not (key and connections and sequence):
            continue
        for connection in json.loads(connections):
            place = f"{key}/{connection['name']}"
            if place not in wanted or wanted[place]["sequence"] < int(sequence):
                wanted[place] = {**connection, "type": kind, "wanted": True, "sequence": int(sequence)}
    return [
        _forward(user, place, wanted[place], json.loads(status.get(place, "{}")), relay) for place in sorted(wanted)
    ]


def _forward(user: str, place: str, entry: Mapping[str, Any], there: Mapping[str, Any], relay: bool) -> dict[str, Any]:
    same = all(there.get(part) == entry[part] for part in ("type", "address", "port"))
    error = there.get("error") if same else None
    if not entry["wanted"]:
        state, error = ("cancelling" if there else "cancelled"), None
    elif there and same and relay:
        state = there["state"]
    else:
        state = "pending"
        error = None if relay else NO_RELAY
    key, _, name = place.partition("/")
    return {
        "user": user,
        "key": key,
        "name": name,
        "type": entry["type"],
        "address": entry["address"],
        "port": entry["port"],
        "state": state,
        "reachable": there.get("reachable") if state in ("active", "failed") else None,
        "bytes-in": there.get("bytes-in", 0),
        "bytes-out": there.get("bytes-out", 0),
        "error": error,
    }
