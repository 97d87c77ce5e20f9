"""What functions that look at a machine give for every state of its tools: a right value, or a TutorialError."""

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import docker_host, doctor, gpu, kind, machine, shell, undo
from helpers.errors import TutorialError
from helpers.target import Capability, Target
from helpers.target_local import git_tracked
from tests.tool_states import CONTAINER, STATES, environment

pytestmark = pytest.mark.unit
_ANSWER_SECONDS = 0.5
_NO_CLIENT = {"no tools", "no Docker", "macOS without Docker", "nothing that tells ports"}
_SILENT = {"no engine", "no permission", "Docker hangs", "Docker hangs, no timeout", "sudo wants a password"}
_NOT_DOCKER = {"Podman as docker"}
_TELLS_NOTHING = {"engine that tells nothing", "rate limit"}
_ELSEWHERE = {"engine elsewhere", "engine elsewhere, of an equal folder", "macOS"}
_MACOS = {"macOS", "macOS without Docker"}
_NO_GPU = {
    "GPU hangs",
    "the only GPU is lost",
    "GPU without driver",
    "no GPU",
    "no tools",
    "nothing that tells ports",
    *_MACOS,
}
_NO_ROOT = {"sudo wants a password", "no sudo"}
_NO_SYSTEMCTL = {"no tools", "nothing that tells ports", *_MACOS}
_NO_SYSTEMD = {"container without systemd", *_NO_SYSTEMCTL}


@pytest.fixture
def enter(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Target]:
    """Give a function that puts this machine into a state, its home folder empty, and gives the target `host` there."""
    home = sandbox / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(shell, "ANSWER_SECONDS", _ANSWER_SECONDS)

    def state(name: str) -> Target:
        for variable, value in environment(name, sandbox).items():
            monkeypatch.setenv(variable, value)
        return Target.open("host")

    return state


@pytest.fixture(params=STATES)
def host(request: pytest.FixtureRequest, enter: Callable[[str], Target]) -> Iterator[Target]:
    """Give this machine in each of the states; no function takes much longer than what it allows a program."""
    began = time.monotonic()
    target = enter(request.param)
    yield target
    assert time.monotonic() - began < 20, "a program that hangs holds it up"


@pytest.fixture
def state(request: pytest.FixtureRequest, host: Target) -> str:
    return str(request.node.callspec.params["host"])


def test_capabilities(host: Target, state: str) -> None:
    expected = {
        Capability.DOCKER: state not in _NO_CLIENT | _SILENT | _NOT_DOCKER,
        Capability.ROOT: state not in _NO_ROOT,
        Capability.SYSTEMD: state not in _NO_SYSTEMD and Path("/run/systemd/system").is_dir(),
        Capability.GPU: state not in _NO_GPU,
    }
    assert host.capabilities() == {capability for capability, there in expected.items() if there}


def test_facts(host: Target, state: str) -> None:
    facts = machine.facts(host)
    assert list(facts) == ["system", "kernel", "architecture", "cores", "memory", "disk free"]
    memory = facts.pop("memory").removesuffix(" GiB")
    assert memory == "16" if state in _MACOS else memory.isdecimal()
    assert facts["disk free"].removesuffix(" GiB").isdecimal() and "unknown" not in facts.values()
    assert host.facts().keys() == {*facts, "memory", "python"}


def test_docker_host_look(host: Target, state: str) -> None:
    engine = state not in _NO_CLIENT | _SILENT | _NOT_DOCKER | _TELLS_NOTHING
    found = docker_host.look(host)
    assert found.engine == ("28.1.1" if engine else "podman 4.9.3" if state in _NOT_DOCKER else "")
    elsewhere = "/" if "equal" in state else "/var/lib/docker-elsewhere"
    assert found.root == (elsewhere if state in _ELSEWHERE else "/" if engine else "")
    assert (found.images, found.running, found.driver) == ((3, 1, "overlay2") if engine else (0, 0, ""))
    assert found.boot == ("" if state in _NO_SYSTEMD else "enabled")
    outsiders = {"no permission", "root without sudo", "no tools", "nothing that tells ports", *_NO_ROOT}
    assert found.group == ("no" if state in outsiders else "yes"), "the group docker-users is another one"
    assert len(found.rows()) == 9


