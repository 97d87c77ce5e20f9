"""What Docker has on a disk: how its daemon.json is read, and which of its folders may be moved or deleted.

Decisions only: the facts come from `deployments/host/docker_data.sh`, and whoever asks acts on the answers.
"""

import json
import math
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from helpers.settings import ROOT

SCRIPT = ROOT / "deployments" / "host" / "docker_data.sh"
DAEMON_JSON = "/etc/docker/daemon.json"
DEFAULT_ROOT = "/var/lib/docker"
MOVING, MOVED = ".tutorial-moving", ".tutorial-moved"
# What dockerd makes in its data root, and our two marks. Source: https://github.com/moby/moby (daemon, layer, plugin,
# volume, libnetwork), and the storage drivers' names.
ENTRIES = frozenset({
    "builder", "buildkit", "containerd", "containers", "engine-id", "image", "network", "plugins", "rootfs", "runtimes",
    "swarm", "tmp", "tmp-old", "trust", "unmount-on-shutdown", "volumes", "aufs", "btrfs", "devicemapper",
    "fuse-overlayfs", "overlay", "overlay2", "vfs", "zfs", MOVING, MOVED,
})  # fmt: skip
# Storage drivers whose layers are more than files: rsync does not copy a subvolume or a block device.
_NOT_FILES = ("btrfs", "zfs", "devicemapper", "windowsfilter")
# File systems without the owners, hard links or extended attributes that image layers need.
_UNFIT = re.compile(
    r"nfs4?|cifs|smb\w*|vfat|msdos|exfat|ntfs3?|fuse.*|9p|vboxsf|ceph|lustre|gpfs|beegfs|afs|ecryptfs|hfs\w*|iso9660|"
    r"squashfs|overlay|aufs"
)
_STACKED = ("overlay", "aufs")  # unfit only for a driver that stacks file systems itself
_BEFORE, _VALUE = r"""(?:^|[\s"'=])""", r"""["']?([^\s"';]+)"""
_ROOT_FLAG = re.compile(rf"{_BEFORE}(?:(?:--data-root|--graph)(?:=|\s+)|-g(?:=|\s+|(?=/))){_VALUE}")
_FILE_FLAG = re.compile(rf"{_BEFORE}--config-file(?:=|\s+){_VALUE}")


class NotUnderstood(ValueError):
    """A file that its own program would refuse, or that can't be written back without a loss; the text says why."""


@dataclass(frozen=True)
class DaemonJson:
    """What a daemon.json says.

    Attributes:
        settings: Its settings, as Docker reads them.
        repeated: Settings that the file gives more than once: Docker takes the last one, so writing would lose others.
        plain: Whether the file is UTF-8 without a byte order mark.
    """

    settings: dict[str, Any]
    repeated: Sequence[str] = ()
    plain: bool = True


def read_daemon_json(content: bytes) -> DaemonJson:
    """Read a daemon.json as dockerd does: UTF-8, or what a byte order mark says; an empty file has no settings.

    Args:
        content: The file's bytes.

    Returns:
        Its settings.

    Raises:
        NotUnderstood: dockerd would not start with it. The text names the line.

    Example:
        >>> read_daemon_json(b'{"debug": true}').settings
        {'debug': True}
    """
    encoding, mark = next(
        ((name, mark) for name, mark in (("utf-8", BOM_UTF8), ("utf-16-le", BOM_UTF16_LE), ("utf-16-be", BOM_UTF16_BE))
         if content.startswith(mark)), ("utf-8", b"")
    )  # fmt: skip
    body = content[len(mark) :]
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError as error:
        line = body[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise NotUnderstood(
            f"is not valid {encoding.upper()}: line {line} has the byte 0x{body[error.start]:02x}"
        ) from None
    repeated: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in items]
        repeated.extend(sorted({name for name in names if names.count(name) > 1}))
        return dict(items)

    try:
        settings = json.loads(
            text if text.strip() else "{}", object_pairs_hook=pairs, parse_constant=_no_constant, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise NotUnderstood(f"is not valid JSON: {error or 'it is nested too deeply'}") from None
    if not isinstance(settings, dict):
        raise NotUnderstood("holds no JSON object: Docker's settings are written in braces, {…}")
    return DaemonJson(settings, repeated, encoding == "utf-8" and not mark)


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no value in JSON")


def _finite(word: str) -> float:
    if math.isinf(float(word)):
        raise ValueError(f"the number {word} is too large")
    return float(word)


@dataclass(frozen=True)
class Mount:
    """A mount of `/proc/self/mountinfo` (proc(5)).

    Attributes:
        device: Major and minor number of the file system.
        root: The folder of that file system that is mounted.
        at: Where.
        options: How it is mounted, together with the file system's own options.
        kind: The file system's type.
    """

    device: str
    root: str
    at: str
    options: frozenset[str]
    kind: str


def read_mounts(text: str) -> list[Mount]:
    """Read `/proc/self/mountinfo`."""
    mounts = []
    for line in text.splitlines():
        left, dash, right = line.partition(" - ")
        fields, more = left.split(" "), right.split(" ")
        if dash and len(fields) >= 6:
            root, at = (re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), x) for x in fields[3:5])
            options = {*fields[5].split(","), *(more[2].split(",") if len(more) > 2 else ())}
            mounts.append(Mount(fields[2], root, at, frozenset(options), more[0]))
    return mounts


