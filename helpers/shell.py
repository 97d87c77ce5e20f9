"""Small shell scripts, and the environment of programs.

There is one way to ask a machine for values, one reader of the `name=value` lines of scripts, and one table of what
programs keep of the reader's environment.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cache
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from helpers.loopback import is_loopback, no_proxy

if TYPE_CHECKING:
    from helpers.target import Target

ANSWER_SECONDS = 10.0  # for each command of a query; a program that hangs is not asked a second time
_NEWLINE = "\x1e"  # stands for the line ends within a value, so that each value is one line
# Where there is no program `timeout` (macOS), the script ends a command and all that it started by itself.
_QUERY = """LC_ALL=C; LANGUAGE=; export LC_ALL LANGUAGE; hung=
end() {
  kill -STOP "$1"
  for child in $(ps -A -o ppid= -o pid= | awk -v of="$1" '$1 == of {print $2}'); do end "$child"; done
  kill -9 "$1"
}
watched() {
  "$@" & command=$!
  (trap 'kill $pause; exit' TERM; sleep "$limit" & pause=$!; wait $pause; end $command) >/dev/null 2>&1 & watch=$!
  wait $command; status=$?
  kill $watch 2>/dev/null; return $status
}
if command -v timeout >/dev/null; then watched() { timeout -k 1 "$limit" "$@"; }; fi
ask() {
  case " $hung " in *" $2 "*) return ;; esac
  value=$(watched sh -c "$3" 2>/dev/null </dev/null); status=$?
  case $status in 124|137) hung="$hung $2" ;; esac
  [ $status -eq 0 ] && printf '%s=%s\\n' "$1" "$(printf %s "$value" | tr '\\n' '\\036')"
}
"""


@dataclass(frozen=True)
class _Steering:
    """The variables that steer a program.

    Attributes:
        by: Patterns of their names. They are dropped, for they send the program to another place than it is told.
        kept: Patterns of those that stay: where a closed network has its packages, certificates and credentials.
        sets: Variables that it always gets: it must not wait for an answer that nobody gives.
    """

    by: str
    kept: str = ""
    sets: Mapping[str, str] = field(default_factory=dict)


_ENGINE = "DOCKER_CONFIG DOCKER_API_VERSION"  # DOCKER_HOST and DOCKER_CONTEXT: see `_own_engine`
_PACKAGES = (
    "UV_INDEX* UV_DEFAULT_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_*_MIRROR UV_PYTHON_DOWNLOADS_JSON_URL "
    "UV_PYTHON_INSTALL_DIR UV_KEYRING_PROVIDER UV_CONFIG_FILE UV_CACHE_DIR UV_OFFLINE UV_HTTP_* UV_*_TIMEOUT "
    "UV_CONCURRENT_* UV_LINK_MODE UV_INSECURE_HOST UV_NATIVE_TLS UV_SYSTEM_CERTS "
    "PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_NO_INDEX PIP_FIND_LINKS PIP_CONFIG_FILE PIP_CACHE_DIR PIP_PROXY "
    "PIP_TRUSTED_HOST PIP_CERT PIP_CLIENT_CERT PIP_KEYRING_PROVIDER PIP_*TIMEOUT PIP_RETRIES"
)
# Program → what steers it and what it keeps. Names in brackets are groups of programs. LD_LIBRARY_PATH, LD_PRELOAD,
# XDG_*, the locale, proxies and certificates are not here: they belong to the machine, or to how it reaches others.
_TABLE = {
    "docker": _Steering("DOCKER_* COMPOSE_* BUILDX_* BUILDKIT_* CONTAINER_HOST CONTAINER_CONNECTION", _ENGINE),
    "kind": _Steering("KIND_*", _ENGINE),
    "kubectl": _Steering("KUBE*", sets={"KUBECTL_KUBERC": "false"}),  # the reader's kuberc changes what options mean
    "helm": _Steering("HELM_*"),
    "git": _Steering("GIT_*", "GIT_SSL_* GIT_PROXY_SSL_* GIT_HTTP_*", {"GIT_TERMINAL_PROMPT": "0"}),
    # The agent, security keys and smart cards stay. No window asks for a passphrase.
    "ssh": _Steering("SSH_ASKPASS*", sets={"SSH_ASKPASS_REQUIRE": "never"}),
    "rsync": _Steering("RSYNC_*"),
    "uv": _Steering("UV_* PIP_*", _PACKAGES),
    "go": _Steering("GOFLAGS GOOS GOARCH GOWORK GOBIN GO111MODULE GOEXPERIMENT CGO_*"),
    "(python)": _Steering(
        "PYTHON* JUPYTER_PATH JUPYTER_CONFIG_* JUPYTER_DATA_DIR MPLBACKEND MATPLOTLIBRC",
        sets={"PYTHONUTF8": "1"},  # names of files and folders, in any locale
    ),
    "(openstack)": _Steering("OS_*", "OS_CLIENT_CONFIG_FILE OS_CLIENT_SECURE_FILE"),
    "(provisioning)": _Steering("ANSIBLE_* PYINFRA_*"),
    "(ray)": _Steering("RAY_*"),
    "(airflow)": _Steering("AIRFLOW_* _AIRFLOW_*"),
    "(forwarder)": _Steering(
        "FORWARDER_* FASTAPI_* CELERY_* FLOWER_* REDIS* PROMETHEUS_* UVICORN_* SCHEDULER_TIMES LOG_FOLDER "
        "HEARTBEAT_FILE"
    ),
    # What runs code of the reader's in a shell, changes the output that is read, or waits for a key.
    "(shell)": _Steering(
        "ENV BASH_ENV BASH_FUNC_* CDPATH GLOBIGNORE SHELLOPTS BASHOPTS POSIXLY_CORRECT PERL5OPT PERL5LIB "
        "MAKEFLAGS MFLAGS MAKEFILES MAKELEVEL GREP_* TAR_OPTIONS GZIP XZ_OPT XZ_DEFAULTS LS_OPTIONS QUOTING_STYLE "
        "TIME_STYLE *BLOCK_SIZE BLOCKSIZE PS_FORMAT PS_PERSONALITY FORCE_COLOR CLICOLOR_FORCE LESS* PAGER *_PAGER "
        "SYSTEMD_COLORS SYSTEMD_LESS SYSTEMD_LOG_*",
        sets={"PAGER": "cat"},
    ),
}
_SAME = {"podman": "docker", "pip": "uv"} | dict.fromkeys(
    ("scp", "sftp", "ssh-keygen", "ssh-keyscan", "ssh-add"), "ssh"
)
# For repositories that the course makes: no insteadOf, hook, template or signature of the reader's. The home folder is
# for git before 2.32, which does not know GIT_CONFIG_GLOBAL.
OWN_REPOSITORY = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "HOME": os.devnull,
    "XDG_CONFIG_HOME": os.devnull,
}


def environment(program: str = "") -> dict[str, str]:
    """Give the environment for a program of this machine: the reader's, without what would send it elsewhere.

    Args:
        program: Its name or path. One that is not in the table, such as a shell or Python, may start any of those that
            are, and so keeps what any of them keeps.

    Returns:
        All variables. This machine is excepted from proxies. A Docker engine that the reader has chosen is kept when it
        is on this machine (Docker Desktop, Colima, rootless), and left out when it is on another one.

    Example:
        >>> subprocess.run(["helm", "list"], env=environment("helm"))
    """
    name = re.sub(r"[\d.]+$", "", Path(program).name)
    row = _TABLE.get(_SAME.get(name, name))
    rows = [row] if row else list(_TABLE.values())
    steering = _pattern(" ".join(each.by for each in _TABLE.values()))
    kept = _pattern(" ".join(each.kept for each in rows))
    result = {n: v for n, v in os.environ.items() if not steering.match(n) or kept.match(n)}
    if any(_ENGINE in each.kept for each in rows):
        result |= _own_engine(os.environ)
    for each in rows:
        result |= each.sets
    return result | no_proxy(result)


@cache
def _pattern(names: str) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, names.split())) or r"(?!)")


def _own_engine(variables: Mapping[str, str]) -> dict[str, str]:
    """Give the variables that choose a Docker engine, as far as it is an engine of this machine.

    The course publishes ports on loopback, mounts folders and changes /etc/docker: an engine elsewhere is never meant.
    """
    host, context = variables.get("DOCKER_HOST", ""), variables.get("DOCKER_CONTEXT", "")
    if _is_here(host):
        names = ["DOCKER_HOST"] + ([] if host.startswith("unix:") else ["DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"])
        return {name: variables[name] for name in names if name in variables}
    folder = Path(variables.get("DOCKER_CONFIG") or Path.home() / ".docker")
    if context and _is_here(_endpoint(folder, context)):
        return {"DOCKER_CONTEXT": context}
    current = str(_read(folder / "config.json").get("currentContext") or "default")
    return {} if _is_here(_endpoint(folder, current)) else {"DOCKER_CONTEXT": "default"}


def _endpoint(folder: Path, context: str) -> str:
    """Read the address of a Docker context, from where Docker's command keeps it; empty where that is not known."""
    if context == "default":
        return "unix:"
    name = hashlib.sha256(context.encode()).hexdigest()
    endpoint = _read(folder / "contexts" / "meta" / name / "meta.json").get("Endpoints")
    docker = endpoint.get("docker") if isinstance(endpoint, dict) else None
    return str(docker.get("Host") or "") if isinstance(docker, dict) else ""


