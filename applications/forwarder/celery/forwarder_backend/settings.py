"""The backend's settings, all of them from environment variables, with defaults for a run by hand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .airflow import Login
from .environment import Environment, SettingsError

VISIBILITY_SECONDS = 3600  # the same in every part: Celery asks for one value everywhere
TASK_SECONDS = 600  # a task is ended then; must stay far below the visibility timeout
KEEP_SECONDS = 7 * 24 * 3600  # how long the record of a done request is kept
RESEND_AFTER_SECONDS = 15  # a pending request is sent again after that
HOUSEKEEPING_SECONDS = 2.0
RETRY_SECONDS = 3  # a run that Airflow could not take is sent again after that
FOLLOW_SECONDS = 10  # the states of runs that go on are looked up that often, also without a scheduler
AIRFLOW_SECONDS = 5.0  # to connect to Airflow, and for it to answer
PLACEHOLDER = "flower456"


@dataclass(frozen=True)
class Settings:
    """What the backend was told by its environment."""

    redis_host: str
    redis_port: int
    redis_db: int
    redis_password: str = field(repr=False)
    concurrency: int
    log_level: str
    log_folder: Path
    metrics_host: str
    metrics_port: int
    heartbeat_file: str
    cluster: str
    airflow: Login

    @classmethod
    def load(cls, values: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings.

        Args:
            values: The environment variables.

        Raises:
            SettingsError: When a value cannot be used; the text is meant for the user.
        """
        env = Environment(values)
        production = env.choice("FORWARDER_ENV", "development", ("development", "production")) == "production"
        if production and env.text("FLOWER_PASSWORD", PLACEHOLDER) == PLACEHOLDER:
            raise SettingsError(
                "FLOWER_PASSWORD is the tutorial's placeholder: in production set a password of your own."
            )
        levels = ("debug", "info", "warning", "error", "critical")
        return cls(
            redis_host=env.text("REDIS_ENDPOINT", "127.0.0.1"),
            redis_port=env.port("REDIS_PORT", 6379),
            redis_db=env.integer("REDIS_DB", 0, 0, 1_000_000),
            redis_password=env.text("REDIS_PASSWORD", ""),
            concurrency=env.integer("CELERY_CONCURRENCY", 8, 1, 1000),
            log_level=env.choice("CELERY_LOGLEVEL", "info", levels),
            log_folder=Path(env.text("LOG_FOLDER", "logs")),
            metrics_host=env.text("PROMETHEUS_HOST", "0.0.0.0"),  # noqa: S104 - Prometheus asks from outside the pod
            metrics_port=env.port("PROMETHEUS_PORT", 7602),
            heartbeat_file=env.text("HEARTBEAT_FILE", ""),
            cluster=env.choice("FORWARDER_CLUSTER", "relay", ("relay", "kubernetes")),
            airflow=Login.load(env),
        )

    @property
    def redis_url(self) -> str:
        """The address of Redis with its password: never log it."""
        secret = f":{quote(self.redis_password, safe='')}@" if self.redis_password else ""
        host = f"[{self.redis_host}]" if ":" in self.redis_host else self.redis_host
        return f"redis://{secret}{host}:{self.redis_port}/{self.redis_db}"

    @property
    def log_file(self) -> Path:
        """The backend's own log file."""
        return self.log_folder / "backend.log"

    def redis(self) -> Any:
        """Return a client; its calls have a deadline and are tried once more on a fresh connection."""
        return redis.Redis(
            host=self.redis_host,
            port=self.redis_port,
            db=self.redis_db,
            password=self.redis_password or None,
            socket_connect_timeout=2,
            socket_timeout=10,
            socket_keepalive=True,
            decode_responses=True,
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        )
