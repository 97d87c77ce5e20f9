"""Chapter 02: broken clouds.yaml files, and clouds that answer less, or otherwise, than CPouta: a real HTTP server."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from helpers import cpouta, cpouta_cloud, cpouta_clouds, cpouta_look, ssh
from helpers.cpouta import Cloud, Vm
from helpers.cpouta_look import PROPERTY, RULE, Inventory, Wanted
from helpers.errors import TutorialError

unit = pytest.mark.unit
component = pytest.mark.component
SECRET = "s3cr3tWord"
APPLICATION = {"application_credential_id": "abc", "application_credential_secret": SECRET}
URL = "https://cloud.example:5000/v3"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpouta_cloud, "_PAUSE_SECONDS", 0.01)
    for name in ("OS_CLOUD", "OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE"):
        monkeypatch.delenv(name, raising=False)


# clouds.yaml


def entry(auth: Any, **more: Any) -> dict[str, Any]:
    return {"clouds": {"openstack": {"auth": auth, **more}}}


def refused(folder: Path, content: Any, cloud: str = "openstack", secure: Any = None) -> str:
    """Write clouds.yaml (text, bytes, or what YAML makes of a value), and give the error of connecting."""
    for name, value in (("clouds.yaml", content), ("secure.yaml", secure)):
        if value is not None:
            data = value if isinstance(value, str | bytes) else yaml.safe_dump(value)
            (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
            (folder / name).chmod(0o600)
    with pytest.raises(TutorialError) as told:
        cpouta_cloud.connect(cloud, folder / "clouds.yaml")
    assert SECRET not in str(told.value)
    assert all((told.value.what, told.value.why, told.value.remedy))
    return str(told.value)


@unit
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["line 1", "is empty"]),
        ("# only a comment\n", ["line 1", "is empty"]),
        ("- a\n- b\n", ["line 1", "holds a list", "clouds:"]),
        ("just words\n", ["line 1", "a single value"]),
        ("clouds:\n\topenstack:\n\t  auth: {}\n", ["line 2", "a tab", "spaces"]),
        ("clouds:\n  openstack:\n  \tauth: {}\n", ["line 3", "a tab"]),
        (f"clouds:\n  openstack:\n    auth:\n      password: @{SECRET}\n", ["line 4", "in quotes"]),
        (f"clouds:\n  openstack:\n    auth:\n      password: *{SECRET}\n", ["line 4", "in quotes"]),
        (f"clouds:\n  openstack:\n    auth:\n      password: !{SECRET} x\n", ["line 4", "in quotes"]),
        (f"clouds:\n  openstack:\n    auth:\n      password: a: {SECRET}\n", ["line 4", "in quotes"]),
        (f"clouds:\n  openstack:\n    auth:\n      password: '{SECRET}\n", ["line"]),
        ("clouds:\n  openstack:\n   auth:\n  x\n", ["line"]),
        (b"clouds:\n  openstack:\n    # \xe4\n", ["line 3", "not written in UTF-8"]),
        ("clouds: {}".encode("utf-16"), ["UTF-16"]),
        ("openstack:\n  auth: {}\n", ["line 1", "the line clouds: is missing"]),
        ("clouds:\nopenstack:\n  auth: {}\n", ["line 1", "no cloud below clouds:"]),
        ("clouds: [openstack]\n", ["line 1", "no cloud below clouds:"]),
        ("clouds:\n  openstack:\n", ["line 2", "no settings below it"]),
        ("clouds:\n  openstack: cpouta\n", ["line 2", "no settings below it"]),
        ("clouds:\n  openstack:\n    auth:\n", ["line 3", "auth has no settings"]),
        ("clouds:\n  openstack:\n    region_name: regionOne\n", ["line 2", "auth is missing"]),
        ("clouds:\n  cpouta: {}\n", ["There is no cloud 'openstack'", "it has: cpouta", "cloud_name"]),
        (entry({}), ["line 3", "auth_url is missing", "https://pouta"]),
        (entry({"auth_url": "", **APPLICATION}, auth_type="v3applicationcredential"), ["auth_url is missing"]),
        (entry({"auth_url": "pouta.csc.fi:5001/v3", **APPLICATION}), ["not the address of a cloud"]),
        (entry({"auth_url": "http://cloud.example/v3", **APPLICATION}), ["http://", "https://"]),
        (entry({"auth_url": "https://cloud.example:5000/v2.0", **APPLICATION}), ["/v2.0", "/v3"]),
        (entry({"auth_url": f"https://me:{SECRET}@cloud.example/v3"}), ["a user or a password in it"]),
        (entry({"auth_url": URL, **APPLICATION}), ["auth_type is missing", "auth_type: v3applicationcredential"]),
        (entry({"auth_url": URL, **APPLICATION}, auth_type="password"), ["auth_type is password"]),
        (entry({"auth_url": URL, "username": "me"}, auth_type="pasword"), ["auth_type is not a known", "password"]),
        (
            entry({"auth_url": URL, "application_credential_id": "a"}, auth_type="v3applicationcredential"),
            ["application_credential_secret is missing", "secure.yaml"],
        ),
        (
            entry({"auth_url": URL, "application_credential_secret": SECRET}, auth_type="v3applicationcredential"),
            ["application_credential_id is missing"],
        ),
        (
            entry({"auth_url": URL, "application_credential_name": "n", "application_credential_secret": SECRET},
                  auth_type="v3applicationcredential"),
            ["needs a user"],
        ),
        (
            entry({"auth_url": URL, "application_credential_id": 12345, "application_credential_secret": SECRET},
                  auth_type="v3applicationcredential"),
            ["application_credential_id is no text", "quotes"],
        ),
        (entry({"auth_url": URL, "username": "me", "project_name": "p"}), ["password is missing", "secure.yaml"]),
        (entry({"auth_url": URL, "username": "me", "password": SECRET}), ["project_name is missing"]),
        (entry({"auth_url": URL, "user_name": "me", "password": SECRET}), ["write username in place of user_name"]),
        (entry({1: 2, "user_name": "me", "auth_url": URL, "password": SECRET}), ["write username in place"]),
        (entry({"auth_url": URL, "token": ""}, auth_type="v3token"), ["token is missing"]),
        (
            entry({"auth_url": URL, "username": "m", "password": SECRET, "project_name": "p"}, cacert="/no/such.pem"),
            ["cacert", "does not exist"],
        ),
    ],
)  # fmt: skip
def test_a_clouds_yaml_that_can_t_be_used_says_why_where_and_what_to_write(
    tmp_path: Path, content: Any, words: list[str]
) -> None:
    message = refused(tmp_path, content)
    assert all(word in message for word in words), message
    assert "clouds.yaml" in message


@unit
@pytest.mark.parametrize(
    ("secure", "words"),
    [
        ("clouds:\n\tx: 1\n", ["secure.yaml", "line 2", "a tab"]),
        ("- a\n", ["secure.yaml", "holds a list"]),
        (f"clouds:\n  openstack: {SECRET}\n", ["secure.yaml", "line 2", "no settings below it"]),
        ({"clouds": {"other": {"auth": {"password": SECRET}}}}, ["clouds.yaml", "password is missing"]),
        ("", ["clouds.yaml", "password is missing"]),
    ],
)
def test_a_secure_yaml_that_is_broken_or_lacks_the_secret_is_named(
    tmp_path: Path, secure: Any, words: list[str]
) -> None:
    message = refused(tmp_path, entry({"auth_url": URL, "username": "me", "project_name": "p"}), secure=secure)
    assert all(word in message for word in words), message


@unit
def test_json_and_a_cloud_named_by_a_number_are_read(tmp_path: Path) -> None:
    (tmp_path / "clouds.json").write_text('{\n\t"clouds": {"7": {"auth": {}}}}')
    with pytest.raises(TutorialError, match="auth_url is missing"):
        cpouta_cloud.connect("7", tmp_path / "clouds.json")
    (tmp_path / "clouds.json").write_text('{"clouds": {\n,}}')
    with pytest.raises(TutorialError, match="line 2: it is not valid JSON"):
        cpouta_cloud.connect("7", tmp_path / "clouds.json")
    assert "line 2" in refused(tmp_path, "clouds:\n  7:\n", cloud="7")


@unit
def test_a_folder_an_unreadable_file_and_os_cloud_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clouds.yaml").mkdir()
    with pytest.raises(TutorialError, match="it is a folder"):
        cpouta_cloud.connect("openstack", tmp_path / "clouds.yaml")
    (tmp_path / "clouds.yaml").rmdir()
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "mine.yaml"))
    monkeypatch.setattr("openstack.config.loader.CONFIG_FILES", [])
    assert cpouta_clouds.find() is None
    with pytest.raises(TutorialError, match=r"mine\.yaml[\s\S]*no such file"):
        cpouta_cloud.connect("cpouta")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(entry({})))
    monkeypatch.setenv("OS_CLOUD", "openstack")
    with pytest.raises(TutorialError, match="cloud_name to 'openstack', as your variable OS_CLOUD says"):
        cpouta_cloud.connect("cpouta")


# A cloud that answers as OpenStack's interfaces do

SERVICES = {"identity": "v3", "compute": "v2.1", "network": "", "block-storage": "v3", "image": ""}


class Answers:
    """A small cloud: what it answers to GET by path; all else is noted, and answered as `made` says."""

    def __init__(self) -> None:
        self.pages: dict[str, Any] = {}
        self.made: dict[str, Callable[[Any], Any]] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.regions = ["regionOne"]
        self.url = ""

    def catalog(self) -> list[Any]:
        def endpoints(name: str, version: str) -> list[Any]:
            return [
                {"interface": "public", "region": r, "region_id": r, "id": r, "url": f"{self.url}/{name}/{version}"}
                for r in self.regions
            ]

        return [{"type": n, "name": n, "id": n, "endpoints": endpoints(n, v)} for n, v in SERVICES.items()]

    def get(self, path: str) -> tuple[int, Any]:
        services = {"/identity/v3": "3.14", "/compute/v2.1": "2.1", "/block-storage/v3": "3.0"}
        services |= {"/network": "2.0", "/image": "2.9"}
        if number := services.get(path.rstrip("/")):
            place = {"/network": "/network/v2.0", "/image": "/image/v2"}.get(path.rstrip("/"), path.rstrip("/"))
            links = [{"rel": "self", "href": f"{self.url}{place}/"}]
            version = {
                "id": f"v{number}",
                "status": "CURRENT",
                "version": number,
                "min_version": number,
                "links": links,
            }
            return 200, {"versions": [version]} if number != "3.14" else {"version": version}
        found = self.pages.get(path)
        return (404, {"itemNotFound": {"message": "not found"}}) if found is None else (200, found)

    def do(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/identity/v3/auth/tokens":
            project = {"id": "p1", "name": "project_1", "domain": {"id": "d", "name": "D"}}
            user = {"id": "u1", "name": "me", "domain": {"id": "d", "name": "D"}}
            times = {"expires_at": "2999-01-01T00:00:00.000000Z", "issued_at": "2026-01-01T00:00:00.000000Z"}
            token = {"methods": ["password"], "project": project, "user": user, **times, "catalog": self.catalog()}
            return 201, {"token": token}
        self.requests.append((method, path, body))
        return (200, self.made[path](body)) if path in self.made else (404, {"message": "not found"})


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[Answers]:
    """Give a small cloud on loopback, in which there is nothing yet."""
    made = Answers()

    class Page(BaseHTTPRequestHandler):
        def answer(self, method: str) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            path = urlsplit(self.path).path
            status, content = made.get(path) if method == "GET" else made.do(method, path, body)
            if isinstance(content, int):
                status, content = content, {"forbidden": {"message": "policy does not allow it", "code": content}}
            data = json.dumps(content).encode()
            self.send_response(status)
            for name, value in (("Content-Type", "application/json"), ("X-Subject-Token", "t"),
                                ("Content-Length", str(len(data)))):  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.answer("GET")

        def do_POST(self) -> None:
            self.answer("POST")

        def do_PUT(self) -> None:
            self.answer("PUT")

        def do_DELETE(self) -> None:
            self.answer("DELETE")

        def log_message(self, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.pages = {
        "/compute/v2.1/servers/detail": {"servers": []},
        "/compute/v2.1/os-keypairs": {"keypairs": []},
        "/compute/v2.1/flavors/detail": {"flavors": [
            {"id": "7", "name": "standard.tiny", "vcpus": 1, "ram": 900, "disk": 80}, {"id": "8", "name": None}]},
        "/compute/v2.1/limits": {"limits": {"rate": [], "absolute": {
            "maxTotalInstances": 8, "totalInstancesUsed": 1, "maxTotalCores": 8, "totalCoresUsed": 8,
            "maxTotalRAMSize": -1, "totalRAMUsed": 4096}}},
        "/block-storage/v3/volumes/detail": {"volumes": []},
        "/block-storage/v3/limits": {"limits": {"rate": [], "absolute": {"maxTotalVolumes": 10}}},
        "/network/v2.0/security-groups": {"security_groups": []},
        "/network/v2.0/floatingips": {"floatingips": []},
        "/network/v2.0/ports": {"ports": []},
        "/network/v2.0/routers": {"routers": []},
        "/network/v2.0/networks/n1": {"network": {"id": "n1", "name": "project_1"}},
        "/network/v2.0/networks/out": {"network": {"id": "out", "name": "public"}},
    }  # fmt: skip
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def connect(answers: Answers, tmp_path: Path) -> Callable[..., Any]:
    def log_in(**more: Any) -> Any:
        auth = {"auth_url": f"{answers.url}/identity/v3", "username": "me", "password": SECRET, "project_name": "p",
                "user_domain_name": "D", "project_domain_name": "D"}  # fmt: skip
        (tmp_path / "clouds.yaml").write_text(yaml.safe_dump(entry(auth, **more)))
        (tmp_path / "clouds.yaml").chmod(0o600)
        return cpouta_cloud.connect("openstack", tmp_path / "clouds.yaml")

    return log_in


@pytest.fixture
def inventory(connect: Callable[..., Any]) -> Inventory:
    return Inventory(connect(), Wanted("standard.tiny"))


@component
def test_a_region_must_be_the_cloud_s_and_be_named_where_there_are_several(
    answers: Answers, connect: Callable[..., Any]
) -> None:
    assert connect().current_project_id == "p1"
    with pytest.raises(TutorialError, match=r"no region 'elsewhere'[\s\S]*one of: regionOne"):
        connect(region_name="elsewhere")
    answers.regions = ["north", "south"]
    with pytest.raises(TutorialError, match=r"region_name is missing[\s\S]*one of: north, south"):
        connect()
    assert connect(region_name="south")


def router(**more: Any) -> dict[str, Any]:
    return {"id": "r1", "name": "r", "external_gateway_info": {"network_id": "out"}, "admin_state_up": True, **more}


@component
@pytest.mark.parametrize(
    "owner",
    [
        "network:router_interface",
        "network:router_interface_distributed",
        "network:ha_router_replicated_interface",
    ],
)
def test_routers_of_all_kinds_lead_outside(answers: Answers, inventory: Inventory, owner: str) -> None:
    answers.pages["/network/v2.0/routers"] = {"routers": [router()]}
    port = {"id": "rp1", "device_id": "r1", "device_owner": owner, "network_id": "n1"}
    gateway = {"id": "rp2", "device_id": "r1", "device_owner": "network:router_gateway", "network_id": "out"}
    copy = {"id": "rp3", "device_id": "r1", "device_owner": "network:router_centralized_snat", "network_id": "n1"}
    answers.pages["/network/v2.0/ports"] = {"ports": [gateway, port, copy]}
    inside, outside = inventory.networks()
    assert (inside.name, outside.name) == ("project_1", "public")


@component
@pytest.mark.parametrize(
    "closed",
    [{"external_gateway_info": None}, {"external_gateway_info": {}}, {"admin_state_up": False}],
)
def test_a_router_without_a_gateway_or_switched_off_leads_nowhere(
    answers: Answers, inventory: Inventory, closed: dict[str, Any]
) -> None:
    answers.pages["/network/v2.0/routers"] = {"routers": [router(**closed)]}
    port = {"id": "rp1", "device_id": "r1", "device_owner": "network:router_interface", "network_id": "n1"}
    answers.pages["/network/v2.0/ports"] = {"ports": [port]}
    with pytest.raises(TutorialError, match="No network of the project leads to the outside"):
        inventory.networks()


@component
def test_networks_without_a_name_or_of_the_same_name_are_chosen_by_their_id(
    answers: Answers, connect: Callable[..., Any]
) -> None:
    answers.pages["/network/v2.0/networks/n1"] = {"network": {"id": "n1", "name": None}}
    answers.pages["/network/v2.0/networks/n2"] = {"network": {"id": "n2", "name": "inner"}}
    answers.pages["/network/v2.0/routers"] = {"routers": [router()]}
    answers.pages["/network/v2.0/ports"] = {"ports": [
        {"id": n, "device_id": "r1", "device_owner": "network:router_interface", "network_id": n} for n in ("n1", "n2")
    ]}  # fmt: skip
    connection = connect()
    with pytest.raises(TutorialError, match=r"Which network is meant[\s\S]*inner, n1"):
        Inventory(connection, Wanted()).networks()
    assert Inventory(connection, Wanted(network="n1")).networks()[0].id == "n1"
    assert Inventory(connection, Wanted(network="inner")).networks()[0].id == "n2"


SERVER = {"id": "s1", "name": "vm", "metadata": {PROPERTY: "tutorial-cpouta"}}
MARK = Wanted().mark


def ip(identity: str, port: str | None, description: str = "") -> dict[str, Any]:
    return {"id": identity, "floating_ip_address": f"198.51.100.{identity[-1]}", "port_id": port, "status": "ACTIVE",
            "description": description}  # fmt: skip


@component
def test_a_floating_ip_at_any_port_of_the_server_is_found_and_only_ours_goes(
    answers: Answers, connect: Callable[..., Any], tmp_path: Path
) -> None:
    answers.pages["/compute/v2.1/servers/detail"] = {"servers": [SERVER]}
    answers.pages["/network/v2.0/ports"] = {"ports": [{"id": p, "device_id": "s1"} for p in ("p1", "p2")]}
    answers.pages["/network/v2.0/floatingips"] = {"floatingips": [
        ip("f1", "elsewhere", MARK), ip("f2", "p2", MARK), ip("f3", None, MARK)]}  # fmt: skip
    vm = Vm(
        Cloud(connect(), "openstack", tmp_path), Wanted("standard.tiny"), cpouta.Place(tmp_path, "cpouta", tmp_path)
    )
    assert vm.look().ip.id == "f2"
    answers.pages["/network/v2.0/floatingips"] = {"floatingips": [ip("f4", "p2", "by hand")]}
    assert vm.look().ip.id == "f4"
    assert {r["resource"]: r["what would happen"] for r in vm.leavings()}["floating IP"].startswith("stays")
    answers.pages["/network/v2.0/floatingips"] = {"floatingips": [ip("f1", "elsewhere", MARK)]}
    assert vm.look().ip is None


@component
def test_a_free_floating_ip_of_ours_is_given_to_the_address_that_leads_outside(
    answers: Answers, connect: Callable[..., Any], tmp_path: Path
) -> None:
    from openstack.compute.v2.server import Server
    from openstack.network.v2.network import Network

    fixed = [{"ip_address": "2001:db8::2", "subnet_id": "s6"}, {"ip_address": "10.1.0.2", "subnet_id": "s4"}]
    answers.pages["/network/v2.0/ports"] = {"ports": [
        {"id": "p0", "device_id": "s1", "network_id": "n9", "fixed_ips": [{"ip_address": "10.9.0.2"}]},
        {"id": "p1", "device_id": "s1", "network_id": "n1", "fixed_ips": fixed}]}  # fmt: skip
    free = ip("f3", None, MARK)
    answers.pages["/network/v2.0/floatingips"] = {"floatingips": [free]}
    answers.pages["/network/v2.0/floatingips/f3"] = {"floatingip": free}
    answers.made["/network/v2.0/floatingips/f3"] = lambda body: {"floatingip": {**free, **body["floatingip"]}}
    place = cpouta.Place(tmp_path, "cpouta", tmp_path)
    vm = Vm(Cloud(connect(), "openstack", tmp_path), Wanted("standard.tiny"), place)
    steps = list[tuple[object, ...]]()
    vm._have_ip(lambda *words: steps.append(words), Server(id="s1"), Network(id="n1"), Network(id="out"))
    assert answers.requests == [
        ("PUT", "/network/v2.0/floatingips/f3", {"floatingip": {"port_id": "p1", "fixed_ip_address": "10.1.0.2"}})
    ]
    assert steps[0] == ("floating IP", "ACTIVE", True)


@unit
def test_a_floating_ip_goes_to_the_ipv4_address_in_the_network_that_leads_outside() -> None:
    from openstack.network.v2.network import Network
    from openstack.network.v2.port import Port

    ports = [
        Port(id="p0", network_id="n9", fixed_ips=[{"ip_address": "10.9.0.2"}]),
        Port(id="p1", network_id="n1", fixed_ips=[{"ip_address": "2001:db8::2"}, {"ip_address": "10.1.0.2"}]),
        Port(id="p2", network_id="n1", fixed_ips=None),
    ]
    port, address = cpouta._way_in(ports, Network(id="n1"))
    assert (port.id, address) == ("p1", "10.1.0.2")
    with pytest.raises(TutorialError, match="no IPv4 address"):
        cpouta._way_in(ports[2:], Network(id="n1"))


@component
def test_servers_volumes_and_images_with_fields_missing_are_listed(
    answers: Answers, connect: Callable[..., Any]
) -> None:
    answers.pages["/compute/v2.1/servers/detail"] = {"servers": [{"id": "s0", "name": "other"}, SERVER]}
    answers.pages["/block-storage/v3/volumes/detail"] = {"volumes": [
        {"id": "v0"}, {"id": "v1", "metadata": {PROPERTY: "tutorial-cpouta"}}]}  # fmt: skip
    inventory = Inventory(connect(), Wanted("standard.tiny", image="Ubuntu-24.04"))
    states = {row["resource"]: (row["state"], row["detail"]) for row in inventory.rows()}
    assert states["server"] == ("unknown", "standard.tiny") and states["volume"] == ("unknown", "unknown GiB")
    answers.pages["/compute/v2.1/servers/detail"] = {"servers": [{**SERVER, "flavor": {"id": "7"}, "status": "ACTIVE"}]}
    assert {r["resource"]: r["detail"] for r in inventory.rows()}["server"] == "standard.tiny"
    images = [{"id": "i0", "name": None}, {"id": "i1"}, {"id": "i2", "name": "Ubuntu-24.04"}]
    answers.pages["/image/v2/images"] = {"images": images}
    assert inventory.image().id == "i2"
    answers.pages["/image/v2/images"] = {"images": images[:2]}
    with pytest.raises(TutorialError, match="no image of Ubuntu"):
        inventory.image()


@component
def test_limits_that_are_partial_unlimited_or_forbidden_are_unknown_and_stop_nobody(
    answers: Answers, inventory: Inventory
) -> None:
    answers.pages["/network/v2.0/quotas/p1"] = {"quota": {"floatingip": 2}}
    answers.pages["/network/v2.0/floatingips"] = {"floatingips": [ip("f1", "x"), ip("f2", "y")]}
    rows = {str(row["resource"]): row for row in inventory.quota()}
    assert {name: row["enough"] for name, row in rows.items()} == {
        "instances": "yes", "cores": "no", "memory (GiB)": "yes", "floating IPs": "no", "volumes": "unknown",
        "volumes (GiB)": "unknown",
    }  # fmt: skip
    assert (rows["memory (GiB)"]["limit"], rows["floating IPs"]["used"]) == ("none", "2")
    details = {"floatingip": {"used": 1, "limit": -1, "reserved": 1}}
    answers.pages["/network/v2.0/quotas/p1/details.json"] = {"quota": details}
    answers.pages["/network/v2.0/quotas/p1/details"] = {"quota": details}
    assert {str(r["resource"]): r for r in inventory.quota()}["floating IPs"]["limit"] == "none"
    for path in ("/compute/v2.1/limits", "/block-storage/v3/limits", "/network/v2.0/quotas/p1"):
        answers.pages[path] = 403
    for path in ("/network/v2.0/quotas/p1/details", "/network/v2.0/quotas/p1/details.json"):
        answers.pages[path] = 403
    assert {row["enough"] for row in inventory.quota()} == {"unknown"}
    for path in ("/compute/v2.1/limits", "/block-storage/v3/limits"):
        answers.pages[path] = {"limits": {}}
    assert {row["enough"] for row in inventory.quota()} == {"unknown"}


@component
def test_security_group_rules_of_all_kinds_say_from_where_ssh_may_come(answers: Answers, inventory: Inventory) -> None:
    def rule(**more: Any) -> dict[str, Any]:
        return {"direction": "ingress", "ethertype": "IPv4", "protocol": None, "port_range_min": None,
                "port_range_max": None, "remote_ip_prefix": None, "remote_group_id": None, **more}  # fmt: skip

    rules = [
        rule(direction="egress"),
        rule(protocol="icmp"),
        rule(protocol="tcp", port_range_min=80, port_range_max=443),
        rule(protocol="tcp", port_range_min=1, port_range_max=100, ethertype="IPv6", remote_ip_prefix="2001:db8::/32"),
        rule(remote_group_id="g9"),
        rule(
            protocol="tcp", port_range_min=22, port_range_max=22, remote_ip_prefix="198.51.100.7/32", description=RULE
        ),
    ]
    group = {"id": "g1", "description": MARK, "security_group_rules": rules}
    answers.pages["/network/v2.0/security-groups"] = {"security_groups": [group]}
    detail = {row["resource"]: row["detail"] for row in inventory.rows()}["security group"]
    assert detail == "SSH from 198.51.100.7/32, 2001:db8::/32, the group g9"
    group["security_group_rules"] = [rule(protocol="tcp")]
    detail = {row["resource"]: row["detail"] for row in inventory.rows()}["security group"]
    assert detail == "SSH from everywhere (IPv4)"
    group["security_group_rules"] = None
    assert {row["resource"]: row["detail"] for row in inventory.rows()}["security group"] == "SSH from nowhere"


@unit
def test_a_registered_key_is_compared_by_itself_or_by_its_fingerprint(tmp_path: Path) -> None:
    from openstack.compute.v2.keypair import Keypair

    public = Path(f"{ssh.make_key(tmp_path / 'id')}.pub").read_text()
    other = Path(f"{ssh.make_key(tmp_path / 'other')}.pub").read_text()
    assert cpouta._same_key(Keypair(public_key=f"{' '.join(public.split()[:2])} me@laptop"), public)
    assert not cpouta._same_key(Keypair(public_key=other), public)
    printed = subprocess.run(
        ["ssh-keygen", "-l", "-E", "md5", "-f", f"{tmp_path / 'id'}.pub"], capture_output=True, text=True, check=True
    ).stdout
    fingerprint = printed.split()[1].removeprefix("MD5:")
    assert cpouta._same_key(Keypair(fingerprint=fingerprint), public)
    assert not cpouta._same_key(Keypair(fingerprint=fingerprint), other)
    assert not cpouta._same_key(Keypair(), public)


@unit
def test_a_note_that_can_t_be_read_is_listed_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpouta, "notes", lambda: tmp_path)
    for number, text in enumerate(('{"cloud": "c"', "[]", '{"cloud": "c"}')):
        (tmp_path / f"tutorial-{number}.json").write_text(text)
    (tmp_path / "tutorial-9.json").write_text('{"cloud": "c", "flavor": "standard.tiny", "made": false}')
    rows = cpouta.leftovers("host")
    assert [row.remove for row in rows] == [None] * 4
    assert sum("can't be read" in row.what for row in rows) == 3 and len(list(tmp_path.iterdir())) == 4


@unit
def test_the_owners_of_a_router_s_port_are_those_of_neutron() -> None:
    assert len(cpouta_look._INSIDE) == 3
