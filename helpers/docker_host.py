"""Chapter 03: a Docker host. The engine, who may use it, how its logs are kept small, and its data on a volume."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from helpers import airgap, display, docker_data, shell
from helpers.docker_data import DEFAULT_ROOT
from helpers.errors import TutorialError
from helpers.provision import Changes
from helpers.target import Capability, Target, with_docker
from helpers.undo import Leftover

REPOSITORY = "https://download.docker.com/linux"
DATA_ROOT = "/media/volume/docker"
HELLO = "hello-world:latest"
DROP_IN = "/etc/systemd/system/docker.service.d/data-root.conf"
POOL = "172.20.0.0/14"
_LEFT = re.compile(r"to-chk=(\d+)/(\d+)\)")
_INFO = """engine={{.ServerVersion}}
root={{.DockerRootDir}}
driver={{.Driver}}
images={{.Images}}
running={{.ContainersRunning}}
logs={{.LoggingDriver}}"""
_LOOK = {
    "package": r"""dpkg-query -W -f '${db:Status-Abbrev}${Package} ${Version}\n' docker-ce docker.io |
      sed -n 's/^ii *//p' | head -1""",
    "client": "docker --version",
    "info": f"docker info -f '{_INFO}'",
    "boot": "systemctl is-enabled docker || true",  # `disabled` has the exit code 1
    "groups": "id -nG",
}
# A fresh Debian has neither curl nor wget; apt's own helper fetches files, too.
REACHED = f"""url={REPOSITORY}/; helper=/usr/lib/apt/apt-helper
if command -v curl >/dev/null; then curl -fsIm 8 -o /dev/null "$url"
elif command -v wget >/dev/null; then wget -q -t 1 -T 8 -O /dev/null "$url"
elif [ -x $helper ]; then file=$(mktemp); $helper download-file "$url" "$file"; code=$?; rm -f "$file"; (exit $code)
else exit 1; fi && echo yes || echo no"""
_BOOT = re.compile(r"[a-z-]+")  # systemd's word, such as enabled or not-found; no message of systemctl


@dataclass(frozen=True)
class Host:
    """A machine as a Docker host.

    Attributes:
        package: The package that the engine comes from, with its version; empty where none is installed.
        engine: The version of the engine that answers; empty where none does. Podman, which answers to the name
            `docker` without being Docker, is named: `podman 4.9.3`.
        root: The folder of Docker's data.
        driver: The storage driver.
        images: How many images there are.
        running: How many containers run.
        logs: The logging driver.
        boot: Whether the engine starts at boot, in systemd's word; empty where systemd does not tell.
        group: Whether this user is in the group `docker`: yes or no; empty where the machine does not tell.
    """

    package: str = ""
    engine: str = ""
    root: str = ""
    driver: str = ""
    images: int = 0
    running: int = 0
    logs: str = ""
    boot: str = ""
    group: str = ""

    def rows(self) -> list[Mapping[str, object]]:
        """Give it as a table."""
        return [
            {"what": "package", "value": self.package or "none"},
            {"what": "engine", "value": self.engine or "does not answer"},
            {"what": "data", "value": self.root},
            {"what": "storage driver", "value": self.driver},
            {"what": "images", "value": self.images},
            {"what": "running containers", "value": self.running},
            {"what": "logging driver", "value": self.logs},
            {"what": "starts at boot", "value": self.boot},
            {"what": "user in the group docker", "value": self.group},
        ]


def look(target: Target) -> Host:
    """Look what a machine is as a Docker host.

    Raises:
        TutorialError: The machine can't be reached.
    """
    told = {name: value or "" for name, value in shell.query(target, _LOOK).items()}
    info = shell.read_facts(told["info"], ["engine", "root", "driver", "images", "running", "logs"])
    podman = told["client"].lower().startswith("podman")
    return Host(
        package=told["package"],
        engine=told["client"].replace(" version", "") if podman else info["engine"] or "",
        root=info["root"] or "",
        driver=info["driver"] or "",
        images=_number(info["images"]),
        running=_number(info["running"]),
        logs=info["logs"] or "",
        boot=told["boot"] if _BOOT.fullmatch(told["boot"]) else "",
        group=told["groups"] and ("yes" if "docker" in told["groups"].split() else "no"),
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def repository(target: Target, choice: str = "auto") -> str:
    """Choose where the engine comes from.

    Args:
        target: The machine.
        choice: `docker` for Docker's own apt repository, `distribution` for the distribution's package, or `auto`: the
            first where the machine reaches it.

    Returns:
        The repository's address, or nothing for the distribution's package.

    Raises:
        TutorialError: It is none of the three.
    """
    if choice not in ("auto", "docker", "distribution"):
        raise TutorialError(f"{choice!r} is no source of Docker", "", "use auto, docker or distribution")
    if choice == "distribution":
        return ""
    if Capability.ROOT not in target.capabilities():  # a plan, for a machine with internet
        return REPOSITORY
    answer = shell.query(target, {"reached": REACHED})["reached"]
    if choice == "docker" and answer != "yes":
        raise TutorialError(
            "Docker's apt repository can't be reached",
            f"{REPOSITORY} does not answer" if answer else "the machine has no program to ask with, or that hangs",
            "connect the machine to the internet, or use the distribution's package"
            if answer
            else "install curl on the machine, or use the distribution's package",
            target=target.name,
        )
    return REPOSITORY if answer == "yes" else ""


def install(target: Target, source: str, dry: bool = False) -> Changes:
    """Have Docker installed and set up, by `deployments/host/docker.py`.

    Args:
        target: The machine.
        source: The address of Docker's apt repository; nothing for the distribution's package.
        dry: Only tell what would change.

    Returns:
        What would change, or has changed.

    Raises:
        TutorialError: A package can't be had, daemon.json is broken, or Docker does not start with it.
    """
    values = {"docker_repository": source}
    if dry:
        return target.apply("docker", values, dry=True)
    with containers_kept(target):
        changes = target.apply("docker", values)
    if changes.changed:
        target.close()  # membership in a group counts from the next login
    return changes


@contextmanager
def containers_kept(target: Target) -> Iterator[None]:
    """Start again, after the block, what ran before: a restart of Docker ends containers without a restart policy.

    Docker is asked with root rights where this user may not use it, as before the first login in the group `docker`.
    """
    running, _ = _containers(target, "-q")
    try:
        yield
    except BaseException:
        with suppress(TutorialError):  # the reader needs the block's own error
            _start_again(target, running)
        raise
    _start_again(target, running)


def _containers(target: Target, which: str) -> tuple[set[str], bool]:
    """List containers' ids, and tell whether that took root rights."""
    asked = {"plain": f"docker ps {which} && echo .", "root": f"sudo -n docker ps {which} && echo ."}
    told = shell.query(target, asked)
    return set((told["plain"] or told["root"] or "").split()) - {"."}, not told["plain"]


