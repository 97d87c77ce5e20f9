"""What of the tutorial's is in a cloud, what the project may have, and what fits the wishes. Nothing is changed.

Everything that the tutorial makes carries its name and is found again by it: servers and volumes in their metadata, key
pairs by their name, network resources in their description, for that is there from the first moment.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from helpers import cpouta_rates, display, ssh
from helpers.cpouta_cloud import again
from helpers.errors import TutorialError

if TYPE_CHECKING:
    from openstack.connection import Connection

PROPERTY = "tutorial"
RULE = "tutorial: SSH from your own address"
_OLDEST_UBUNTU = 22.04
Row = Mapping[str, object]


@dataclass(frozen=True)
class Wanted:
    """What the reader wants.

    Attributes:
        flavor: The server's size, such as `standard.xxlarge`.
        image: Its system, such as `Ubuntu-22.04`.
        volume_gib: The persistent volume's size in GiB.
        address: The reader's own public address; empty where it is still to be found out.
        network: The project's network, where it has several.
    """

    flavor: str = "standard.xxlarge"
    image: str = "Ubuntu-22.04"
    volume_gib: int = 100
    address: str = ""
    network: str = ""

    @property
    def alias(self) -> str:
        """The Host that the VM becomes: `GPU-cpouta` with a GPU, else `cpouta`."""
        return "GPU-cpouta" if re.match(r"gpu", self.flavor, re.IGNORECASE) else "cpouta"

    @property
    def name(self) -> str:
        """The name of all that is made."""
        return f"tutorial-{self.alias.lower()}"

    @property
    def mark(self) -> str:
        """What is written on all that is made, so that it is found again."""
        return f"{PROPERTY}={self.name}"

    def per_hour(self) -> float:
        """What all of it costs an hour, in billing units."""
        return cpouta_rates.per_hour(self.flavor, volume_gib=self.volume_gib, floating_ips=1)

    def commands(self) -> list[list[str]]:
        """Give the commands of OpenStack's own client that would do what `Vm.create` does, in their order."""
        name, mark, client = self.name, self.mark, "openstack"
        flavor = cpouta_rates.choose_flavor(self.flavor)
        return [
            [client, "keypair", "create", "--public-key", f"{ssh.KEY}.pub", name],
            [client, "security", "group", "create", "--description", mark, name],
            [client, "security", "group", "rule", "create", "--ingress", "--protocol", "tcp", "--dst-port", "22",
             "--remote-ip", f"{self.address or 'YOUR_ADDRESS'}/32", "--description", RULE, name],
            [client, "server", "create", "--flavor", flavor, "--image", self.image, "--network",
             self.network or "YOUR_PROJECT", "--security-group", name, "--key-name", name, "--property", mark, "--wait",
             name],
            [client, "volume", "create", "--size", str(self.volume_gib), "--property", mark, name],
            [client, "server", "add", "volume", name, name],
            [client, "floating", "ip", "create", "--description", mark, "public"],
            [client, "server", "add", "floating", "ip", name, "ITS_ADDRESS"],
        ]  # fmt: skip

    def plan(self) -> None:
        """Show what would be made and what it would cost, where there is no cloud to ask."""
        cost = self.per_hour()
        display.plan(
            f"{self.name}, {cost:.2f} BU an hour, {cost * cpouta_rates.HOURS_A_MONTH:,.0f} a month",
            self.commands(),
            "no cloud is asked. On vm an OpenStack in a container plays CPouta; your own needs a clouds.yaml.",
        )


@dataclass(frozen=True)
class Found:
    """What of the tutorial's is in the cloud now; None where it is missing."""

    key: Any = None
    group: Any = None
    server: Any = None
    volume: Any = None
    ip: Any = None


