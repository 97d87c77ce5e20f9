"""Mount a persistent volume: at /media/volume, by the file system's UUID, also after a reboot. Never over data.

pyinfra @openssh/HOST deployments/host/volume.py --data volume_id=0a1b…       # the volume's id in OpenStack
pyinfra @openssh/HOST deployments/host/volume.py --data device=/dev/vdb --data mount_point=/mnt/data

A device is formatted (ext4) only when it is empty: no signature of a file system, partition table, LVM or LUKS, and
nothing but zeros in its first 16 MiB. One with a file system is mounted as it is.
Source: https://docs.csc.fi/cloud/pouta/persistent-volumes/; by UUID, for the letters of disks change between boots.
"""

import re
from shlex import quote
from uuid import NAMESPACE_URL, uuid5

from pyinfra import host
from pyinfra.api import DeployError
from pyinfra.facts.server import Command
from pyinfra.operations import files, server

from deployments.host import rights

MIB_LOOKED_AT = 16
volume = str(host.data.get("volume_id", ""))
mount_point = str(host.data.get("mount_point", "/media/volume")).rstrip("/")
owner = str(host.data.get("owner", "ubuntu"))
# A hypervisor tells the volume's id as the disk's serial number, of which virtio has room for 20 characters.
device = str(host.data.get("device", f"/dev/disk/by-id/virtio-{volume[:20]}"))


def ask(command: str) -> str:
    """Give what a command prints on the machine."""
    return str(host.get_fact(Command, command=command, _sudo=rights.needed()) or "").strip()


if volume == "" and "device" not in host.data.dict():
    raise DeployError("which volume? Give volume_id=…, its id in OpenStack, or device=…")
fresh = not ask("uname -s")  # a plan for a machine that is not there
real = ask(f"readlink -e {quote(device)} || true")
if not real and not fresh:
    raise DeployError(f"there is no disk {device}: the volume is not attached to this machine")
seen = dict(line.split("=", 1) for line in ask(f"blkid -p -o export {quote(device)} || true").splitlines())
# A disk that can't be read is not an empty one: each of the two must say what it has found.
signatures = ask(f"wipefs --noheadings {quote(device)} && echo none || true")
zeros = ask(f"cmp -s -n {MIB_LOOKED_AT * 2**20} {quote(device)} /dev/zero && echo yes || true") == "yes"
empty = fresh or (not seen.get("TYPE") and signatures == "none" and zeros)
if not empty and seen.get("USAGE") != "filesystem":
    what = seen.get("TYPE") or seen.get("PTTYPE") or "what no tool knows"
    raise DeployError(f"{device} holds data that are not a file system ({what}): it is not touched. Look what it is "
                      f"(lsblk -f {device}); if it may go, empty it yourself: wipefs -a, blkdiscard")  # fmt: skip
mounted = ask(f"findmnt -nro SOURCE --mountpoint {quote(mount_point)} || true")
if mounted and mounted != real:
    raise DeployError(f"{mounted} is mounted at {mount_point} already: choose another mount_point")
listed = ask(f"awk -v at={quote(mount_point)} '$1 !~ /^#/ && $2 == at' /etc/fstab | tail -n 1")
ours = re.fullmatch(r"UUID=\S+ \S+ \S+ defaults,nofail 0 2", listed)
if listed and not ours and ask(f'readlink -e "$(findfs {quote(listed.split()[0])})" || true') != real:
    raise DeployError(f"/etc/fstab mounts {listed.split()[0]} at {mount_point} already: choose another mount_point")

# What the file system is called is decided before it is made, so that fstab can be told in the same run.
uuid = str(uuid5(NAMESPACE_URL, f"openstack-volume:{volume or device}")) if empty else seen["UUID"]
kind = "ext4" if empty else seen["TYPE"]
if empty:
    server.shell(
        name="Format the empty volume with ext4",
        commands=[f"mkfs.ext4 -q -U {uuid} -L tutorial {quote(device)}"],
        _sudo=rights.needed(),
    )
if not mounted:
    files.directory(name=f"Make {mount_point}", path=mount_point, _sudo=rights.needed())
if not listed or ours:  # a line of the reader's own for this volume stays, with its options
    files.line(
        name="Mount it at every boot (fstab, by UUID)",
        path="/etc/fstab",
        line=rf"^[^#\s]\S*\s+{mount_point}\s.*$",
        replace=f"UUID={uuid} {mount_point} {kind} defaults,nofail 0 2",
        _sudo=rights.needed(),
    )
if mounted:
    files.directory(name=f"Give it to {owner}", path=mount_point, user=owner, group=owner, _sudo=rights.needed())
else:
    own = f"chown {quote(owner)}: {quote(mount_point)}"
    server.shell(
        name=f"Mount it now, and give it to {owner}",
        commands=[f"mount {quote(mount_point)}", own],
        _sudo=rights.needed(),
    )
