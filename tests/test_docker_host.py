"""Chapter 03 on a VM: the engine's set-up merges and repeats; the move of its data survives a kill at every step."""

import base64
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from helpers import airgap, docker_host
from helpers.errors import TutorialError
from helpers.settings import ROOT
from helpers.target import Target

DAEMON = "/etc/docker/daemon.json"
# A small image of the VM's own programs; in its layers what an engine must not lose: a hidden folder, a hard link.
BASE = """cd / && p=$(which sh dash mkdir rm ln ls stat cat)
l=$(ldd $p | grep -o "/lib[^ ]*" | sed s,^,/usr,)
printf "%s\\n" /bin /lib /lib64 $p $l $(readlink -f $l) | sort -u | tar -c -T - 2>/dev/null | docker import - base"""
DOCKERFILE = """FROM base
RUN mkdir /hidden && echo old >/hidden/old
RUN rm -r /hidden && mkdir /hidden && echo new >/hidden/new && ln /hidden/new /hidden/same
"""


@pytest.fixture
def daemon_json(docker_vm: Target) -> Iterator[Target]:
    """Give the VM, and put its daemon.json back in the end."""
    before = docker_vm.run(["cat", DAEMON]).stdout
    yield docker_vm
    docker_vm.run(["sudo", "tee", DAEMON], input=before)
    docker_vm.run(["sudo", "systemctl", "reset-failed", "docker"], check=False)
    docker_vm.run(["sudo", "systemctl", "restart", "docker"])


def _configure(target: Target, text: str) -> None:
    target.run(["sudo", "tee", DAEMON], input=text)


@pytest.mark.component
@pytest.mark.docker
def test_the_engine_is_set_up_and_a_second_run_changes_nothing(daemon_json: Target) -> None:
    known = {**json.loads(daemon_json.run(["cat", DAEMON]).stdout), "debug": True, "log-driver": "local"}
    _configure(daemon_json, json.dumps(known))
    daemon_json.run(["sudo", "gpasswd", "-d", "ubuntu", "docker"])
    daemon_json.close()
    assert daemon_json.run(["docker", "info"], check=False).returncode != 0, "the group has been left"

    planned = docker_host.install(daemon_json, "", dry=True)
    assert "Write daemon.json" in planned.changed and "default-address-pools" in planned.details
    assert daemon_json.run(["docker", "info"], check=False).returncode != 0, "a dry run changes nothing"

    docker_host.install(daemon_json, "")
    assert docker_host.look(daemon_json).group == "yes", "without sudo, without logging in by hand"
    after = json.loads(daemon_json.run(["cat", DAEMON]).stdout)
    assert {k: after[k] for k in known} == known, "what the reader has set is kept"
    assert "log-opts" not in after, "options of another log driver would stop Docker"
    assert docker_host.install(daemon_json, "").changed == []
    assert docker_host.run_hello(daemon_json)


@pytest.mark.component
@pytest.mark.docker
def test_a_broken_daemon_json_is_named_and_left_alone(daemon_json: Target) -> None:
    _configure(daemon_json, '{"debug": true,}')
    for deploy in ("docker", "data_root"):
        with pytest.raises(TutorialError, match=r"not valid JSON.*line 1 column 16"):
            daemon_json.apply(deploy, {"docker_repository": ""})
    assert daemon_json.run(["cat", DAEMON]).stdout == '{"debug": true,}'
    assert daemon_json.run(["docker", "info"], check=False).returncode == 0, "the engine was not touched"


@pytest.mark.component
@pytest.mark.docker
def test_a_setting_that_docker_does_not_know_is_shown_in_its_words(daemon_json: Target) -> None:
    _configure(daemon_json, '{"no-such-setting": 1}')
    with pytest.raises(TutorialError, match="no-such-setting") as error:
        docker_host.install(daemon_json, "")
    assert "Restart Docker" in error.value.why