def mount_of(path: str, mounts: Sequence[Mount]) -> Mount:
    """Find the mount that a path is on; of two at one place the later one hides the other."""
    found = Mount("", "/", "/", frozenset(), "")
    for mount in mounts:
        if _inside(path, mount.at) and len(mount.at) >= len(found.at):
            found = mount
    return found


def place(path: str, mounts: Sequence[Mount]) -> tuple[str, str]:
    """Tell which folder of which file system a path is: one folder has one place, also by a bind mount.

    Args:
        path: An absolute path without symbolic links.
        mounts: The machine's mounts.

    Returns:
        The file system's device, and the path within it.
    """
    mount = mount_of(path, mounts)
    return mount.device, str(PurePosixPath(mount.root) / PurePosixPath(path).relative_to(mount.at))


def is_folder_name(path: str) -> bool:
    """Tell whether a text is the absolute path of a folder that Docker can have for itself."""
    return path.startswith("/") and path.isprintable() and len(PurePosixPath(path).parts) > 1


def in_unit(path: str) -> str:
    """Write a path as a value of a systemd unit (systemd.syntax(7), systemd.unit(5): specifiers)."""
    plain = re.fullmatch(r"[\w./@:+,=-]+", path)
    return path if plain else '"' + re.sub(r'(["\\])', r"\\\1", path).replace("%", "%%") + '"'


def _inside(path: str, folder: str) -> bool:
    """Tell whether a path is a folder or lies in it."""
    return PurePosixPath(path).is_relative_to(folder)


def _holds(folder: tuple[str, str], other: tuple[str, str]) -> bool:
    """Tell whether one place is another one or lies in it."""
    return folder[0] == other[0] and _inside(other[1], folder[1])


def nested(old: str, new: str, mounts: Sequence[Mount]) -> str:
    """Say why data can't be moved from one folder to the other: one is inside the other; nothing where none is."""
    old_place, new_place = place(old, mounts), place(new, mounts)
    if old_place == new_place:
        return f"{new} and {old} are the same folder, by a mount" if new != old else ""
    if _inside(new, old) or _holds(old_place, new_place):
        return f"{new} is inside {old}, where Docker's data are now"
    if _inside(old, new) or _holds(new_place, old_place):
        return f"{old}, where Docker's data are now, is inside {new}"
    return ""


def flags(started: str) -> tuple[str, str]:
    """Find in dockerd's command lines which data root and which configuration file they name; empty where none."""
    root, file = _ROOT_FLAG.findall(started), _FILE_FLAG.findall(started)
    return (root[-1] if root else ""), (file[-1] if file else "")


def set_by_flag(started: str, settings: Mapping[str, str]) -> set[str]:
    """Tell which settings of daemon.json are flags of dockerd already: it does not start with one in both places.

    Args:
        started: dockerd's command lines.
        settings: The flag for each setting.
    """
    return {name for name, flag in settings.items() if re.search(rf"{_BEFORE}{flag}(?:=|\s|$)", started)}


