"""What kind accepts as a cluster's configuration, read and checked as kind does before it makes anything.

Source: kind's own code, https://github.com/kubernetes-sigs/kind/tree/v0.30.0/pkg: apis/config/v1alpha4/types.go (the
fields), apis/config/v1alpha4/default.go (what is taken where nothing is written), internal/apis/config/validate.go.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from helpers import go_yaml
from helpers.errors import TutorialError

API_VERSION = "kind.x-k8s.io/v1alpha4"
NAME = "kind"  # of a cluster that has none in its configuration
_NAME = re.compile(r"[a-z0-9.-]+")
_NAME_LENGTH = 50  # with -control-plane behind it, the node's host name has 64 characters, which is Linux' limit
_ROLES = ("control-plane", "worker")
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_PROPAGATIONS = ("None", "HostToContainer", "Bidirectional")
_FAMILIES = ("ipv4", "ipv6", "dual")
_PROXIES = ("iptables", "ipvs", "nftables", "none")
_MOST, _LEAST = 2**31 - 1, -(2**31)  # kind's numbers have 32 bits
_ANY = ""  # stands for any name of a mapping
_TEXTS = {_ANY: str}
_PATCH = {"group": str, "version": str, "kind": str, "patch": str}
_MOUNT = {"containerPath": str, "hostPath": str, "readOnly": bool, "selinuxRelabel": bool, "propagation": str}
_MAPPING = {"containerPort": int, "hostPort": int, "listenAddress": str, "protocol": str}
_NODE = {
    "role": str, "image": str, "labels": _TEXTS, "extraMounts": [_MOUNT], "extraPortMappings": [_MAPPING],
    "kubeadmConfigPatches": [str], "kubeadmConfigPatchesJSON6902": [_PATCH],
}  # fmt: skip
_NETWORKING = {
    "ipFamily": str, "apiServerPort": int, "apiServerAddress": str, "podSubnet": str, "serviceSubnet": str,
    "disableDefaultCNI": bool, "kubeProxyMode": str, "dnsSearch": [str],
}  # fmt: skip
_CLUSTER = {
    "kind": str, "apiVersion": str, "name": str, "nodes": [_NODE], "networking": _NETWORKING,
    "featureGates": {_ANY: bool}, "runtimeConfig": _TEXTS, "kubeadmConfigPatches": [str],
    "kubeadmConfigPatchesJSON6902": [_PATCH], "containerdConfigPatches": [str],
    "containerdConfigPatchesJSON6902": [str],
}  # fmt: skip
_WANTED: dict[object, str] = {str: "a text", int: "a number", bool: "true or false"}
_TWICE = "port mapping with same listen address, port and protocol already configured"


class _Reader:
    """Reads nodes of YAML by a table of fields, and collects what does not fit."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def refuse(self, node: Node, place: str, reason: str) -> None:
        self.wrong.append(f"{place or 'the file'} (line {go_yaml.line(node)}): {reason}")

    def read(self, node: Node, wanted: Any, place: str, above: tuple[Node, ...] = ()) -> Any:
        """Give what a node holds, None for nothing; without what is refused."""
        if isinstance(node, ScalarNode):
            return self._scalar(node, wanted, place)
        if node in above:
            return self.refuse(node, place, "an anchor contains itself")
        if isinstance(node, SequenceNode) and isinstance(wanted, list):
            parts = [self.read(n, wanted[0], f"{place}[{i}]", (*above, node)) for i, n in enumerate(node.value)]
            return [part for part in parts if part is not None]  # kind passes over an entry that is empty
        if isinstance(node, MappingNode) and isinstance(wanted, dict):
            return self._mapping(node, wanted, place, (*above, node))
        what = "a list" if isinstance(node, SequenceNode) else "a mapping"
        return self.refuse(node, place, f"kind takes {_named(wanted)} here, and this is {what}")

    def _scalar(self, node: ScalarNode, wanted: Any, place: str) -> Any:
        try:
            tag, value = go_yaml.scalar(node, words=False)
        except ValueError as error:
            return self.refuse(node, place, str(error))
        if tag == go_yaml.NULL or wanted is str:
            return None if tag == go_yaml.NULL else node.value
        if wanted is int and tag in (go_yaml.INT, go_yaml.FLOAT):
            if _LEAST <= value <= _MOST:
                return int(value)
            return self.refuse(node, place, f"{node.value} is too large a number")
        if wanted is bool and (tag == go_yaml.BOOL or value in go_yaml.YES | go_yaml.NO):
            return value is True or value in go_yaml.YES
        what = "the text" if tag == go_yaml.STR else "the value"
        return self.refuse(node, place, f"kind takes {_named(wanted)} here, and {node.value!r} is {what}")

    def _mapping(self, node: MappingNode, wanted: Mapping[str, Any], place: str, above: tuple[Node, ...]) -> Any:
        for again, first in go_yaml.same_keys(node):
            self.refuse(again, place, f"{again.value} is there twice, first in line {go_yaml.line(first)}")
        found = {}
        try:
            pairs = go_yaml.pairs(node)
        except go_yaml.Wrong as error:
            return self.refuse(error.node, place, error.reason)
        for key, value in pairs:
            name = key.value if isinstance(key, ScalarNode) else ""
            below = f"{place}.{name}".lstrip(".")
            if not name or (name not in wanted and _ANY not in wanted):
                self.refuse(key, below, f"kind knows no field {name} here")
            elif (content := self.read(value, wanted.get(name, wanted.get(_ANY)), below, above)) is not None:
                found[name] = content
        return found


