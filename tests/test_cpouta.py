"""Chapter 02: what it costs, who may come in, and the VM itself in a real OpenStack, also on its bad days."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers import airgap, cpouta, cpouta_cloud, cpouta_lab, cpouta_rates, cpouta_ssh, processes, ssh, undo
from helpers.cpouta import Cloud, Vm
from helpers.cpouta_look import RULE, Wanted
from helpers.errors import TutorialError
from helpers.settings import ROOT, settings
from helpers.target import Target
from tests.fault_proxy import BadDay, Fault, proxy

unit = pytest.mark.unit
component = pytest.mark.component
LAB = "tutorial-test-cloud"
NEW = "198.51.100.99"


def in_lab(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that runs against the OpenStack in a container."""
    for mark in (pytest.mark.component, pytest.mark.docker, pytest.mark.timeout(1200)):
        test = mark(test)
    return test


# What it costs, and who may come in


@unit
def test_a_flavor_is_found_however_it_is_spelled() -> None:
    assert cpouta_rates.choose_flavor("gpu.1.1.gpu") == "gpu.1.1gpu"
    assert cpouta_rates.choose_flavor("standard.xxlarge") == "standard.xxlarge"
    with pytest.raises(TutorialError, match=r"no flavor 'standard\.huge'[\s\S]*standard\.tiny"):
        cpouta_rates.choose_flavor("standard.huge")


@unit
@pytest.mark.parametrize(
    ("resources", "cost"),
    [
        ({"flavor": "standard.xxlarge"}, 8.40),
        ({"flavor": "standard.xxlarge", "state": "SHUTOFF"}, 8.40),
        ({"flavor": "standard.xxlarge", "state": "PAUSED"}, 8.40),
        ({"flavor": "standard.xxlarge", "state": "ERROR"}, 8.40),
        ({"flavor": "standard.xxlarge", "state": "SHELVED_OFFLOADED"}, 0),
        ({"volume_gib": 1024}, 3.6),
        ({"floating_ips": 2}, 0.4),
        ({"flavor": "gpu.1.1gpu", "volume_gib": 512, "floating_ips": 1}, 62.0),
    ],
)
def test_the_cost_is_that_of_csc_s_table(resources: dict[str, Any], cost: float) -> None:
    assert cpouta_rates.per_hour(**resources) == pytest.approx(cost)


@unit
def test_a_flavor_without_a_rate_is_refused_before_anything_is_made() -> None:
    with pytest.raises(TutorialError, match=r"No rate is known for the flavor tb\.1[\s\S]*rates\.toml"):
        cpouta_rates.per_hour("tb.1")


@unit
def test_only_the_gpu_flavors_and_the_largest_need_more_than_the_default_quota() -> None:
    rows = {row["flavor"]: row["within the default quota"] for row in cpouta_rates.flavors("standard", "gpu")}
    assert {name for name, fits in rows.items() if fits == "no"} == {
        "standard.3xlarge", "gpu.1.1gpu", "gpu.1.2gpu", "gpu.1.4gpu",
    }  # fmt: skip


@unit
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("0.0.0.0/0", "not an IP address"),
        ("0.0.0.0", "not a public address"),
        ("10.1.2.3", "not a public address"),
        ("100.64.0.9", "not a public address"),
        ("127.0.0.1", "not a public address"),
        ("255.255.255.255", "not a public address"),
        ("2001:db8::7", "IPv6"),
        ("my laptop", "not an IP address"),
    ],
)
def test_only_one_public_address_may_come_in(given: str, message: str) -> None:
    with pytest.raises(TutorialError, match=message):
        cpouta_ssh.own_address(given)


@contextmanager
def _answering(text: str) -> Iterator[str]:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


@component
def test_the_address_is_asked_of_the_first_service_that_gives_one() -> None:
    dead = f"http://127.0.0.1:{processes.free_port()}/"
    with _answering("<html>busy</html>") as page, _answering("192.168.0.2") as inside, _answering(f"{NEW}\n") as right:
        assert cpouta_ssh.own_address(services=[dead, page, inside, right]) == NEW
        with pytest.raises(TutorialError, match="could not be found out") as told:
            cpouta_ssh.own_address(services=[dead, page, inside])
        assert "my_address" in str(told.value) and page in str(told.value)


