"""A proxy that refuses all and remembers what it was asked: whatever comes to it has left this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

VARIABLES = tuple(name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (upper, upper.lower()))


@dataclass
class Proxy:
    """A proxy that runs.

    Attributes:
        url: Its address.
        seen: Each request: its line, and its headers as text.
    """

    url: str = ""
    seen: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead programs to it."""
        return dict.fromkeys(VARIABLES, self.url)


@contextmanager
def recording_proxy() -> Iterator[Proxy]:
    """Run one while the block runs."""
    proxy = Proxy()

    class Handler(BaseHTTPRequestHandler):
        def _refuse(self) -> None:
            proxy.seen.append(f"{self.requestline}\n{self.headers}")
            self.send_error(503)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_CONNECT = _refuse

        def log_message(self, *args: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        proxy.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield proxy
        finally:
            server.shutdown()
