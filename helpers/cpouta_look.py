"""What of the tutorial's is in a cloud, what the project may have, and what fits the wishes. Nothing is changed.

Everything that the tutorial makes carries its name and is found again by it: servers and volumes in their metadata, key
pairs by their name, network resources in their description, for that is there from the first moment.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from helpers import cpouta_rates, display, ssh
from helpers.cpouta_cloud import again, optional
from helpers.errors import TutorialError

if TYPE_CHECKING:
    from openstack.connection import Connection

PROPERTY = "tutorial"
RULE = "tutorial: SSH from your own address"
_OLDEST_UBUNTU = 22.04
_TCP = ("any", "tcp", "6")
# Who owns the port of a router in the project's own network: a plain router, a distributed one, a highly available one.
_INSIDE = (
    "network:router_interface",
    "network:router_interface_distributed",
    "network:ha_router_replicated_interface",
)
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
        server = next(iter(self._servers()), None)
        volumes = [v for v in self.cloud.block_storage.volumes() if (v.metadata or {}).get(PROPERTY) == self.name]
        groups = [g for g in self.cloud.network.security_groups(description=self.mark) if g.description == self.mark]
        group, volume = (next(iter(things), None) for things in (groups, volumes))
        key = self.cloud.compute.find_keypair(self.name)
        return Found(key, group, server, volume, self._our_ip(self._ports(server)))

    def _servers(self) -> list[Any]:
        """List the servers that carry the tutorial's mark."""
        return [s for s in self.cloud.compute.servers() if (s.metadata or {}).get(PROPERTY) == self.name]

    def _ports(self, server: Any) -> list[Any]:
        """List the ports of a server: one for each network that it is in."""
        return [p for p in self.cloud.network.ports(device_id=server.id) if p.device_id == server.id] if server else []

    def _our_ip(self, ports: Sequence[Any]) -> Any:
        """Find the floating IP: one at any port of our server, else an unused one of ours; none in use elsewhere."""
        every, here = list(self.cloud.network.ips()), {port.id for port in ports}
        ours = [ip for ip in every if ip.description == self.mark]
        at_server = [ip for ip in (*ours, *every) if ip.port_id in here]
        return next(iter(at_server + [ip for ip in ours if not ip.port_id]), None)

    def quota(self) -> list[Row]:
        """Compare the project's quota with what is still to be made.

        Returns:
            A row a resource: resource, used, limit, needed, wanted limit, enough. What the cloud does not show to you
            is `unknown`.
        """
        found, flavor = self.look(), self.flavor()
        return again("read the quota", partial(self._quota, found, flavor))

    def _quota(self, found: Found, flavor: Any) -> list[Row]:
        limits = [optional(service.get_limits) for service in (self.cloud.compute, self.cloud.block_storage)]
        compute, storage = ((answer.absolute if answer else None) for answer in limits)
        ips_used, ips_limit = self._floating_ips()
        new, no_volume = 0 if found.server else 1, 0 if found.volume else 1

        def row(name: str, of: Any, used: str, limit: str, needed: float, unit: int = 1) -> Row:
            many, most = getattr(of, used, None), getattr(of, limit, None)
            scaled = most if most is None or most < 0 else most / unit  # a negative limit means none
            return _quota_row(name, None if many is None else many / unit, scaled, needed)

        return [
            row("instances", compute, "instances_used", "instances", new),
            row("cores", compute, "total_cores_used", "total_cores", new * (flavor.vcpus or 0)),
            row("memory (GiB)", compute, "total_ram_used", "total_ram", new * (flavor.ram or 0) / 1024, 1024),
            _quota_row("floating IPs", ips_used, ips_limit, 0 if found.ip else 1),
            row("volumes", storage, "total_volumes_used", "max_total_volumes", no_volume),
            row("volumes (GiB)", storage, "total_gigabytes_used", "max_total_volume_gigabytes",
                no_volume * self.wanted.volume_gib),
        ]  # fmt: skip

    def _floating_ips(self) -> tuple[float | None, float | None]:
        """Give how many floating IPs the project has and may have; a cloud without details says the limit only."""
        network, project = self.cloud.network, str(self.cloud.current_project_id)
        details = optional(lambda: network.get_quota(project, details=True))
        if details and isinstance(details.floating_ips, dict):
            counts = details.floating_ips
            return (counts.get("used") or 0) + (counts.get("reserved") or 0), counts.get("limit")
        plain = details or optional(lambda: network.get_quota(project))
        limit = plain.floating_ips if plain else None
        mine = [ip for ip in network.ips() if ip.project_id in (None, project)]
        return len(mine), limit if isinstance(limit, int) else None

    def flavor(self) -> Any:
        """Find the flavor that is wanted, however it is spelled.

        Raises:
            TutorialError: There is none of that name, or no rate is published for it.
        """
        there = {f.name: f for f in again("list the flavors", lambda: list(self.cloud.compute.flavors())) if f.name}
        name = cpouta_rates.choose_flavor(self.wanted.flavor, there)
        cpouta_rates.per_hour(name)
        return there[name]

    def image(self) -> Any:
        """Find the image that is wanted; it is Ubuntu 22.04 or newer.

        Raises:
            TutorialError: There is none of that name, or it is another or an older system.
        """
        images = again("list the images", lambda: list(self.cloud.image.images(status="active")))
        there = {image.name: image for image in images if image.name}  # an image need not have a name
        fit = {name: image for name, image in there.items() if _ubuntu(name) >= _OLDEST_UBUNTU}
        if self.wanted.image not in fit:
            why = "the course needs Ubuntu 22.04 or newer" if self.wanted.image in there else "there is no such image"
            remedy = (
                f"choose one of: {', '.join(sorted(fit))}" if fit else "the project sees no image of Ubuntu: ask CSC"
            )
            raise TutorialError(f"The image {self.wanted.image!r} can't be used", why, remedy)
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
        for router in network.routers():
            gateway = (router.external_gateway_info or {}).get("network_id")
            if not gateway or router.is_admin_state_up is False:
                continue
            for port in network.ports(device_id=router.id):
                if port.device_id == router.id and port.device_owner in _INSIDE and port.network_id not in ways:
                    ways[port.network_id] = (network.get_network(port.network_id), network.get_network(gateway))
        names = sorted(inside.name or identity for identity, (inside, _) in ways.items())
        fit = [way for identity, way in ways.items() if self.wanted.network in ("", way[0].name, identity)]
        if len(fit) != 1:
            raise TutorialError(
                "Which network is meant?" if ways else "No network of the project leads to the outside",
                f"these lead to the outside: {', '.join(names)}"
                if ways
                else "it has no router, or none with a gateway",
                "set the parameter network to the name or the id of one"
                if ways
                else "https://docs.csc.fi/cloud/pouta/networking/ says how to make them",
            )
        return fit[0]

    def rows(self, found: Found | None = None) -> list[Row]:
        """List what is there and what is not: resource, name, state, detail, BU/h."""
        found = found or self.look()
        rate, server, volume, ip = cpouta_rates.per_hour, found.server, found.volume, found.ip
        flavor = self._flavor_name(server) if server else self.wanted.flavor
        return [
            _row("key pair", self.name, "there" if found.key else "missing", "", 0),
            _row("security group", self.name, "there" if found.group else "missing",
                 f"SSH from {', '.join(self._admitted(found.group)) or 'nowhere'}", 0),
            _row("server", self.name, server.status or "unknown" if server else "missing", flavor,
                 rate(flavor, state=server.status or "") if server else 0),
            _row("volume", self.name, volume.status or "unknown" if volume else "missing",
                 f"{(volume.size or 'unknown') if volume else self.wanted.volume_gib} GiB",
                 rate(volume_gib=volume.size or 0) if volume else 0),
            _row("floating IP", ip.floating_ip_address if ip else "", ip.status or "unknown" if ip else "missing",
                 "at the server" if ip and ip.port_id else "", rate(floating_ips=1) if ip else 0),
        ]  # fmt: skip

    def _flavor_name(self, server: Any) -> str:
        """Give the name of a server's flavor; an old interface gives its id only."""
        if name := getattr(server.flavor, "original_name", None) or getattr(server.flavor, "name", None):
            return str(name)
        identity = getattr(server.flavor, "id", None)
        flavors = again("list the flavors", lambda: list(self.cloud.compute.flavors()))
        return next((str(f.name) for f in flavors if f.name and f.id == identity), self.wanted.flavor)

    def _admitted(self, group: Any) -> list[str]:
        """List from where a group's rules let SSH in, our own rule's place first."""
        rules = [r for r in (group.security_group_rules or [] if group else []) if _admits_ssh(r)]
        rules.sort(key=lambda rule: rule.get("description") != RULE)
        return list(dict.fromkeys(_origin(rule) for rule in rules))

    @staticmethod
    def _ssh_rules(group: Any) -> list[Any]:
        return [r for r in group.security_group_rules or [] if r.get("description") == RULE] if group else []

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
        return all(row["enough"] != "no" for row in quota)