@pytest.mark.component
@pytest.mark.docker
def test_a_folder_without_room_or_with_other_data_is_refused_before_docker_stops(docker_vm: Target) -> None:
    docker_vm.run(["sudo", "sh", "-c", "mkdir -p /mnt/small && mount -t tmpfs -o size=1m tmpfs /mnt/small"])
    docker_vm.run(["sudo", "sh", "-c", "head -c 3M /dev/zero >/var/lib/docker/filler; mkdir -p /mnt/full/docker/image"])
    try:
        with pytest.raises(TutorialError, match="MiB free"):
            docker_host.move(docker_vm, "/mnt/small/docker")
        with pytest.raises(TutorialError, match="is not empty.*adopt"):
            docker_host.move(docker_vm, "/mnt/full/docker")
        assert docker_vm.run(["docker", "info"]).returncode == 0
        assert docker_vm.run(["sudo", "ls", "-A", "/mnt/small"]).stdout == ""
    finally:
        docker_vm.run(["sudo", "sh", "-c", "umount /mnt/small; rm -rf /mnt/small /mnt/full /var/lib/docker/filler"])


def _interrupt(target: Target, folder: str, at: str, remote: str = "") -> None:
    """Start the move, and end it when it begins an operation: kill -9 here, and there what it has started."""
    with target.inventory() as words:
        argv = [str(Path(sys.executable).with_name("pyinfra")), "-y", *words, "--data", f"data_root={folder}"]
        child = subprocess.Popen(
            [*argv, "deployments/host/data_root.py"],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            timer = threading.Timer(60, os.killpg, (child.pid, signal.SIGKILL))
            timer.start()
            seen = ""
            for line in child.stderr or ():
                if line.startswith("--> Starting operation: "):
                    seen = line.partition(": ")[2].strip()
                if seen == at:
                    time.sleep(0.3)
                    break
            assert seen == at, f"{at} did not begin"
        finally:
            timer.cancel()
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if remote:
        target.run(["sudo", "pkill", "-9", remote], check=False)


STEPS = (
    "Make {new}", "Note where the data come from", "Stop docker", "Stop docker.socket", "Stop containerd",
    "Copy the data", "Write daemon.json", "The copy is complete",
    "Let Docker wait for the volume when the machine boots", "Start containerd", "Start Docker",
)  # fmt: skip


@pytest.mark.e2e
@pytest.mark.docker
@pytest.mark.timeout(600)
def test_killed_at_each_step_the_next_run_completes_the_move_and_nothing_is_lost(docker_vm: Target) -> None:
    airgap.supply(docker_vm, ["hello-world:latest"])
    docker_vm.run(["sh", "-c", BASE])
    docker_vm.run(["docker", "build", "-q", "-t", "layers", "-"], input=DOCKERFILE, env={"DOCKER_BUILDKIT": "0"})
    docker_vm.run(["docker", "run", "--name", "writer", "-v", "kept:/v", "layers", "sh", "-c",
                   "echo mine >/v/a && ln /v/a /v/b"])  # fmt: skip
    before, table = docker_host.contents(docker_vm), []
    for number, step in enumerate(STEPS):
        new = f"/media/volume/docker-{number}"
        at = step.format(new=new)
        _interrupt(docker_vm, new, at, remote="rsync" if step == "Copy the data" else "")
        docker = docker_vm.run(["docker", "info"], check=False).returncode == 0
        docker_host.move(docker_vm, new)
        table.append((at, "up" if docker else "away", docker_host.contents(docker_vm) == before))
        assert docker_host.look(docker_vm).root == new
        assert docker_host.move(docker_vm, new).changed == [], f"{at}: a second run changes nothing"
        docker_host.delete_old_data(docker_vm)
    print("\n".join(f"{at:55} Docker {docker:5} all there again: {same}" for at, docker, same in table))
    assert all(same for _, _, same in table), table
    listed = docker_vm.run(["docker", "run", "--rm", "-v", "kept:/v", "layers", "sh", "-c",
                            "ls /hidden /v; stat -c %h /hidden/new /v/a"]).stdout.split()  # fmt: skip
    assert listed == ["/hidden:", "new", "same", "/v:", "a", "b", "2", "2"], "whiteouts and hard links came along"
    assert docker_host.run_hello(docker_vm)


@pytest.mark.e2e
@pytest.mark.docker
def test_a_copy_whose_laptop_was_lost_is_waited_for_and_a_reboot_in_it_does_no_harm(docker_vm: Target) -> None:
    docker_vm.run(["docker", "volume", "create", "big"])
    root = docker_host.look(docker_vm).root
    fill = f"for i in $(seq 20); do head -c 20M /dev/urandom >{root}/volumes/big/_data/$i; done"
    docker_vm.run(["sudo", "sh", "-c", fill], timeout=120)
    before, new = docker_host.contents(docker_vm), "/media/volume/docker-lost"
    _interrupt(docker_vm, new, "Copy the data")
    assert docker_vm.run(["pgrep", "rsync"], check=False).returncode == 0, "the copy goes on without us"
    docker_host.move(docker_vm, new)
    assert docker_host.contents(docker_vm) == before
    again = "/media/volume/docker-again"
    _interrupt(docker_vm, again, "Copy the data")
    subprocess.run(["docker", "restart", "-t", "20", "tutorial-test-docker"], check=True, capture_output=True)
    docker_vm.close()
    assert docker_host.look(docker_vm).root == new, "Docker starts with the folder that is complete"
    docker_vm.run(["docker", "volume", "create", "later"])
    docker_host.move(docker_vm, again)
    after = docker_host.contents(docker_vm)
    assert after.images == before.images and any(v.startswith("later ") for v in after.volumes)
    docker_vm.run(["docker", "volume", "rm", "big"])


@pytest.mark.e2e
@pytest.mark.docker
def test_data_of_another_docker_on_the_volume_are_used_when_asked(docker_vm: Target) -> None:
    docker_vm.run(["docker", "volume", "create", "mine"])
    before, root = docker_host.contents(docker_vm), docker_host.look(docker_vm).root
    docker_host.move(docker_vm, "/media/volume/docker-first")
    docker_host.move(docker_vm, root, adopt=True)
    assert docker_host.look(docker_vm).root == root and docker_host.contents(docker_vm) == before


@pytest.mark.component
@pytest.mark.docker
def test_a_daemon_json_in_utf_16_is_merged_and_one_in_latin_1_is_left_alone(daemon_json: Target) -> None:
    known = json.loads(daemon_json.run(["cat", DAEMON]).stdout)
    known.pop("default-address-pools", None)
    write = f"printf %s {{}} | base64 -d >{DAEMON}"
    latin = base64.b64encode(b'{"labels": ["caf\xe9"]}').decode()
    daemon_json.run(["sudo", "sh", "-c", write.format(latin)])
    for deploy in ("docker", "data_root"):
        with pytest.raises(TutorialError, match="not valid UTF-8: line 1"):
            daemon_json.apply(deploy, {"docker_repository": ""})
    assert daemon_json.run(["base64", "-w0", DAEMON]).stdout == latin

    wide = base64.b64encode(json.dumps({**known, "debug": True}).encode("utf-16")).decode()
    daemon_json.run(["sudo", "sh", "-c", write.format(wide) + f"; chmod 600 {DAEMON}"])
    docker_host.install(daemon_json, "")
    after = json.loads(daemon_json.run(["sudo", "cat", DAEMON]).stdout)
    assert {**known, "debug": True}.items() <= after.items() and "default-address-pools" in after
    assert daemon_json.run(["stat", "-c", "%a", DAEMON]).stdout == "600\n"
    daemon_json.run(["sudo", "chmod", "644", DAEMON])


def _started(target: Target) -> str:
    return target.run(["systemctl", "show", "docker", "-p", "ActiveEnterTimestampMonotonic"]).stdout


@pytest.mark.component
@pytest.mark.docker
def test_what_can_not_be_moved_is_refused_before_docker_stops(daemon_json: Target) -> None:
    vm, started, root = daemon_json, _started(daemon_json), docker_host.look(daemon_json).root
    conf = "/etc/systemd/system/docker.service.d/test.conf"

    def as_root(script: str) -> None:
        vm.run(["sudo", "sh", "-c", script])

    def refused(folder: str, why: str) -> None:
        with pytest.raises(TutorialError, match=why):
            docker_host.move(vm, folder)

    as_root(f"ln -sfn {root} /mnt/link; mkdir -p /mnt/bind /mnt/ro && mount --bind {root}/volumes /mnt/bind")
    as_root("mount -t tmpfs -o ro tmpfs /mnt/ro")
    try:
        refused(f"{root}/inner", "is inside")
        refused(f"{root}/../{root.rpartition('/')[2]}//inner/", "is inside")
        refused("/mnt/link/inner", "is inside")
        refused("/mnt/bind/inner", "is inside")
        refused(root.rpartition("/")[0], "is inside")
        refused("/", "is not an absolute path of a folder")
        refused("docker", "is not an absolute path of a folder")
        refused("/mnt/ro/docker", "MiB free|read-only")
        refused("/etc/hostname", "is not a folder")
        changed = docker_host.move(vm, "/mnt/link").changed  # the same folder: Docker's unit waits for it, no more
        assert not {"Stop docker", "Copy the data", "Write daemon.json"} & set(changed)

        unit = "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// --data-root /mnt/big/docker\n"
        as_root(f"mkdir -p {conf.rpartition('/')[0]}; printf %s {shlex.quote(unit)} >{conf}; systemctl daemon-reload")
        refused("/media/volume/docker-refused", "--data-root /mnt/big/docker")
        as_root(f"rm {conf}; systemctl daemon-reload")

        _configure(vm, json.dumps({**json.loads(vm.run(["cat", DAEMON]).stdout), "live-restore": True}))
        refused("/media/volume/docker-refused", "live-restore")
        assert _started(vm) == started and vm.run(["docker", "info"]).returncode == 0
        assert vm.run(["test", "-e", "/media/volume/docker-refused"], check=False).returncode == 1
    finally:
        as_root(f"umount /mnt/bind /mnt/ro; rm -rf /mnt/link {conf}; rmdir /mnt/bind /mnt/ro; systemctl daemon-reload")


@pytest.mark.e2e
@pytest.mark.docker
def test_where_the_copy_or_the_start_fails_docker_runs_on_with_the_old_folder(docker_vm: Target) -> None:
    airgap.supply(docker_vm, ["hello-world:latest"])
    root, before = docker_host.look(docker_vm).root, docker_vm.run(["cat", DAEMON]).stdout
    new, fake = "/media/volume/docker-fails", "/usr/local/sbin/rsync"
    unit = "[Service]\nExecStartPre=/bin/sh -c '! grep -q docker-fails /etc/docker/daemon.json'\n"
    conf = "/etc/systemd/system/docker.service.d/test.conf"
    docker_vm.run(["sudo", "sh", "-c", f"echo 'echo the disk broke >&2; exit 11' >{fake}; chmod 755 {fake}"])
    try:
        for step, cause in (("Copy the data", "the disk broke"), ("Start Docker", "")):
            with pytest.raises(TutorialError, match=step) as error:
                docker_host.move(docker_vm, new)
            assert cause in error.value.output
            assert docker_host.look(docker_vm).root == root, f"{step}: Docker answers, with the old folder"
            assert json.loads(docker_vm.run(["cat", DAEMON]).stdout) == json.loads(before)
            assert docker_host.run_hello(docker_vm)
            docker_vm.run(["sudo", "sh", "-c", f"rm -f {fake}; mkdir -p {conf.rpartition('/')[0]}"])
            docker_vm.run(["sudo", "tee", conf], input=unit)
            docker_vm.run(["sudo", "systemctl", "daemon-reload"])
    finally:
        docker_vm.run(["sudo", "sh", "-c", f"rm -f {fake} {conf}; systemctl daemon-reload; systemctl start docker"])
    docker_host.move(docker_vm, new)
    assert docker_host.look(docker_vm).root == new and docker_host.run_hello(docker_vm)


@pytest.mark.e2e
@pytest.mark.docker
def test_the_deletion_takes_what_docker_made_and_stops_at_mounts(docker_vm: Target) -> None:
    root, new = docker_host.look(docker_vm).root, "/media/volume/docker-own"
    docker_vm.run(["docker", "volume", "create", "bound"])
    docker_host.move(docker_vm, new)
    own = f"""mkdir -p /srv/own && echo mine >/srv/own/data && echo mine >{root}/notes.txt
    mount --bind /srv/own {root}/volumes/bound/_data"""
    docker_vm.run(["sudo", "sh", "-c", own])
    docker_host.delete_old_data(docker_vm)
    left = docker_vm.run(["sudo", "ls", root]).stdout.split()
    assert {"notes.txt", "volumes"} <= set(left) and not {"overlay2", "image", "containers"} & set(left)
    assert docker_vm.run(["sudo", "cat", "/srv/own/data"]).stdout == "mine\n"
    docker_vm.run(["sudo", "umount", f"{root}/volumes/bound/_data"])
    docker_host.delete_old_data(docker_vm)
    assert docker_host.old_data(docker_vm) == "" and docker_host.look(docker_vm).root == new
    assert docker_vm.run(["sudo", "cat", f"{root}/notes.txt"]).stdout == "mine\n"
    docker_vm.run(["sudo", "rm", f"{root}/notes.txt"])
    docker_vm.run(["docker", "volume", "rm", "bound"])


# The installed engine, packed anew under the name that Docker gives its own: what Docker's apt repository would bring.
REPACK = r"""set -e
root=$(mktemp -d) && chmod 755 "$root" && mkdir "$root/DEBIAN" && cd /
dpkg -L docker.io | while read -r f; do if [ -f "$f" ]; then echo "$f"; fi; done | tar -c -T - | tar -x -C "$root"
for part in conffiles preinst postinst prerm postrm; do
  if [ -e /var/lib/dpkg/info/docker.io.$part ]; then cp -a /var/lib/dpkg/info/docker.io.$part "$root/DEBIAN/$part"; fi
done
field() { printf '%s: %s\n' "$1" "$2"; }
{ field Package docker-ce; field Version 5:28.0; field Architecture "$(dpkg --print-architecture)"
  field Maintainer test; field Description "the engine, under Docker's name for it"
  field Depends "$(dpkg-query -W -f '${Depends}' docker.io)"; field Conflicts docker.io; field Replaces docker.io
} >"$root/DEBIAN/control"
dpkg-deb -Zgzip --build "$root" "$0"; chmod 644 "$0"; rm -rf "$root"
"""


@pytest.fixture
def docker_repository(other_vm: str, tmp_path: Path) -> Iterator[tuple[Target, dict[str, object]]]:
    """Give a VM without Docker, and a signed apt repository laid out as Docker's own, on its loopback address."""
    sys.path.insert(0, str(ROOT / "tests" / "airgap" / "nvidia"))
    import repository as apt

    top, home = tmp_path / "web" / "debian", tmp_path / "gpg"
    home.mkdir(mode=0o700)
    words = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    apt.run(*words, "--passphrase", "", "--quick-gen-key", "docker of this test", "ed25519", "sign", "never")
    listed = apt.run(*words, "--with-colons", "--list-keys").splitlines()
    architecture = apt.run("dpkg", "--print-architecture").strip()
    release = top / "dists" / "bookworm"
    with Target.open("vm") as target:
        target.run(["sudo", "bash", "-c", REPACK, "/tmp/docker-ce.deb"], timeout=120)
        (top / "pool").mkdir(parents=True)
        target.get("/tmp/docker-ce.deb", top / "pool" / "docker-ce.deb")
        for name in ("docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"):
            apt.package({"name": name, "version": "1"}, {}, top / "pool")
        fields = {"Suite": "bookworm", "Codename": "bookworm", "Components": "stable", "Architectures": architecture}
        apt.index(top, release, release / "stable" / f"binary-{architecture}", fields, home)
        apt.run(*words, "--armor", "-o", str(top / "gpg"), "--export")
        apt.run("gpgconf", "--homedir", str(home), "--kill", "gpg-agent")
        target.run(["sudo", "apt-get", "purge", "-qy", "docker.io"], timeout=120)
        handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            with target.expose(server.server_port, "127.0.0.1", 8603):
                fingerprint = next(x.split(":")[9] for x in listed if x.startswith("fpr"))
                yield target, {"docker_repository": "http://127.0.0.1:8603", "docker_fingerprint": fingerprint}
            server.shutdown()


@pytest.mark.e2e
@pytest.mark.docker
def test_the_engine_comes_from_dockers_own_repository_if_its_key_signs_it(
    docker_repository: tuple[Target, dict[str, object]],
) -> None:
    target, data = docker_repository
    assert docker_host.look(target).engine == ""
    with pytest.raises(TutorialError, match="Add Docker's key") as error:
        target.apply("docker", {**data, "docker_fingerprint": "0" * 40})
    assert "is not the expected one" in error.value.output
    assert target.run(["ls", "/etc/apt/sources.list.d"]).stdout.split() == ["debian.sources"], "nothing half-made"

    assert "Install Docker Engine" in target.apply("docker", data).changed
    target.close()
    found = docker_host.look(target)
    assert (found.package, found.boot, found.group) == ("docker-ce 5:28.0", "enabled", "yes") and found.engine
    assert docker_host.run_hello(target)
    assert target.apply("docker", data).changed == []
