"""CUDA on Ubuntu 22.04, from NVIDIA's local repository package, and its lines in the user's ~/.bashrc.

pyinfra @openssh/HOST deployments/host/cuda.py

Sources: https://developer.nvidia.com/cuda-12-2-0-download-archive (Ubuntu 22.04, deb local) and
https://docs.nvidia.com/cuda/archive/12.2.0/cuda-installation-guide-linux/#environment-setup.
"""

from pyinfra import host
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.files import Sha256File
from pyinfra.facts.server import Home
from pyinfra.operations import apt, files, server

from deployments.host import apt_source, cuda_profile, rights

base = host.data.get("cuda_repository", "https://developer.download.nvidia.com/compute/cuda")
version = str(host.data.get("cuda", "12.2"))
release = host.data.get("cuda_release", "12.2.0")
driver = host.data.get("cuda_driver", "535.54.03")
keyring = host.data.get("cuda_keyring", "cuda-216F19BD-keyring.gpg")

package = f"cuda-repo-ubuntu2204-{version.replace('.', '-')}-local"
local = f"/var/{package}"
file = f"{package}_{release}-{driver}-1_amd64.deb"
home = host.get_fact(Home) or "~"
installed = set(host.get_fact(DebPackages) or {})

apt_source.tools()
files.download(
    name="Prefer NVIDIA's packages",
    src=f"{base}/repos/ubuntu2204/x86_64/cuda-ubuntu2204.pin",
    dest="/etc/apt/preferences.d/cuda-repository-pin-600",
    mode="644",
    _sudo=rights.needed(),
)
if package not in installed:
    apt_source.script(
        f"Install the local repository {package}",
        "install_deb.sh",
        f"{base}/{release}/local_installers/{file}",
        f"{base}/{release}/docs/sidebar/md5sum.txt",
    )
key = f"/usr/share/keyrings/{keyring}"
given, known = (host.get_fact(Sha256File, path=path) for path in (f"{local}/{keyring}", key))
if (
    package not in installed or given != known
):  # the source comes with the package, and holds as soon as its key is there
    apt_source.read("the local repository", f"deb [signed-by={local}/{keyring}] file://{local} /")
    server.shell(name="Add CUDA's key", commands=[f"install -m 644 {local}/{keyring} {key}"], _sudo=rights.needed())
# The package cuda brings a driver of the branch that it was made with; beside another one only the toolkit is wanted.
same = str(host.data.get("driver", "535")) == driver.partition(".")[0]
wanted = "cuda" if same else f"cuda-toolkit-{version.replace('.', '-')}"
apt.packages(name=f"Install CUDA {version}: {wanted}", packages=[wanted], _sudo=rights.needed())

for variable, line in cuda_profile.lines(version).items():
    files.line(
        name=f"Have {variable} in ~/.bashrc",
        path=f"{home}/.bashrc",
        line=line,
        escape_regex_characters=True,
        extended_regex=True,
        ensure_newline=True,
    )
