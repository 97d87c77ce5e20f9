"""Move Docker's data to a volume; the old folder stays. Interrupted at any point, the next run completes it.

pyinfra @openssh/HOST deployments/host/data_root.py                                   # to /media/volume/docker
pyinfra @openssh/HOST deployments/host/data_root.py --data data_root=/mnt/big/docker
pyinfra @openssh/HOST deployments/host/data_root.py --data adopt=yes                  # use the Docker data there

While it is moved, a file in the new folder says from where (MOVING): such a folder is a copy that may be completed or
thrown away. Docker is told of the new folder only when all is copied; then the file has the name MOVED.
Source of `data-root`: https://docs.docker.com/engine/daemon/#daemon-data-directory.
"""

from io import StringIO
from shlex import quote

from pyinfra import host
from pyinfra.api import DeployError
from pyinfra.facts.server import Command
from pyinfra.operations import files, server, systemd

from deployments.host import daemon_json, rights

MOVING, MOVED = ".tutorial-moving", ".tutorial-moved"
new = str(host.data.get("data_root", "/media/volume/docker")).rstrip("/")
adopt = str(host.data.get("adopt", "no")) in ("yes", "True", "true")
configuration = daemon_json.read()
old = str(configuration.get("data-root", "/var/lib/docker")).rstrip("/")


def ask(command: str) -> str:
    """Give what a command prints on the machine."""
    return str(host.get_fact(Command, command=command, _sudo=rights.needed()) or "").strip()


moving = ask(f"cat {quote(f'{new}/{MOVING}')} 2>/dev/null || true")
there = ask(f"ls -A {quote(new)} 2>/dev/null | head -n 1 || true")
adopting = bool(adopt and there and not moving and old != new)
written = None

if adopting:
    files.put(name="Note what was used before", src=StringIO(f"{old}\n"), dest=f"{new}/{MOVED}", _sudo=rights.needed())
    written = daemon_json.write({**configuration, "data-root": new})
elif old != new:
    if there and not moving:
        raise DeployError(f"{new} is not empty, and no move of ours began there; use it as it is with adopt=yes, or "
                          "choose another folder")  # fmt: skip
    need = int(ask(f"du -sxk {quote(old)} 2>/dev/null | cut -f1") or 0)
    has = int(ask(f"du -sxk {quote(new)} 2>/dev/null | cut -f1 || true") or 0)
    path = new if there else new.rsplit("/", 1)[0] or "/"
    free = int(ask(f"df -Pk {quote(path)} 2>/dev/null | awk 'NR==2{{print $4}}'") or need)
    if need - has > free:
        raise DeployError(f"{path} has {free // 1024} MiB free, and Docker's data take {need // 1024} MiB; choose a "
                          "larger volume, or remove images: docker image prune")  # fmt: skip
    files.directory(name=f"Make {new}", path=new, mode="710", user="root", group="root", _sudo=rights.needed())
    files.put(
        name="Note where the data come from", src=StringIO(f"{old}\n"), dest=f"{new}/{MOVING}", _sudo=rights.needed()
    )
    for unit in ("docker", "docker.socket", "containerd"):
        systemd.service(name=f"Stop {unit}", service=unit, running=False, enabled=None, _sudo=rights.needed())
    # -H, -A, -X besides the reference's -axPS: without them an image loses its hard links, and a layer what it removed
    # (overlayfs keeps that in extended attributes). flock: a copy whose laptop was lost may still run.
    copy = f"rsync -axPS -HAX --no-inc-recursive --delete --exclude=/{MOVING} {quote(old)}/ {quote(new)}"
    server.shell(
        name="Copy the data", commands=[f"flock -w 3600 {quote(f'{new}/{MOVING}')} {copy}"], _sudo=rights.needed()
    )
    written = daemon_json.write({**configuration, "data-root": new})

if moving or (old != new and not adopting):
    server.shell(
        name="The copy is complete", commands=[f"cd {quote(new)} && mv {MOVING} {MOVED}"], _sudo=rights.needed()
    )
waits = files.put(
    name="Let Docker wait for the volume when the machine boots",
    src=StringIO(f"[Unit]\nRequiresMountsFor={new}\n"),
    dest="/etc/systemd/system/docker.service.d/data-root.conf",
    create_remote_dir=True,
    mode="644",
    _sudo=rights.needed(),
)
systemd.daemon_reload(name="Read systemd's units", _if=waits.did_change, _sudo=rights.needed())
systemd.service(name="Start containerd", service="containerd", running=True, _sudo=rights.needed())
if adopting:
    daemon_json.start(written)
systemd.service(name="Start Docker", service="docker", running=True, enabled=True, _sudo=rights.needed())
if old != new or moving:
    server.shell(
        name="Docker uses the new folder",
        commands=[f'root=$(docker info -f "{{{{.DockerRootDir}}}}") && [ "$root" = {quote(new)} ] || '
                  '{ echo "Docker uses ${root:-nothing: it does not run}" >&2; exit 1; }'],
        _sudo=rights.needed(),
    )  # fmt: skip