@unit
def test_the_name_says_whether_there_is_a_gpu() -> None:
    assert (Wanted("gpu.1.1.gpu").alias, Wanted("gpu.1.1.gpu").name) == ("GPU-cpouta", "tutorial-gpu-cpouta")
    assert (Wanted().alias, Wanted().name) == ("cpouta", "tutorial-cpouta")
    assert all("0.0.0.0/0" not in word for command in Wanted().commands() for word in command)


@unit
def test_what_is_quick_to_import_stays_so() -> None:
    script = "import helpers, helpers.cpouta, helpers.cpouta_lab, sys; print('openstack' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"


@unit
@pytest.mark.parametrize("target", ["host", "cpouta"])
def test_without_a_clouds_yaml_the_chapter_plans_unless_something_is_to_be_made(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OS_CLIENT_CONFIG_FILE", raising=False)
    monkeypatch.setattr("openstack.config.loader.CONFIG_FILES", [str(tmp_path / "clouds.yaml")])
    assert cpouta_lab.reach(target, "cpouta") is None
    with pytest.raises(TutorialError, match="There is no cloud 'cpouta'"):
        cpouta_lab.reach(target, "cpouta", create=True)
    (tmp_path / "clouds.yaml").write_text("clouds: {}\n")
    with pytest.raises(TutorialError):
        cpouta_lab.reach(target, "cpouta")


@unit
def test_credentials_come_from_clouds_yaml_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clouds = tmp_path / "clouds.yaml"
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(clouds))
    monkeypatch.setenv("OS_CLIENT_SECURE_FILE", str(tmp_path / "secure.yaml"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TutorialError, match=r"no such file[\s\S]*application credential"):
        cpouta_cloud.connect("cpouta")
    secret = {"application_credential_id": "a", "application_credential_secret": "s3cr3t"}
    auth = {"auth_url": f"http://127.0.0.1:{processes.free_port()}/v3", **secret}
    clouds.write_text(yaml.safe_dump({"clouds": {"openstack": {"auth": auth, "auth_type": "v3applicationcredential"}}}))
    clouds.chmod(0o644)
    with pytest.raises(TutorialError, match=r"no cloud 'cpouta'[\s\S]*it has: openstack"):
        cpouta_cloud.connect("cpouta")
    with pytest.raises(TutorialError, match="Others may read"):
        cpouta_cloud.connect("openstack")
    clouds.chmod(0o600)
    monkeypatch.setattr(cpouta_cloud, "_PAUSE_SECONDS", 0.01)
    with pytest.raises(TutorialError, match="can't be reached") as told:
        cpouta_cloud.connect("openstack")
    assert "s3cr3t" not in str(told.value)


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Path]]:
    """Give a real sshd on loopback: its port and its host key."""
    monkeypatch.setenv("TUTORIAL_STATE", str(tmp_path / "state"))
    settings.cache_clear()
    key, port = ssh.make_key(tmp_path / "host"), processes.free_port()
    argv = [sys.executable, "-m", "helpers.ssh_server", "--port", str(port), "--home", str(tmp_path), "--host-key",
            str(key), "--authorized-keys", f"{key}.pub"]  # fmt: skip
    running = processes.start("sshd", argv, ready=lambda: processes.answers(f"127.0.0.1:{port}"))
    yield port, key
    running.stop()
    settings.cache_clear()


@component
def test_the_host_key_is_compared_with_the_console_and_pinned_once(sshd: tuple[int, Path], tmp_path: Path) -> None:
    port, key = sshd
    known, printed = tmp_path / "known_hosts", f"256 {ssh.key_fingerprint(key)} root@vm (ED25519)"
    another = f"256 SHA256:{'A' * 43} root@vm (ED25519)"
    with pytest.raises(TutorialError, match="a host key that the VM did not make"):
        cpouta_ssh.pin_host_key(known, "server-1", "127.0.0.1", another, port)
    assert not known.exists()
    pin = cpouta_ssh.pin_host_key
    assert pin(known, "server-1", "127.0.0.1", f"{another}\n{printed}", port) == "compared with the console"
    assert pin(known, "server-1", "127.0.0.1", another, port) == "pinned before"
    assert pin(known, "server-2", "127.0.0.1", "no cloud-init here", port) == "on first use"
    public = Path(f"{key}.pub").read_text().split()[1]
    assert public in known.read_text() and known.stat().st_mode & 0o777 == 0o600


