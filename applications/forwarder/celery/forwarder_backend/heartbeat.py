"""Liveness as a file's time: fresh while the worker's loop turns, or while it waits for a broker that is away."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from celery import bootsteps

FRESH_SECONDS = 20.0  # a loop that has not turned for so long hangs
_EVERY = 2.0


class LoopWatch(bootsteps.StartStopStep):
    """Notes when the worker's event loop has turned; while it is disconnected there is no loop to watch."""

    requires = {"celery.worker.consumer.connection:Connection"}
    turned: float | None = None

    def start(self, parent: Any) -> None:
        """Ask to be called from the loop; the consumer calls this after every (re)connect."""
        LoopWatch.turned = time.monotonic()
        parent.timer.call_repeatedly(1.0, self._turn)

    def stop(self, parent: Any) -> None:
        """The connection is lost or the worker ends."""
        LoopWatch.turned = None

    @staticmethod
    def _turn() -> None:
        if LoopWatch.turned is not None:
            LoopWatch.turned = time.monotonic()


def alive() -> bool:
    """Tell whether the worker does not hang."""
    return LoopWatch.turned is None or time.monotonic() - LoopWatch.turned < FRESH_SECONDS


def start(file: Path) -> None:
    """Touch a file every two seconds while the worker is alive."""
    file.parent.mkdir(parents=True, exist_ok=True)

    def beat() -> None:
        while True:
            if alive():
                file.touch()
            time.sleep(_EVERY)

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()
