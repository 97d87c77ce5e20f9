"""One Beat at a time: a lock in Redis that is held while it runs, and a heartbeat file beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis.exceptions import LockError, RedisError

LOCK = "forwarder:scheduler"
SECONDS = 10.0


class Single:
    """The lock of the one scheduler.

    Args:
        client: Redis.
        lost: Called when another scheduler has taken over.
    """

    def __init__(self, client: Any, lost: Callable[[], None]) -> None:
        """Prepare the lock."""
        self._lock = client.lock(LOCK, timeout=SECONDS, thread_local=False)
        self._lost, self._over = lost, threading.Event()

    def take(self, heartbeat: str) -> bool:
        """Take the lock and keep it; say whether that worked.

        Args:
            heartbeat: A file to touch while this process lives; empty for none.
        """
        if not self._lock.acquire(blocking=True, blocking_timeout=SECONDS + 1):
            return False
        threading.Thread(target=self._keep, args=(heartbeat,), name="single", daemon=True).start()
        return True

    def _keep(self, heartbeat: str) -> None:
        while not self._over.wait(SECONDS / 5):
            if heartbeat:
                Path(heartbeat).touch()
            try:
                self._lock.extend(SECONDS, replace_ttl=True)
            except LockError:
                # It ran out while Redis was away: go on with it, unless somebody else has it now.
                try:
                    if not self._lock.acquire(blocking=False):
                        self._lost()
                        return
                except RedisError:
                    continue
            except RedisError:
                continue  # Redis is away: Beat waits for it as well

    def release(self) -> None:
        """Let the next one begin at once."""
        self._over.set()
        try:
            self._lock.release()
        except (LockError, RedisError):
            return
