"""A TCP relay in a thread: bytes that reach one address go on to another."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    destination: tuple[str, int]


class _Connection(BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        """Copy both directions until either side has closed both."""
        with suppress(OSError), socket.create_connection(self.server.destination, 10) as out:
            out.settimeout(None)
            back = threading.Thread(target=_copy, args=(out, self.request), daemon=True)
            back.start()
            _copy(self.request, out)
            back.join()


def _copy(source: socket.socket, destination: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            destination.sendall(data)
    with suppress(OSError):
        destination.shutdown(socket.SHUT_WR)


@contextmanager
def relay(address: str, port: int, to_address: str, to_port: int) -> Iterator[None]:
    """Relay TCP connections while the block runs.

    Args:
        address: Where to listen.
        port: The port there.
        to_address: Where the bytes go.
        to_port: The port there.

    Raises:
        OSError: The address can't be listened on.
    """
    with _Server((address, port), _Connection) as server:
        server.destination = (to_address, to_port)
        thread = threading.Thread(target=server.serve_forever, name="relay", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
