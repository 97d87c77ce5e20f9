"""The target `vm`: a throw-away VM stand-in, a container with systemd, sshd and a Docker of its own."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from helpers import airgap, docker_engine, ssh
from helpers.errors import TutorialError
from helpers.processes import write_atomically
from helpers.settings import ROOT, settings
from helpers.shell import ANSWER_SECONDS
from helpers.target import Completed
from helpers.target_local import run_here
from helpers.target_ssh import SshTarget
from helpers.undo import Leftover

IMAGE = "tutorial/vm:bookworm"
USER = "ubuntu"
_BASE = "debian:bookworm-slim"
_LABEL = "tutorial.vm"  # tells the VM from a container of the reader's own with the same name
# runc freezes a container for a moment to change its limits; with cgroup v1 what is killed just then can't die.
THAW = """find /sys/fs/cgroup/freezer -path "*$0*" -name freezer.state 2>/dev/null | while read -r state; do
  grep -q THAWED "$state" || echo THAWED >"$state"
done"""
_READY_SECONDS = 60.0
# What single chapters need of the lab besides.
_GROUPS = {"07_helm": "ray", "10_airflow": "airflow"}
# Docker's data and containerd's, and the persistent volume of chapter 02: they stay when the VM is stopped.
_VOLUMES = {"docker": "/var/lib/docker", "containerd": "/var/lib/containerd", "volume": "/media/volume"}


@dataclass(frozen=True)
class Vm:
    """The VM as it is now.

    Attributes:
        name: Of its container, and its Host in the SSH configuration.
        state: `missing`, `running`, or what Docker calls it.
        port: Of its sshd on this machine's loopback address; 0 unless it runs.
    """

    name: str
    state: str
    port: int


class VmTarget(SshTarget):
    """The VM stand-in, made on first use; all else is as on any machine behind SSH."""

    kind: ClassVar[str] = "vm"

    def __init__(self, name: str = "vm") -> None:
        super().__init__(name, _config().config, settings().vm)

    def _connect(self) -> None:
        if not self._connected():
            up()
        super()._connect()


def status() -> Vm:
    """Look whether the VM is there and runs.

    Raises:
        TutorialError: No Docker engine answers.
    """
    name = settings().vm
    done = docker("container", "inspect", name, check=False, timeout=ANSWER_SECONDS)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout or "[]") if done.returncode == 0 else []
        if not found:
            return Vm(name, "missing", 0)
        bound = (found[0]["NetworkSettings"]["Ports"] or {}).get("22/tcp") or [{"HostPort": "0"}]
        return Vm(name, found[0]["State"]["Status"], int(bound[0]["HostPort"]))
    except (ValueError, LookupError, TypeError):
        raise TutorialError(
            f"Docker does not tell what became of the container {name}",
            "docker container inspect printed something else than the state of a container",
            "see what the command docker is: docker version; install Docker Engine where it is another program",
            target="vm",
            output=done.stdout,
        ) from None


def up() -> Vm:
    """Have the VM run, make it where there is none, and name it in our SSH file.

    Returns:
        The VM; its sshd and its Docker answer.

    Raises:
        TutorialError: No Docker engine answers, the image can't be made, the VM doesn't get ready, or a container of
            the reader's own has its name.
    """
    now = _ours()
    if now.state == "missing":
        _make_image()
        _create(now.name)
    elif now.state != "running":
        docker("start", now.name)
    vm = status()
    _enrol(vm)
    _wait(vm)
    return vm


def prepare(chapters: Sequence[str] = ()) -> Vm:
    """Have the VM, and the lab's products where the VM reaches no registry: they take longer than a cell may take.

    Args:
        chapters: The names of the chapters that will run.
    """
    now = up()
    with VmTarget() as machine:
        if airgap.needed(machine):
            airgap.build("bases", "tools", "cluster", *(_GROUPS[name] for name in chapters if name in _GROUPS))
    return now


def stop() -> None:
    """Shut the VM down; its disks stay."""
    if _ours().state == "running":
        docker("stop", "-t", "30", settings().vm, timeout=60)


def _ours() -> Vm:
    """Look whether the VM is there, as `status` does; a container that the tutorial did not make is not touched."""
    vm = status()
    if vm.state != "missing" and not _is_ours(vm.name):
        raise TutorialError(
            f"There is a container {vm.name} already",
            "the tutorial did not make it, so it is neither used nor removed",
            "choose another name for the VM: the setting vm (TUTORIAL_VM)",
            target="vm",
        )
    return vm


def _is_ours(name: str) -> bool:
    """Tell whether the tutorial made the container of a name."""
    label = f'{{{{index .Config.Labels "{_LABEL}"}}}}'
    return docker("container", "inspect", "-f", label, name, check=False).stdout.strip() == "1"


def _key_is_ours() -> bool:
    """Tell whether the key of the VM's name is one that the tutorial made, by the comment in its public part."""
    public = Path(f"{_key()}.pub")
    return public.exists() and public.read_bytes().split()[-1:] == [b"tutorial"]


