"""seed.py identity|resources: accounts and catalogue; then CSC's flavors and default quota, images, networks."""

import sys
import tomllib
from pathlib import Path

from lab_admin import connect

RATES = tomllib.loads(Path("/opt/lab/rates.toml").read_text())
SERVICES = {
    "glance": ("image", "http://127.0.0.1:9292"),
    "placement": ("placement", "http://127.0.0.1:8778"),
    "neutron": ("network", "http://127.0.0.1:9696"),
    "nova": ("compute", "http://127.0.0.1:8774/v2.1"),
    "cinder": ("volumev3", "http://127.0.0.1:8776/v3"),
}
IMAGES = ("Ubuntu-22.04", "Ubuntu-24.04", "AlmaLinux-9")
cloud = connect()


def identity() -> None:
    keystone = cloud.identity
    roles = {role.name: role for role in keystone.roles()}
    for name in ("service", "member", "admin"):
        roles[name] = roles.get(name) or keystone.create_role(name=name)
    for project, user, given in (("service", "svc", ("admin", "service")), ("tutorial", "learner", ("member",))):
        owned = keystone.create_project(name=project, domain_id="default")
        account = keystone.create_user(name=user, password=user, domain_id="default", default_project_id=owned.id)
        for name in given:
            keystone.assign_project_role_to_user(owned, account, roles[name])
    for name, (kind, url) in SERVICES.items():
        service = keystone.create_service(name=name, type=kind)
        for interface in ("public", "internal", "admin"):
            keystone.create_endpoint(service_id=service.id, interface=interface, url=url, region_id="RegionOne")


def resources() -> None:
    for name, flavor in RATES["flavors"].items():
        ram = int(flavor["memory_gib"] * 1024)
        cloud.create_flavor(name, ram=ram, vcpus=flavor["cores"], disk=flavor["disk_gb"])
    for name in IMAGES:
        cloud.create_image(
            name, data=b"\0" * 65536, disk_format="raw", container_format="bare", visibility="public",
            wait=True, allow_duplicates=True, min_disk=10,
        )  # fmt: skip
    for name in ("standard", "capacity"):
        cloud.block_storage.create_type(name=name)
    project = cloud.identity.find_project("tutorial").id
    networks(project)
    quota = RATES["default_quota"]
    cloud.set_compute_quotas(
        project, instances=quota["instances"], cores=quota["cores"], ram=quota["memory_gib"] * 1024
    )
    cloud.set_network_quotas(project, floatingip=quota["floating_ips"])
    cloud.set_volume_quotas(project, gigabytes=quota["storage_gib"])


def networks(project: str) -> None:
    """Make a network to the outside (addresses of RFC 5737) and the project's own, as every CPouta project has."""
    neutron = cloud.network
    public = neutron.create_network(
        name="public", is_router_external=True, provider_network_type="flat", provider_physical_network="public"
    )
    neutron.create_subnet(
        network_id=public.id, name="public", ip_version=4, cidr="203.0.113.0/24", is_dhcp_enabled=False
    )
    own = neutron.create_network(name="tutorial", project_id=project)
    subnet = neutron.create_subnet(
        network_id=own.id, name="tutorial", project_id=project, ip_version=4, cidr="192.168.1.0/24",
        dns_nameservers=["192.0.2.53"],
    )  # fmt: skip
    router = neutron.create_router(name="tutorial", project_id=project, external_gateway_info={"network_id": public.id})
    neutron.add_interface_to_router(router, subnet_id=subnet.id)


{"identity": identity, "resources": resources}[sys.argv[1]]()
