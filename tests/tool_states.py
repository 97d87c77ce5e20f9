"""Tool states: programs first on PATH that behave as real ones do where something is missing, half-installed or hangs.

What they print is what the real programs print (Docker 28, Podman 4, sudo 1.9, systemd 252, nvidia-smi 550). A state
holds on any machine: PATH has none of the programs of `UNDER_TEST` but the state's own.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

UNDER_TEST = frozenset(
    ["curl", "docker", "git", "helm", "kind", "kubectl", "lspci", "netstat", "nvcc", "nvidia-smi", "podman", "ps"]
    + ["rsync", "ss", "sudo", "systemctl", "timeout", "wget"]
)
CONTAINER = "3f2a1b0c9d8e"  # the one container that runs where an engine answers
_ENGINE = """case "$*" in
  --version|-v) echo 'Docker version 28.1.1, build 4eba377' ;;
  *ServerVersion*) printf 'engine=28.1.1\\nroot=%s\\ndriver=overlay2\\nimages=3\\nrunning=1\\nlogs=json-file\\n' ROOT ;;
  *DockerRootDir*) echo ROOT ;;
  *NCPU*) printf 'name=%s\\ncores=6\\nmemory=8589934592\\n' NAME ;;
  *"version -f"*|*"version --format"*) echo 28.1.1 ;;
  "ps -q"|"ps -aq") echo 3f2a1b0c9d8e ;;
  start*) echo "$*" >>"${0%/*}/../docker.log" ;;
esac"""
_NO_ENGINE = """case "$1" in
  --version|-v) echo 'Docker version 28.1.1, build 4eba377'; exit ;;
  version|info) echo ;;
esac
echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?' >&2; exit 1"""
_REFUSED = """if [ "$1" = --version ]; then echo 'Docker version 28.1.1, build 4eba377'; exit; fi
echo 'permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock' >&2
exit 1"""
# With a format that names Docker's own fields, Podman prints what comes before the first one, without a line's end.
_PODMAN = """case "$*" in
  --version|-v) echo 'podman version 4.9.3' ;;
  *"{{"*)
    printf 'engine='; echo "Error: template: can't evaluate field ServerVersion in type *define.Info" >&2; exit 125 ;;
  info*) printf 'host:\\n  arch: amd64\\n  buildahVersion: 1.33.7\\n' ;;
esac"""
_SUDO = 'while :; do case "$1" in -*) shift ;; *) break ;; esac; done; AS_ROOT=yes exec "$@"'
_PASSWORD = "echo 'sudo: a password is required' >&2; exit 1"
_SYSTEMCTL = 'case "$1" in is-enabled) echo enabled ;; is-system-running) echo running ;; esac'
_NO_SYSTEMD = """[ "$1" = is-system-running ] && echo offline
echo "System has not been booted with systemd as init system (PID 1). Can't operate."; exit 1"""
_NO_NETWORK = "exit 4"  # of wget; without it and curl, apt's own helper would be asked
_GPU = "echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-8d3c2b1a)'"
_NO_KUBERNETES = """case "$1" in version) echo 'Client Version: v1.32.2'; exit ;; esac
echo 'The connection to the server localhost:8080 was refused - did you specify the right host or port?' >&2; exit 1"""
_MAC = {
    "awk": """case "$*" in */proc/*) echo "awk: can't open file /proc" >&2; exit 2 ;; esac; exec /usr/bin/awk "$@\"""",
    "cat": 'case "$*" in */proc/*) echo "cat: no such file" >&2; exit 1 ;; esac; exec /usr/bin/cat "$@"',
    "netstat": "printf 'Active Internet connections\\ntcp4       0      0  127.0.0.1.7600       *.*       LISTEN\\n'",
    "ps": 'exec /usr/bin/ps "$@"',
    "sysctl": '[ "$*" = "-n hw.memsize" ] && echo 17179869184',
}


def _user(number: int, groups: str) -> str:
    return f'case "$*" in -u) echo {number} ;; -nG) echo "{groups}" ;; *) exec /usr/bin/id "$@" ;; esac'


def engine(root: str = "/", name: str = "") -> str:
    """Write a `docker` whose engine answers, with its data in a folder, on the machine of a name (by default this)."""
    return _ENGINE.replace("ROOT", root).replace("NAME", name or '"$(uname -n)"')


@dataclass(frozen=True)
class State:
    """A machine's tools.

    Attributes:
        programs: The script of each program that it has of `UNDER_TEST`, or in place of the system's.
        without: Programs of the system that it lacks.
        environment: Variables that are set there.
    """

    programs: Mapping[str, str] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    environment: Mapping[str, str] = field(default_factory=dict)


_ROOT, _PERSON = _user(0, "root"), _user(1000, "ubuntu sudo docker")
_REAL = {n: f'exec {path} "$@"' for n in ("git", "ps", "rsync", "ss", "timeout") if (path := shutil.which(n))}
_ALL = {
    **_REAL,
    "curl": "exit 0",
    "docker": engine(),
    "id": _PERSON,
    "sudo": _SUDO,
    "systemctl": _SYSTEMCTL,
    "nvidia-smi": _GPU,
    "lspci": "echo '00:06.0 3D controller: NVIDIA Corporation GH100 [H100 SXM5 80GB] (rev a1)'",
}