def destroy() -> None:
    """Remove the VM, its disks, its key and its Host; doing so twice does no harm.

    Raises:
        TutorialError: A container of the reader's own has its name; nothing is removed then.
    """
    name = _ours().name
    if "tried to kill" in docker("rm", "-f", "-v", name, check=False).stderr:
        identity = docker("container", "inspect", "-f", "{{.Id}}", name).stdout.strip()
        run_here(["sh", "-c", THAW, identity], check=False, target="vm")
        docker("rm", "-f", "-v", name)
    for volume in _VOLUMES:
        docker("volume", "rm", "-f", f"{name}-{volume}", check=False)
    _config().drop([name])
    keys = (_key(), Path(f"{_key()}.pub")) if _key_is_ours() else ()
    for path in (*keys, _known_hosts()):
        path.unlink(missing_ok=True)


def leftovers(target: str) -> list[Leftover]:
    """List the VM, for the target `vm`."""
    if target != "vm":
        return []
    vm = status()
    made = _is_ours(vm.name) or vm.name in _config().aliases() or _key_is_ours()
    return [Leftover("the VM stand-in with all that is in it", f"container {vm.name}", destroy)] if made else []


def _make_image() -> None:
    """Have the VM's image, made on Debian's own base image where a registry answers, else on the lab's."""
    if not airgap.needed():
        docker("pull", "-q", _BASE, timeout=600)
    airgap.build("vm")


def _create(name: str) -> None:
    volumes = [word for volume, path in _VOLUMES.items() for word in ("-v", f"{name}-{volume}:{path}")]
    docker(
        "run", "-d", "--name", name, "--hostname", "vm", "--label", f"{_LABEL}=1", "--privileged", *_runtime(),
        "--tmpfs", "/run", *volumes, "-p", "127.0.0.1::22", IMAGE, remedy="tutorial airgap build vm",
    )  # fmt: skip


def _runtime() -> Sequence[str]:
    """Name the runtime that asks for no more than this machine can give, where the lab has registered it."""
    known = docker("info", "--format", "{{json .Runtimes}}").stdout
    return ["--runtime", "runc-bounded"] if "runc-bounded" in known else []


def _enrol(vm: Vm) -> None:
    """Let our key in, pin the VM's host key, and write its Host."""
    key = ssh.make_key(_key())
    public = Path(f"{key}.pub").read_text(encoding="utf-8")
    home = f"/home/{USER}/.ssh/authorized_keys"
    script = f'grep -qxF "$0" {home} 2>/dev/null || echo "$0" >>{home}; chown {USER}: {home}; chmod 600 {home}'
    docker("exec", vm.name, "sh", "-c", script, public.strip())
    host_key = docker("exec", vm.name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").stdout.split()
    write_atomically(_known_hosts(), f"[127.0.0.1]:{vm.port} {host_key[0]} {host_key[1]}\n", 0o600)
    _config().install([host_block(vm)])


def host_block(vm: Vm) -> ssh.HostBlock:
    """Give the VM's Host: its address, port, user, key, and where its host key is pinned."""
    options = {"UserKnownHostsFile": f'"{_known_hosts()}"', "StrictHostKeyChecking": "yes"}
    return ssh.HostBlock(vm.name, "127.0.0.1", USER, str(_key()), vm.port, options)


def _wait(vm: Vm) -> None:
    """Wait for systemd, sshd and Docker in the VM."""
    deadline = time.monotonic() + _READY_SECONDS
    test = "systemctl is-active -q ssh && docker info >/dev/null 2>&1"
    while docker("exec", vm.name, "sh", "-c", test, check=False).returncode != 0:
        if time.monotonic() > deadline or status().state != "running":
            log = docker("exec", vm.name, "sh", "-c", "systemctl --failed; journalctl -n 20", check=False)
            raise TutorialError(
                "The VM did not get ready",
                f"its sshd or Docker does not answer after {_READY_SECONDS:g} s",
                "tutorial clean --target vm, then tutorial vm up",
                target="vm",
                output=log.stdout,
            )
        time.sleep(0.3)


def _config() -> ssh.SshConfig:
    return ssh.SshConfig(Path.home())


def _key() -> Path:
    return Path.home() / ".ssh" / f"{settings().vm}.pem"


def _known_hosts() -> Path:
    return Path.home() / ".ssh" / f"{settings().vm}.known_hosts"


def docker(*words: str, check: bool = True, timeout: float = 120, remedy: str = "") -> Completed:
    """Run docker on this machine, for what the target `vm` is made of.

    Args:
        words: Its arguments.
        check: Raise when it fails.
        timeout: Seconds until it is ended.
        remedy: What to do when it fails.

    Returns:
        The completed command.

    Raises:
        TutorialError: Docker is missing, does not answer, or the command failed.
    """
    argv = ["docker", *words]
    done = run_here(argv, check=False, timeout=timeout, target="vm", cwd=ROOT)
    if done.returncode == 127 and words[0] != "exec":  # of a command in a container it is the command's own
        raise TutorialError("Docker is not installed", "the target vm is a container", "install Docker", target="vm")
    fault = docker_engine.explain(done.stderr, docker_engine.ENGINE_FAULTS) if done.returncode else None
    if fault:
        raise TutorialError(
            "No Docker engine answers",
            f"{fault.why}; the target vm is a container on this machine",
            f"{fault.remedy}; or use the target local",
            target="vm",
            output=done.stderr,
        )
    if check and done.returncode != 0:
        fault = docker_engine.explain_command(argv, done.stderr)
        raise TutorialError(
            f"docker {words[0]} failed",
            fault.why if fault else f"exit code {done.returncode}",
            remedy or (fault.remedy if fault else "read what Docker says; tutorial clean --target vm starts over"),
            target="vm",
            command=argv,
            output=done.stderr,
        )
    return done
