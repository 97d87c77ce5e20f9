"""Asking a machine for values by small shell scripts: a half-working tool gives None, and disturbs no other value."""

from pathlib import Path

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


def test_a_program_that_hangs_costs_its_time_out_once(program, monkeypatch):
    monkeypatch.setattr(shell, "_QUERY", shell._QUERY.replace(f" {shell.ANSWER_SECONDS} ", " 1 "))
    program("nvidia-smi", "sleep 40")
    done = Target.open("local").run(
        ["/bin/sh"],
        input=shell.query_script({"list": "nvidia-smi -L", "name": "nvidia-smi -q", "kernel": "uname -s"}),
    )
    assert shell.read_facts(done.stdout, ["list", "name", "kernel"]) == {"list": None, "name": None, "kernel": "Linux"}
    assert done.seconds < 10


def test_messages_are_english_whatever_the_language(program, monkeypatch):
    monkeypatch.setenv("LC_ALL", "fi_FI.UTF-8")
    monkeypatch.setenv("LANGUAGE", "fi")
    program("tool", 'echo "$LC_ALL$LANGUAGE"')
    assert shell.query(Target.open("local"), {"language": "tool"}) == {"language": "C"}
