"""The target `host`: this very machine, really; what it can do is found out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from helpers import machine
from helpers.errors import TutorialError
from helpers.target import Capability
from helpers.target_local import LocalTarget


class HostTarget(LocalTarget):
    """This machine with all that it can do: for JupyterLab on one's own VM, or a cluster straight on a laptop."""

    kind: ClassVar[str] = "host"

    def capabilities(self) -> frozenset[Capability]:
        """Find out what steps may use here: Docker's engine, root rights, systemd, a GPU."""
        return machine.capabilities(self)

    @contextmanager
    def inventory(self) -> Iterator[Sequence[str]]:
        """Name this machine; see `Target.inventory`."""
        yield ["@local"]

    @contextmanager
    def expose(self, local_port: int, address: str, remote_port: int) -> Iterator[None]:
        """Relay a port of the loopback address to another address of this machine; see `Target.expose`.

        Raises:
            TutorialError: The address and port can't be listened on.
        """
        from helpers.relay import relay

        try:
            with relay(address, remote_port, "127.0.0.1", local_port):
                yield
        except OSError as error:
            raise TutorialError(
                f"{address}:{remote_port} can't be listened on", str(error), "choose another port", target=self.name
            ) from None
