"""Accepting requests: each is recorded in Redis and queued for Celery in one round trip, off the event loop's back.

All requests that wait at the moment share that round trip (a group commit: with `appendfsync always` they share one
disk write). Celery makes the messages; they go to Redis with the records, over one connection with bounded time-outs. A
Redis that is away or silent keeps the batch waiting, not the event loop, and each request has a deadline of its own,
after which it is answered 503 and taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from celery import Celery
from kombu.utils.json import dumps
from redis import asyncio as redis_async
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from . import keys, metrics, scripts
from .errors import unavailable
from .logs import logger
from .settings import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    DEADLINE_SECONDS,
    IDEMPOTENCY_SECONDS,
    RESEND_AFTER_SECONDS,
    Settings,
)

BATCH = 64


@dataclass(slots=True, eq=False)
class Request:
    """A validated request on its way into Redis and Celery.

    `content` is what is asked for (JSON): the `connections` of a `user`, or nobody's `run` of a workflow.
    """

    type: str
    user: str
    key: str
    content: str
    kind: Literal["connections", "run"] = "connections"
    digest: str = ""
    fingerprint: str = ""
    identity: str = field(default_factory=lambda: str(uuid.uuid4()))
    future: asyncio.Future[tuple[str, str]] | None = None
    deadline: float = 0.0

    def remember(self, idempotency_key: str) -> None:
        """Have the same request under the same key accepted once."""
        self.digest = hashlib.sha256(idempotency_key.encode()).hexdigest()[:32]
        self.fingerprint = hashlib.sha256("\0".join((self.type, self.key, self.content)).encode()).hexdigest()[:32]

    @property
    def places(self) -> list[str]:
        """The keys of its record, and of where it is told until it has had its effect."""
        waiting = keys.RUNS_WAITING if self.kind == "run" else keys.opened(self.user)
        return [keys.request(self.identity), keys.PENDING, waiting]


class Messages:
    """Celery's messages as its Redis transport puts them into the queue; making them takes no connection."""

    def __init__(self) -> None:
        """Take the channel of a transport in memory, and keep what it would put into its queue."""
        self._client = Celery("tasks", broker="memory://")
        self._producer = self._client.amqp.Producer(self._client.connection_for_write())
        self._written: list[tuple[str, str]] = []
        self._producer.channel._put = lambda queue, message, **_: self._written.append((queue, dumps(message)))

    def write(self, identity: str) -> tuple[str, str]:
        """Return the queue and the message of a request's task."""
        self._client.send_task(
            keys.TASK_REQUESTS,
            args=(identity,),
            task_id=identity,
            ignore_result=True,
            retry=False,
            producer=self._producer,
        )
        return self._written.pop()


