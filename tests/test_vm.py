"""The target vm, as a reader uses it: made, stopped, reached, cut off in the middle of things, and removed."""

import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from helpers import airgap, ssh, ssh_lab, target_ssh, vm
from helpers.errors import TutorialError
from helpers.settings import ROOT, settings
from helpers.target import Capability, Target
from helpers.undo import leftovers

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(3600)]


def test_up_is_quick_and_changes_nothing_the_second_time(machine: Target) -> None:
    first = vm.up()
    assert vm.up() == first
    assert first.state == "running"
    assert ssh.SshConfig(Path.home()).resolve(settings().vm)["port"] == str(first.port)
    assert {Capability.DOCKER, Capability.ROOT, Capability.SYSTEMD} <= machine.capabilities()


def test_plain_ssh_leads_into_it(machine: Target) -> None:
    vm.up()
    config = ssh.SshConfig(Path.home()).config
    said = subprocess.run(
        ["ssh", "-F", str(config), settings().vm, "id -un; hostname"], capture_output=True, text=True, timeout=30
    )
    assert said.stdout.split() == ["ubuntu", "vm"], said.stderr


def test_stopped_and_started_it_keeps_its_disk(machine: Target) -> None:
    machine.run(["sh", "-c", "echo kept >~/note"])
    vm.stop()
    assert vm.status().state == "exited"
    assert machine.run(["cat", "note"]).stdout == "kept\n", "the next command starts it again"


def _cut(machine: Target) -> None:
    """End every SSH connection on the VM's side, as a rebooted machine or a lost network would."""
    subprocess.run(
        ["docker", "exec", settings().vm, "pkill", "-9", "-u", "ubuntu", "sshd"], capture_output=True, timeout=20
    )


def test_a_dropped_connection_is_opened_again_for_the_next_command(machine: Target) -> None:
    assert machine.run(["echo", "a"]).stdout == "a\n"
    _cut(machine)
    time.sleep(0.5)
    assert machine.run(["echo", "b"]).stdout == "b\n"


@pytest.mark.parametrize("repeatable", [True, False])
def test_only_a_command_that_may_be_repeated_is(machine: Target, repeatable: bool) -> None:
    machine.run(["rm", "-f", "count"])
    script = "echo x >>count; test $(wc -l <count) = 2 || sleep 20"
    killer = threading.Timer(1.5, _cut, (machine,))
    killer.start()
    if repeatable:
        assert machine.run(["sh", "-c", script], repeatable=True).returncode == 0
    else:
        with pytest.raises(TutorialError, match="may have run or not"):
            machine.run(["sh", "-c", script])
    killer.join()
    assert machine.run(["cat", "count"]).stdout.count("x") == (2 if repeatable else 1)


@pytest.fixture
def page(machine: Target) -> Iterator[int]:
    """Serve a page on the VM's loopback address, on port 8765."""
    machine.run(
        ["sh", "-c", "echo from the vm >index.html; setsid python3 -m http.server -b 127.0.0.1 8765 >/dev/null 2>&1 &"]
    )
    try:
        yield 8765
    finally:
        machine.run(["sh", "-c", "kill $(ss -Hltnp 'sport = :8765' | grep -o 'pid=[0-9]*' | cut -d= -f2)"], check=False)


def _read(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=5) as answer:
        return str(answer.read().decode())


def test_a_tunnel_survives_a_dropped_connection(machine: Target, page: int) -> None:
    with machine.tunnel(page) as port:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                assert _read(port) == "from the vm\n"
                break
            except OSError:
                time.sleep(0.2)
        _cut(machine)
        deadline = time.monotonic() + 15
        while True:
            try:
                assert _read(port) == "from the vm\n"
                break
            except OSError:
                assert time.monotonic() < deadline, "the tunnel did not come back"
                time.sleep(0.2)
    with pytest.raises(OSError):
        _read(port)


def test_expose_brings_a_port_of_this_machine_to_the_vm(machine: Target) -> None:
    address = machine.run(["sh", "-c", "ip -4 -o addr show docker0 | grep -oP 'inet \\K[0-9.]+'"]).stdout.strip()
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with machine.expose(server.server_port, address, 8123):
            said = machine.run(
                ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}:8123/"]
            ).stdout
        assert said == "200"
        gone = machine.run(["curl", "-s", "-m", "3", f"http://{address}:8123/"], check=False)
        assert gone.returncode != 0
        server.shutdown()