def configured_root(settings: Mapping[str, Any]) -> str:
    """Give the data root of daemon.json, by its present or its former name.

    Raises:
        NotUnderstood: It is not an absolute path.
    """
    root = settings.get("data-root", settings.get("graph", DEFAULT_ROOT))
    if not isinstance(root, str) or not root.startswith("/") or not root.isprintable():
        raise NotUnderstood(f"has the data-root {root!r}, which is not an absolute path")
    return root


def with_root(settings: Mapping[str, Any], root: str) -> dict[str, Any]:
    """Give daemon.json's settings with another data root; Docker refuses the former name beside the present one."""
    return {**{k: v for k, v in settings.items() if k != "graph"}, "data-root": root}


def engine_refusal(facts: Mapping[str, str | None], settings: Mapping[str, Any], configured: str) -> str:
    """Say why the engine's data can't be moved by a change of daemon.json; nothing where they can.

    Args:
        facts: What `docker_data.sh engine` printed.
        settings: daemon.json's settings.
        configured: The data root that follows from it, without symbolic links.
    """
    live, mine = facts["live"] or "", facts["mine"] or ""
    root, file = flags(facts["started"] or "")
    if file and file != DAEMON_JSON:
        return f"dockerd is started with --config-file {file}, so {DAEMON_JSON} does not count; move it by hand"
    if root and {"data-root", "graph"} & settings.keys():
        return (f"data-root is set twice, in {DAEMON_JSON} and by a flag of dockerd ({root}), and Docker does not "
                "start with both; remove the flag: sudo systemctl edit --full docker")  # fmt: skip
    if root:
        return (f"dockerd is started with --data-root {root}, so {DAEMON_JSON} can't set it; move the value there, "
                "remove the flag (sudo systemctl edit --full docker) and restart Docker")  # fmt: skip
    if mine and mine != live:
        return (f"your docker command uses another engine than root's, with its data in {mine} (rootless Docker, or a "
                "Docker context); only the engine of the systemd unit docker.service is moved")  # fmt: skip
    if live and facts["active"] in (None, "inactive", "failed", "unknown"):  # not: activating
        return (f"the engine that answers, with its data in {live}, is not run by the systemd unit docker.service "
                "(snap, Docker Desktop, podman, or started by hand), so it can't be stopped and moved")  # fmt: skip
    if settings.get("userns-remap") or re.search(r"/\d+\.\d+$", live) or "name=userns" in (facts["security"] or ""):
        return f"Docker remaps user namespaces, and its data are in {live or configured}; such data are not moved"
    if live and facts["live_real"] != configured:
        return (f"Docker uses {live}, and {DAEMON_JSON} says {configured}; restart Docker first, so that both agree: "
                "sudo systemctl restart docker")  # fmt: skip
    return ""


def copy_refusal(facts: Mapping[str, str | None], settings: Mapping[str, Any]) -> str:
    """Say why the engine's data can't be copied while it is stopped; nothing where they can. See `engine_refusal`."""
    driver = (facts["driver"] or str(settings.get("storage-driver") or "")).split("@")[0]
    if "io.containerd.snapshotter" in (facts["status"] or ""):
        return ("Docker keeps its images in containerd (/var/lib/containerd), and data-root does not move them; set "
                '"features": {"containerd-snapshotter": false} before you pull images')  # fmt: skip
    if driver in _NOT_FILES:
        return f"the storage driver {driver} keeps layers that are more than files, and a copy of files would lose them"
    flag = re.search(r"--live-restore(?!=false)", facts["started"] or "")
    if facts["live_restore"] == "true" or settings.get("live-restore") or flag:
        return ("live-restore is on: containers go on writing into the old folder while it is copied; set it to false "
                f"in {DAEMON_JSON}, and restart Docker")  # fmt: skip
    return ""


