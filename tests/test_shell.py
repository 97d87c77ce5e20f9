"""Asking a machine for values by small shell scripts: a half-working tool gives None, and disturbs no other value."""

import shutil
import time
from pathlib import Path

import psutil
import pytest

from helpers import shell
from helpers.target import Target

pytestmark = pytest.mark.unit


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Give a function that puts a shell script first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def add(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return add


def test_only_the_expected_names_are_read():
    text = "Welcome!\nengine=28.1\nroot=\nnot asked=1\nengine-x=2\nequals=a=b\n=\n"
    assert shell.read_facts(text, ["engine", "root", "equals", "absent"]) == {
        "engine": "28.1", "root": None, "equals": "a=b", "absent": None,
    }  # fmt: skip


def test_each_value_stands_for_itself(program):
    program(
        "docker", 'case "$1" in version) echo; exit 1;; info) printf engine=; exit 125;; esac; echo 3f2a; echo 4b5c'
    )
    found = shell.query(
        Target.open("local"),
        {
            "version": "docker version",
            "info": "docker info",
            "ps": "docker ps",
            "none": "no-such-program",
            "a b": "echo é",
        },
    )
    assert found == {"version": None, "info": None, "ps": "3f2a\n4b5c", "none": None, "a b": "é"}


@pytest.mark.parametrize("ended_by", ["timeout", "the script"])
def test_a_program_that_hangs_costs_its_time_out_once(program, monkeypatch, tmp_path, ended_by):
    monkeypatch.setattr(shell, "ANSWER_SECONDS", 0.5)
    if ended_by == "the script":
        for name in ("sh", "sleep", "ps", "awk", "tr", "uname", "env"):
            (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    program("nvidia-smi", "sleep 41.25; echo late")
    began = time.monotonic()
    asked = {"list": "nvidia-smi -L", "name": "nvidia-smi -q", "kernel": "uname -s", "code": "exit 3"}
    assert shell.query(Target.open("local"), asked) == {"list": None, "name": None, "kernel": "Linux", "code": None}
    assert time.monotonic() - began < 3
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "41.25"]]


def test_folders_can_be_searched_first(tmp_path):
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "kind").write_text("#!/bin/sh\necho kind v0.27.0 go1.23\n")
    (folder / "kind").chmod(0o755)
    found = shell.query(Target.open("local"), {"kind": "kind version | cut -d' ' -f2"}, [str(folder)])
    assert found == {"kind": "v0.27.0"}


def test_messages_are_english_whatever_the_language(program, monkeypatch):
    monkeypatch.setenv("LC_ALL", "fi_FI.UTF-8")
    monkeypatch.setenv("LANGUAGE", "fi")
    program("tool", 'echo "$LC_ALL$LANGUAGE"')
    assert shell.query(Target.open("local"), {"language": "tool"}) == {"language": "C"}
