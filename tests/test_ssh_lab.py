"""Chapter 01 without a parameter: on every target it finds its machine, and the reader's own ~/.ssh stays as it is."""

import getpass
from pathlib import Path

import pytest

from helpers import processes, ssh, ssh_lab, undo
from helpers.target_ssh import SshTarget

pytestmark = [pytest.mark.component]
MINE = b"Host cpouta\n  HostName mine.example.org\n"


@pytest.fixture
def home(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a home folder whose name has a space, with an SSH configuration that names `cpouta` already."""
    home = sandbox / "a home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    (home / ".ssh" / "config").write_bytes(MINE)
    (home / ".ssh" / "config").chmod(0o600)
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.mark.parametrize("target", ["local", "host"])
def test_the_chapter_s_steps_work_without_a_parameter(target: str, home: Path) -> None:
    place = ssh_lab.endpoint(target)
    place.config.install(place.blocks())
    machine = SshTarget("cpouta", place.config.config)
    assert machine.run(["echo", "hello"]).stdout == "hello\n"
    assert ssh_lab.round_trip(machine, place.folder / "copies")
    assert ssh_lab.banner_through_tunnel(machine, place.server_port or place.port) == b"SSH-"
    assert ssh_lab.jump(place) == "two hops"
    assert ssh_lab.through_agent(place)
    assert len(ssh_lab.provoke(place)) == 4
    assert [item.where for item in ssh.leftovers(target)] == [str(ssh.sandbox_folder(target))]
    ssh_lab.close(machine, place)
    assert undo.leftovers(target) == [] and not ssh.sandbox_folder(target).exists()
    assert processes.running(target) == []
    assert [p.name for p in (home / ".ssh").iterdir()] == ["config"]
    assert (home / ".ssh" / "config").read_bytes() == MINE


def test_on_host_it_is_this_machine_and_the_reader_s_own_home(home: Path) -> None:
    place = ssh_lab.endpoint("host", "elsewhere.example.org", "nobody", "no/such/key")
    assert (place.hostname, place.user) == ("127.0.0.1", getpass.getuser())
    place.config.install(place.blocks())
    with SshTarget("cpouta", place.config.config) as machine:
        assert machine.run(["pwd"]).stdout.strip() == str(home)
        ssh_lab.close(machine, place)


def test_what_a_broken_off_run_left_is_listed_and_goes(home: Path) -> None:
    place = ssh_lab.endpoint("host")
    place.config.install(place.blocks())
    for item in undo.leftovers("host"):
        if item.remove:
            item.remove()
    assert not place.folder.exists() and processes.running("host") == []


def test_a_machine_of_the_reader_s_own_has_its_chapter_s_files_apart(home: Path) -> None:
    key = ssh.make_key(home / "key")
    place = ssh_lab.endpoint("cpouta", "203.0.113.7", "ubuntu", str(key))
    assert place.home == home and place.port == 22 and not place.sandbox
    (place.folder / "copies").mkdir(parents=True)
    assert [item.what for item in ssh.leftovers("cpouta")] == ["SSH sandbox"]
