"""What plays CPouta on the target `vm`: a real OpenStack control plane in one container; and what chapter 02 shows.

Its programming interface is real. Its hypervisor is simulated: no server boots, no packet flows, no volume holds data.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from helpers import airgap, cpouta_clouds, cpouta_rates, display
from helpers.cpouta import Cloud, Vm, notes
from helpers.cpouta_cloud import again, connect
from helpers.cpouta_ssh import own_address
from helpers.errors import TutorialError
from helpers.processes import write_atomically
from helpers.settings import settings
from helpers.target import Target
from helpers.undo import Leftover
from helpers.vm import docker

IMAGE = "tutorial/openstack:zed"
_BASE = "debian:bookworm-slim"
_READY_SECONDS = 120.0
_USUAL_SECONDS = 12.0
_ADDRESS = "198.51.100.7"  # RFC 5737: an address for documentation; nobody comes from it
_REHEARSAL = "/media/rehearsal"  # in the VM stand-in: /media/volume is there already
_DISK_MIB = 64
# Arguments: the file, the disk's name, its size in MiB. Loop devices are the kernel's, their nodes /dev's own.
_PLUG_IN = """mkdir -p /dev/disk/by-id; [ -e "$0" ] || truncate -s "$2M" "$0"
loop=$(losetup -nO NAME -j "$0"); if [ -z "$loop" ]; then loop=$(losetup -f)
[ -e "$loop" ] || mknod "$loop" b 7 "${loop#/dev/loop}"; losetup "$loop" "$0"; fi
ln -sf "$loop" "$1"; echo "$1"
"""
_UNPLUG = """umount "$3" 2>/dev/null; [ ! -e "$1" ] || losetup -d "$(readlink -f "$1")"; rm -f "$0" "$1"
sed -i "\\|^[^ ]* $3 |d" /etc/fstab; rmdir "$3" 2>/dev/null; true
"""
_PORTS = (5000, 8774, 8776, 9292, 9696)  # Keystone, Nova, Cinder, Glance, Neutron


@dataclass(frozen=True)
class Lab:
    """The stand-in for CPouta.

    Attributes:
        name: Its container's name.
        folder: Where its `clouds.yaml` and `secure.yaml` are written.
    """

    name: str
    folder: Path

    @property
    def clouds(self) -> Path:
        """Its clouds.yaml, with the clouds `cpouta` (the learner's) and `service-desk` (the administrator's)."""
        return self.folder / "clouds.yaml"

    def up(self) -> None:
        """Have it run, and write how to reach it.

        Raises:
            TutorialError: No Docker engine answers, the image can't be made, or it does not get ready.
        """
        state = self.state()
        if state == "missing":
            prepare()
            published = [word for port in _PORTS for word in ("-p", f"127.0.0.1::{port}")]
            docker("run", "-d", "--name", self.name, "--label", "tutorial.chapter=02", *published, IMAGE)
        elif state != "running":
            docker("start", self.name)
        self._wait()
        ports = self.ports()
        words = [f"{inside}={outside}" for inside, outside in ports.items()]
        docker("exec", "-e", "PYTHONPATH=/opt/lab/lib", self.name, "python3", "/opt/lab/lib/publish.py", *words)
        self._write(ports[5000])

    def cloud(self) -> Cloud:
        """Log in as the learner; the VM goes into an SSH configuration of the stand-in's own, not the reader's."""
        home = self.folder / "home"
        learner = connect("cpouta", self.clouds)
        return Cloud(learner, "cpouta", home, address=_ADDRESS, mount_point=_REHEARSAL, free=True)

    def state(self) -> str:
        """Tell its container's state: `missing`, `running`, or what Docker calls it."""
        done = docker("container", "inspect", "-f", "{{.State.Status}}", self.name, check=False, timeout=20)
        return done.stdout.strip() or "missing"

    def ports(self) -> Mapping[int, int]:
        """Tell which port of this machine's loopback address leads to which of its ports."""
        seen: dict[str, Any] = json.loads(docker("container", "inspect", self.name).stdout)[0]
        bound = seen["NetworkSettings"]["Ports"]
        return {port: int(bound[f"{port}/tcp"][0]["HostPort"]) for port in _PORTS}

    def destroy(self) -> None:
        """Remove it with all that is in it; doing so twice does no harm."""
        docker("rm", "-f", "-v", self.name, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self) -> None:
        with display.progress("OpenStack in a container", _USUAL_SECONDS, "s") as report:
            started = time.monotonic()
            while docker("exec", self.name, "test", "-e", "/run/lab/ready", check=False).returncode != 0:
                spent = time.monotonic() - started
                if spent > _READY_SECONDS or self.state() != "running":
                    raise TutorialError(
                        "The stand-in for CPouta did not get ready", "one of its six services does not answer",
                        "tutorial clean --target vm, then run the cell again", target="vm",
                        output=docker("logs", "--tail", "20", self.name, check=False).stdout,
                    )  # fmt: skip
                report(min(spent, _USUAL_SECONDS), f"starting its six services, {spent:.0f} s")
                time.sleep(0.5)

    def _write(self, keystone: int) -> None:
        """Write clouds.yaml and secure.yaml, the secrets in the second, readable only by their owner."""
        common = {"user_domain_name": "Default", "project_domain_name": "Default"}
        accounts = {"cpouta": ("learner", "tutorial"), "service-desk": ("admin", "admin")}
        clouds = {
            cloud: {
                "auth": {
                    "auth_url": f"http://127.0.0.1:{keystone}/v3",
                    "username": user,
                    "project_name": own,
                    **common,
                },
                "region_name": "RegionOne",
                "interface": "public",
                "identity_api_version": 3,
            }
            for cloud, (user, own) in accounts.items()
        }
        secrets = {cloud: {"auth": {"password": user}} for cloud, (user, _) in accounts.items()}
        write_atomically(self.clouds, yaml.safe_dump({"clouds": clouds}), 0o600)
        write_atomically(self.folder / "secure.yaml", yaml.safe_dump({"clouds": secrets}), 0o600)


