"""Where connections are made: `Cluster` is what a reconcile needs; the relay's is the one for a single machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from . import keys


@dataclass(frozen=True)
class Service:
    """A connection as it shall be.

    Attributes:
        user: Whose it is.
        place: `key/name`.
        type: `import` or `export`.
        address: Host name or IP address.
        port: TCP port.
    """

    user: str
    place: str
    type: str
    address: str
    port: int


class Cluster(Protocol):
    """Where services are made."""

    def services(self) -> set[Service]:
        """Return what is there."""

    def apply(self, service: Service) -> None:
        """Make a service, or change the one of that user and place."""

    def remove(self, service: Service) -> None:
        """Take a service away; it may be gone already."""


class RelayCluster:
    """The services that the relay process on this machine makes.

    Args:
        client: Redis.
    """

    def __init__(self, client: Any) -> None:
        """Keep the client."""
        self._redis = client

    def services(self) -> set[Service]:
        """Return what the relay was told."""
        found = set()
        for name, text in self._redis.hgetall(keys.RELAY_SERVICES).items():
            user, _, place = name.partition("/")
            found.add(Service(user, place, **json.loads(text)))
        return found

    def apply(self, service: Service) -> None:
        """Tell the relay to make a service."""
        text = json.dumps({"type": service.type, "address": service.address, "port": service.port})
        self._redis.hset(keys.RELAY_SERVICES, f"{service.user}/{service.place}", text)

    def remove(self, service: Service) -> None:
        """Tell the relay to end a service."""
        self._redis.hdel(keys.RELAY_SERVICES, f"{service.user}/{service.place}")


def connect(kind: str, client: Any) -> Cluster:
    """Give the cluster of a kind.

    Args:
        kind: `relay` or `kubernetes`.
        client: Redis.
    """
    if kind == "kubernetes":  # a second to import, and needless where there is no cluster
        from .kubernetes_cluster import KubernetesCluster

        return KubernetesCluster(client)
    return RelayCluster(client)