def room_refusal(facts: Mapping[str, str | None], new: str, driver: str) -> str:
    """Say why a folder can't take Docker's data; nothing where it can.

    Args:
        facts: What `docker_data.sh folders` printed.
        new: The new folder, without symbolic links.
        driver: The storage driver; empty where it is not known.
    """
    need, has, free = (int(facts[name] or 0) for name in ("need_kib", "has_kib", "free_kib"))
    files, free_files, all_files = (int(facts[name] or 0) for name in ("files", "free_files", "all_files"))
    base, mount = facts["base"] or "/", mount_of(facts["base"] or "/", read_mounts(facts["mounts"] or ""))
    if not facts["need_kib"]:
        return f"the size of Docker's data could not be measured (du -sx {facts['old_real']})"
    if need - has > free:
        return (f"{base} has {free // 1024} MiB free, and Docker's data take {need // 1024} MiB; choose a larger "
                "volume, or remove images: docker image prune")  # fmt: skip
    if all_files and files - int(facts["has_files"] or 0) > free_files:
        return (f"{base} has room for {free_files} more files (inodes), and Docker's data are {files} files; choose a "
                "larger volume")  # fmt: skip
    if "ro" in mount.options or facts["writable"] != "yes":
        return f"{base} is read-only; mount it so that root may write to it"
    if "noexec" in mount.options:
        return f"{mount.at} is mounted noexec, so no program of a container could run there; mount it without noexec"
    stacks = driver not in ("vfs", "fuse-overlayfs")
    if _UNFIT.fullmatch(mount.kind) and (stacks or mount.kind not in _STACKED):
        return f"{mount.at} is a file system of the type {mount.kind}, which can't hold image layers; use ext4 or xfs"
    if facts["no_d_type"]:
        return f"{mount.at} is an xfs without d_type (ftype=0), which overlay2 needs; format it with ftype=1"
    if facts["parts"]:
        return (f"{facts['parts']} in the old folder is a mount of its own, which the move would leave behind; "
                f"unmount it, or mount it in {new} by hand")  # fmt: skip
    return ""


@dataclass(frozen=True)
class OldData:
    """What a move left behind.

    Attributes:
        folder: The old folder; empty where there is none.
        entries: What Docker made in it, and may be deleted.
        kept: What stays, each with the reason.
    """

    folder: str = ""
    entries: Sequence[str] = ()
    kept: Mapping[str, str] | None = None


def old_data(facts: Mapping[str, str | None]) -> OldData:
    """Decide what of an old data root may be deleted: what Docker made, and nothing that is in use.

    Args:
        facts: What `docker_data.sh old` printed.

    Returns:
        The old folder, with what may be deleted in it and what stays.
    """
    live, old = facts["live_real"] or "", facts["old_real"] or ""
    recorded = facts["recorded"] or ""
    other_machine = facts["recorded_on"] and facts["recorded_on"] != facts["machine"]
    if not (live.startswith("/") and recorded.startswith("/") and old.startswith("/")) or old == "/" or other_machine:
        return OldData()
    mounts = read_mounts(facts["mounts"] or "")
    live_place, old_place = place(live, mounts), place(old, mounts)
    within = PurePosixPath(old_place[1]).relative_to(live_place[1]).parts if _holds(live_place, old_place) else None
    if within == () or (within and within[0] in ENTRIES):  # the same folder, or part of what Docker uses now
        return OldData()
    used = [live, *(facts["links"] or "").splitlines()]
    entries, kept = [], {}
    for line in (facts["entries"] or "").splitlines():
        kind, _, name = line.partition(" ")
        if reason := _stays(kind, f"{old}/{name}", used, mounts):
            kept[name] = reason
        elif name != "lost+found":
            entries.append(name)
    return OldData(old, tuple(entries), kept)


def _stays(kind: str, path: str, used: Sequence[str], mounts: Sequence[Mount]) -> str:
    """Say why an entry of an old data root is not deleted; nothing where it may be."""
    if Path(path).name == "lost+found":
        return ""
    if Path(path).name not in ENTRIES:
        return "Docker did not make it"
    if kind == "link":
        return "it is a symbolic link"
    where = place(path, mounts)
    if any(_inside(mount.at, path) for mount in mounts):
        return "something is mounted in it"
    if any(_holds(where, place(other, mounts)) for other in used) or any(
        _holds(where, (mount.device, mount.root)) for mount in mounts
    ):
        return "it is in use"
    return ""
