"""Accepting requests: record each durably in Redis, then send it to Celery, never on the event loop.

One thread does both, for all requests that wait at the moment (a group commit: with `appendfsync always` they share one
disk write). A broker that is away or silent keeps that thread busy, not the event loop, and each request has a deadline
of its own, after which it is answered 503 and will not be sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import redis
from celery import Celery
from kombu.utils.json import dumps
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from . import keys, metrics, scripts
from .errors import unavailable
from .logs import logger
from .settings import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    DEADLINE_SECONDS,
    IDEMPOTENCY_SECONDS,
    RESEND_AFTER_SECONDS,
    VISIBILITY_SECONDS,
    Settings,
)

BATCH = 64


@dataclass(slots=True, eq=False)
class Request:
    """A validated request on its way into Redis and Celery."""

    type: str
    user: str
    key: str
    connections: str
    digest: str = ""
    fingerprint: str = ""
    identity: str = field(default_factory=lambda: str(uuid.uuid4()))
    future: asyncio.Future[tuple[str, str]] | None = None
    deadline: float = 0.0


def celery_client(settings: Settings) -> Celery:
    """Return the Celery app that sends tasks: no result backend, hence no subscription per task that could leak."""
    client = Celery("tasks", broker=settings.redis_url)
    client.conf.update(
        task_ignore_result=True,
        task_publish_retry=True,
        # One more try on a fresh connection, at once: the pooled one may be from before a restart of Redis.
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0},
        broker_connection_timeout=CONNECT_SECONDS,
        broker_pool_limit=2,
        broker_transport_options={
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": ANSWER_SECONDS,
            "socket_keepalive": True,
            "retry_on_timeout": False,
            "visibility_timeout": VISIBILITY_SECONDS,
        },
    )
    return client


@contextlib.contextmanager
def _in_one_go(channel: Any) -> Iterator[None]:
    """Have a channel collect messages, and put them all into Redis in the end (kombu itself sends each alone)."""
    with channel.conn_or_acquire() as client:
        pipe = client.pipeline(transaction=False)

        def put(queue: str, message: Any, **_: Any) -> None:
            priority = channel._get_message_priority(message, reverse=False)
            pipe.lpush(channel._q_for_pri(queue, priority), dumps(message))

        channel._put = put
        try:
            yield
        finally:
            del channel._put
        pipe.execute()


class Publisher:
    """Accepts requests.

    Args:
        settings: Where Redis is.
        client: The Celery app to send with.
    """

    def __init__(self, settings: Settings, client: Celery) -> None:
        """Prepare connections; none is opened yet."""
        self._place = settings.redis_place
        self._client = client
        self._redis: Any = redis.Redis(
            host=settings.redis_host,
            port=settings.redis_port,
            db=settings.redis_db,
            password=settings.redis_password or None,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            socket_keepalive=True,
            decode_responses=True,
            # A lost connection is made anew at once; a silent Redis is not asked twice.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        )
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._withdrawn: dict[str, Request] = {}
        self._accept = self._withdraw = ""

    def start(self) -> None:
        """Start the thread; call it on the event loop."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(loop,), name="publisher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the thread finish what waits, then end it."""
        self._queue.put(None)
        if self._thread:
            self._thread.join(timeout=3)
        with contextlib.suppress(Exception):
            self._redis.close()
            self._client.close()

    async def accept(self, request: Request) -> tuple[str, str]:
        """Record and send a request.

        Returns:
            What became of it and its task id: `new`, `same` (accepted before under this idempotency key, as that id) or
            `other` (the idempotency key belongs to another request).

        Raises:
            ForwarderError: 503 when Redis does not take it within the deadline.
        """
        loop = asyncio.get_running_loop()
        request.future = loop.create_future()
        request.deadline = time.monotonic() + DEADLINE_SECONDS
        self._queue.put(request)
        timer = loop.call_later(DEADLINE_SECONDS, self._give_up, request)
        try:
            return await request.future
        except (RedisError, OSError, TimeoutError) as error:
            raise unavailable(
                "The request was not accepted",
                f"Redis at {self._place} does not answer ({type(error).__name__})",
                "See that Redis runs, then send the request again, best with the same Idempotency-Key",
            ) from error
        finally:
            timer.cancel()

    @staticmethod
    def _give_up(request: Request) -> None:
        if request.future and not request.future.done():
            request.future.set_exception(TimeoutError("deadline"))

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take what waits, deal with it, tell the event loop, again and again."""
        while True:
            batch = self._take()
            if batch is None:
                return
            try:
                results = self._deal(batch)
            except Exception as error:
                # Kombu wraps what Redis says in its own errors; to the client all of them mean: not now.
                logger.warning("Publishing failed: %s", type(error).__name__)
                results = [(request, ConnectionError(str(error))) for request in batch]
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
                loop.call_soon_threadsafe(self._tell, results)

    def _take(self) -> list[Request] | None:
        first = self._queue.get()
        if first is None:
            return None
        batch = [first]
        with contextlib.suppress(queue.Empty):
            while len(batch) < BATCH:
                item = self._queue.get_nowait()
                if item is None:
                    self._queue.put(None)
                    break
                batch.append(item)
        now = time.monotonic()
        return [request for request in batch if request.deadline > now]

    @staticmethod
    def _tell(results: list[tuple[Request, Any]]) -> None:
        for request, result in results:
            if request.future is None or request.future.done():
                continue
            if isinstance(result, Exception):
                request.future.set_exception(result)
            else:
                request.future.set_result(result)

    def _deal(self, batch: list[Request]) -> list[tuple[Request, Any]]:
        """Record a batch and send it. A request that is not both is withdrawn: its client hears 503."""
        if not batch:
            return []
        if self._withdrawn:
            self._take_back()
        results: list[tuple[Request, Any]] = []
        try:
            outcomes = self._record(batch)
        except Exception:
            self._withdrawn.update((request.identity, request) for request in batch)
            raise
        now = time.monotonic()
        fresh = [
            request
            for request, (kind, _) in zip(batch, outcomes, strict=True)
            if kind == "new" and request.deadline > now
        ]
        broken: Exception = TimeoutError("deadline")
        try:
            self._send(fresh)
        except Exception as error:
            logger.warning("Publishing failed: %s", type(error).__name__)
            broken, fresh = ConnectionError(type(error).__name__), []
        sent = {request.identity for request in fresh}
        for request, (kind, identity) in zip(batch, outcomes, strict=True):
            if kind == "new" and request.identity not in sent:
                self._withdrawn[request.identity] = request
                results.append((request, broken))
                continue
            if kind == "new":
                metrics.ACCEPTED.labels(request.type).inc()
            results.append((request, (kind, identity)))
        if self._withdrawn:
            with contextlib.suppress(RedisError, OSError):
                self._take_back()
        return results

    def _send(self, batch: list[Request]) -> None:
        """Send a batch to Celery in one round trip; once more on a fresh connection when the first one was stale."""
        for attempt in (1, 2):
            try:
                with self._client.producer_pool.acquire(block=True) as producer, _in_one_go(producer.channel):
                    for request in batch:
                        self._client.send_task(
                            keys.TASK_REQUESTS,
                            args=(request.identity,),
                            task_id=request.identity,
                            ignore_result=True,
                            producer=producer,
                        )
                return
            except (redis.ConnectionError, OSError):
                if attempt == 2:
                    raise

    def _record(self, batch: list[Request]) -> list[tuple[str, str]]:
        """Record a batch in one round trip."""
        if not self._accept:
            self._accept, self._withdraw = (
                self._redis.script_load(scripts.ACCEPT),
                self._redis.script_load(scripts.WITHDRAW),
            )
        now = time.time()
        for attempt in (1, 2):
            pipe = self._redis.pipeline(transaction=False)
            for request in batch:
                record = keys.request(request.identity)
                pipe.evalsha(
                    self._accept,
                    5,
                    record,
                    keys.PENDING,
                    keys.opened(request.user),
                    keys.SEQUENCE,
                    keys.idempotency(request.user, request.digest) if request.digest else record,
                    request.identity,
                    request.type,
                    request.user,
                    request.key,
                    request.connections,
                    now,
                    now + RESEND_AFTER_SECONDS,
                    request.fingerprint,
                    IDEMPOTENCY_SECONDS,
                )
            try:
                return [(str(kind), str(identity)) for kind, identity in pipe.execute()]
            except NoScriptError:  # Redis was restarted: its script cache is empty
                if attempt == 2:
                    raise
                self._redis.script_load(scripts.ACCEPT)
                self._redis.script_load(scripts.WITHDRAW)
        raise AssertionError("unreachable")

    def _take_back(self) -> None:
        """Remove the records of requests whose clients heard 503, as soon as Redis listens again."""
        requests = list(self._withdrawn.values())
        pipe = self._redis.pipeline(transaction=False)
        for request in requests:
            pipe.eval(
                scripts.WITHDRAW,
                3,
                keys.request(request.identity),
                keys.PENDING,
                keys.opened(request.user),
                request.identity,
            )
        pipe.execute()
        for request in requests:
            self._withdrawn.pop(request.identity, None)