_DESKTOP = {"docker": engine("/var/lib/docker-elsewhere", "docker-desktop")}
_MACOS = {
    n: s
    for n, s in {**_ALL, **_MAC, **_DESKTOP}.items()
    if n not in ("lspci", "nvidia-smi", "ss", "systemctl", "timeout")
}


def _but(programs: Mapping[str, str], *without: str) -> State:
    return State({name: script for name, script in {**_ALL, **programs}.items() if name not in without})


STATES: dict[str, State] = {
    "everything": _but({}),
    "no tools": State({"id": _ROOT, "wget": _NO_NETWORK}),
    "no Docker": _but({}, "docker"),
    "no engine": _but({"docker": _NO_ENGINE}),
    "no permission": _but(
        {
            "docker": f'if [ -z "$AS_ROOT" ]; then {_REFUSED}; fi\n{engine()}',
            "id": _user(1000, "ubuntu docker-users sudo"),
        }
    ),
    "engine elsewhere": _but(_DESKTOP),
    "engine elsewhere, of an equal folder": _but({"docker": engine("/", "docker-desktop")}),
    "engine that tells nothing": _but({"docker": 'case "$1" in info) exit 0 ;; esac; exit 1'}),
    "Docker hangs": _but({"docker": "sleep 40"}),
    "Docker hangs, no timeout": _but({"docker": "sleep 40"}, "timeout"),
    "rate limit": _but(
        {
            "docker": 'case "$1" in info) ;; pull) echo "Error response from daemon: toomanyrequests: You have reached '
            'your unauthenticated pull rate limit." >&2; exit 1 ;; esac'
        }
    ),
    "Podman as docker": _but({"docker": _PODMAN}),
    "GPU hangs": _but({"nvidia-smi": "sleep 40"}),
    "GPU without driver": _but(
        {"nvidia-smi": 'echo "NVIDIA-SMI has failed because it couldn\'t communicate with the NVIDIA driver."; exit 9'}
    ),
    "one GPU is lost": _but(
        {"nvidia-smi": f"echo 'Unable to determine the device handle for GPU0: 0000:07:00.0: lost'; {_GPU}; exit 15"}
    ),
    "the only GPU is lost": _but(
        {"nvidia-smi": "echo 'Unable to determine the device handle for GPU0: 0000:07:00.0: Unknown Error'; exit 15"}
    ),
    "no GPU": _but({"nvidia-smi": "echo 'No devices were found'; exit 6"}),
    "sudo wants a password": _but({"sudo": _PASSWORD, "docker": _REFUSED, "id": _user(1000, "ubuntu")}),
    "no sudo": _but({"id": _user(1000, "ubuntu")}, "sudo"),
    "root without sudo": _but({"id": _ROOT}, "sudo"),
    "container without systemd": _but({"systemctl": _NO_SYSTEMD}),
    "kubectl without cluster": _but({"kubectl": _NO_KUBERNETES}),
    "macOS": State(_MACOS, frozenset({"nproc", "setsid"})),
    "macOS without Docker": State({n: s for n, s in _MACOS.items() if n != "docker"}, frozenset({"nproc", "setsid"})),
    "nothing that tells ports": State({"id": _ROOT, "cat": _MAC["cat"], "wget": _NO_NETWORK}),
    "no ps": _but({"ps": "exit 1"}),
    "no curl": _but({"wget": "exit 0"}, "curl"),
    "no internet": _but({"curl": "exit 6"}),
    **{f"no {name}": _but({}, name) for name in ("git", "lspci", "rsync", "ss", "timeout")},
    "another language": State(
        {
            **_ALL,
            "sudo": f'[ "$LC_ALL" = C ] || {{ echo "sudo: vaaditaan salasana" >&2; exit 1; }}; {_SUDO}',
            "df": '[ "$LC_ALL" = C ] && exec /usr/bin/df "$@"; echo "Tiedostoj. 1K-lohkot"; echo "/dev/vda1 98,5 3,5"',
            "systemctl": f'[ "$LC_ALL" = C ] || echo "ei onnistu,"; {_SYSTEMCTL}',
        },
        environment={"LC_ALL": "fi_FI.UTF-8", "LANG": "fi_FI.UTF-8", "LANGUAGE": "fi", "LC_NUMERIC": "fi_FI.UTF-8"},
    ),
}


@cache
def _system(without: frozenset[str]) -> "TemporaryDirectory[str]":
    """Make a folder of the system's programs without some; it goes when Python ends."""
    folder = TemporaryDirectory(prefix="tutorial-tools-")
    for place in ("/usr/sbin", "/sbin", "/usr/bin", "/bin"):
        for program in os.scandir(place) if Path(place).is_dir() else ():
            link = Path(folder.name, program.name)
            if program.name not in without and not link.is_symlink():
                link.symlink_to(program.path)
    return folder


def environment(name: str, folder: Path) -> dict[str, str]:
    """Give the variables of a state: PATH, and what else it sets.

    Args:
        name: The name of one of `STATES`.
        folder: A folder, in which its programs are made; in its file `docker.log` is what `docker start` was asked for.
    """
    state = STATES[name]
    programs = folder / "programs"
    programs.mkdir()
    for program, script in state.programs.items():
        (programs / program).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (programs / program).chmod(0o755)
    path = f"{programs}:{_system(UNDER_TEST | state.without).name}"
    return {"PATH": path, **state.environment}
