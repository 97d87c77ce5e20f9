"""What the machine of a target needs, asked on that machine: for the VM stand-in, on this machine, and behind SSH."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping

from helpers import airgap, docker_engine, docker_host, gpu, gpu_lab, kind, shell, vm
from helpers.errors import TutorialError
from helpers.finding import Finding, asked, at_least, install
from helpers.target import Capability, Target

VM_MEMORY, VM_DISK, VM_DISK_MADE = 4, 15, 3  # GiB; the disk of a VM that has been made holds the most of it already
_INSTALL_DOCKER = "https://docs.docker.com/engine/install/"
_SUDOERS = 'echo "$USER ALL=(ALL) NOPASSWD: ALL" | sudo tee /etc/sudoers.d/90-$USER'
_QUESTIONS = {
    "system": '[ -r /etc/os-release ] && . /etc/os-release; echo "${PRETTY_NAME:-$(uname -s)}"',
    "apt": "command -v apt-get",
    "docker": "command -v docker",
    "user": "id -un",
    "rsync": "rsync --version | awk 'NR == 1 {print $3}'",
    "internet": docker_host.REACHED,
}
_SYSCTL = {"inotify watches": "fs.inotify.max_user_watches", "inotify instances": "fs.inotify.max_user_instances"}


def stand_in() -> list[Finding]:
    """Look at what the VM stand-in needs of this computer: an engine, memory, disk, and images or what makes them."""
    here = Target.open("local")
    engine = asked("Docker engine", lambda: docker_engine.version(here), "the VM is a container", True, _INSTALL_DOCKER)
    there = {str(row["what"]): row["there"] for row in kind.requirements(here)}
    made = engine.state == "ok" and _vm_state() != "missing"
    memory, disk = _number(there["memory (GiB)"]), _number(there["disk (GiB)"])
    least, free = VM_DISK_MADE if made else VM_DISK, "docker system df shows what takes the space; free some"
    return [
        engine,
        at_least("memory", memory, VM_MEMORY, "GiB", "the VM; one more for chapter 02", True, "a larger computer, or "
                 "more memory for Docker's own VM (Docker Desktop: Settings, Resources)"),
        at_least("disk for Docker", disk, least, "GiB", "images, the VM's disk", True, free),
        *(_registry() if engine.state == "ok" else ()),
        asked("GPU rehearsal", _rehearsal, "chapter 04, which plans without it", False, gpu_lab.INSTALL),
    ]  # fmt: skip


def _rehearsal() -> str:
    missing = gpu_lab.lacking()
    if missing:
        raise TutorialError("No rehearsal", f"{', '.join(missing)} not found", gpu_lab.INSTALL)
    return "can be done"


def _vm_state() -> str:
    try:
        return vm.status().state
    except TutorialError:
        return "missing"


def _number(there: object) -> float | None:
    return float(there) if isinstance(there, int | float) else None


def _registry() -> list[Finding]:
    """Ask whether images can be pulled, and look for what makes them where they can't be."""
    purpose = "the VM's images"
    try:
        if not airgap.needed():
            return [Finding("container registry", "answers", purpose, True, "")]
        missing = airgap.missing()
    except TutorialError as error:
        return [Finding("container registry", f"no: {error.why or error.what}", purpose, True, error.remedy, "", False)]
    if not missing:
        return [Finding("container registry", "none; images are made", purpose, False, "")]
    row = Finding(
        "container registry", "none answers", purpose, False, "", f"or {len(missing)} images and tools are made", True
    )
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/go/bin"
    programs = (("Go", "go", "golang"), ("debootstrap", "debootstrap", "debootstrap"), ("jq", "jq", "jq"))
    rows = [
        Finding(name, shutil.which(program, path=path) or "", "making the images", True, install(package))
        for name, program, package in programs
    ]
    root = Finding("root rights", "you are root" if os.geteuid() == 0 else "", "making the images", True,
                   'sudo HOME="$HOME" PATH="$PATH" .venv/bin/tutorial airgap build')  # fmt: skip
    return [row, *rows, root]


def this_machine() -> list[Finding]:
    """Look at what this machine needs to be the target `host`."""
    return _guarded("this machine", lambda: _machine(Target.open("host")))


