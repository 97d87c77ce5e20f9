"""The frontend's settings, all of them from environment variables, with defaults for a run by hand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from .airflow import Login
from .environment import Environment, SettingsError

__all__ = ["Settings", "SettingsError"]

CONNECT_SECONDS = 0.5  # reaching Redis
ANSWER_SECONDS = 1.0  # one answer of Redis
AIRFLOW_SECONDS = 1.7  # all of a request's dealings with Airflow
DEADLINE_SECONDS = 1.5  # all of a request's dealings with Redis; the promise to clients is 2 s
RETRY_AFTER_SECONDS = 2
IDEMPOTENCY_SECONDS = 24 * 3600
RESEND_AFTER_SECONDS = 15  # from then on the backend sends a request again that is still pending
BODY_BYTES = 256 * 1024
LOG_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """What the frontend was told by its environment."""

    redis_host: str
    redis_port: int
    redis_db: int
    redis_password: str = field(repr=False)
    host: str
    port: int
    log_folder: Path
    token: str = field(repr=False)
    environment: str
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
        token = env.text("FORWARDER_TOKEN", "")
        if token and not (token.isascii() and token.isprintable() and " " not in token):
            raise SettingsError("FORWARDER_TOKEN may hold visible ASCII characters only: choose another token.")
        return cls(
            redis_host=env.text("REDIS_ENDPOINT", "127.0.0.1"),
            redis_port=env.port("REDIS_PORT", 6379),
            redis_db=env.integer("REDIS_DB", 0, 0, 1_000_000),
            redis_password=env.text("REDIS_PASSWORD", ""),
            host=env.text("FASTAPI_HOST", "0.0.0.0"),  # noqa: S104 - a pod's server is asked from outside
            port=env.port("FASTAPI_PORT", 7600),
            log_folder=Path(env.text("LOG_FOLDER", "logs")),
            token=token,
            environment=env.choice("FORWARDER_ENV", "development", ("development", "production")),
            airflow=Login.load(env),
        )

    @property
    def redis_url(self) -> str:
        """The address of Redis with its password: never log it."""
        secret = f":{quote(self.redis_password, safe='')}@" if self.redis_password else ""
        host = f"[{self.redis_host}]" if ":" in self.redis_host else self.redis_host
        return f"redis://{secret}{host}:{self.redis_port}/{self.redis_db}"

    @property
    def redis_place(self) -> str:
        """The address of Redis, without its password."""
        return f"{self.redis_host}:{self.redis_port}/{self.redis_db}"

    @property
    def log_file(self) -> Path:
        """The frontend's own log file."""
        return self.log_folder / "frontend.log"