@pytest.mark.unit
@pytest.mark.parametrize("mine", [b"# caf\xe9\nhost ssh-ed25519 AAAA\n", b"host ssh-ed25519 AAAA\n"])
def test_known_hosts_of_the_reader_are_not_overwritten_by_a_pin(tmp_path: Path, mine: bytes) -> None:
    known = tmp_path / "known_hosts"
    known.write_bytes(mine)
    with pytest.raises(TutorialError, match="a file of your own"):
        cpouta_ssh.pin_host_key(known, "server-1", "127.0.0.1", "", 9)
    assert known.read_bytes() == mine


# The VM in a real OpenStack


@pytest.fixture(scope="session")
def lab(require: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[cpouta_lab.Lab]:
    """Give an OpenStack of the tests' own."""
    require("docker")
    if airgap.needed():
        airgap.build("cloud", quiet=True)
    made = cpouta_lab.Lab(LAB, tmp_path_factory.mktemp("cloud"))
    try:
        made.up()
        yield made
    finally:
        made.destroy()


@pytest.fixture
def cloud(lab: cpouta_lab.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """Give the learner's way to it, with CSC's default quota; it is empty in the end."""
    for name, value in (("_POLL_SECONDS", 0.2), ("_ADDRESS_SECONDS", 60.0)):
        monkeypatch.setattr(cpouta, name, value)
    monkeypatch.setattr(cpouta_cloud, "_PAUSE_SECONDS", 0.05)
    monkeypatch.setenv("TUTORIAL_STATE", str(tmp_path / "state"))
    settings.cache_clear()
    made = replace(lab.cloud(), home=tmp_path, folder=cpouta.notes())
    yield made
    empty(lab)
    settings.cache_clear()


@pytest.fixture
def vm(cloud: Cloud) -> Vm:
    return cloud.vm(Wanted())


def admin(lab: cpouta_lab.Lab) -> Any:
    return cpouta_cloud.connect("service-desk", lab.clouds)


def empty(lab: cpouta_lab.Lab) -> None:
    """Take away what is the learner's, whoever's test made it, and give the default quota back."""
    mine, desk = lab.cloud().connection, admin(lab)
    for server in list(mine.compute.servers()):
        mine.compute.delete_server(server)
        mine.compute.wait_for_delete(server, interval=0.2)
    for volume in list(mine.block_storage.volumes()):
        if volume.status == "in-use":
            mine.block_storage.wait_for_status(volume, "available", interval=0.2)
        mine.block_storage.delete_volume(volume)
        mine.block_storage.wait_for_delete(volume, interval=0.2)
    for ip in list(mine.network.ips()):
        mine.network.delete_ip(ip)
    for port in mine.network.ports(device_owner=""):
        mine.network.delete_port(port)
    for group in mine.network.security_groups():
        if group.name != "default":
            mine.network.delete_security_group(group)
    for key in mine.compute.keypairs():
        mine.compute.delete_keypair(key)
    desk.set_compute_quotas(mine.current_project_id, cores=8, ram=32 * 1024, instances=8)


def rules(vm: Vm, name: str) -> list[tuple[str, str, str]]:
    group = next(vm.cloud.network.security_groups(name=name))
    found = vm.cloud.network.security_group_rules(security_group_id=group.id)
    return sorted((r.direction, r.ether_type, r.remote_ip_prefix or "") for r in found)


def states(vm: Vm) -> Mapping[object, object]:
    return {row["resource"]: row["state"] for row in vm.rows()}


COMPLETE = {
    "key pair": "there", "security group": "there", "server": "ACTIVE", "volume": "in-use", "floating IP": "ACTIVE",
}  # fmt: skip


@in_lab
def test_the_whole_story(vm: Vm, capsys: pytest.CaptureFixture[str]) -> None:
    default = rules(vm, "default")
    assert vm.plan(), "the flavor of the course fits an empty project of the default quota"
    assert "8.95 BU an hour" in capsys.readouterr().out
    made = vm.create()
    assert made == ["key pair", "security group", "server", "volume", "floating IP", "Host cpouta"]
    assert vm.create() == [], "a second time changes nothing"
    assert states(vm) == COMPLETE
    assert rules(vm, vm.name) == [
        ("egress", "IPv4", ""),
        ("egress", "IPv6", ""),
        ("ingress", "IPv4", "198.51.100.7/32"),
    ]
    assert rules(vm, "default") == default
    server = vm.look().server
    assert server.flavor.original_name == "standard.xxlarge" and server.key_name == vm.name
    assert {g["name"] for g in server.security_groups} == {vm.name}
    address = vm.look().ip.floating_ip_address
    block = vm.place.config.resolve("cpouta")
    assert (block["hostname"], block["user"], block["stricthostkeychecking"]) == (address, "ubuntu", "true")
    # The address changes: our rule goes, the reader's own stays.
    group = vm.look().group
    vm.cloud.network.create_security_group_rule(
        security_group_id=group.id, direction="ingress", ethertype="IPv4", remote_ip_prefix="192.0.2.0/24"
    )
    assert vm.refresh_ssh_rule(NEW) == ("198.51.100.7/32", f"{NEW}/32")
    assert vm.refresh_ssh_rule(NEW) == (f"{NEW}/32", f"{NEW}/32")
    assert [r[2] for r in rules(vm, vm.name) if r[0] == "ingress"] == ["192.0.2.0/24", f"{NEW}/32"]
    # Shelved, it costs nothing, and says so.
    assert vm.pause() == "SHELVED_OFFLOADED" == vm.pause()
    assert {row["resource"]: row["BU/h"] for row in vm.rows()}["server"] == "0.00"
    with pytest.raises(TutorialError, match=r"it was paused[\s\S]*vm\.resume"):
        vm.create()
    assert vm.resume() == "ACTIVE" == vm.resume()
    # The volume outlives the server.
    volume = vm.volume_id()
    assert {row["resource"]: row["what would happen"] for row in vm.leavings()}["volume"] == "stays, with its data"
    vm.clean()
    assert [row["resource"] for row in vm.leavings()] == ["volume"]
    assert vm.place.config.aliases() == []
    vm.create()
    assert vm.volume_id() == volume
    vm.clean(delete_volume=True)
    vm.clean(delete_volume=True)
    assert vm.leavings() == []
    assert rules(vm, "default") == default


@in_lab
def test_beyond_the_quota_nothing_is_made_and_the_request_is_written(vm: Vm, lab: cpouta_lab.Lab) -> None:
    gpu = vm.like(Wanted("gpu.1.1.gpu"))
    assert not gpu.plan()
    with pytest.raises(TutorialError, match=r"quota does not allow gpu\.1\.1gpu[\s\S]*cores: 14 \(now 8\)"):
        gpu.create()
    assert gpu.leavings() == []
    assert cpouta_lab.service_desk(gpu, lab) == ["cores: 8 → 14", "memory (GiB): 32 → 117"]
    assert gpu.plan()
    assert "Host GPU-cpouta" in gpu.create()


@in_lab
def test_a_floating_ip_that_somebody_uses_is_never_taken(vm: Vm) -> None:
    network, (inside, outside) = vm.cloud.network, vm.networks()
    port = network.create_port(network_id=inside.id)
    # One carries our mark, but somebody put it elsewhere; the other is free, but not ours.
    busy = network.create_ip(floating_network_id=outside.id, port_id=port.id, description=vm.mark)
    theirs = network.create_ip(floating_network_id=outside.id)
    with pytest.raises(TutorialError, match=r"no free floating IP[\s\S]*may have 2"):
        vm.create()
    assert vm.leavings() == []
    network.delete_ip(theirs)
    vm.create()
    assert vm.look().ip.id != busy.id and network.get_ip(busy.id).port_id == port.id
    vm.clean(delete_volume=True)
    assert network.get_ip(busy.id).port_id == port.id


@in_lab
def test_a_volume_that_another_server_has_is_never_taken(vm: Vm, lab: cpouta_lab.Lab) -> None:
    small = vm.like(Wanted("standard.tiny", volume_gib=1))
    image, flavor, (inside, _) = vm.image(), small.flavor(), vm.networks()
    words = {"flavor_id": flavor.id, "image_id": image.id, "networks": [{"uuid": inside.id}]}
    other = vm.cloud.compute.wait_for_server(vm.cloud.compute.create_server(name="other", **words), interval=0.2)
    volume = vm.cloud.block_storage.create_volume(name=vm.name, size=1, metadata={"tutorial": vm.name})
    vm.cloud.block_storage.wait_for_status(volume, "available", interval=0.2)
    held = vm.cloud.compute.create_volume_attachment(other, volume_id=volume.id)
    with pytest.raises(TutorialError, match=r"can't be attached[\s\S]*another server has it"):
        small.create()
    assert vm.cloud.block_storage.get_volume(volume.id).attachments[0]["server_id"] == other.id
    vm.cloud.compute.delete_volume_attachment(other, held)
    storage, desk = vm.cloud.block_storage, admin(lab)
    storage.wait_for_status(storage.get_volume(volume.id), "available", interval=0.2)
    desk.block_storage.reset_volume_status(volume, status="error", attach_status=None)
    with pytest.raises(TutorialError, match=r"can't be attached[\s\S]*in the state error"):
        small.create()
    desk.block_storage.reset_volume_status(volume, status="available", attach_status=None)
    assert small.create() == ["volume", "floating IP", "Host cpouta"]
    assert states(small) == COMPLETE and small.volume_id() == volume.id


@in_lab
def test_a_server_without_a_place_is_made_anew_by_the_next_run(vm: Vm, lab: cpouta_lab.Lab) -> None:
    desk = admin(lab)
    service = next(s for s in desk.compute.services() if s.binary == "nova-compute")
    desk.compute.disable_service(service)
    try:
        with pytest.raises(TutorialError, match=r"server could not be made[\s\S]*no free machine"):
            vm.create()
        failed = vm.look().server
        assert failed.status == "ERROR"
    finally:
        desk.compute.enable_service(service)
    assert {"server", "volume", "floating IP"} <= set(vm.create())
    assert states(vm) == COMPLETE and vm.look().server.id != failed.id


@in_lab
def test_another_key_or_a_group_in_use_is_a_conflict_with_a_remedy(vm: Vm) -> None:
    compute = vm.cloud.compute
    compute.create_keypair(name=vm.name)
    with pytest.raises(TutorialError, match=r"another key under the name[\s\S]*keypair delete"):
        vm.create()
    compute.delete_keypair(vm.name)
    vm.create()
    port = vm.cloud.network.create_port(network_id=vm.networks()[0].id, security_groups=[vm.look().group.id])
    with pytest.raises(TutorialError, match=r"delete the security group[\s\S]*it conflicts"):
        vm.clean(delete_volume=True)
    vm.cloud.network.delete_port(port)
    vm.clean(delete_volume=True)
    assert vm.leavings() == []


SERVICES = {"compute": (8774, "/v2.1"), "network": (9696, ""), "block_storage": (8776, "/v3")}


@contextmanager
def bad_day(cloud: Cloud, lab: cpouta_lab.Lab) -> Iterator[tuple[BadDay, Cloud]]:
    """Give the same cloud with a proxy in front of its services."""
    with ExitStack() as stack:
        made, content = BadDay(), yaml.safe_load(lab.clouds.read_text())
        for service, (port, path) in SERVICES.items():
            outside = stack.enter_context(proxy(lab.ports()[port], made))
            content["clouds"]["cpouta"][f"{service}_endpoint_override"] = f"http://127.0.0.1:{outside}{path}"
        clouds = cloud.home / "clouds.yaml"
        secrets = (lab.folder / "secure.yaml").read_text()
        processes.write_atomically(clouds, yaml.safe_dump(content), 0o600)
        processes.write_atomically(clouds.with_name("secure.yaml"), secrets, 0o600)
        yield made, replace(cloud, connection=cpouta_cloud.connect("cpouta", clouds))


@in_lab
def test_an_expired_token_is_renewed_and_revoked_credentials_are_named(cloud: Cloud, lab: cpouta_lab.Lab) -> None:
    with bad_day(cloud, lab) as (bad, behind):
        token = behind.connection.auth_token
        bad.faults.append(Fault("GET", "/servers/detail", 1, 401))
        vm = behind.vm(Wanted())
        vm.look()
        assert bad.faults[0].times == 0 and behind.connection.auth_token != token
        bad.faults[0].times = 99
        with pytest.raises(TutorialError, match=r"does not accept the credentials[\s\S]*application credential"):
            vm.look()
    row = next(r for r in cpouta_lab.provoke(cloud.vm(Wanted())) if r["tried"] == "credentials that were revoked")
    assert "does not accept the credentials" in str(row["why"])


@in_lab
def test_a_fault_of_the_cloud_is_waited_out_without_a_second_server(cloud: Cloud, lab: cpouta_lab.Lab) -> None:
    with bad_day(cloud, lab) as (bad, behind):
        vm = behind.vm(Wanted())
        bad.faults += [
            Fault("GET", "/servers/detail", 2, 503),
            Fault("GET", "/limits", 1, 0),
            Fault("POST", "/servers$", 1, 504, reaches=True),  # it is made, but nobody hears of it
            Fault("POST", "os-volume_attachments", 1, 502, reaches=True),
        ]
        vm.create()
        assert [f.times for f in bad.faults] == [0, 0, 0, 0]
        assert len(list(cloud.connection.compute.servers())) == 1
        assert states(vm) == COMPLETE


@in_lab
def test_a_slow_build_ends_the_run_but_not_the_server(
    cloud: Cloud, lab: cpouta_lab.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def building(content: Any) -> None:
        content["server"]["status"] = "BUILD"

    with bad_day(cloud, lab) as (bad, behind):
        bad.faults.append(Fault("GET", r"/servers/[0-9a-f-]{36}$", 999, change=building))
        monkeypatch.setattr(cpouta, "_SERVER_SECONDS", 1.0)
        with pytest.raises(TutorialError, match=r"server is still BUILD[\s\S]*goes on waiting"):
            behind.vm(Wanted()).create()
        monkeypatch.undo()
        bad.faults[0].times = 2
        vm = behind.vm(Wanted())
        server = vm.look().server.id
        vm.create()
        assert states(vm) == COMPLETE and vm.look().server.id == server


@in_lab
def test_broken_off_at_any_step_the_next_run_goes_on_there(cloud: Cloud, lab: cpouta_lab.Lab) -> None:
    """Each request that makes something fails for good, one after the other: each run comes one step further."""
    steps = (
        ("POST", "/os-keypairs", "register the key"),
        ("POST", "/security-groups", "make the security group"),
        ("POST", "/security-group-rules", "change the SSH rule"),
        ("POST", "/servers$", "make the server"),
        ("POST", "/volumes$", "make the volume"),
        ("POST", "/os-volume_attachments", "attach the volume"),
        ("POST", "/floatingips", "give the server a floating IP"),
        ("PUT", "/floatingips/", "give the server a floating IP"),
    )
    with bad_day(cloud, lab) as (bad, behind):
        vm = behind.vm(Wanted())
        for method, path, named in steps:
            bad.faults[:] = [Fault(method, path, 99, 500)]
            with pytest.raises(TutorialError, match=rf"could not {named}[\s\S]*a fault of its own, 4 times"):
                vm.create()
            assert bad.faults[0].times == 95, "four attempts"
            if path == "/security-group-rules":
                cloud.vm(Wanted()).clean()
                assert cloud.vm(Wanted()).leavings() == []
        bad.faults.clear()
        assert vm.create() == ["floating IP", "Host cpouta"]
        assert states(vm) == COMPLETE
        assert len(list(cloud.connection.compute.servers())) == 1


@in_lab
def test_clean_lists_what_was_made_and_keeps_the_volume(cloud: Cloud) -> None:
    cloud.vm(Wanted("standard.tiny", volume_gib=1)).create()
    rows = cpouta.leftovers("host")
    assert [(row.what, row.remove is None) for row in rows] == [
        ("tutorial-cpouta: server, floating IP, security group, key pair", False),
        ("tutorial-cpouta: volume", True),
    ]
    cloud.vm(Wanted()).clean()
    assert [row.what for row in cpouta.leftovers("host")] == ["tutorial-cpouta: volume"]
    cloud.vm(Wanted()).clean(delete_volume=True)
    assert cpouta.leftovers("host") == []


# The volume, in the tests' VM

VOLUME = "0a1b2c3d-1111-2222-3333-444455556666"
MOUNT = "/media/rehearsal"
DATA = {"volume_id": VOLUME, "mount_point": MOUNT}
FORMAT = "Format the empty volume with ext4"


@pytest.fixture
def disk(machine: Target) -> Iterator[str]:
    """Give a blank disk in the VM under the name that OpenStack's would have."""
    try:
        yield cpouta_lab.plug_in(machine, VOLUME)
    finally:
        cpouta_lab.unplug(machine, VOLUME, MOUNT)


def root(machine: Target, script: str) -> str:
    return machine.run(machine.sudo("sh", "-c", script)).stdout.strip()


in_vm = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(3600)]


class TestVolume:
    pytestmark = in_vm

    def test_an_empty_volume_is_formatted_mounted_and_left_alone_then(self, machine: Target, disk: str) -> None:
        assert machine.apply("volume", DATA, dry=True).changed
        assert root(machine, f"blkid -p {disk} || echo empty") == "empty", "a dry run changes nothing"
        assert FORMAT in machine.apply("volume", DATA).changed
        machine.run(["sh", "-c", f"echo keep >{MOUNT}/note"])  # as its owner, without sudo
        assert machine.apply("volume", DATA).changed == []
        uuid = root(machine, f"blkid -s UUID -o value {disk}")
        assert root(machine, f"grep {MOUNT} /etc/fstab") == f"UUID={uuid} {MOUNT} ext4 defaults,nofail 0 2"
        # On a new VM the volume comes with its data.
        root(machine, f"umount {MOUNT}; sed -i '\\|{MOUNT}|d' /etc/fstab")
        assert FORMAT not in machine.apply("volume", DATA).changed
        assert machine.run(["cat", f"{MOUNT}/note"]).stdout == "keep\n"
        assert machine.apply("volume", DATA).changed == []

    @pytest.mark.parametrize(
        ("write", "named"),
        [
            ("mkswap $0", "swap"),
            (r"printf '\125\252' | dd of=$0 bs=1 seek=510 conv=notrunc; printf '\203' | dd of=$0 bs=1 seek=450; "
             r"printf '\377' | dd of=$0 bs=1 seek=458", "dos"),
            ("echo hello | dd of=$0 bs=1 seek=5000000", "what no tool knows"),
        ],
    )  # fmt: skip
    def test_data_of_any_kind_are_never_formatted(self, machine: Target, disk: str, write: str, named: str) -> None:
        machine.run(machine.sudo("sh", "-c", write, disk))
        before = root(machine, f"sha256sum {disk}")
        with pytest.raises(TutorialError, match=rf"not a file system \({named}\)"):
            machine.apply("volume", DATA)
        assert root(machine, f"sha256sum {disk}") == before

    def test_a_wrong_volume_or_a_taken_mount_point_is_refused(self, machine: Target, disk: str) -> None:
        with pytest.raises(TutorialError, match="which volume"):
            machine.apply("volume")
        with pytest.raises(TutorialError, match="not attached to this machine"):
            machine.apply("volume", {"volume_id": "another"})
        with pytest.raises(TutorialError, match="is mounted at /media/volume already"):
            machine.apply("volume", {"volume_id": VOLUME, "mount_point": "/media/volume"})


@unit
def test_the_volume_s_deploy_is_planned_where_there_is_no_machine() -> None:
    with Target.open("local") as target:
        assert FORMAT in target.apply("volume", DATA, dry=True).changed
    assert RULE and undo.AROUND_IT.index("helpers.cpouta_lab") < undo.AROUND_IT.index("helpers.vm")
