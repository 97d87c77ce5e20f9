"""A proxy in front of a cloud's services that does, some times, what a cloud does on a bad day."""

import http.client
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "accept-encoding"}


@dataclass
class Fault:
    """What happens to some requests.

    Attributes:
        method: Their method.
        path: A regular expression that their path matches.
        times: How many of them; the rest goes through.
        status: The answer's status, in place of the real one; 0 drops the connection.
        reaches: Whether the request reaches the service all the same, and only its answer is lost.
        change: Changes the answer's JSON, where the request goes through.
    """

    method: str
    path: str
    times: int
    status: int = 503
    reaches: bool = False
    change: Callable[[Any], None] | None = None


@dataclass
class BadDay:
    """What goes wrong, and what was asked; several proxies may share one."""

    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def take(self, method: str, path: str) -> Fault | None:
        self.seen.append(f"{method} {path}")
        for fault in self.faults:
            if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None


@contextmanager
def proxy(upstream: int, made: BadDay) -> Iterator[int]:
    """Run a proxy in front of a port of this machine, and give its own port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = made.take(self.command, self.path)
            if fault and not fault.change and not fault.reaches:
                self._fail(fault.status)
                return
            status, headers, answer = self._forward(body)
            if fault and fault.reaches:
                self._fail(fault.status)
                return
            if fault and fault.change:
                content = json.loads(answer)
                fault.change(content)
                answer = json.dumps(content).encode()
            self._answer(status, headers, answer)

        def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            client = http.client.HTTPConnection("127.0.0.1", upstream, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
            client.request(self.command, self.path, body or None, headers)
            got = client.getresponse()
            return got.status, {k: v for k, v in got.getheaders() if k.lower() not in _HOP}, got.read()

        def _fail(self, status: int) -> None:
            if status == 0:
                self.close_connection = True
                self.connection.close()
            else:
                self._answer(status, {"Content-Type": "application/json"}, b'{"detail": "a bad day"}')

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _handle

        def log_message(self, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
