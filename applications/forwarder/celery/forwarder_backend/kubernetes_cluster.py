"""Connections in a Kubernetes cluster: a Service without selector, and an EndpointSlice that says where it leads."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from dataclasses import replace
from typing import Any

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from . import keys
from .cluster import Service
from .logs import logger

NAMESPACE = "forwarder-imports"
_MANAGER = "forwarder"
_MINE = "app.kubernetes.io/managed-by=forwarder"
_PLACE, _ADDRESS, _TYPE, _LEADS = "forwarder/place", "forwarder/address", "forwarder/type", "forwarder/leads-to"
_IN_CLUSTER = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)(?:\.svc(?:\.[a-z0-9.-]+)?)?")
_SECONDS = 10
_FAILURES = (OSError, LookupError, client.ApiException, HTTPError)  # of names, and of the API or the way to it


def object_name(service: Service) -> str:
    """Give the name of a connection's objects: `user-key-name`, and a hash unless that is a DNS label and unambiguous.

    Source: RFC 1035, section 2.3.1, which Services have to follow.
    """
    whole = f"{service.user}/{service.place}"
    if re.fullmatch(r"[a-z][a-z0-9]*/[a-z0-9]+/[a-z0-9]+", whole) and len(whole) <= 63:
        return whole.replace("/", "-")
    plain = re.sub(r"[^a-z0-9]+", "-", f"c-{whole}".lower())[:50].strip("-")
    return f"{plain}--{hashlib.sha256(whole.encode()).hexdigest()[:10]}"


class KubernetesCluster:
    """The connections of the cluster that the backend runs in.

    Args:
        redis: Redis, for what users are told of their connections.
    """

    def __init__(self, redis: Any) -> None:
        """Read the pod's own credentials."""
        config.load_incluster_config()
        self._core, self._discovery, self._redis = client.CoreV1Api(), client.DiscoveryV1Api(), redis

    def services(self) -> set[Service]:
        """Return what is there; with port 0 what is to be made again: it failed, or leads to pods that are gone."""
        listed = self._core.list_namespaced_service(NAMESPACE, label_selector=_MINE, _request_timeout=_SECONDS).items
        found = set()
        for item in listed:
            notes = item.metadata.annotations
            user, _, place = notes[_PLACE].partition("/")
            service = Service(user, place, notes[_TYPE], notes[_ADDRESS], item.spec.ports[0].port)
            try:
                stale = notes[_LEADS] != self._leads_to(service)
            except _FAILURES:
                stale = True
            found.add(replace(service, port=0) if stale else service)
        made = {(service.user, service.place) for service in found}
        for user in self._redis.smembers(keys.USERS):
            for place, text in self._redis.hgetall(keys.status(user)).items():
                if (user, place) not in made:  # its objects could not be made, or somebody deleted them
                    status = json.loads(text)
                    found.add(Service(user, place, status["type"], status["address"], 0))
        return found

    def apply(self, service: Service) -> None:
        """Make a connection, or change it; where it leads nowhere, say so and try again at the next trigger."""
        try:
            self._tell(service, "active", self._make(service), "")
        except _FAILURES as error:
            reason = f"{error.status} {error.reason}" if isinstance(error, client.ApiException) else str(error)
            logger.warning("%s/%s was not made: %s", service.user, service.place, reason)
            self._tell(service, "failed", "", reason)

    def _make(self, service: Service) -> str:
        """Apply both objects, the EndpointSlice first: the Service never leads nowhere. Return where to connect to."""
        name, leads = object_name(service), self._leads_to(service)
        addresses, port = json.loads(leads)
        notes = {
            _PLACE: f"{service.user}/{service.place}",
            _ADDRESS: service.address,
            _TYPE: service.type,
            _LEADS: leads,
        }
        mine = {"app.kubernetes.io/managed-by": "forwarder"}
        slice_body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {**mine, "kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
            "ports": [{"name": "tcp", "port": port, "protocol": "TCP"}],
        }
        service_body = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "labels": mine, "annotations": notes},
            "spec": {
                "type": "NodePort" if service.type == "export" else "ClusterIP",
                "ports": [{"name": "tcp", "port": service.port, "targetPort": port, "protocol": "TCP"}],
            },
        }
        self._apply("/apis/discovery.k8s.io/v1", "endpointslices", slice_body)
        made = self._apply("/api/v1", "services", service_body)
        if service.type == "export":
            return f"NODE:{made['spec']['ports'][0]['nodePort']}"
        return f"{name}.{NAMESPACE}.svc.cluster.local:{service.port}"

    def _apply(self, api: str, plural: str, body: dict[str, Any]) -> dict[str, Any]:
        """Apply an object server-side; the client's own methods can't name that content type."""
        made: dict[str, Any] = self._core.api_client.call_api(
            f"{api}/namespaces/{NAMESPACE}/{plural}/{body['metadata']['name']}",
            "PATCH",
            query_params=[("fieldManager", _MANAGER), ("force", "true")],
            header_params={"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"},
            body=body,
            response_type="object",
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _request_timeout=_SECONDS,
        )
        return made

    def _leads_to(self, service: Service) -> str:
        """Find where a connection leads: JSON of IPv4 addresses and a port.

        An export leads to the pods of a Service: no rule of the cluster leads on from another Service's address.
        """
        inside = _IN_CLUSTER.fullmatch(service.address)
        if service.type == "export" and inside:
            return self._pods(*inside.groups()[:2], service.port)
        found = socket.getaddrinfo(service.address, service.port, socket.AF_INET, socket.SOCK_STREAM)
        return json.dumps([sorted({entry[4][0] for entry in found}), service.port])

    def _pods(self, name: str, namespace: str, port: int) -> str:
        wanted = self._core.read_namespaced_service(name, namespace, _request_timeout=_SECONDS)
        port_name = next((p.name for p in wanted.spec.ports if p.port == port), False)
        if port_name is False:
            raise LookupError(f"the Service {name} has no port {port}")
        slices = self._discovery.list_namespaced_endpoint_slice(
            namespace, label_selector=f"kubernetes.io/service-name={name}", _request_timeout=_SECONDS
        ).items
        ready = [e for part in slices for e in part.endpoints or [] if e.conditions.ready]
        ports = {p.port for part in slices for p in part.ports or [] if (p.name or "") == (port_name or "")}
        if not ready or len(ports) != 1:
            raise LookupError(f"no pod of the Service {name} is ready")
        return json.dumps([sorted(address for e in ready for address in e.addresses), ports.pop()])

    def _tell(self, service: Service, state: str, reachable: str, error: str) -> None:
        status = {
            "type": service.type,
            "address": service.address,
            "port": service.port,
            "state": state,
            "reachable": reachable,
            "bytes-in": 0,
            "bytes-out": 0,
            "error": error,
        }
        self._redis.hset(keys.status(service.user), service.place, json.dumps(status))

    def remove(self, service: Service) -> None:
        """Take a connection away; it may be gone already."""
        name = object_name(service)
        for delete in (self._core.delete_namespaced_service, self._discovery.delete_namespaced_endpoint_slice):
            try:
                delete(name, NAMESPACE, _request_timeout=_SECONDS)
            except client.ApiException as error:
                if error.status != 404:
                    raise
        self._redis.hdel(keys.status(service.user), service.place)