def behind_ssh(name: str) -> list[Finding]:
    """Look at a machine behind SSH; it is asked itself, over one connection.

    Args:
        name: The Host of the reader's SSH configuration.
    """

    def look() -> list[Finding]:
        with Target.open(name) as machine:
            machine.run(["true"], repeatable=True)
            return [Finding(f"Host {name}", "answers", "all that this target does", True, ""), *_machine(machine)]

    return _guarded(
        f"Host {name}", look, f"; then this must work without a question: ssh {name} true (chapter 01 sets it up)"
    )


def _guarded(name: str, look: Callable[[], list[Finding]], advice: str = "") -> list[Finding]:
    """Give a machine's rows; where it can't be asked, one row that says why."""
    try:
        return look()
    except (TutorialError, OSError, subprocess.SubprocessError) as error:
        why, remedy = (error.why or error.what, error.remedy) if isinstance(error, TutorialError) else (str(error), "")
        return [Finding(name, f"no: {why}", "all that this target does", True, f"{remedy}{advice}", "", False)]


def _machine(machine: Target) -> list[Finding]:
    """Look at a machine that is provisioned and gets a cluster."""
    told, able = shell.query(machine, _QUESTIONS), machine.capabilities()
    root, systemd = Capability.ROOT in able, Capability.SYSTEMD in able
    installs = bool(root and systemd and told["apt"] and not told["docker"])  # chapter 03 can do it
    remedy = (
        f"chapter 03 installs it: .venv/bin/tutorial run 03 --target {machine.name}" if installs else _INSTALL_DOCKER
    )
    engine = asked(
        "Docker engine", lambda: _engine(machine, installs), "chapters 03 to 10", not installs, remedy, "an engine"
    )
    bare = engine.state != "ok"  # chapter 03 has to install Docker, or to repair it
    who = "you are root" if told["user"] == "root" else "without a password"
    return [
        Finding("system", told["system"] or "", "apt installs Docker", bare, "a VM with Ubuntu or Debian", "apt",
                bool(told["apt"])),
        Finding("sudo", who if root else "", "chapters 03 and 04", bare, _SUDOERS),
        Finding("systemd", "runs" if systemd else "", "chapters 03 and 04", bare, "a VM with Ubuntu or Debian"),
        engine,
        *_sizes(machine, root),
        asked("cluster's ports", lambda: _ports(machine), "chapter 06", True, "", "free"),
        Finding("rsync", told["rsync"] or "", "what is copied there", True, "sudo apt install rsync"),
        asked("GPU", lambda: "; ".join(gpu.devices(machine)), "chapter 04", False, "none is needed"),
        Finding("internet", "reached" if told["internet"] == "yes" else "", "packages and images", False,
                "set the network's proxy there, or have the images made: tutorial airgap build"),
    ]  # fmt: skip


def _engine(machine: Target, installs: bool) -> str:
    return "" if installs else docker_engine.version(machine)


def _sizes(machine: Target, root: bool) -> list[Finding]:
    """Compare cores, memory, disk and inotify's limits; with root rights chapter 06 raises the limits itself."""
    remedies: Mapping[str, str] = {
        "disk (GiB)": "docker system df shows what takes the space; or move Docker's data to a volume (chapter 03)",
        **{what: f"sudo sysctl -w {name}={kind.NEEDS[what]}" for what, name in _SYSCTL.items()},
    }
    rows = []
    for row in kind.requirements(machine):
        what = str(row["what"])
        name, _, unit = what.removesuffix(")").partition(" (")
        raised = root and what in _SYSCTL
        rows.append(
            at_least(
                "disk for Docker" if name == "disk" else name,
                _number(row["there"]),
                kind.NEEDS[what],
                unit,
                "the cluster; chapter 06 raises it" if raised else "the cluster",
                not raised,
                remedies.get(what, "a larger machine"),
            )
        )
    return rows


def _ports(machine: Target) -> str:
    """Tell whether the ports that the cluster wants are free, or its own already.

    Raises:
        TutorialError: Another program has one.
    """
    content = kind.configuration(kind.FOLDER / "cluster.yaml")
    taken = kind.busy_ports(machine, content)
    if not taken:
        return "free"
    look = f"docker container inspect -f '{{{{.State.Status}}}}' {content['name']}-control-plane"
    if shell.query(machine, {"cluster": look})["cluster"]:
        return "the cluster's own"
    raise TutorialError(
        f"Port {taken[0]} is taken",
        f"{', '.join(map(str, taken))} taken by another program",
        f"sudo ss -Hltnp 'sport = :{taken[0]}' names it; end it, or change hostPort in deployments/kind/cluster.yaml",
    )
