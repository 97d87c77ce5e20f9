"""The NVIDIA Container Toolkit, held at one version, and Docker and containerd told of its runtime.

pyinfra @openssh/HOST deployments/host/container_toolkit.py
pyinfra @openssh/HOST deployments/host/container_toolkit.py --data set_as_default=no

Docker is restarted when its settings change, which ends containers without a restart policy. Source:
https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html.
"""

from io import StringIO

from pyinfra import host
from pyinfra.facts.files import FindInFile
from pyinfra.facts.server import Command
from pyinfra.operations import apt, files, server

from deployments.host import apt_source, daemon_json, rights
from helpers import docker_data

BASE = "https://nvidia.github.io/libnvidia-container"
FINGERPRINT = "C95B321B61E88C1809C4F759DDCAE044F796ECB0"
KEYRING = "/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg"
PACKAGES = (
    "nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1",
)  # fmt: skip
CONFIG = "/etc/nvidia-container-runtime/config.toml"
CONTAINERD = "/etc/containerd/config.toml"
KEPT = "/run/tutorial-containerd.toml"  # what it was, put back where containerd does not start with the new one

base = host.data.get("toolkit_repository", BASE)
version = host.data.get("toolkit", "1.17.8-1")
default = str(host.data.get("set_as_default", "yes")) in ("yes", "True")
# The runtime that NVIDIA's hands a container on to; empty: what the toolkit's own configuration says.
low_level = host.data.get("low_level_runtime", "")
docker = daemon_json.read()

apt_source.tools()
new = apt_source.key("NVIDIA", f"{base}/gpgkey", host.data.get("toolkit_fingerprint", FINGERPRINT), KEYRING)
apt_source.source(
    "the toolkit's apt repository",
    "nvidia-container-toolkit",
    f"deb [signed-by={KEYRING}] {base}/stable/deb/$(ARCH) /",
    new,
)
files.put(
    name=f"Hold the toolkit at {version}",
    src=StringIO(f"Package: {' '.join(PACKAGES)}\nPin: version {version}\nPin-Priority: 1001\n"),
    dest="/etc/apt/preferences.d/nvidia-container-toolkit",
    mode="644",
    _sudo=rights.needed(),
)
apt.packages(
    name="Install the toolkit", packages=[f"{package}={version}" for package in PACKAGES], _sudo=rights.needed()
)

settings = {"accept-nvidia-visible-devices-as-volume-mounts": ("true", "true")}
if low_level:
    settings["nvidia-container-runtime.runtimes"] = (low_level, f'["{low_level}"]')
for setting, (value, written) in settings.items():
    pattern = f"^{setting.rpartition('.')[2]} = {written}".replace("[", r"\[").replace("]", r"\]")
    if not host.get_fact(FindInFile, path=CONFIG, pattern=pattern):
        command = f"nvidia-ctk --quiet config --config-file={CONFIG} --set {setting}={value} --in-place"
        server.shell(name=f"Set {setting}", commands=[command], _sudo=rights.needed())

started = daemon_json.facts("engine", names="started")["started"] or ""
default = default and not docker_data.set_by_flag(started, {"default-runtime": "--default-runtime"})
told = "nvidia" not in (docker.get("runtimes") or {}) or (default and docker.get("default-runtime") != "nvidia")
if told:
    if daemon_json.write(docker, plain=True) is None:  # nvidia-ctk does not read UTF-16
        daemon_json.keep()
    words = "nvidia-ctk --quiet runtime configure --runtime=docker" + (" --set-as-default" if default else "")
    server.shell(name="Tell Docker of NVIDIA's runtime", commands=[words], _sudo=rights.needed())
# Ask the engine that runs, too: an earlier run may have been cut off before its restart.
asked = (
    "docker info -f 'default={{.DefaultRuntime}} {{range $name, $_ := .Runtimes}}{{$name}} {{end}}' 2>/dev/null || true"
)
known = (host.get_fact(Command, asked, _sudo=rights.needed()) or "").split()
if "nvidia" not in known or (default and "default=nvidia" not in known):
    daemon_json.start("restart", kept=told)

if not host.get_fact(FindInFile, path=CONTAINERD, pattern="nvidia-container-runtime"):
    script = f"""command -v containerd >/dev/null || exit 0
      rm -f {KEPT}; [ ! -e {CONTAINERD} ] || cp -pL {CONTAINERD} {KEPT} || exit 1
      nvidia-ctk --quiet runtime configure --runtime=containerd && systemctl restart containerd && rm -f {KEPT} && exit
      if [ -f {KEPT} ]; then cat {KEPT} >{CONTAINERD}; else rm -f {CONTAINERD}; fi
      systemctl restart containerd; exit 1"""
    server.shell(
        name="Tell containerd of NVIDIA's runtime",
        commands=[script],
        _sudo=rights.needed(),
    )