def _start_again(target: Target, running: set[str]) -> None:
    there, as_root = _containers(target, "-aq") if running else (set(), False)
    if ended := sorted(running & there):  # one that was started with --rm is gone
        argv = ["docker", "start", *ended]
        target.run(target.sudo(*argv) if as_root else argv, timeout=180)


@dataclass(frozen=True)
class Contents:
    """What a Docker engine holds.

    Attributes:
        images: Their ids.
        volumes: Their names, each with a checksum over its files unless a container that runs may write to it.
        containers: Their names.
    """

    images: Sequence[str]
    volumes: Sequence[str]
    containers: Sequence[str]


def contents(target: Target) -> Contents:
    """List what the engine holds, to compare before and after a move.

    Raises:
        TutorialError: The engine does not answer.
    """
    root = target.run(["docker", "info", "-f", "{{.DockerRootDir}}"], repeatable=True).stdout.strip()
    script = """cd "$0/volumes" 2>/dev/null || exit 0
    used=" $(docker ps -q | xargs -r docker inspect -f '{{range .Mounts}}{{.Name}} {{end}}' | tr '\\n' ' ')"
    for v in $(docker volume ls -q); do case $used in
      *" $v "*) echo "$v in use" ;;
      *) echo "$v $(tar -C "$v" --sort=name --numeric-owner -cf - . 2>/dev/null | sha256sum | cut -d" " -f1)" ;;
    esac; done"""
    volumes = target.run(target.sudo("sh", "-c", script, root), check=False, timeout=600, repeatable=True).stdout
    images = target.run(["docker", "images", "-aq", "--no-trunc"], repeatable=True).stdout
    containers = target.run(["docker", "ps", "-a", "--format", "{{.Names}}"], repeatable=True).stdout
    return Contents(*(sorted(set(text.splitlines())) for text in (images, volumes, containers)))


