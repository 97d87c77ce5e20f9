"""Move Docker's data to a volume; the old folder stays. Interrupted at any point, the next run completes it.

pyinfra @openssh/HOST deployments/host/data_root.py                                   # to /media/volume/docker
pyinfra @openssh/HOST deployments/host/data_root.py --data data_root=/mnt/big/docker
pyinfra @openssh/HOST deployments/host/data_root.py --data adopt=yes                  # use the Docker data there

What can't be moved is refused before anything is stopped. While it is moved, a file in the new folder says from where
(MOVING): such a folder is a copy that may be completed or thrown away. Docker is told of the new folder only when all
is copied; then the file has the name MOVED. Where the copy or the start fails, Docker runs on with the old folder.
Source of `data-root`: https://docs.docker.com/engine/daemon/#daemon-data-directory.
"""

from io import StringIO
from shlex import quote

from pyinfra import host
from pyinfra.api import DeployError
from pyinfra.facts.server import Command
from pyinfra.operations import files, server, systemd

from deployments.host import daemon_json, rights
from helpers import docker_data
from helpers.docker_data import ENTRIES, MOVED, MOVING

DROP_IN = "/etc/systemd/system/docker.service.d/data-root.conf"
FOLDERS = (
    "old_real new_real base mounts old_there not_a_folder moving there need_kib files has_kib has_files free_kib "
    "free_files all_files writable no_d_type parts"
)
adopt = str(host.data.get("adopt", "no")) in ("yes", "True", "true")
asked = str(host.data.get("data_root", "/media/volume/docker"))


def refuse(reason: str) -> None:
    """Stop before anything is changed, where there is a reason to."""
    if reason:
        raise DeployError(f"{reason}. Nothing was changed")


refuse("" if docker_data.is_folder_name(asked) else f"{asked!r} is not an absolute path of a folder")
configuration = daemon_json.read()
try:
    configured = docker_data.configured_root(configuration)
except docker_data.NotUnderstood as error:
    raise DeployError(f"{daemon_json.PATH} {error}; correct it by hand, it was left as it is") from None
engine = daemon_json.facts("engine", names="live live_real driver status live_restore security active started machine")
mine = str(host.get_fact(Command, "docker info -f '{{.DockerRootDir}}' 2>/dev/null || true") or "").strip()
engine["mine"] = mine if mine.startswith("/") else None
folders = daemon_json.facts("folders", configured, asked, names=FOLDERS)
old, new = folders["old_real"] or configured, folders["new_real"] or asked
mounts = docker_data.read_mounts(folders["mounts"] or "")
moving = folders["moving"] or ""
adopting = bool(adopt and folders["there"] and not moving and old != new)
copying = old != new and not adopting
written = None

if old != new:
    refuse(docker_data.engine_refusal(engine, configuration, old))
    refuse(docker_data.nested(old, new, mounts))
    refuse(f"{new} is not a folder" if folders["not_a_folder"] else "")
if copying and folders["base"]:
    refuse(docker_data.copy_refusal(engine, configuration))
    refuse("" if folders["old_there"] else f"there are no Docker data in {old}: install Docker, and start it once")
    refuse(
        f"{new} is not empty, and no move of ours began there; use it as it is with adopt=yes, or choose another folder"
        if folders["there"] and not moving else ""
    )  # fmt: skip
    refuse(docker_data.room_refusal(folders, new, engine["driver"] or ""))
if adopting and not set((folders["there"] or "").splitlines()) & ENTRIES:
    refuse(f"{new} holds no data of Docker that could be adopted")

back = daemon_json.put_back()
if adopting:
    files.put(
        name="Note what was used before",
        src=StringIO(f"not copied: {old}\n"),
        dest=f"{new}/{MOVED}",
        _sudo=rights.needed(),
    )
    written = daemon_json.write(docker_data.with_root(configuration, new))
elif copying:
    files.directory(name=f"Make {new}", path=new, mode="710", user="root", group="root", _sudo=rights.needed())
    origin = "".join(f"{line}\n" for line in (old, engine["machine"]) if line)
    files.put(name="Note where the data come from", src=StringIO(origin), dest=f"{new}/{MOVING}", _sudo=rights.needed())
    for unit in ("docker.socket", "docker", "containerd"):  # the socket first: a request to it starts Docker again
        systemd.service(name=f"Stop {unit}", service=unit, running=False, enabled=None, _sudo=rights.needed())
    # -H, -A, -X besides the reference's -axPS: without them an image loses its hard links, and a layer what it removed
    # (overlayfs keeps that in extended attributes). What Docker did not make in the new folder is not deleted there.
    rules = " ".join([*(f"--filter={quote(f'R /{name}')}" for name in sorted(ENTRIES)), "--filter='P /*'"])
    copy = f"rsync -axPS -HAX --no-inc-recursive --delete --exclude=/{MOVING} {rules} {quote(old)}/ {quote(new)}"
    # flock: a copy whose laptop was lost may still run; 75 says that it does, and then Docker must not be started.
    script = f"""runs() {{ systemctl -q is-active docker; }}
      runs && {{ echo "Docker was started again before the copy" >&2; exit 1; }}
      flock -E 75 -w 3600 {quote(f"{new}/{MOVING}")} {copy}; code=$?
      runs && {{ echo "Docker was started while its data were copied; run it again" >&2; exit 1; }}
      [ $code -eq 0 ] || [ $code -eq 75 ] || systemctl start containerd docker
      exit $code"""
    server.shell(name="Copy the data", commands=[script], _sudo=rights.needed())
    written = daemon_json.write(docker_data.with_root(configuration, new))

if moving or copying:
    server.shell(
        name="The copy is complete", commands=[f"cd {quote(new)} && mv {MOVING} {MOVED}"], _sudo=rights.needed()
    )
waits = files.put(
    name="Let Docker wait for the volume when the machine boots",
    src=StringIO(f"[Unit]\nRequiresMountsFor={docker_data.in_unit(new)}\n"),
    dest=DROP_IN,
    create_remote_dir=True,
    mode="644",
    _sudo=rights.needed(),
)
systemd.daemon_reload(name="Read systemd's units", _if=waits.did_change, _sudo=rights.needed())
systemd.service(name="Start containerd", service="containerd", running=True, _sudo=rights.needed())
if adopting:
    daemon_json.start(written)
if copying:
    waits_for_old = f"printf '[Unit]\\nRequiresMountsFor=%s\\n' {quote(docker_data.in_unit(old))} >{DROP_IN}"
    undo = f"{waits_for_old}; systemctl daemon-reload; cd {quote(new)} && mv {MOVED} {MOVING}; cd /; {back}"
    failed = f"journalctl -q -n 15 -o cat -u docker >&2; systemctl stop docker.socket docker; {undo}; exit 1"
    start = f"systemctl enable -q docker; systemctl start docker || {{ {failed}; }}"
    server.shell(name="Start Docker", commands=[start], _sudo=rights.needed())
else:
    systemd.service(name="Start Docker", service="docker", running=True, enabled=True, _sudo=rights.needed())
if old != new or moving:
    server.shell(
        name="Docker uses the new folder",
        commands=[f'root=$(docker info -f "{{{{.DockerRootDir}}}}") && [ "$root" = {quote(new)} ] || '
                  '{ echo "Docker uses ${root:-nothing: it does not run}" >&2; exit 1; }',
                  f"rm -f {daemon_json.BEFORE}"],
        _sudo=rights.needed(),
    )  # fmt: skip
