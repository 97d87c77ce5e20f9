"""Docker Engine on Debian or Ubuntu: packages, the group `docker`, start at boot, log rotation and address pools.

pyinfra @openssh/HOST deployments/host/docker.py                               # from Docker's own apt repository
pyinfra @openssh/HOST deployments/host/docker.py --data docker_repository=     # the distribution's own package

An engine that is installed already stays. Sources: https://docs.docker.com/engine/install/ubuntu/ and
https://docs.docker.com/engine/install/linux-postinstall/.
"""

from pyinfra import host
from pyinfra.facts.deb import DebArch, DebPackages
from pyinfra.facts.server import OsRelease
from pyinfra.operations import apt, server, systemd

from deployments.host import apt_source, daemon_json, rights
from helpers import docker_data

FINGERPRINT = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
KEYRING = "/etc/apt/keyrings/docker.gpg"
DEFAULTS = {
    "log-driver": "json-file",
    "log-opts": {"max-size": "10m", "max-file": "3"},
    "default-address-pools": [{"base": "172.20.0.0/14", "size": 24}],  # small networks: kind and compose make many
}
FLAGS = {"log-driver": "--log-driver", "log-opts": "--log-opt", "default-address-pools": "--default-address-pool"}

repository = host.data.get("docker_repository", "https://download.docker.com/linux")
system = host.get_fact(OsRelease) or {}
name, release = system.get("id", "ubuntu"), system.get("version_codename", "jammy")
installed = set(host.get_fact(DebPackages) or {})
user = rights.user()
configuration = daemon_json.read()

if repository and "docker.io" not in installed:
    architecture = host.get_fact(DebArch) or "amd64"
    address = f"{repository}/{name}"
    apt_source.tools()
    apt_source.key("Docker", f"{address}/gpg", host.data.get("docker_fingerprint", FINGERPRINT), KEYRING)
    apt_source.source(
        "Docker's apt repository", "docker", f"deb [arch={architecture} signed-by={KEYRING}] {address} {release} stable"
    )
    apt.packages(
        name="Install Docker Engine",
        packages=["docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"],
        _sudo=rights.needed(),
    )
    tools = ["rsync", "jq"]
else:
    tools = ["docker.io", "rsync", "jq"]
if missing := [package for package in tools if package not in installed]:  # only then the lists are read
    apt.packages(
        name=f"Install {', '.join(missing)}", packages=missing, no_recommends=True, update=True, _sudo=rights.needed()
    )

if user != "root":
    server.user(
        name=f"Let {user} use Docker without sudo", user=user, groups=["docker"], append=True, _sudo=rights.needed()
    )

# What the reader has set wins, also by a flag of dockerd; rotation options belong to the json-file driver only.
started = daemon_json.facts("engine", names="started")["started"] or ""
by_flag = docker_data.set_by_flag(started, FLAGS)
wanted = {**{name: value for name, value in DEFAULTS.items() if name not in by_flag}, **configuration}
if (wanted.get("log-driver") != "json-file" or "log-opts" in by_flag) and "log-opts" not in configuration:
    wanted.pop("log-opts", None)
written = daemon_json.write(wanted)
systemd.service(name="Start Docker at boot", service="docker", running=True, enabled=True, _sudo=rights.needed())
daemon_json.start(written)