class Inventory:
    """What is in a cloud, seen with what is wanted.

    Args:
        connection: The cloud.
        wanted: What is wanted.
    """

    def __init__(self, connection: "Connection", wanted: Wanted) -> None:
        self.cloud, self.wanted = connection, wanted
        self.name, self.mark = wanted.name, wanted.mark

    def look(self) -> Found:
        """Find what is there; nothing is changed."""
        return again("look what is there", self._look)

    def _look(self) -> Found:
        servers = [s for s in self.cloud.compute.servers() if s.metadata.get(PROPERTY) == self.name]
        volumes = [v for v in self.cloud.block_storage.volumes() if v.metadata.get(PROPERTY) == self.name]
        groups = list(self.cloud.network.security_groups(description=self.mark))
        group, server, volume = (next(iter(things), None) for things in (groups, servers, volumes))
        key = self.cloud.compute.find_keypair(self.name)
        return Found(key, group, server, volume, self._our_ip(self._port(server)))

    def _port(self, server: Any) -> Any:
        return next(self.cloud.network.ports(device_id=server.id), None) if server else None

    def _our_ip(self, port: Any) -> Any:
        """Find our floating IP: the one at our server, else one that nobody uses; never one in use elsewhere."""
        ours = list(self.cloud.network.ips(description=self.mark))
        here = [ip for ip in ours if port and ip.port_id == port.id]
        return next(iter(here + [ip for ip in ours if not ip.port_id]), None)

    def quota(self) -> list[Row]:
        """Compare the project's quota with what is still to be made.

        Returns:
            A row a resource: resource, used, limit, needed, wanted limit, enough.
        """
        found, flavor = self.look(), self.flavor()
        return again("read the quota", partial(self._quota, found, flavor))

    def _quota(self, found: Found, flavor: Any) -> list[Row]:
        compute = self.cloud.compute.get_limits().absolute
        storage = self.cloud.block_storage.get_limits().absolute
        network = self.cloud.network.get_quota(str(self.cloud.current_project_id), details=True)
        new = 0 if found.server else 1
        rows = (
            ("instances", compute.instances_used, compute.instances, new),
            ("cores", compute.total_cores_used, compute.total_cores, new * flavor.vcpus),
            ("memory (GiB)", compute.total_ram_used / 1024, compute.total_ram / 1024, new * flavor.ram / 1024),
            ("floating IPs", network.floating_ips["used"], network.floating_ips["limit"], 0 if found.ip else 1),
            ("volumes", storage.total_volumes_used, storage.max_total_volumes, 0 if found.volume else 1),
            ("volumes (GiB)", storage.total_gigabytes_used, storage.max_total_volume_gigabytes,
             0 if found.volume else self.wanted.volume_gib),
        )  # fmt: skip
        return [_quota_row(*row) for row in rows]

    def flavor(self) -> Any:
        """Find the flavor that is wanted, however it is spelled.

        Raises:
            TutorialError: There is none of that name, or no rate is published for it.
        """
        there = {f.name: f for f in again("list the flavors", lambda: list(self.cloud.compute.flavors()))}
        name = cpouta_rates.choose_flavor(self.wanted.flavor, there)
        cpouta_rates.per_hour(name)
        return there[name]

    def image(self) -> Any:
        """Find the image that is wanted; it is Ubuntu 22.04 or newer.

        Raises:
            TutorialError: There is none of that name, or it is another or an older system.
        """
        there = {i.name: i for i in again("list the images", lambda: list(self.cloud.image.images(status="active")))}
        fit = {name: image for name, image in there.items() if _ubuntu(name) >= _OLDEST_UBUNTU}
        if self.wanted.image not in fit:
            why = "the course needs Ubuntu 22.04 or newer" if self.wanted.image in there else "there is no such image"
            raise TutorialError(
                f"The image {self.wanted.image!r} can't be used", why, f"choose one of: {', '.join(sorted(fit))}"
            )
        return fit[self.wanted.image]

    def networks(self) -> tuple[Any, Any]:
        """Find the project's network that a router connects to the outside, and that outside.

        Raises:
            TutorialError: There is none, or there are several and none is named.
        """
        return again("look at the networks", self._networks)

    def _networks(self) -> tuple[Any, Any]:
        network = self.cloud.network
        ways: dict[str, tuple[Any, Any]] = {}
        for router in (r for r in network.routers() if r.external_gateway_info):
            outside = network.get_network(router.external_gateway_info["network_id"])
            for port in network.ports(device_id=router.id, device_owner="network:router_interface"):
                inside = network.get_network(port.network_id)
                ways[inside.name] = (inside, outside)
        fit = [way for name, way in ways.items() if self.wanted.network in ("", name)]
        if len(fit) != 1:
            raise TutorialError(
                "No network of the project leads to the outside" if not ways else "Which network is meant?",
                f"there are: {', '.join(sorted(ways))}" if ways else "it has no router, or none with a gateway",
                "set the parameter network"
                if ways
                else "https://docs.csc.fi/cloud/pouta/networking/ says how to make them",
            )
        return fit[0]

    def rows(self, found: Found | None = None) -> list[Row]:
        """List what is there and what is not: resource, name, state, detail, BU/h."""
        found = found or self.look()
        rate, server, volume, ip = cpouta_rates.per_hour, found.server, found.volume, found.ip
        flavor = server.flavor.original_name if server else self.wanted.flavor
        return [
            _row("key pair", self.name, "there" if found.key else "missing", "", 0),
            _row("security group", self.name, "there" if found.group else "missing",
                 f"SSH from {', '.join(self._admitted(found.group)) or 'nowhere'}", 0),
            _row("server", self.name, server.status if server else "missing", flavor,
                 rate(flavor, state=server.status) if server else 0),
            _row("volume", self.name, volume.status if volume else "missing",
                 f"{volume.size if volume else self.wanted.volume_gib} GiB",
                 rate(volume_gib=volume.size) if volume else 0),
            _row("floating IP", ip.floating_ip_address if ip else "", ip.status if ip else "missing",
                 "at the server" if ip and ip.port_id else "", rate(floating_ips=1) if ip else 0),
        ]  # fmt: skip

    def _admitted(self, group: Any) -> list[str]:
        return [rule["remote_ip_prefix"] for rule in self._ssh_rules(group)]

    @staticmethod
    def _ssh_rules(group: Any) -> list[Any]:
        return [r for r in group.security_group_rules if r["description"] == RULE] if group else []

    def plan(self) -> bool:
        """Show what would be made, what it would cost, and whether the quota allows it; nothing is made.

        Returns:
            Whether it can be made.
        """
        self.image(), self.networks()
        display.table(self.rows(), title="What is there")
        quota = self.quota()
        display.table(quota, title="The project's quota, and what is still needed")
        cost = self.wanted.per_hour()
        display.show(f"in the end: {cost:.2f} BU an hour, {cost * cpouta_rates.HOURS_A_MONTH:,.0f} BU a month")
        return all(row["enough"] == "yes" for row in quota)


def _ubuntu(name: str) -> float:
    found = re.fullmatch(r"ubuntu[- ](\d\d\.\d\d)", name, re.IGNORECASE)
    return float(found[1]) if found else 0.0


def _row(resource: str, name: str, state: str, detail: str, cost: float) -> Row:
    return {"resource": resource, "name": name, "state": state, "detail": detail, "BU/h": f"{cost:.2f}"}


def _quota_row(resource: str, used: float, limit: float, needed: float) -> Row:
    enough = limit < 0 or needed == 0 or used + needed <= limit
    return {
        "resource": resource,
        "used": f"{used:g}",
        "limit": "none" if limit < 0 else f"{limit:g}",
        "needed": f"{needed:g}",
        "wanted limit": f"{max(limit, used + needed):g}" if limit >= 0 else "none",
        "enough": "yes" if enough else "no",
    }
