"""The frontend's log: one rotating file, written by a thread of its own so that a slow disk holds up no request."""

from __future__ import annotations

import logging
import queue
import time
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path

from concurrent_log_handler import ConcurrentRotatingFileHandler

from .environment import SettingsError

LOGGER_NAME = "forwader-frontend"  # (sic) the name that the tutorial's readers know from the printed logs
FORMAT = "%(asctime)s - %(levelname)s - %(name)s - %(message)s"

logger = logging.getLogger(LOGGER_NAME)
_queue: queue.Queue[logging.LogRecord] = queue.Queue()


def start_logging(file: Path) -> QueueListener:
    """Send the frontend's log records to `file` (4 MiB, three older ones kept).

    Returns:
        The listener; its `stop()` writes what is still waiting.

    Raises:
        SettingsError: When the folder cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = ConcurrentRotatingFileHandler(str(file), maxBytes=4 * 1024 * 1024, backupCount=3, encoding="utf-8")
        handler.setFormatter(logging.Formatter(FORMAT))
        file.touch()
    except OSError as error:
        raise SettingsError(
            f"LOG_FOLDER={str(file.parent)!r} cannot be written ({error.strerror}): name a writable folder."
        ) from error
    listener = QueueListener(_queue, handler)
    listener.start()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers[:] = [QueueHandler(_queue)]
    return listener


def read_tail(file: Path, lines: int, limit: int) -> list[str]:
    """Return the last lines of a rotating log.

    Args:
        file: The newest file; the one rotated last (`.1`) is read too when `file` holds too few lines.
        lines: At most so many lines.
        limit: At most so many bytes.
    """
    give_up = time.monotonic() + 0.3
    while _queue.unfinished_tasks and time.monotonic() < give_up:  # what was said before the question is in the answer
        time.sleep(0.005)
    text = b""
    for part in (file, Path(f"{file}.1")):
        try:
            with part.open("rb") as stream:
                size = stream.seek(0, 2)
                stream.seek(max(0, size - (limit - len(text))))
                text = stream.read() + text
        except FileNotFoundError:
            break
        if len(text) >= limit or text.count(b"\n") >= lines:
            break
    return keep_last(text.decode("utf-8", "replace").splitlines()[-lines:], limit)


def keep_last(lines: list[str], limit: int) -> list[str]:
    """Return as many of the last `lines` as fit into `limit` bytes."""
    total = 0
    for index in range(len(lines) - 1, -1, -1):
        total += len(lines[index].encode("utf-8", "replace")) + 1
        if total > limit:
            return lines[index + 1 :]
    return lines