def room(target: Target, folder: str = DATA_ROOT) -> list[Mapping[str, Any]]:
    """Measure Docker's data, the disk that they are on, and the one that they shall go to.

    Args:
        target: The machine.
        folder: Where the data shall go; what it is to be made in has to be there.

    Returns:
        A row for each of the two disks, in MiB: disk, docker (Docker's data on it), other, free. The first one is
        Docker's folder, or `/var/lib/docker` where Docker uses the new folder already.
    """
    root = look(target).root or DEFAULT_ROOT
    places = (DEFAULT_ROOT if root == folder else root, folder)
    # Links are followed: `du` of a link is 0. `stat -f`: columns of `df` move where a device's name has blanks.
    script = """for place; do
      place=$(readlink -m -- "$place"); folder=$place
      while [ ! -d "$folder" ] && [ "$folder" != / ]; do folder=$(dirname -- "$folder"); done
      data=$(du -sxm -- "$place" 2>/dev/null | cut -f1)
      set -- $(stat -f -c '%b %f %a %S' -- "$folder")
      echo "${data:-0} $((($1 - $2) * ($4 / 512) / 2048)) $(($3 * ($4 / 512) / 2048))"
    done"""
    argv = target.sudo("sh", "-c", script, "sh", *places)
    lines = target.run(argv, timeout=300, repeatable=True).stdout.splitlines()
    rows: list[Mapping[str, Any]] = []
    for place, line in zip(places, lines, strict=True):
        docker, used, free = map(int, line.split())
        name = f"{place} (in use)" if place == root else place
        rows.append({"disk": name, "docker": docker, "other": max(0, used - docker), "free": free})
    return rows


