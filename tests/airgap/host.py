"""What this machine needs before privileged containers with systemd run on it; where it has that, nothing is done."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from helpers.docker_data import NotUnderstood, read_daemon_json

HERE = Path(__file__).parent
RUNTIME = "runc-bounded"
_CAP_SYS_RESOURCE = 24
_DAEMON_JSON = Path("/etc/docker/daemon.json")
_CGROUPS = Path("/sys/fs/cgroup")


def prepare() -> None:
    """Mount all cgroup v1 controllers, and register the bounded runtime where a capability is missing."""
    _mount_controllers()
    if lacks_capability() and RUNTIME not in _runtimes():
        _register_runtime()


def lacks_capability() -> bool:
    """Tell whether `docker run --privileged` would ask for more than this machine can give."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("CapBnd"))
    return not int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1


def _mount_controllers() -> None:
    """Mount what is not mounted: a privileged container would take such a controller for the whole machine."""
    if (_CGROUPS / "cgroup.controllers").exists() or os.geteuid() != 0:  # cgroup v2, or not ours to change
        return
    for line in Path("/proc/cgroups").read_text().splitlines()[1:]:
        name, _, _, enabled = line.split()
        folder = _CGROUPS / name
        if enabled == "1" and not folder.exists():
            folder.mkdir()
            subprocess.run(["mount", "-t", "cgroup", "-o", name, "cgroup", str(folder)], check=True)
            print(f"mounted the cgroup controller {name}")


def _runtimes() -> str:
    argv = ["docker", "info", "--format", "{{json .Runtimes}}"]
    return subprocess.run(argv, capture_output=True, text=True).stdout


def _read_settings(path: Path) -> dict[str, Any]:
    """Read daemon.json; one that is not understood ends the program, and is left as it is."""
    try:
        says = read_daemon_json(path.read_bytes() if path.exists() else b"")
    except (NotUnderstood, OSError) as error:
        raise SystemExit(f"{_DAEMON_JSON} {error}; correct it by hand, it was left as it is") from None
    if says.repeated:
        raise SystemExit(f"{_DAEMON_JSON} gives {', '.join(says.repeated)} more than once; correct it by hand")
    return says.settings


def _register_runtime() -> None:
    program = Path("/usr/local/bin") / RUNTIME
    shutil.copy2(HERE / RUNTIME, program)
    program.chmod(0o755)
    path = _DAEMON_JSON.resolve()  # a link stays a link
    known = _read_settings(path)
    known.setdefault("runtimes", {})[RUNTIME] = {"path": str(program)}
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(known, indent=2) + "\n")
    if path.exists():
        shutil.copystat(path, part)
        os.chown(part, path.stat().st_uid, path.stat().st_gid)
    part.rename(path)
    pids = subprocess.run(["pidof", "dockerd"], capture_output=True, text=True).stdout.split()
    for pid in pids:
        os.kill(int(pid), signal.SIGHUP)  # Docker reads its runtimes again; containers go on
    print(f"registered the runtime {RUNTIME} in {path}: this machine lacks CAP_SYS_RESOURCE")