def _ubuntu(name: str) -> float:
    found = re.fullmatch(r"ubuntu[- ](\d\d\.\d\d)", name, re.IGNORECASE)
    return float(found[1]) if found else 0.0


def _row(resource: str, name: str, state: str, detail: str, cost: float) -> Row:
    return {"resource": resource, "name": name, "state": state, "detail": detail, "BU/h": f"{cost:.2f}"}


def _admits_ssh(rule: Mapping[str, Any]) -> bool:
    """Tell whether a rule of a security group lets in TCP to port 22; a rule without ports lets in all of them."""
    if rule.get("direction", "ingress") != "ingress" or str(rule.get("protocol") or "any").lower() not in _TCP:
        return False
    first, last = rule.get("port_range_min"), rule.get("port_range_max")
    return (first is None or int(first) <= 22) and (last is None or int(last) >= 22)


def _origin(rule: Mapping[str, Any]) -> str:
    if group := rule.get("remote_group_id"):
        return f"the group {group}"
    return str(rule.get("remote_ip_prefix") or f"everywhere ({rule.get('ethertype') or 'IPv4'})")


def _quota_row(resource: str, used: float | None, limit: float | None, needed: float) -> Row:
    known = used is not None and limit is not None
    used_now, most = used or 0, -1 if limit is None else limit
    enough = (
        "yes" if needed == 0 or (known and (most < 0 or used_now + needed <= most)) else "no" if known else "unknown"
    )
    if limit is not None and limit < 0:
        enough = "yes"
    return {
        "resource": resource,
        "used": "unknown" if used is None else f"{used:g}",
        "limit": "unknown" if limit is None else "none" if limit < 0 else f"{limit:g}",
        "needed": f"{needed:g}",
        "wanted limit": "unknown" if limit is None else "none" if limit < 0 else f"{max(limit, used_now + needed):g}",
        "enough": enough,
    }