def test_kind_requirements(host: Target, state: str) -> None:
    rows = {str(row["what"]): row for row in kind.requirements(host)}
    assert list(rows) == list(kind.NEEDS)
    unknown = {"inotify watches", "inotify instances"} if state in _MACOS | {"nothing that tells ports"} else set()
    if state in _ELSEWHERE:
        unknown = {"disk (GiB)", "inotify watches", "inotify instances"}
        assert (rows["cores"]["there"], rows["memory (GiB)"]["there"]) == (6, 8), "those of the engine's machine"
        assert "engine is on another machine" in str(rows["disk (GiB)"]["there"])
    else:
        free = shutil.disk_usage("/").free / 2**30
        assert abs(int(str(rows["disk (GiB)"]["there"])) - free) < 3
        assert rows["memory (GiB)"]["there"] == 16 or state not in _MACOS
    assert {what for what, row in rows.items() if row["enough"] == "unknown"} == unknown
    for what, row in rows.items():
        if what not in unknown:
            assert row["enough"] == ("yes" if int(str(row["there"])) >= kind.NEEDS[what] else "no")
        else:
            assert str(row["there"]).startswith("unknown")


def test_kind_busy_ports(host: Target, state: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = 7600 if state in _MACOS else server.getsockname()[1]
        wanted = {"nodes": [{"extraPortMappings": [{"hostPort": port, "containerPort": 80}]}]}
        if state == "nothing that tells ports":
            with pytest.raises(TutorialError, match="which of its ports are taken"):
                kind.busy_ports(host, wanted)
        else:
            assert kind.busy_ports(host, wanted) == [port]
            assert ("127.0.0.1", port) in machine.listening(host)


def test_containers_are_started_again_also_by_whom_only_root_rights_let(
    host: Target, state: str, sandbox: Path
) -> None:
    answers = state not in _NO_CLIENT | _NOT_DOCKER | _TELLS_NOTHING | _SILENT - {"no permission"}
    with docker_host.containers_kept(host):
        pass
    log = sandbox / "docker.log"
    assert (log.read_text() if log.exists() else "") == (f"start {CONTAINER}\n" if answers else "")


def test_containers_are_started_again_when_the_work_fails(enter: Callable[[str], Target], sandbox: Path) -> None:
    with pytest.raises(ZeroDivisionError), docker_host.containers_kept(enter("no permission")):
        _ = 1 / 0
    assert (sandbox / "docker.log").read_text() == f"start {CONTAINER}\n"


def test_gpu_look(host: Target, state: str) -> None:
    seen = {str(row["what"]): row["there"] for row in gpu.look(host)}
    engine = state not in _NO_CLIENT | _NOT_DOCKER | _TELLS_NOTHING | _SILENT - {"no permission"}
    assert str(seen["Docker"]) == ("28.1.1" if engine else "none")
    assert all(str(value) for value in seen.values())


def test_doctor(host: Target, state: str) -> None:
    assert all(finding.name and finding.purpose for finding in doctor.examine("host"))
    no_answer = _NO_CLIENT | _SILENT | _NOT_DOCKER | _TELLS_NOTHING
    assert doctor.docker_engine() == ("" if state in no_answer else "28.1.1")


def test_clean_lists_what_it_can_and_names_what_it_can_not_ask(host: Target, state: str) -> None:
    rows = [row for row in undo.leftovers("host") if "can't be listed" in row.stays]
    expected = {"what is in Docker"} if state in _SILENT else set()
    if state in {"no sudo", "another language"}:  # in which sudo refuses
        expected.add("Docker's data from before a move")
    if state == "engine that tells nothing":
        expected |= {f"what helpers.{module} looks for" for module in ("cluster", "nvshare", "kind")}
    assert {row.what for row in rows} == expected


def test_sudo(host: Target, state: str) -> None:
    root = state in {"root without sudo", "no tools", "nothing that tells ports"}
    assert host.sudo("true") == (["true"] if root else ["sudo", "-n", "true"])
    refusals = {
        "sudo wants a password": "sudo does not run commands for this user",
        "another language": "sudo does not run commands for this user",
        "no sudo": "The program sudo is not there",
    }
    if state in refusals:
        with pytest.raises(TutorialError, match=refusals[state]):
            host.run(host.sudo("true"))
        assert host.run(host.sudo("true"), check=False).returncode != 0
    else:
        assert host.run(host.sudo("echo", "done")).stdout == "done\n"


@pytest.mark.parametrize(("state", "reached"), [("everything", True), ("no curl", True), ("no internet", False)])
def test_where_docker_comes_from(enter: Callable[[str], Target], state: str, reached: bool) -> None:
    target = enter(state)
    assert docker_host.repository(target) == (docker_host.REPOSITORY if reached else "")
    if not reached:
        with pytest.raises(TutorialError, match="apt repository can't be reached"):
            docker_host.repository(target, "docker")


@pytest.mark.parametrize("program", ["git", "rsync"])
def test_copying_names_the_program_that_is_missing(
    enter: Callable[[str], Target], program: str, tmp_path: Path
) -> None:
    target, here = enter(f"no {program}"), Path(__file__).parent
    with pytest.raises(TutorialError, match=f"The program {program} is not there"):
        target.sync(here, str(tmp_path / "copy"))
    if program == "git":
        with pytest.raises(TutorialError, match="git"):
            git_tracked(here)


def test_a_program_that_is_none(enter: Callable[[str], Target], tmp_path: Path) -> None:
    target, text = enter("everything"), tmp_path / "text"
    text.write_text("no program")
    with pytest.raises(TutorialError, match=r"can't be started \(target host\)(?s:.)*Permission denied"):
        target.run([str(text)])
    text.chmod(0o755)
    with pytest.raises(TutorialError, match=r"(?s)can't be started.*Exec format error"):
        target.run([str(text)])
    assert target.run(["no-such-program"], check=False).returncode == 127
    with pytest.raises(TutorialError, match="The program no-such-program is not there"):
        target.pipe(["no-such-program"], ["cat"])
    with pytest.raises(TutorialError, match="The program no-such-program is not there"):
        target.pipe(["echo"], ["no-such-program"])


_BUSYBOX = """Active Internet connections (servers and established)

Proto Recv-Q Send-Q Local Address           Foreign Address         State
tcp        0      0 0.0.0.0:22              0.0.0.0:*               LISTEN
tcp        0      0 :::80                   :::*                    LISTEN
tcp        0      0 127.0.0.1:22            127.0.0.1:40000         ESTABLISHED
"""
_OLD_SS = """Cannot open netlink socket: Protocol not supported

State   Recv-Q  Send-Q  Local Address:Port  Peer Address:Port
LISTEN  0  128  0.0.0.0:22  0.0.0.0:*
LISTEN  0  128  [fe80::1%eth0]:80  [::]:*
"""


@pytest.mark.parametrize(("program", "said"), [("ss", _OLD_SS), ("netstat", _BUSYBOX)])
def test_headings_and_blank_lines_are_no_ports(
    enter: Callable[[str], Target], sandbox: Path, program: str, said: str
) -> None:
    host, other = enter("nothing that tells ports"), sandbox / "programs" / program
    other.write_text(f"#!/bin/sh\ncat <<'END'\n{said}END\n", encoding="utf-8")
    other.chmod(0o755)
    assert {port for _, port in machine.listening(host)} == {22, 80}


def test_a_disk_whose_room_is_not_told_is_unknown(enter: Callable[[str], Target], sandbox: Path) -> None:
    host, other = enter("everything"), sandbox / "programs" / "df"
    other.write_text("#!/bin/sh\nprintf 'Filesystem 1024-blocks Used Available\\n- - - - - /\\n'\n", encoding="utf-8")
    other.chmod(0o755)
    assert machine.facts(host)["disk free"] == "unknown"