class Publisher:
    """Accepts requests.

    Args:
        settings: Where Redis is.
    """

    def __init__(self, settings: Settings) -> None:
        """Prepare the connection; none is opened yet."""
        self._place = settings.redis_place
        self._redis: Any = redis_async.Redis(
            host=settings.redis_host,
            port=settings.redis_port,
            db=settings.redis_db,
            password=settings.redis_password or None,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            socket_keepalive=True,
            decode_responses=True,
            # A lost connection is made anew at once; a silent Redis is not asked twice.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        self._messages = Messages()
        self._queue: asyncio.Queue[Request] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._withdrawn: dict[str, Request] = {}
        self._accept = ""

    def start(self) -> None:
        """Begin to take requests; call it on the event loop."""
        self._task = asyncio.create_task(self._run(), name="publisher")

    async def stop(self) -> None:
        """End; the server has answered all requests by now."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(RedisError, OSError):
            await self._take_back()
        await self._redis.aclose()

    async def accept(self, request: Request) -> tuple[str, str]:
        """Record and send a request.

        Returns:
            What became of it and its task id: `new`, `same` (accepted before under this idempotency key, as that id) or
            `other` (the idempotency key belongs to another request).

        Raises:
            ForwarderError: 503 when Redis does not take it within the deadline.
        """
        request.future = asyncio.get_running_loop().create_future()
        request.deadline = time.monotonic() + DEADLINE_SECONDS
        self._queue.put_nowait(request)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await request.future
        except (RedisError, OSError, TimeoutError) as error:
            raise unavailable(
                "The request was not accepted",
                f"Redis at {self._place} does not answer ({type(error).__name__})",
                "See that Redis runs, then send the request again, best with the same Idempotency-Key",
            ) from error

    async def _run(self) -> None:
        """Take what waits, deal with it, tell the waiting ones, again and again."""
        while True:
            batch = [await self._queue.get()]
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            now = time.monotonic()
            batch = [request for request in batch if request.deadline > now]
            try:
                results = await self._deal(batch) if batch else []
            except Exception as error:
                # Whatever it is, to the client it means: not now.
                logger.warning("Publishing failed: %s", type(error).__name__)
                self._withdrawn.update((request.identity, request) for request in batch)
                results = [(request, RedisConnectionError(str(error))) for request in batch]
            self._tell(results)

    def _tell(self, results: list[tuple[Request, Any]]) -> None:
        for request, result in results:
            if request.future is None or request.future.done():  # its deadline has passed: the client heard 503
                if isinstance(result, tuple) and result[0] == "new":
                    self._withdrawn[request.identity] = request
            elif isinstance(result, Exception):
                request.future.set_exception(result)
            else:
                request.future.set_result(result)

    async def _deal(self, batch: list[Request]) -> list[tuple[Request, Any]]:
        """Record and send a batch."""
        if self._withdrawn:
            await self._take_back()
        try:
            outcomes = await self._record(batch)
        except NoScriptError:  # Redis was restarted and has lost its scripts; recording twice is harmless
            self._accept = ""
            outcomes = await self._record(batch)
        # Whether a request with an idempotency key is to be sent is known only now; the others have been sent.
        late = [request for request, (kind, _) in zip(batch, outcomes, strict=True) if kind == "new" and request.digest]
        if late:
            async with self._redis.pipeline(transaction=False) as pipe:
                for request in late:
                    pipe.lpush(*self._messages.write(request.identity))
                await pipe.execute()
        for request, (kind, _) in zip(batch, outcomes, strict=True):
            if kind == "new":
                metrics.ACCEPTED.labels(request.type).inc()
        return list(zip(batch, outcomes, strict=True))

    async def _record(self, batch: list[Request]) -> list[tuple[str, str]]:
        """Record a batch, and send what has no idempotency key, in one round trip."""
        if not self._accept:
            self._accept = await self._redis.script_load(scripts.ACCEPT)
        now = time.time()
        async with self._redis.pipeline(transaction=False) as pipe:
            for request in batch:
                pipe.evalsha(
                    self._accept,
                    5,
                    *request.places,
                    keys.SEQUENCE,
                    keys.idempotency(request.user, request.digest) if request.digest else request.places[0],
                    request.identity,
                    request.type,
                    request.user,
                    request.key,
                    request.content,
                    now,
                    now + RESEND_AFTER_SECONDS,
                    request.fingerprint,
                    IDEMPOTENCY_SECONDS,
                    request.kind,
                )
            for request in batch:
                if not request.digest:
                    pipe.lpush(*self._messages.write(request.identity))
            outcomes = await pipe.execute()
        return [(str(kind), str(identity)) for kind, identity in outcomes[: len(batch)]]

    async def _take_back(self) -> None:
        """Remove the records of requests whose clients heard 503, as soon as Redis listens again."""
        requests = list(self._withdrawn.values())
        async with self._redis.pipeline(transaction=False) as pipe:
            for request in requests:
                pipe.eval(scripts.WITHDRAW, 3, *request.places, request.identity)
            await pipe.execute()
        for request in requests:
            self._withdrawn.pop(request.identity, None)