def lab() -> Lab:
    """Give the stand-in of the target `vm`."""
    return Lab(f"{settings().vm}-cloud", settings().state / "vm" / "cpouta")


def reach(target: str, cloud: str, create: bool = False) -> Cloud | None:
    """Reach the cloud that a target's VM is made in.

    Args:
        target: The target's name: `local` has no cloud, `vm` the stand-in, any other the reader's own.
        cloud: Its name in the reader's clouds.yaml.
        create: Something is to be made in it, so that a missing clouds.yaml is an error.

    Returns:
        The cloud, logged in to. None for `local`, and where the reader has no clouds.yaml: their VM exists without it.

    Raises:
        TutorialError: There is no way to it.
    """
    if target == "local":
        return None
    if target == "vm":
        ours = lab()
        ours.up()
        return ours.cloud()
    if not create and not cpouta_clouds.find():
        display.show("There is no clouds.yaml, so no cloud is asked: the chapter shows its plan.")
        return None
    return Cloud(connect(cloud), cloud, Path.home(), notes())


def service_desk(vm: Vm, ours: Lab | None = None) -> list[str]:
    """Play CSC's service desk: raise the stand-in's quota to what the VM still needs.

    Args:
        vm: A VM in the stand-in.
        ours: The stand-in; by default the target's.

    Returns:
        What was raised, from what to what.
    """
    admin, project = connect("service-desk", (ours or lab()).clouds), str(vm.cloud.current_project_id)
    names = {"instances": ("instances", 1), "cores": ("cores", 1), "memory (GiB)": ("ram", 1024)}
    short = [row for row in vm.quota() if row["enough"] == "no" and row["resource"] in names]
    limits = {}
    for row in short:
        name, unit = names[str(row["resource"])]
        limits[name] = int(float(str(row["wanted limit"])) * unit)
    if limits:
        again("raise the quota", lambda: admin.set_compute_quotas(project, **limits))
    return [f"{row['resource']}: {row['limit']} → {row['wanted limit']}" for row in short]


def cost_figure(flavor: str, volume_gib: float) -> None:
    """Draw what a month costs: by flavor, and by the state of the VM.

    Args:
        flavor: The flavor that is wanted.
        volume_gib: The volume's size in GiB.
    """
    from matplotlib.figure import Figure

    month = cpouta_rates.HOURS_A_MONTH
    names = [n for n in cpouta_rates.FLAVORS if n.startswith("standard.")] + ["gpu.1.1gpu"]
    costs = [cpouta_rates.per_hour(n) * month for n in names]
    rows = cpouta_rates.states(flavor, volume_gib)
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(5, 4))
    chosen = cpouta_rates.choose_flavor(flavor)
    bars = left.barh(names[::-1], costs[::-1], color=["C0" if n == chosen else "C7" for n in names[::-1]])
    left.bar_label(bars, fmt="{:,.0f}", padding=3)
    left.set(title="running all month, by flavor", xlabel="BU a month")
    left.margins(x=0.25)
    labels = [str(row["state"]).replace(", ", ",\n") for row in rows]
    server, rest = ([float(str(row[k])) for row in rows] for k in ("server", "volume and address"))
    right.bar(labels, server, label="server", color="C0")
    right.bar(labels, rest, bottom=server, label="volume and address", color="C1")
    right.set(title=chosen, ylabel="BU a month")
    right.legend(loc="upper right")
    shelved = next(row for row in rows if row["state"] == "shelved")
    display.figure(
        figure,
        f"A month of {chosen} costs {cpouta_rates.per_hour(chosen) * month:,.0f} BU, running or shut off. Shelved, "
        f"nothing but its volume and its address cost: {shelved['volume and address']} BU.",
    )