def _named(wanted: Any) -> str:
    return _WANTED[wanted] if isinstance(wanted, type) else "a list" if isinstance(wanted, list) else "a mapping"


def configuration(path: Path) -> dict[str, Any]:
    """Read a cluster's configuration and make sure that kind would take it.

    Args:
        path: The file.

    Returns:
        Its content, with kind's defaults for `name`, `nodes` and each node's `role`. Fields that are empty are left
        out. Of several documents kind reads the first one.

    Raises:
        TutorialError: It can't be read, is not kind's, or kind would refuse it. The message names each place, such as
            `nodes[1].extraPortMappings[0].hostPort`, its line, and kind's reason.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise TutorialError(f"{path} can't be read", str(error), "correct the path to it") from None
    root, reader = go_yaml.compose(text, str(path)), _Reader()
    content = reader.read(root, _CLUSTER, "") if isinstance(root, MappingNode) else {}
    version, kind = content.get("apiVersion", ""), content.get("kind", "")
    if version != API_VERSION:
        why = f"apiVersion is {version!r}, and kind takes {API_VERSION}"
        raise TutorialError(f"{path} is not a configuration of kind", why, "see deployments/kind/cluster.yaml")
    if kind != "Cluster":
        reader.wrong.append(f"kind: unknown kind {kind!r} for apiVersion {version}; it is Cluster")
    content["name"] = content.get("name") or NAME
    content["nodes"] = content.get("nodes") or [{}]
    for node in content["nodes"]:
        node["role"] = node.get("role") or "control-plane"
    wrong = [*reader.wrong, *_problems(content)]
    if wrong:
        twice = any(_TWICE in reason for reason in wrong)
        what = f"{path} maps a port twice" if twice else f"{path} is not a configuration that kind accepts"
        remedy = "give each mapping its own hostPort" if twice else "correct these places"
        raise TutorialError(
            what, "; ".join(wrong), f"{remedy}; kind.sigs.k8s.io/docs/user/configuration has the fields"
        )
    return dict(content)


def _problems(content: Mapping[str, Any]) -> Iterator[str]:
    """Give kind's objections against a configuration whose fields are all known and of the right type."""
    name, nodes = content["name"], content["nodes"]
    if not _NAME.fullmatch(name):
        yield f"name: '{name}' is not a valid cluster name, cluster names must match `^[a-z0-9.-]+$`"
    elif len(name) > _NAME_LENGTH:
        yield f"name: '{name}' is too long; a cluster's name has {_NAME_LENGTH} characters at most"
    yield from _networking(content.get("networking", {}))
    for number, node in enumerate(nodes):
        place = f"nodes[{number}]"
        if node["role"] not in _ROLES:
            yield f"{place}.role: {node['role']!r} is not a valid node role; kind knows {' and '.join(_ROLES)}"
        for i, mount in enumerate(node.get("extraMounts", ())):
            if mount.get("propagation") and mount["propagation"] not in _PROPAGATIONS:
                yield f"{place}.extraMounts[{i}].propagation: Unknown MountPropagation: {mount['propagation']!r}"
        yield from _mappings(node.get("extraPortMappings", ()), f"{place}.extraPortMappings")
    if not any(node["role"] == "control-plane" for node in nodes):
        yield "nodes: must have at least one control-plane node"


def _mappings(mappings: Sequence[dict[str, Any]], place: str) -> Iterator[str]:
    taken: dict[tuple[int, str], set[str]] = {}
    for number, mapping in enumerate(mappings):
        here = f"{place}[{number}]"
        if mapping.get("protocol"):
            mapping["protocol"] = mapping["protocol"].upper()
            if mapping["protocol"] not in _PROTOCOLS:
                yield f"{here}.protocol: Unknown PortMappingProtocol: {mapping['protocol']!r}"
        for field in ("hostPort", "containerPort"):
            if not -1 <= mapping.get(field, 0) <= 65535:
                yield f"{here}.{field}: invalid port number: {mapping[field]}"
        address = mapping.get("listenAddress", "")
        if address and not _address(address):
            yield f"{here}.listenAddress: {address!r} is not an IP address, and Docker takes no name here"
        yield from _taken(mapping, here, taken)


