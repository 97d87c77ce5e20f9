"""What plays CPouta on the target `vm`: a real OpenStack control plane in one container; and what chapter 02 shows.

Its programming interface is real. Its hypervisor is simulated: no server boots, no packet flows, no volume holds data.
"""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from helpers import airgap, display
from helpers.cpouta import Cloud, Vm
from helpers.cpouta_cloud import again, connect
from helpers.errors import TutorialError
from helpers.processes import write_atomically
from helpers.settings import settings
from helpers.undo import Leftover
from helpers.vm import docker

IMAGE = "tutorial/openstack:zed"
_BASE = "debian:bookworm-slim"
_READY_SECONDS = 120.0
_USUAL_SECONDS = 12.0
_ADDRESS = "198.51.100.7"  # RFC 5737: an address for documentation; nobody comes from it
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
            _make_image()
            published = [word for port in _PORTS for word in ("-p", f"127.0.0.1::{port}")]
            docker("run", "-d", "--name", self.name, "--label", "tutorial.chapter=02", *published, IMAGE)
        elif state != "running":
            docker("start", self.name)
        self._wait()
        ports = self.ports()
        words = [f"{inside}={outside}" for inside, outside in ports.items()]
        docker("exec", "-e", "PYTHONPATH=/opt/lab/lib", self.name, "python3", "/opt/lab/lib/publish.py", *words)
        self._write(ports[5000])

    def state(self) -> str:
        """Tell its container's state: `missing`, `running`, or what Docker calls it."""
        done = docker("container", "inspect", "-f", "{{.State.Status}}", self.name, check=False)
        return done.stdout.strip() if done.returncode == 0 else "missing"

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


def reach(target: str, cloud: str) -> Cloud | None:
    """Reach the cloud that a target's VM is made in.

    Args:
        target: The target's name: `local` has no cloud, `vm` the stand-in, any other the reader's own.
        cloud: Its name in the reader's clouds.yaml.

    Returns:
        The cloud, logged in to; None for `local`.

    Raises:
        TutorialError: There is no way to it.
    """
    if target == "local":
        return None
    folder = settings().state / target / "cpouta"
    if target != "vm":
        return Cloud(connect(cloud), cloud, Path.home(), folder)
    ours = lab()
    ours.up()
    return Cloud(connect("cpouta", ours.clouds), "cpouta", ours.folder / "home", address=_ADDRESS, free=True)


def service_desk(vm: Vm) -> list[str]:
    """Play CSC's service desk: raise the stand-in's quota to what the VM still needs.

    Args:
        vm: A VM in the stand-in.

    Returns:
        What was raised, from what to what.
    """
    admin, project = connect("service-desk", lab().clouds), str(vm.cloud.current_project_id)
    names = {"instances": ("instances", 1), "cores": ("cores", 1), "memory (GiB)": ("ram", 1024)}
    short = [row for row in vm.quota() if row["enough"] == "no" and row["resource"] in names]
    limits = {}
    for row in short:
        name, unit = names[str(row["resource"])]
        limits[name] = int(float(str(row["wanted limit"])) * unit)
    if limits:
        again("raise the quota", lambda: admin.set_compute_quotas(project, **limits))
    return [f"{row['resource']}: {row['limit']} → {row['wanted limit']}" for row in short]


def leftovers(target: str) -> list[Leftover]:
    """List the stand-in, for the target `vm`."""
    if target != "vm":
        return []
    ours = lab()
    made = ours.state() != "missing" or ours.folder.exists()
    return [Leftover("the stand-in for CPouta", f"container {ours.name}", ours.destroy)] if made else []


def _make_image() -> None:
    """Have the image, made on Debian's own base image where a registry answers, else on the lab's."""
    if not airgap.needed():
        docker("pull", "-q", _BASE, timeout=600)
    airgap.build("cloud")
