"""The backend's log: one rotating file for all its processes, in Celery's format, and the same on standard output."""

from __future__ import annotations

import logging
import sys

from billiard import current_process
from concurrent_log_handler import ConcurrentRotatingFileHandler

from .environment import SettingsError
from .settings import Settings

FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
logger = logging.getLogger("forwarder")


class _Handler(ConcurrentRotatingFileHandler):
    """Names the process as Celery does: `MainProcess`, `ForkPoolWorker-7`."""

    def emit(self, record: logging.LogRecord) -> None:
        record.processName = current_process().name
        super().emit(record)


class _Console(logging.StreamHandler):
    def emit(self, record: logging.LogRecord) -> None:
        record.processName = current_process().name
        super().emit(record)


def start_logging(settings: Settings) -> None:
    """Log to the file and to standard output; call it again in each forked process, for locks must not be shared.

    Args:
        settings: Names the folder and the level.

    Raises:
        SettingsError: When the folder cannot be written.
    """
    try:
        settings.log_folder.mkdir(parents=True, exist_ok=True)
        handlers = [
            _Handler(str(settings.log_file), maxBytes=4 * 1024 * 1024, backupCount=3, encoding="utf-8"),
            _Console(sys.__stdout__),
        ]
        settings.log_file.touch()
    except OSError as error:
        raise SettingsError(
            f"LOG_FOLDER={str(settings.log_folder)!r} cannot be written ({error.strerror}): name a writable folder."
        ) from error
    root = logging.getLogger()
    root.setLevel(settings.log_level.upper())
    root.handlers[:] = handlers
    for handler in handlers:
        handler.setFormatter(logging.Formatter(FORMAT))