def _taken(mapping: Mapping[str, Any], place: str, taken: dict[tuple[int, str], set[str]]) -> Iterator[str]:
    """Give the objection against a port that a mapping before has; where it is 0 or -1, a free one is taken."""
    port, protocol = mapping.get("hostPort", 0), mapping.get("protocol", "")
    address = str(_address(mapping.get("listenAddress", "")) or "")
    address = "0.0.0.0" if address == "::" else address  # noqa: S104 - nothing is opened here
    there = taken.setdefault((port, protocol), set())
    everywhere = "0.0.0.0"  # noqa: S104
    if port > 0 and there and (address == everywhere or address in there or everywhere in there):
        yield f"{place}.hostPort: {_TWICE}: {address or 'all addresses'}:{port}/{protocol or 'TCP'}"
    elif port > 0:
        there.add(address)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    with suppress(ValueError):
        return None if "%" in text else ip_address(text)
    return None


def _networking(content: Mapping[str, Any]) -> Iterator[str]:
    family = content.get("ipFamily") or "ipv4"
    if family not in _FAMILIES:
        yield f"networking.ipFamily: invalid ipFamily: {family}; kind knows {', '.join(_FAMILIES)}"
    if not -1 <= content.get("apiServerPort", 0) <= 65535:
        yield f"networking.apiServerPort: invalid port number: {content['apiServerPort']}"
    if (address := content.get("apiServerAddress")) and not _address(address):
        yield f"networking.apiServerAddress: {address!r} is not an IP address"
    for field, name in (("podSubnet", "pod"), ("serviceSubnet", "service")):
        if content.get(field) and (reason := _subnets(content[field], family)):
            yield f"networking.{field}: invalid {name} subnet: {reason}"
    if (proxy := content.get("kubeProxyMode") or _PROXIES[0]) not in _PROXIES:
        yield f"networking.kubeProxyMode: invalid kubeProxyMode: {proxy}; kind knows {', '.join(_PROXIES)}"


def _subnets(text: str, family: str) -> str:
    versions = []
    for part in text.split(","):
        try:
            address, _, length = part.partition("/")
            if not re.fullmatch(r"[0-9]+", length) or "%" in address:
                raise ValueError
            network = ip_network((address, int(length)), strict=False)
            mapped = isinstance(network, IPv6Network) and network.network_address.ipv4_mapped  # to Go, that is IPv4
            versions.append(4 if mapped and network.prefixlen >= 96 else network.version)
        except ValueError:
            return f"{part!r} is not a network such as 10.244.0.0/16"
    if family == "dual":
        fits = len(versions) == 1 or sorted(versions) == [4, 6]
        return "" if fits else "expected one CIDR, or two from each family, for dual-stack networking"
    if len(versions) > 1:
        return "only one CIDR allowed for single-stack networking"
    return "" if f"ipv{versions[0]}" == family or family not in _FAMILIES else f"expected {family} CIDR"


def ports(content: Mapping[str, Any], protocol: str = "") -> list[Mapping[str, int]]:
    """List which port of the machine leads to which port of the node; where kind takes a free one, it is left out.

    Args:
        content: The configuration.
        protocol: Only the ports of this protocol, such as `TCP`; by default of all.
    """
    found = [m for node in content.get("nodes") or () for m in (node or {}).get("extraPortMappings") or ()]
    return [
        {"machine": int(m["hostPort"]), "node": int(m.get("containerPort") or 0)}
        for m in found
        if m and int(m.get("hostPort") or 0) > 0 and protocol in ("", m.get("protocol") or "TCP")
    ]


def node_names(content: Mapping[str, Any]) -> list[str]:
    """List the containers of a cluster, as kind names them: the first control plane first, no load balancer."""
    names, count = list[str](), dict.fromkeys(_ROLES, 0)
    for node in content["nodes"]:
        role = node["role"]
        count[role] += 1
        names.append(f"{content['name']}-{role}{count[role] if count[role] > 1 else ''}")
    return sorted(names, key=lambda name: name != f"{content['name']}-control-plane")


def collisions(content: Mapping[str, Any]) -> list[str]:
    """List what kind accepts and Docker refuses later: a port of the machine that two nodes want, by its address."""
    seen, found = list[tuple[int, str, str]](), list[str]()
    for number, node in enumerate(content["nodes"]):
        for i, mapping in enumerate(node.get("extraPortMappings", ())):
            port, protocol = mapping.get("hostPort", 0), mapping.get("protocol", "TCP")
            address = mapping.get("listenAddress", "").replace("::", "") or "0.0.0.0"  # noqa: S104
            same = [a for p, q, a in seen if (p, q) == (port, protocol)]
            if port > 0 and any(a == address or "0.0.0.0" in (a, address) for a in same):  # noqa: S104
                found.append(f"nodes[{number}].extraPortMappings[{i}].hostPort: {port}/{protocol} is mapped before")
            seen.append((port, protocol, address))
    return found
