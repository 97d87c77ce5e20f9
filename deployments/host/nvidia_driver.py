"""NVIDIA's driver on Ubuntu, from the graphics-drivers PPA; the machine must be restarted afterwards.

pyinfra @openssh/HOST deployments/host/nvidia_driver.py
pyinfra @openssh/HOST deployments/host/nvidia_driver.py --data driver=550 --data upgrade=yes     # after `apt upgrade`

Sources: https://launchpad.net/~graphics-drivers/+archive/ubuntu/ppa and
https://ubuntu.com/server/docs/how-to/graphics/install-nvidia-drivers/.
"""

from pyinfra import host
from pyinfra.api import DeployError
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.server import Command, KernelVersion, OsRelease
from pyinfra.operations import apt

from deployments.host import apt_source, rights

PPA = "https://ppa.launchpadcontent.net/graphics-drivers/ppa/ubuntu"
FINGERPRINT = "2388FF3BE10A76F638F80723FCAE110B1118213C"
KEY = f"https://keyserver.ubuntu.com/pks/lookup?op=get&search=0x{FINGERPRINT}"
KEYRING = "/usr/share/keyrings/graphics-drivers.gpg"

driver = host.data.get("driver", "535")
ppa = host.data.get("ppa", PPA)
system = host.get_fact(OsRelease) or {}
suite = host.data.get("suite", system.get("version_codename", "jammy"))
if ppa == PPA and system.get("id", "ubuntu") != "ubuntu":
    raise DeployError(f"the PPA is for Ubuntu, and this machine has {system['id']}; its driver comes from there")
if "microsoft" in (host.get_fact(KernelVersion) or "").lower():
    raise DeployError("under WSL the driver is Windows' own; install it there, and none inside WSL")

if str(host.data.get("upgrade", "no")) in ("yes", "True"):
    apt.update(name="Read the package lists", cache_time=3600, _sudo=rights.needed())
    apt.upgrade(name="Upgrade all packages", _sudo=rights.needed())
apt_source.tools()
# One that add-apt-repository has listed stays as it is: a second entry with another keyring would be a conflict.
by_hand = host.get_fact(Command, f"grep -ls '{ppa}' {apt_source.LISTS}/graphics-drivers-ubuntu-ppa* || true")
if not by_hand:
    new = apt_source.key(
        "the PPA", host.data.get("ppa_key", KEY), host.data.get("ppa_fingerprint", FINGERPRINT), KEYRING
    )
    apt_source.source(
        "the PPA graphics-drivers", "graphics-drivers", f"deb [signed-by={KEYRING}] {ppa} {suite} main", new
    )
finder = "ubuntu-drivers-common"
unread = finder not in (host.get_fact(DebPackages) or {})  # a new VM may have no package lists at all
apt.packages(name="Install what finds a driver", packages=[finder], update=unread, _sudo=rights.needed())
apt.packages(name=f"Install the driver {driver}", packages=[f"nvidia-driver-{driver}"], _sudo=rights.needed())