def show_room(target: Target, folder: str = DATA_ROOT) -> None:
    """Draw how full the two disks are, as bars, with the figures in the text."""
    from matplotlib.figure import Figure

    rows = room(target, folder)
    figure = Figure(figsize=(7, 1.6), layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(rows)
    for part, colour in (("docker", "#0f766e"), ("other", "#7b8b9a"), ("free", "#d8f0ea")):
        widths = [row[part] / 1024 for row in rows]
        axes.barh([str(row["disk"]) for row in rows], widths, left=left, color=colour, label=part)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("GiB")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    said = "; ".join(f"{r['disk']}: Docker {r['docker']} MiB, other {r['other']}, free {r['free']}" for r in rows)
    display.figure(figure, f"Docker's data and the two disks. {said}.")


def check_store(target: Target) -> None:
    """Make sure that Docker keeps its images where the move takes them from.

    Raises:
        TutorialError: It keeps them in containerd, as a new Docker 29 does: `data-root` would not move them.
    """
    argv = ["docker", "info", "-f", "{{json .DriverStatus}}"]
    if "io.containerd.snapshotter" in target.run(argv, repeatable=True).stdout:
        raise TutorialError(
            "Docker keeps its images in containerd",
            "then they are in /var/lib/containerd, and data-root does not move them",
            'set "features": {"containerd-snapshotter": false} in /etc/docker/daemon.json before you pull images',
            target=target.name,
        )


def move(target: Target, folder: str = DATA_ROOT, *, adopt: bool = False, dry: bool = False) -> Changes:
    """Move Docker's data, by `deployments/host/data_root.py`; what was interrupted is completed.

    Args:
        target: The machine.
        folder: The new folder.
        adopt: Use the data of another Docker that lie there, such as on a volume that came from another VM.
        dry: Only tell what would change.

    Returns:
        What would change, or has changed.

    Raises:
        TutorialError: There is no room, the folder holds something else, or Docker does not start; the old data are
            where they were.
    """
    data = {"data_root": folder, "adopt": "yes" if adopt else "no"}
    if dry:
        return target.apply("data_root", data, dry=True)
    with display.progress("Moving Docker's data") as report, containers_kept(target):

        def watch(line: str) -> None:
            if left := _LEFT.search(line):
                report(1 - int(left[1]) / max(1, int(left[2])), f"{left[1]} files to go")

        return target.apply("data_root", data, watch=watch)


def uses(target: Target, folder: str) -> bool:
    """Tell whether Docker's data are in a folder, by whatever path it is named."""
    script = '[ "$(readlink -m -- "$1")" = "$(readlink -m -- "$2")" ]'
    argv = target.sudo("sh", "-c", script, "sh", look(target).root or "/", folder)
    return target.run(argv, check=False, repeatable=True).returncode == 0


def run_hello(target: Target) -> bool:
    """Run the image hello-world, and tell whether it said what it says."""
    airgap.supply(target, [HELLO])
    return "Hello from Docker!" in target.run(["docker", "run", "--rm", HELLO], timeout=120).stdout


def old_data(target: Target) -> str:
    """Name the folder that a move left behind; empty where there is none, or nothing of Docker's in it."""
    found = _old_data(target)
    return found.folder if found and found.entries else ""


def delete_old_data(target: Target) -> None:
    """Delete what Docker made in the folder that a move left behind, and nothing else; tell what stays, and why.

    The folder itself stays, it may be a mount point. What was interrupted is completed by the next call.

    Raises:
        TutorialError: Docker does not say which folder it uses, or a part could not be deleted.
    """
    found = _old_data(target)
    if found is None:
        raise TutorialError(
            "Nothing was deleted",
            "Docker does not say which folder it uses, so the old one can't be told from it",
            "sudo systemctl start docker, and try again",
            target=target.name,
        )
    if found.entries:
        argv = _facts_of("delete", found.folder, *found.entries)
        done = target.run(target.sudo(*argv), check=False, timeout=600)
        if done.returncode != 0:
            raise TutorialError(
                f"Not all old data in {found.folder} could be deleted",
                "something uses them, or they are protected",
                "end what uses them, and delete them again",
                target=target.name,
                output=done.stderr,
            )
    if found.folder and found.kept:
        rows = [{"name": name, "why it stays": reason} for name, reason in found.kept.items()]
        display.table(rows, title=f"What stays in {found.folder}")


def _facts_of(*words: str) -> list[str]:
    """Give the command that asks for facts of Docker's data, or deletes entries of a folder."""
    return ["sh", "-c", docker_data.SCRIPT.read_text(encoding="utf-8"), docker_data.SCRIPT.name, *words]


def _old_data(target: Target) -> docker_data.OldData | None:
    """Look what a move left behind; None where Docker does not say which folder it uses."""
    said = target.run(target.sudo(*_facts_of("old")), check=False, timeout=180, repeatable=True).stdout
    names = ("live_real", "mounts", "recorded", "recorded_on", "machine", "old_real", "links", "entries", "end")
    facts = shell.read_facts(said, names)
    return docker_data.old_data(facts) if facts["end"] and facts["live_real"] else None


def leftovers(target: str) -> list[Leftover]:
    """List what chapter 03 did to a machine; an engine and its data are no less the reader's own, so they stay."""
    with with_docker(target) as machine:
        if not machine:
            return []
        rows, found = list[Leftover](), look(machine)
        if old := old_data(machine):
            how = "docker_host.delete_old_data removes it"
            rows.append(Leftover("Docker's data from before the move", f"{old} on {target}", None, how))
        elif machine.run(machine.sudo("true"), check=False, repeatable=True).returncode != 0:
            how = "it can't be listed: sudo does not run commands for this user, and the folder is root's"
            rows.append(Leftover("Docker's data from before a move", target, None, how))
        if machine.run(["test", "-e", DROP_IN], check=False, repeatable=True).returncode == 0:
            how = "to take it back: stop Docker, copy it, and set data-root in /etc/docker/daemon.json"
            rows.append(Leftover("Docker's data on the volume", f"{found.root} on {target}", None, how))
        if POOL in machine.run(["cat", "/etc/docker/daemon.json"], check=False, repeatable=True).stdout:
            how = "containers and networks rely on it; /etc/docker/daemon.json is yours to edit"
            rows.append(Leftover("Docker's settings", f"/etc/docker/daemon.json on {target}", None, how))
        return rows
