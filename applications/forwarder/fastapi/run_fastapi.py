"""The Forwarder's frontend: `python3 run_fastapi.py`. Settings come from the environment (applications/README.md)."""

from __future__ import annotations

import signal
import socket
import sys

import uvicorn
from forwarder_frontend.app import create
from forwarder_frontend.logs import start_logging
from forwarder_frontend.settings import Settings, SettingsError


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say where it listens; uvicorn leaves that to whoever opened the socket."""
        await super().startup(sockets)
        if self.started and sockets:
            self._log_started_message(sockets)


def main() -> int:
    """Serve until SIGTERM.

    Returns:
        0 after an orderly end, 1 when the port is taken, 2 when a setting can't be used.
    """
    try:
        settings = Settings.load()
        listener = start_logging(settings.log_file)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        # The socket is opened here, so that a port that is taken is one line and not a stack trace.
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        opened = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
        # asyncio sets this on sockets of its own making only; without it answers wait 40 ms for an acknowledgement.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        sys.stderr.write(
            f"FASTAPI_PORT={settings.port} on {settings.host} cannot be used ({error.strerror}): "
            "end what listens there, or choose another port.\n"
        )
        listener.stop()
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            number, lambda *_: None
        )  # uvicorn raises the signal anew when all is closed; that is the end of it
    try:
        with opened:
            configuration = uvicorn.Config(
                create(settings),
                settings.host,
                settings.port,
                access_log=False,
                timeout_graceful_shutdown=5,
                server_header=False,
            )
            _Server(configuration).run(sockets=[opened])
    finally:
        listener.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
