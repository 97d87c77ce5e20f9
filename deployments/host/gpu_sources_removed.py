"""Take away the sources, pins, keys and profile lines of chapter 04; the packages and their settings stay.

pyinfra @openssh/HOST deployments/host/gpu_sources_removed.py
"""

from pyinfra import host
from pyinfra.facts.server import Home
from pyinfra.operations import apt, files

from deployments.host import cuda_profile, rights

version = str(host.data.get("cuda", "12.2"))
keyring = host.data.get("cuda_keyring", "cuda-216F19BD-keyring.gpg")
home = host.get_fact(Home) or "~"

for path in (
    "/etc/apt/sources.list.d/graphics-drivers.list",
    "/etc/apt/sources.list.d/nvidia-container-toolkit.list",
    "/etc/apt/preferences.d/cuda-repository-pin-600",
    "/etc/apt/preferences.d/nvidia-container-toolkit",
    "/usr/share/keyrings/graphics-drivers.gpg",
    "/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg",
    f"/usr/share/keyrings/{keyring}",
):
    files.file(name=f"Remove {path}", path=path, present=False, _sudo=rights.needed())
local = f"cuda-repo-ubuntu2204-{version.replace('.', '-')}-local"
apt.packages(
    name=f"Remove {local}", packages=[local], present=False, extra_uninstall_args="--purge", _sudo=rights.needed()
)
for variable, line in cuda_profile.lines(version).items():
    files.line(
        name=f"Remove {variable} from ~/.bashrc",
        path=f"{home}/.bashrc",
        line=line,
        present=False,
        escape_regex_characters=True,
        extended_regex=True,
    )