def _read(file: Path) -> Mapping[str, object]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_here(address: str) -> bool:
    return address.startswith(("unix:", "npipe:", "fd:")) or ("://" in address and is_loopback(address))


def read_facts(text: str, names: Iterable[str]) -> dict[str, str | None]:
    """Read the `name=value` lines that a script printed.

    Args:
        text: What the script printed. Lines of other names, and lines without `=`, do not count: a login shell may
            greet first.
        names: The names that are expected.

    Returns:
        Exactly these names. A value that is missing or empty is None. Where a name occurs twice, the last line counts.
    """
    found: dict[str, str | None] = dict.fromkeys(names)
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if equals and name in found:
            found[name] = value.replace(_NEWLINE, "\n").strip() or None
    return found


def query_script(questions: Mapping[str, str]) -> str:
    """Write the script of `query`; see there."""
    asked = (f"ask {quote(name)} {quote(_program(command))} {quote(command)}" for name, command in questions.items())
    return "\n".join([f"limit={ANSWER_SECONDS:g}", _QUERY, *asked])


def _program(command: str) -> str:
    """Give the program that a command begins with, `sudo` and its options left out."""
    return next((w for w in re.split(r"[\s|;&]+", command) if w not in ("", "sudo", "-n") and "=" not in w), "")


def query(target: "Target", questions: Mapping[str, str], path: Iterable[str] = ()) -> dict[str, str | None]:
    """Ask a machine for values, each by a short shell command; what fails is None, and disturbs no other value.

    Args:
        target: The machine.
        questions: A command of `/bin/sh` for each name. It is ended after `ANSWER_SECONDS`. A program that had to be
            ended is not asked again. Messages are in English (`LC_ALL=C`), whatever the machine's language.
        path: Folders of the machine that are searched for programs before those of its `PATH`.

    Returns:
        What each command printed, without surrounding white space. It is None where the command failed (exit code
        other than 0), printed nothing, or took too long.

    Raises:
        TutorialError: The machine can't be reached.

    Example:
        >>> query(target, {"kernel": "uname -r", "engine": "docker version -f '{{.Server.Version}}'"})
        {'kernel': '6.1.0-18-amd64', 'engine': None}
    """
    limit = (ANSWER_SECONDS + 2.0) * len(questions) + 20
    script = "\n".join([*(f"PATH={quote(p)}:$PATH" for p in path), query_script(questions), "exit 0", ""])
    done = target.run(["/bin/sh"], input=script, timeout=limit, check=False, repeatable=True)
    return read_facts(done.stdout, questions)
