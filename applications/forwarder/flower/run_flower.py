"""The Forwarder's monitor: `python3 run_flower.py`. Settings come from the environment (applications/README.md)."""

from __future__ import annotations

import os
import socket
import sys
from urllib.parse import quote

import flower.options  # noqa: F401 - defines the options that are set below
from celery import Celery
from forwarder_monitor.environment import Environment, SettingsError
from tornado.options import options

PLACEHOLDER = "flower456"
VISIBILITY_SECONDS = 3600  # the same in every part: Celery asks for one value everywhere


def prepare(env: Environment) -> tuple[Celery, str, int]:
    """Make the Celery app that Flower watches, and set Flower's options in this process: a command line is public.

    Args:
        env: The environment variables.

    Returns:
        The app, the address and the port to listen on.

    Raises:
        SettingsError: When a value cannot be used; the text is meant for the user.
    """
    name, password = env.text("FLOWER_USERNAME", "flower123"), env.text("FLOWER_PASSWORD", PLACEHOLDER)
    production = env.choice("FORWARDER_ENV", "development", ("development", "production")) == "production"
    if production and password == PLACEHOLDER:
        raise SettingsError("FLOWER_PASSWORD is the tutorial's placeholder: in production set a password of your own.")
    secret = env.text("REDIS_PASSWORD", "")
    host = env.text("REDIS_ENDPOINT", "127.0.0.1")
    place = f"{host}:{env.port('REDIS_PORT', 6379)}/{env.integer('REDIS_DB', 0, 0, 1_000_000)}"
    broker = f"redis://:{quote(secret, safe='')}@{place}" if secret else f"redis://{place}"
    app = Celery("tasks", broker=broker)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_SECONDS,
            "socket_connect_timeout": 4,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
    )
    options.basic_auth = [f"{name}:{password}"]
    options.max_tasks = 10_000
    return app, env.text("FLOWER_HOST", "0.0.0.0"), env.port("FLOWER_PORT", 7601)  # noqa: S104


def main() -> int:
    """Serve until SIGTERM.

    Returns:
        0 after an orderly end, 1 when the port is taken, 2 when a setting can't be used.
    """
    try:
        app, host, port = prepare(Environment(os.environ))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        sys.stderr.write(
            f"FLOWER_PORT={port} on {host} cannot be used ({error.strerror}): end what listens there, "
            "or choose another port.\n"
        )
        return 1
    for name in [name for name in os.environ if name.startswith("FLOWER_")]:
        del os.environ[name]  # Flower takes FLOWER_… for options of its own, and stops at those it doesn't know
    try:
        app.start(["flower", f"--address={host}", f"--port={port}"])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
