"""What the worker's main process does beside its loop: ship log and metrics to Redis, send again what was lost."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from celery import Celery

from . import keys, metrics, runs
from .effects import due
from .logs import logger
from .settings import HOUSEKEEPING_SECONDS, Settings

KEPT_LINES = 10_000
_BATCH = 500
ALIVE_MILLISECONDS = 10_000


class Tail:
    """The lines that a rotating file gains.

    Args:
        file: The newest file.
    """

    def __init__(self, file: Path) -> None:
        """Begin at the file's end: what is there was shipped by an earlier process."""
        self._file, self._stream, self._waiting = file, self._open(file), [""]
        self._stream.seek(0, os.SEEK_END)

    @staticmethod
    def _open(file: Path) -> TextIO:
        return file.open(encoding="utf-8", errors="replace")

    def lines(self) -> list[str]:
        """Return the new whole lines; the same ones again until `taken` is called."""
        self._read()
        try:
            rotated = os.fstat(self._stream.fileno()).st_ino != self._file.stat().st_ino
        except FileNotFoundError:
            rotated = False
        if rotated:
            self._stream.close()
            self._stream = self._open(self._file)
            self._read()
        return self._waiting[:-1]

    def _read(self) -> None:
        parts = (self._waiting.pop() + self._stream.read()).split("\n")
        self._waiting = [*self._waiting, *parts][-KEPT_LINES:]

    def taken(self) -> None:
        """Forget the lines that were returned."""
        self._waiting = self._waiting[-1:]


def resend(client: Any, app: Celery) -> int:
    """Send pending requests again whose messages were lost, or whose worker died.

    Args:
        client: Redis.
        app: Sends.

    Returns:
        How many.
    """
    identities = due(client)
    for identity in identities:
        app.send_task(keys.TASK_REQUESTS, args=(identity,), task_id=identity, ignore_result=True)
    if identities:
        metrics.RESENT.inc(len(identities))
        logger.info("sent %d pending requests again", len(identities))
    return len(identities)


def overdue(client: Any, app: Celery, before: str | None) -> str | None:
    """Send a trigger where a reconcile is due and nobody is at it: its process was killed, or it failed.

    Args:
        client: Redis.
        app: Sends.
        before: What this returned the last time: what became due since then is, as a rule, about to be done.

    Returns:
        What is due; None when nothing is.
    """
    due_now: str | None = client.get(keys.DIRTY)
    if due_now and due_now == before and not client.exists(keys.LOCK) and not client.llen(keys.QUEUE):
        app.send_task(keys.TASK_TRIGGER, ignore_result=True)
    return due_now


def start(settings: Settings, app: Celery) -> None:
    """Start the thread; it goes on when Redis comes back."""
    client, tail, unsettled = settings.redis(), Tail(settings.log_file), None

    def round_() -> None:
        nonlocal unsettled
        lines = tail.lines()
        for begin in range(0, len(lines), _BATCH):
            client.rpush(keys.BACKEND_LOGS, *lines[begin : begin + _BATCH])
        if lines:
            client.ltrim(keys.BACKEND_LOGS, -KEPT_LINES, -1)
        tail.taken()
        client.set(keys.BACKEND_METRICS, json.dumps({"time": time.time(), "metrics": metrics.samples()}))
        if settings.cluster == "kubernetes":  # here it is the backend itself that makes connections
            client.set(keys.RELAY_ALIVE, "kubernetes", px=ALIVE_MILLISECONDS)
        resend(client, app)
        unsettled = overdue(client, app, unsettled)
        runs.follow_soon(client, app)

    def run() -> None:
        while True:
            try:
                round_()
            except Exception as error:  # whatever it is: without this thread, lost messages are never sent again
                logger.warning("housekeeping waits: %s", type(error).__name__)
            time.sleep(HOUSEKEEPING_SECONDS)

    threading.Thread(target=run, name="housekeeping", daemon=True).start()
