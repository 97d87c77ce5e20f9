"""The relay: listens on loopback for each service of `RelayCluster`, and carries bytes to its address and back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import asyncio as redis_async
from redis.exceptions import RedisError

from . import keys
from .settings import Settings

POLL_SECONDS = 0.3
PROBE_SECONDS = 3.0  # between two looks whether the address answers
CONNECT_SECONDS = 3.0
ALIVE_MILLISECONDS = 5000
CHUNK = 64 * 1024
HOST = "127.0.0.1"


class AnotherRelay(Exception):
    """Another relay serves the same Redis."""


@dataclass
class Line:
    """One service: a listening port here, an address there."""

    type: str
    address: str
    port: int
    server: asyncio.Server | None = None
    listening: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    error: str | None = "not yet tried"
    probed: float = 0.0
    shown: str = ""
    carrying: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self) -> None:
        """Listen on a free port: the service's own one would, for an address of this machine, lead to itself."""
        self.server = await asyncio.start_server(self._carry, HOST, 0)
        self.listening = self.server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and end what is being carried."""
        if self.server:
            self.server.close()
        for task in self.carrying:
            task.cancel()
        await asyncio.gather(*self.carrying, return_exceptions=True)

    async def probe(self) -> None:
        """See whether the address answers."""
        self.probed = time.monotonic()
        with contextlib.suppress(OSError):
            _, writer = await self._connect()
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                streams = await asyncio.open_connection(self.address, self.port)
        except TimeoutError as error:
            self.error = f"{self.address}:{self.port} does not answer"
            raise OSError(self.error) from error
        except socket.gaierror:
            self.error = f"there is no host {self.address}"
            raise
        except ConnectionRefusedError:
            self.error = f"nothing listens on {self.address}:{self.port}"
            raise
        except OSError as error:
            self.error = f"{self.address}:{self.port} can't be reached: {error.strerror or error}"
            raise
        self.error = None
        return streams

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            self.carrying.add(task)
        try:
            there_reader, there_writer = await self._connect()
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pump(reader, there_writer, "bytes_in"))
                    both.create_task(self._pump(there_reader, writer, "bytes_out"))
            finally:
                there_writer.close()
        except (OSError, ExceptionGroup):
            pass  # one side broke off: the other side sees the end of its connection
        finally:
            writer.close()
            if task:
                self.carrying.discard(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, count: str) -> None:
        while data := await source.read(CHUNK):
            sink.write(data)
            setattr(self, count, getattr(self, count) + len(data))
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()  # half-close: the other direction goes on

    def status(self) -> str:
        """Return what others are told of it (JSON)."""
        return json.dumps(
            {
                "type": self.type,
                "address": self.address,
                "port": self.port,
                "state": "failed" if self.error else "active",
                "reachable": f"{HOST}:{self.listening}",
                "bytes-in": self.bytes_in,
                "bytes-out": self.bytes_out,
                "error": self.error,
            }
        )


class Relay:
    """All services.

    Args:
        settings: Where Redis is.
    """

    def __init__(self, settings: Settings) -> None:
        """Prepare; nothing listens yet."""
        self._settings, self._lines, self._owner = settings, dict[str, Line](), str(uuid.uuid4())
        self._redis: Any = redis_async.from_url(
            settings.redis_url, decode_responses=True, socket_connect_timeout=2, socket_timeout=5, socket_keepalive=True
        )

    async def run(self) -> None:
        """Relay until SIGTERM.

        Raises:
            AnotherRelay: One serves this Redis already.
        """
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            while not stop.is_set():
                with contextlib.suppress(RedisError, OSError):  # Redis is away: what is open stays open
                    await self._claim()
                    await self._follow()
                    await self._tell()
                if self._settings.heartbeat_file:
                    Path(self._settings.heartbeat_file).touch()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), POLL_SECONDS)
        finally:
            await self._end()

    async def _claim(self) -> None:
        owner = await self._redis.get(keys.RELAY_ALIVE)
        if owner is None:
            await self._redis.set(keys.RELAY_ALIVE, self._owner, px=ALIVE_MILLISECONDS, nx=True)
            owner = await self._redis.get(keys.RELAY_ALIVE)
        if owner != self._owner:
            raise AnotherRelay
        await self._redis.pexpire(keys.RELAY_ALIVE, ALIVE_MILLISECONDS)

    async def _follow(self) -> None:
        wanted = {name: json.loads(text) for name, text in (await self._redis.hgetall(keys.RELAY_SERVICES)).items()}
        for name in set(self._lines) - set(wanted):
            await self._drop(name)
        for name, entry in wanted.items():
            line = self._lines.get(name)
            if line and (line.type, line.address, line.port) != (entry["type"], entry["address"], entry["port"]):
                await self._drop(name)
                line = None
            if line is None:
                line = Line(**entry)
                await line.open()
                self._lines[name] = line
        late = [line for line in self._lines.values() if time.monotonic() - line.probed > PROBE_SECONDS]
        await asyncio.gather(*(line.probe() for line in late))

    async def _drop(self, name: str) -> None:
        await self._lines.pop(name).close()
        user, _, place = name.partition("/")
        await self._redis.hdel(keys.status(user), place)

    async def _tell(self) -> None:
        for name, line in self._lines.items():
            status = line.status()
            if status != line.shown:
                user, _, place = name.partition("/")
                await self._redis.hset(keys.status(user), place, status)
                line.shown = status

    async def _end(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            if await self._redis.get(keys.RELAY_ALIVE) == self._owner:
                for name in list(self._lines):
                    await self._drop(name)
                await self._redis.delete(keys.RELAY_ALIVE)
        for line in self._lines.values():
            await line.close()
        await self._redis.aclose()
