"""The doctor knows its target: each kind is asked for what it needs, and a tool that works by half gives a row."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import airgap, doctor, doctor_machines, finding, gpu_lab, kind, processes, shell, ssh_lab
from helpers.settings import settings

pytestmark = [pytest.mark.component]
Add = Callable[[str, str], None]
NO_ENGINE = "echo; echo 'Cannot connect to the Docker daemon at unix:///x. Is it running?' >&2; exit 1"
REFUSED = "echo 'permission denied while trying to connect to the Docker daemon socket' >&2; exit 1"
RATE = (
    "case $1 in version) echo 28.1.1;; info) exit 0;; *) echo 'toomanyrequests: You have reached it' >&2; exit 1;; esac"
)
ELSEWHERE = """case "$*" in
*NCPU*) printf 'name=away\\ncores=8\\nmemory=1000000000\\n';; *RootDir*) echo /var/lib/away;;
*version*) echo 28.1.1;; esac"""
STATES = {
    "an engine that does not run": {"docker": NO_ENGINE},
    "no permission": {"docker": REFUSED},
    "an engine that hangs": {"docker": "sleep 41.5"},
    "a rate limit": {"docker": RATE},
    "an engine elsewhere": {"docker": ELSEWHERE},
    "podman": {"docker": "echo 'Emulate Docker CLI using podman.' >&2; exit 125"},
    "a GPU that hangs": {"nvidia-smi": "sleep 41.5", "docker": NO_ENGINE},
    "sudo that asks": {"sudo": "echo 'sudo: a password is required' >&2; exit 1", "docker": NO_ENGINE},
    "a tool that crashes": {"git": "kill -SEGV $$", "rsync": "printf '\\377\\376'; exit 0", "docker": "printf '\\377'"},
    "no ss, no df, no awk": {"ss": "exit 127", "df": "exit 1", "awk": "exit 2", "docker": NO_ENGINE},
}


@pytest.fixture
def program(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    """Give a function that puts a program first on PATH; a program that hangs is ended after a second."""
    folder = sandbox / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin:/usr/sbin")
    monkeypatch.delenv("TUTORIAL_AIRGAP", raising=False)
    monkeypatch.setattr(shell, "ANSWER_SECONDS", 1.0)
    airgap.needed.cache_clear()  # type: ignore[attr-defined]
    settings.cache_clear()

    def add(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    yield add
    airgap.needed.cache_clear()  # type: ignore[attr-defined]


def _rows(target: str) -> dict[str, finding.Finding]:
    return {row.name: row for row in doctor.examine(target)}


@pytest.mark.parametrize("target", ["local", "vm", "host"])
@pytest.mark.parametrize("state", STATES)
def test_every_half_working_tool_gives_a_row_and_none_costs_more_than_its_time_out(
    program: Add, target: str, state: str
) -> None:
    for name, script in STATES[state].items():
        program(name, script)
    started = time.monotonic()
    rows = doctor.examine(target)
    assert time.monotonic() - started < 15
    assert all(row.state in ("ok", "missing", "optional", "unknown") for row in rows)
    assert not [row.name for row in rows if row.state == "missing" and not row.remedy]


@pytest.mark.parametrize(
    ("script", "found", "remedy"),
    [
        (NO_ENGINE, "engine does not run", "systemctl start docker"),
        (REFUSED, "may not use Docker", "usermod -aG docker"),
        ("sleep 41.5", "gave no answer", "systemctl restart docker"),
    ],
)
@pytest.mark.parametrize("target", ["vm", "host"])
def test_an_engine_that_does_not_answer_is_missing_with_its_own_remedy(
    program: Add, target: str, script: str, found: str, remedy: str
) -> None:
    program("docker", script)
    engine = _rows(target)["Docker engine"]
    assert engine.state == "missing" and found in engine.found and remedy in engine.remedy
    assert _rows("local")["Docker engine"].state == "optional", "local does without"


def test_local_needs_python_openssh_disk_and_ports(program: Add) -> None:
    rows = _rows("local")
    needed = {name for name, row in rows.items() if row.needed}
    assert needed >= {"Python", "OpenSSH client", "disk", "port 7600", "port 7601", "port 7602"}
    assert "git" not in needed and "Docker engine" not in needed


def test_a_taken_port_names_its_program_and_the_tutorial_s_own_is_no_fault(
    program: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = processes.free_port()
    monkeypatch.setattr(doctor, "PORTS", ((port, "a test"),))
    argv = [processes.PYTHON, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    server = processes.start(
        "page", argv, ready=lambda: processes.answers(f"127.0.0.1:{port}"), ports={"http": port}, target="cpouta"
    )
    row = _rows("local")[f"port {port}"]
    assert (row.state, row.found) == ("ok", "used by the tutorial's page")
    (settings().state / "cpouta" / "processes" / "page.json").unlink()
    row = _rows("local")[f"port {port}"]
    assert row.state == "missing" and str(server.pid) in row.found and f":{port}'" in row.remedy
    server.stop()


def test_the_vm_needs_memory_disk_and_images_or_what_makes_them(program: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    program(
        "docker", "case $1 in version) echo 28.1.1;; pull) echo 'lookup x: no such host' >&2; exit 1;; *) exit 1;; esac"
    )
    sizes = [{"what": "memory (GiB)", "there": 3}, {"what": "disk (GiB)", "there": "unknown"}]
    monkeypatch.setattr(kind, "requirements", lambda target: sizes)
    monkeypatch.setattr(airgap, "missing", lambda: ["debian:bookworm-slim"])
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda name, **_: None if name in ("go", "debootstrap") else f"/usr/bin/{name}")
    rows = _rows("vm")
    assert (rows["memory"].state, rows["memory"].found, rows["memory"].need) == ("missing", "3 GiB", "4 GiB")
    assert rows["disk for Docker"].state == "unknown"
    assert rows["Docker engine"].found == "28.1.1" and rows["container registry"].found == "none answers"
    missing = {name for name, row in rows.items() if row.state == "missing" and not name.startswith("port")}
    assert missing == {"memory", "Go", "debootstrap", "root rights"}
    assert "apt install golang" in rows["Go"].remedy and "apt install debootstrap" in rows["debootstrap"].remedy
    monkeypatch.setattr(airgap, "missing", lambda: [])
    assert "Go" not in _rows("vm"), "what is made already takes nothing"


def test_where_a_registry_answers_nothing_has_to_be_made(program: Add) -> None:
    program("docker", "case $1 in version) echo 28.1.1;; pull) exit 0;; *) exit 1;; esac")
    rows = _rows("vm")
    assert rows["container registry"].state == "ok" and "Go" not in rows
    assert rows["GPU rehearsal"].state in ("ok", "optional"), "chapter 04 plans without Go"


def test_the_gpu_rehearsal_is_left_out_where_its_programs_are_missing(
    program: Add, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_lab, "which", lambda name: None if name == "gpg" else name)
    row = _rows("vm")["GPU rehearsal"]
    assert (row.state, row.found) == ("optional", "no: gpg not found") and "gpg" in row.remedy
    assert not gpu_lab.can_rehearse() and "gpg" in capsys.readouterr().out


def test_a_rate_limit_is_told_as_such(program: Add) -> None:
    program("docker", RATE)
    row = _rows("vm")["container registry"]
    assert row.state == "missing" and "rate limit" in row.found and "docker login" in row.remedy


def test_the_host_s_limits_are_compared_and_need_a_command_without_root(
    program: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("docker", "echo 28.1.1")
    program("id", "case $1 in -un) echo ubuntu;; *) echo 1000;; esac")
    program("sudo", "echo 'sudo: a password is required' >&2; exit 1")
    sizes = [{"what": what, "there": need - 1} for what, need in kind.NEEDS.items()]
    monkeypatch.setattr(kind, "requirements", lambda target: sizes)
    rows = _rows("host")
    small = {"cores", "memory", "disk for Docker", "inotify watches", "inotify instances"}
    assert {name for name, row in rows.items() if row.state == "missing"} >= small
    assert rows["inotify instances"].remedy == "sudo sysctl -w fs.inotify.max_user_instances=512"
    assert rows["sudo"].state == "optional", "the engine answers: chapter 03 has nothing to install"
    program("docker", NO_ENGINE)
    assert _rows("host")["sudo"].state == "missing" and "sudoers.d" in _rows("host")["sudo"].remedy


def test_a_machine_behind_ssh_is_asked_itself(program: Add, sandbox: Path) -> None:
    place = ssh_lab.endpoint("local")
    place.config.install(place.blocks())
    program("ssh", f'exec /usr/bin/ssh -F "{place.config.config}" "$@"')  # the real one reads the real home's file
    program("docker", f"touch {sandbox}/asked; exit 1")
    program("git", f"touch {sandbox}/asked-git; exit 1")
    (place.folder / "ubuntu" / ".ssh").mkdir(exist_ok=True)
    rows = {row.name: row for row in doctor_machines.behind_ssh("cpouta")}
    assert rows["Host cpouta"].state == "ok"
    assert {"system", "sudo", "systemd", "Docker engine", "disk for Docker", "GPU", "internet", "rsync"} <= rows.keys()
    assert not (sandbox / "asked").exists(), "the laptop's own Docker does not matter there"
    assert "GiB" in rows["memory"].found


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 'ssh: connect to host x port 22: Connection refused' >&2; exit 255", "nothing listens"),
        ("echo 'ubuntu@x: Permission denied (publickey).' >&2; exit 255", "does not accept"),
        ("exit 3", "could not connect"),
    ],
)
def test_a_machine_that_is_not_reached_says_why(program: Add, script: str, found: str) -> None:
    program("ssh", script)
    (row,) = doctor_machines.behind_ssh("cpouta")
    assert row.state == "missing" and found in row.found and "ssh cpouta true" in row.remedy
