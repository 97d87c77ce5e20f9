"""Targets: this machine, and a machine behind the real OpenSSH client and a real SSH server."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from helpers import docker_host, kind, machine, processes, ssh, ssh_lab, target_ssh, undo
from helpers.errors import TutorialError
from helpers.target import Target, valid_name
from helpers.target_local import LocalTarget
from helpers.target_ssh import SshTarget

pytestmark = [pytest.mark.component]


@pytest.fixture
def vm(place: ssh.Endpoint) -> Iterator[SshTarget]:
    target = SshTarget("cpouta", place.config.config)
    yield target
    target.close()


@pytest.fixture(params=["local", "ssh"])
def target(request: pytest.FixtureRequest) -> Target:
    return LocalTarget("local") if request.param == "local" else request.getfixturevalue("vm")


def test_commands_give_their_output_and_exit_code(target: Target) -> None:
    done = target.run(["sh", "-c", "echo out; echo 'a  b' >&2; exit 7"], check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "a  b\n", 7)
    assert target.run(["printf", "%s", 'it\'s $HOME; "x" *']).stdout == 'it\'s $HOME; "x" *'
    assert target.run(["cat"], input="typed in").stdout == "typed in"
    assert target.run(["sh", "-c", 'test "$PWD" = "$HOME"']).returncode == 0, "it starts in the home folder"
    assert target.run(["sh", "-c", "echo $COLOUR"], env={"COLOUR": "blue sky"}).stdout == "blue sky\n"


def test_the_code_255_of_a_command_is_not_taken_for_a_broken_connection(target: Target) -> None:
    assert target.run(["sh", "-c", "exit 255"], check=False).returncode == 255
    assert target.run(["true"]).returncode == 0


def test_a_failed_command_is_an_error_that_names_it(target: Target) -> None:
    with pytest.raises(TutorialError, match=r"(?s)ls.*command: ls /no/such/folder.*it said: .*No such file"):
        target.run(["ls", "/no/such/folder"])


def _sleepers(seconds: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", seconds]]


def test_a_command_that_takes_too_long_is_ended(target: Target) -> None:
    began = time.monotonic()
    with pytest.raises(TutorialError, match="1 s"):
        target.run(["sleep", "31.5"], timeout=1)
    deadline = time.monotonic() + 5
    while _sleepers("31.5"):
        assert time.monotonic() < deadline, "it goes on there"
        time.sleep(0.1)
    assert time.monotonic() - began < 10


def test_many_commands_over_one_connection(vm: SshTarget) -> None:
    codes = [vm.run(["sh", "-c", f"exit {n}"], check=False).returncode for n in range(40)]
    assert codes == list(range(40))


def test_files_arrive_whole_and_under_their_name(target: Target, tmp_path: Path) -> None:
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(os.urandom(300_000))
    remote = f"{tmp_path}/there it's"
    target.put(sent, remote)
    target.get(remote, back)
    assert back.read_bytes() == sent.read_bytes()
    with pytest.raises(TutorialError):
        target.get(f"{tmp_path}/missing", tmp_path / "never")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["back", "sent", "there it's"]


def test_a_tunnel_carries_bytes_and_closes_with_its_context(vm: SshTarget, place: ssh.Endpoint) -> None:
    with vm.tunnel(place.port) as port:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            assert connection.recv(4) == b"SSH-"
        with pytest.raises(TutorialError), vm.tunnel(place.port, port):
            pass
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 2)


def test_facts_and_capabilities(target: Target) -> None:
    facts = target.facts()
    assert int(facts["cores"]) >= 1 and facts["architecture"]
    assert target.capabilities() is not None


def test_over_ssh_a_machine_is_what_it_is_without(
    vm: SshTarget, place: ssh.Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")  # as the server has it
    here = Target.open("host")
    assert vm.capabilities() == here.capabilities()
    facts, same = vm.facts(), ("system", "kernel", "architecture", "cores", "memory")
    assert [facts[name] for name in same] == [here.facts()[name] for name in same]
    assert facts["disk free"].removesuffix(" GiB").isdecimal()
    assert ("127.0.0.1", place.port) in machine.listening(vm) & machine.listening(here)
    there, needs = kind.requirements(vm), kind.requirements(here)
    assert [row for row in there if "disk" not in str(row["what"])] == [
        r for r in needs if "disk" not in str(r["what"])
    ]
    mine, theirs = docker_host.look(here), docker_host.look(vm)
    assert (theirs.package, theirs.engine, theirs.root) == (mine.package, mine.engine, mine.root)
    assert (theirs.boot, theirs.group) == (mine.boot, mine.group)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("", "The program ssh is not there"),
        ('case "$*" in *-G*) echo hostname cpouta ;; *) sleep 40 ;; esac', "did not get through within 0.5 s"),
    ],
)
def test_without_a_working_ssh_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: str
) -> None:
    for program in ("sh", "sleep"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    if script:
        (tmp_path / "ssh").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(target_ssh, "_CONNECT_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(TutorialError, match=error), SshTarget("cpouta") as target:
        target.run(["true"])
    assert time.monotonic() - began < 10


def test_a_lost_connection_is_made_anew(vm: SshTarget) -> None:
    assert vm.run(["echo", "one"]).stdout == "one\n"
    vm.close()
    assert vm.run(["echo", "two"]).stdout == "two\n"


def test_errors_of_ssh_are_not_those_of_the_command(vm: SshTarget) -> None:
    server = processes.find("sshd")
    assert server
    server.stop()
    vm.close()
    with pytest.raises(TutorialError, match="nothing listens on that port"):
        vm.run(["true"])


def test_the_lab_provokes_all_four_errors(place: ssh.Endpoint) -> None:
    rows = ssh_lab.provoke(place)
    meanings = [str(row["it means"]) for row in rows]
    for word, meaning in zip(
        ("nothing listens", "nothing answers", "does not accept", "key changed"), meanings, strict=True
    ):
        assert word in meaning


def test_the_lab_s_refusals_jump_agent_and_undo(place: ssh.Endpoint) -> None:
    assert all(row["refused"] != "no" for row in ssh_lab.refusals())
    assert ssh_lab.jump(place) == "two hops"
    assert ssh_lab.through_agent(place)
    assert ssh_lab.undo_restores(place)


def test_the_sandbox_goes_away(vm: SshTarget, place: ssh.Endpoint) -> None:
    vm.run(["true"])
    ssh_lab.close(vm, place)
    assert not ssh.sandbox_folder().exists() and processes.running() == []


@pytest.mark.parametrize("name", ["", "-oProxyCommand=x", "a b", "a;b"])
def test_names_that_no_target_can_have(name: str) -> None:
    with pytest.raises(TutorialError):
        valid_name(name)


def test_clean_of_a_machine_that_can_not_be_reached_says_so_and_lists_the_rest() -> None:
    (row,) = [item for item in undo.leftovers("no-such-machine.invalid") if item.where == "no-such-machine.invalid"]
    assert row.remove is None and "it can't be reached: no such host name" in row.stays


def test_what_is_started_under_nohup_hears_hangups_by_which_ssh_ends_its_way_over_a_jump_host() -> None:
    asks = "import signal; print(signal.getsignal(signal.SIGHUP).name)"
    script = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); from helpers.target_local import run_here; "
        f"sys.stdout.write(run_here([sys.executable, '-c', {asks!r}]).stdout); signal.raise_signal(signal.SIGHUP)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "SIG_DFL\n"), "and it goes on itself, as nohup promises"
