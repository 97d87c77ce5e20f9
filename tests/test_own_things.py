"""What the tutorial removes or replaces is its own: things of the reader's with the same name stay as they are."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers import book, runner, tools, vm
from helpers.errors import TutorialError
from helpers.settings import settings
from helpers.target import Capability
from helpers.target_host import HostTarget

pytestmark = pytest.mark.component


def _program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return folder / name


def test_a_book_never_replaces_a_folder_of_the_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "_notebooks_in_toc", list)
    monkeypatch.setattr(book, "_jupyter_book", lambda stage, strict: (stage / "_build" / "html").mkdir(parents=True))
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / "index.html").write_text("my own page")
    with pytest.raises(TutorialError, match="is not a book of the tutorial"):
        book.render(tmp_path / "executed", tmp_path / "html")
    assert (tmp_path / "html" / "index.html").read_text() == "my own page"


def test_only_folders_of_runs_are_forgotten(tmp_path: Path) -> None:
    mine = ["a-training", "20240101", "models"]
    runs = [f"20240101T0000{n:02}.000000-local" for n in range(runner.KEPT_RUNS + 2)]
    for name in (*mine, *runs):
        (tmp_path / name).mkdir()
    runner._forget_old_runs(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*mine, *runs[2:]])


class _Remote(HostTarget):
    """This machine, as one behind SSH: tools are copied to it."""

    kind = "ssh"

    def capabilities(self) -> frozenset[Capability]:
        return frozenset()


@pytest.mark.parametrize("link", [False, True])
def test_a_tool_of_the_readers_is_neither_overwritten_nor_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: bool
) -> None:
    home = tmp_path / "my home"
    theirs = _program(tmp_path / "elsewhere" if link else home / ".local/bin", "kind", "echo kind v0.1.0")
    if link:
        (home / ".local/bin").mkdir(parents=True)
        (home / ".local/bin/kind").symlink_to(theirs)
    ours = _program(tmp_path / "cache", "kind", f"echo kind {tools.TOOLS['kind']}")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{home}/.local/bin:/usr/bin:/bin")
    monkeypatch.setattr(tools, "find", lambda *_: ours)
    remote = _Remote("remote")
    monkeypatch.setattr(tools, "opened", lambda name: remote)
    before = theirs.read_text()
    for _ in range(2):
        path = tools.install(remote, "kind")["kind"]
        assert path == f"{home}/.tutorial-bin/kind" and Path(path).read_text() == ours.read_text()
    for leftover in tools.leftovers("remote"):
        assert leftover.remove
        leftover.remove()
    assert theirs.read_text() == before and (home / ".local/bin/kind").exists()
    assert not Path(path).exists() and tools.leftovers("remote") == []


def test_a_tool_goes_where_nothing_is_and_away_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = _program(tmp_path / "cache", "kind", f"echo kind {tools.TOOLS['kind']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(tools, "find", lambda *_: ours)
    remote = _Remote("remote")
    monkeypatch.setattr(tools, "opened", lambda name: remote)
    assert tools.install(remote, "kind") == {"kind": f"{tmp_path}/.local/bin/kind"}
    _program(tmp_path / ".local/bin", "kind", "echo kind v0.0.1")  # an older one of ours
    assert tools.install(remote, "kind") == {"kind": f"{tmp_path}/.local/bin/kind"}
    (leftover,) = tools.leftovers("remote")
    assert leftover.remove
    leftover.remove()
    assert not (tmp_path / ".local/bin/kind").exists()


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """Give the record of what Docker was told; its one container has the label that the test names."""
    asked = tmp_path / "asked"
    seen = '[{"State": {"Status": "exited"}, "NetworkSettings": {"Ports": {}}}]'
    script = f"""echo "$@" >>{asked}
case "$*" in *Labels*) echo "{request.param}" ;; "container inspect"*) echo '{seen}' ;; esac"""
    _program(tmp_path / "programs", "docker", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TUTORIAL_VM", "database")
    settings.cache_clear()
    yield asked
    settings.cache_clear()


def _changes(asked: Path) -> Sequence[str]:
    return [line for line in asked.read_text().splitlines() if "inspect" not in line]


@pytest.mark.parametrize("docker", [""], indirect=True)
def test_a_container_of_the_readers_with_the_vms_name_is_not_touched(docker: Path, tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir(mode=0o700)
    (tmp_path / ".ssh" / "database.pem").write_text("the reader's own key")
    (tmp_path / ".ssh" / "database.pem.pub").write_text("ssh-ed25519 AAAA me@laptop")
    for act in (vm.up, vm.stop, vm.destroy):
        with pytest.raises(TutorialError, match="the tutorial did not make it"):
            act()
    assert vm.leftovers("vm") == [] and _changes(docker) == []
    assert (tmp_path / ".ssh" / "database.pem").exists()


@pytest.mark.parametrize("docker", ["1"], indirect=True)
def test_the_vm_is_removed_but_not_a_key_of_the_readers_with_its_name(docker: Path, tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir(mode=0o700)
    (tmp_path / ".ssh" / "database.pem").write_text("the reader's own key")
    vm.destroy()
    assert "rm -f -v database" in _changes(docker)
    assert (tmp_path / ".ssh" / "database.pem").exists()


@pytest.mark.parametrize(
    ("content", "program", "why"),
    [(b"x", "", "not a file system"), (b"", "wipefs", "not a file system"), (b"", "cmp", "not a file system")],
)
def test_a_disk_that_holds_something_or_can_not_be_read_is_never_formatted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, program: str, why: str
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(5 << 20) + content + bytes(15 << 20))
    _program(tmp_path / "programs", "sudo", 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}:{os.environ['PATH']}:/usr/sbin:/sbin")
    data = {"device": disk, "mount_point": tmp_path / "mount", "owner": "root"}
    if not content:
        assert "Format the empty volume with ext4" in HostTarget("host").apply("volume", data, dry=True).changed
        _program(tmp_path / "programs", program, "echo input/output error >&2; exit 1")
    with pytest.raises(TutorialError, match=why):
        HostTarget("host").apply("volume", data, dry=True)
