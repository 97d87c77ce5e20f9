"""Deploys as chapters run them: a dry run changes nothing, a second run neither, an error names its operation."""

import os
from pathlib import Path

import pytest

from helpers import provision
from helpers.errors import TutorialError
from helpers.pyinfra_openssh import _Shell
from helpers.target import Target
from helpers.target_ssh import SshTarget
from tests import tool_states

DEPLOY = """
from io import StringIO

from pyinfra import host
from pyinfra.operations import files, server

files.put(name="Write a file", src=StringIO(host.data.get("text", "hello") + "\\n"), dest="/tmp/tutorial-provision")
server.shell(name="Count", commands=["for i in 1 2 3; do echo $i of 3; done"])
"""
FAILS = """
from pyinfra.api import DeployError
from pyinfra import host
from pyinfra.operations import server

if host.data.get("early", ""):
    raise DeployError("/etc/x is broken; mend it by hand")
server.shell(name="Goes well", commands=["true"])
server.shell(name="Goes wrong", commands=["echo it is full >&2; exit 3"])
server.shell(name="Never comes", commands=["touch /tmp/tutorial-never"])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (("writes", DEPLOY), ("fails", FAILS)):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(provision, "FOLDER", tmp_path)
    return tmp_path


def _states(changes: provision.Changes) -> list[str]:
    return [str(row["state"]) for row in changes.rows]


@pytest.mark.component
@pytest.mark.docker
def test_a_dry_run_changes_nothing_and_a_second_run_has_nothing_to_change(machine: Target, folder: Path) -> None:
    machine.run(["rm", "-f", "/tmp/tutorial-provision"])
    planned = machine.apply("writes", {"text": "first"}, dry=True)
    assert _states(planned) == ["would change", "would change"] and "+ first" in planned.details
    assert machine.run(["test", "-e", "/tmp/tutorial-provision"], check=False).returncode == 1

    said: list[str] = []
    assert _states(machine.apply("writes", {"text": "first"}, watch=said.append)) == ["changed", "changed"]
    assert [line for line in said if " of 3" in line] == ["1 of 3", "2 of 3", "3 of 3"]

    again = machine.apply("writes", {"text": "first"})
    assert again.changed == ["Count"], "the file is the same; a bare shell command always counts as a change"
    other = machine.apply("writes", {"text": "second"}, dry=True)
    assert "- first" in other.details and "+ second" in other.details
    machine.run(["rm", "-f", "/tmp/tutorial-provision"])


@pytest.mark.component
@pytest.mark.docker
def test_an_operation_that_fails_is_named_with_what_it_said(machine: Target, folder: Path) -> None:
    with pytest.raises(TutorialError) as error:
        machine.apply("fails")
    assert error.value.why == "at: Goes wrong" and "it is full" in error.value.output
    assert machine.run(["test", "-e", "/tmp/tutorial-never"], check=False).returncode == 1
    with pytest.raises(TutorialError, match="/etc/x is broken; mend it by hand"):
        machine.apply("fails", {"early": "yes"})


@pytest.mark.component
@pytest.mark.docker
def test_a_machine_with_another_host_key_is_refused(machine: Target, folder: Path, tmp_path: Path) -> None:
    machine.run(["true"])
    known = Path.home() / ".ssh" / "tutorial-test-vm.known_hosts"
    machine.close()  # the connection that is open was verified when it was opened
    host = SshTarget("tutorial-test-vm", Path.home() / ".ssh" / "config")  # unlike `vm`, it pins no host key by itself
    before = known.read_text()
    other = "AAAAC3NzaC1lZDI1NTE5AAAAIN0bk0aWbMUJqQ8xUdvSpYbJx3Vlv0Qk8Jgk0jv0Z0a1"
    known.write_text(f"{before.split()[0]} ssh-ed25519 {other}\n")
    try:
        with pytest.raises(TutorialError, match="host key changed"):
            host.apply("writes")
    finally:
        known.write_text(before)


@pytest.mark.component
def test_local_plans_for_a_fresh_machine_and_is_never_changed(folder: Path) -> None:
    local = Target.open("local")
    planned = local.apply("writes", dry=True)
    assert planned.plan and len(planned.changed) == 2
    with pytest.raises(TutorialError, match="would change this machine"):
        local.apply("writes")
    assert not Path("/tmp/tutorial-provision").exists()


@pytest.mark.component
def test_host_is_this_machine(folder: Path, tmp_path: Path) -> None:
    text = DEPLOY.replace("/tmp/tutorial-provision", str(tmp_path / "here"))
    (folder / "writes.py").write_text(text)
    assert _states(Target.open("host").apply("writes")) == ["changed", "changed"]
    assert (tmp_path / "here").read_text() == "hello\n"


@pytest.mark.unit
def test_a_deploy_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(TutorialError, match="There is no deploy nothing") as error:
        Target.open("local").apply("nothing", dry=True)
    assert "data_root, docker" in error.value.remedy and "fresh_machine" not in error.value.remedy


@pytest.mark.unit
def test_no_deploy_takes_sudo_for_granted() -> None:
    assert [p.name for p in provision.FOLDER.glob("*.py") if "_sudo=True" in p.read_text(encoding="utf-8")] == []


@pytest.mark.component
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has root's rights without sudo")
def test_root_needs_no_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in tool_states.environment("root without sudo", tmp_path).items():
        monkeypatch.setenv(name, value)
    assert "Install the toolkit" in Target.open("host").apply("container_toolkit", dry=True).changed


@pytest.mark.unit
def test_without_root_rights_the_reason_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in tool_states.environment("sudo wants a password", tmp_path).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TutorialError, match="sudo does not run commands for this user"):
        Target.open("host").apply("docker")


@pytest.mark.component
def test_the_connector_s_shell_gives_each_command_s_lines_and_exit_code() -> None:
    shell = _Shell(["sh"])
    try:
        for command, code, out, err in (
            ("printf 'no line end'", 0, ["no line end"], []),
            ("printf '\\n\\na\\n\\n'; echo b >&2; exit 3", 3, ["", "", "a", ""], ["b"]),
            ("cat; true", 0, [], []),
            ("'", 2, [], None),  # a mistake in the command does not end the shell
            ("head -c 300000 /dev/zero | tr '\\0' x", 0, ["x" * 300000], []),
        ):
            seen, output = shell.run(command, None, False, "")
            assert (seen, output.stdout_lines) == (code, out) and err in (None, output.stderr_lines)
        assert shell.run("kill -9 $PPID", None, False, "")[0] == 255 and not shell.is_open()
    finally:
        shell.close()