def plug_in(machine: Target, volume_id: str) -> str:
    """Give the VM stand-in a blank disk in place of the volume: a file of 64 MiB that the kernel shows as a disk.

    Args:
        machine: The VM stand-in.
        volume_id: The volume's id; the disk gets the name that OpenStack's would have.

    Returns:
        The disk's name on the machine.
    """
    return machine.run(machine.sudo("sh", "-ec", _PLUG_IN, *_disk(volume_id)), repeatable=True).stdout.strip()


def unplug(machine: Target, volume_id: str, mount_point: str = _REHEARSAL) -> None:
    """Take the blank disk away again, with its line in fstab; doing so twice does no harm."""
    machine.run(machine.sudo("sh", "-c", _UNPLUG, *_disk(volume_id), mount_point), repeatable=True)


def _disk(volume_id: str) -> Sequence[str]:
    return f"/root/tutorial-{volume_id[:20]}.img", f"/dev/disk/by-id/virtio-{volume_id[:20]}", str(_DISK_MIB)


def provoke(vm: Vm | None) -> Sequence[Mapping[str, object]]:
    """Try what goes wrong, most of it before anything could cost.

    Args:
        vm: The VM; None where there is no cloud to ask.

    Returns:
        A row an attempt, with the columns tried, error, why.
    """
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("a flavor that does not exist", lambda: cpouta_rates.choose_flavor("standard.huge")),
        ("SSH from everywhere: 0.0.0.0/0", lambda: own_address("0.0.0.0/0")),
        ("SSH from an address inside the own network", lambda: own_address("192.168.1.5")),
        ("look-up services that don't answer", lambda: own_address(services=["http://127.0.0.1:9/"])),
    ]
    if vm:
        attempts.append(("another system than Ubuntu", vm.like(replace(vm.wanted, image="AlmaLinux-9")).image))
    if vm and vm.home.free:  # in a project with a large quota it would be made
        attempts.append(("a flavor beyond the quota", vm.like(replace(vm.wanted, flavor="gpu.1.4gpu")).create))
        attempts.append(("credentials that were revoked", partial(_revoked, vm)))
    return [{"tried": what, **_refusal(attempt)} for what, attempt in attempts]


def _refusal(attempt: Callable[[], object]) -> Mapping[str, object]:
    try:
        attempt()
    except TutorialError as error:
        return {"error": error.what, "why": error.why}
    return {"error": "none", "why": "it was accepted"}


def _revoked(vm: Vm) -> None:
    """Make an application credential, delete it, and log in with it."""
    from openstack.connection import Connection

    identity: Any = vm.cloud.identity
    user, auth = vm.cloud.current_user_id, vm.cloud.config.auth
    made = identity.create_application_credential(user=user, name=f"{vm.name}-revoked")
    identity.delete_application_credential(user=user, application_credential=made.id)
    secret = {"application_credential_id": made.id, "application_credential_secret": made.secret}
    words = {"auth_url": auth["auth_url"], **secret}
    again("log in", lambda: Connection(auth_type="v3applicationcredential", auth=words).session.get_token())


def leftovers(target: str) -> list[Leftover]:
    """List the stand-in, for the target `vm`."""
    if target != "vm":
        return []
    ours, found = lab(), list[Leftover]()
    for volume in _plugged_in():
        found.append(Leftover("a blank disk", f"{volume} on {settings().vm}", partial(_pull_out, volume)))
    if ours.state() != "missing" or ours.folder.exists():
        found.append(Leftover("the stand-in for CPouta", f"container {ours.name}", ours.destroy))
    return found


def _plugged_in() -> list[str]:
    """List the blank disks of a run that was broken off: the VM's end does not end a loop device."""
    look = docker("exec", settings().vm, "sh", "-c", "ls /root/tutorial-*.img", check=False, timeout=20)
    return [Path(line).stem.removeprefix("tutorial-") for line in look.stdout.split()]


def _pull_out(volume: str) -> None:
    docker("exec", settings().vm, "sh", "-c", _UNPLUG, *_disk(volume), _REHEARSAL, check=False)


def prepare() -> None:
    """Have the stand-in's image, made on Debian's own base image where a registry answers, else on the lab's."""
    if not airgap.needed():
        docker("pull", "-q", _BASE, timeout=600)
    airgap.build("cloud")