def test_sync_copies_what_git_tracks_and_removes_what_it_no_longer_has(machine: Target, tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    git("init", "-q")
    for name in ("a.txt", "b b.txt", "untracked.txt"):
        (tmp_path / name).write_text(name)
    git("add", "a.txt", "b b.txt")
    machine.sync(tmp_path, "copied")
    machine.run(["sh", "-c", "echo mine >copied/mine.txt"])
    (tmp_path / "a.txt").unlink()
    machine.sync(tmp_path, "copied")
    assert machine.run(["ls", "copied"]).stdout.split("\n") == ["b b.txt", "mine.txt", ""]


def test_a_stopped_docker_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    with pytest.raises(TutorialError, match="No Docker engine answers") as error:
        vm.up()
    assert "start Docker" in error.value.remedy


def test_chapter_01_finds_the_vm_without_a_parameter_and_leaves_the_reader_s_configuration(machine: Target) -> None:
    mine = ssh.SshConfig(Path.home())
    machine.run(["true"])
    before = {p: p.read_bytes() for p in mine.folder.iterdir() if p.name != f"{settings().vm}.known_hosts"}
    place = ssh_lab.endpoint("vm")
    place.config.install(place.blocks())
    with target_ssh.SshTarget("cpouta", place.config.config) as reached:
        assert reached.run(["hostname"]).stdout == "vm\n"
        assert ssh_lab.banner_through_tunnel(reached, place.server_port) == b"SSH-"
        assert ssh_lab.jump(place) == "two hops" and ssh_lab.through_agent(place)
        assert len(ssh_lab.provoke(place)) == 4
        assert str(place.folder) in [item.where for item in ssh.leftovers("vm")]
        ssh_lab.close(reached, place)
    assert ssh.leftovers("vm") == []
    assert {p: p.read_bytes() for p in before} == before and "cpouta" not in mine.aliases()


def test_a_laptop_without_docker_brings_no_images_and_is_told_the_ways_out(
    machine: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine.run(["true"])
    for name in ("ssh", "sh", "timeout", "tr", "ps", "awk", "sleep"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path))
    with target_ssh.SshTarget("cloud", ssh.SshConfig(Path.home()).config, settings().vm) as cloud:
        if not airgap.needed(cloud):
            airgap.supply(cloud, ["python:3.11-slim"])  # it pulls them itself: nothing is done here
            return
        with pytest.raises(TutorialError, match="There is no way to bring images to cloud") as error:
            airgap.supply(cloud, ["python:3.11-slim"])
    assert "Docker is not installed on this machine" in error.value.why and "mirror" in error.value.remedy


def test_clean_removes_the_vm_its_disks_and_its_host(other_vm: str) -> None:
    started = time.monotonic()
    vm.up()
    print(f"up: {time.monotonic() - started:.1f} s")
    assert other_vm in ssh.SshConfig(Path.home()).aliases()
    for item in leftovers("vm"):
        if item.remove:
            item.remove()
    assert leftovers("vm") == []
    volumes = subprocess.run(["docker", "volume", "ls", "-q"], capture_output=True, text=True, check=True).stdout
    assert other_vm not in volumes
    assert other_vm not in ssh.SshConfig(Path.home()).aliases()


def test_what_a_killed_laptop_left_running_is_found(machine: Target) -> None:
    script = "from helpers.target import Target; Target.open('vm').run(['sleep', '77.5'], timeout=100)"
    machine.run(["true"])
    child = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    try:
        deadline = time.monotonic() + 20
        while machine.run(["pgrep", "-fx", "sleep 77.5"], check=False).returncode != 0:
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.2)
    finally:
        child.kill()
        child.wait()
    rows = [line.split(" ", 1) for line in machine.run(["sh", "-c", target_ssh.LIST]).stdout.splitlines()]
    (pid,) = [pid for pid, what in rows if what.strip() == "sleep 77.5"]
    assert not [what for _, what in rows if "/proc/" in what], "the search does not find itself"
    machine.run(["kill", pid])
    assert machine.run(["pgrep", "-fx", "sleep 77.5"], check=False).returncode != 0


def test_a_vm_that_was_frozen_in_part_when_it_was_killed_is_removed(other_vm: str) -> None:
    """With cgroup v1 a frozen process can't die; runc freezes for a moment, and a kill may come just then."""
    freezer = Path("/sys/fs/cgroup/freezer/docker")
    if not freezer.is_dir():
        pytest.skip("this machine has cgroup v2, where a frozen process can be killed")
    vm.up()
    words = ["docker", "inspect", "-f", "{{.Id}}", other_vm]
    identity = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    held = freezer / identity / "held"
    held.mkdir()
    subprocess.run(["docker", "exec", "-d", other_vm, "sleep", "1234.5"], check=True)
    pids = subprocess.run(["pgrep", "-fx", "sleep 1234.5"], check=True, capture_output=True, text=True).stdout
    (held / "cgroup.procs").write_text(pids.split()[0])
    (held / "freezer.state").write_text("FROZEN")
    vm.destroy()
    assert vm.status().state == "missing"
