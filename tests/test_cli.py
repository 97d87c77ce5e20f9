"""The command `tutorial`, as a reader types it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import processes
from helpers.settings import ROOT

pytestmark = pytest.mark.component


def tutorial(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    variables = {**os.environ, "COLUMNS": "200", **environment}
    argv = [sys.executable, "-m", "helpers.cli", *words]
    return subprocess.run(argv, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120, input="")


def test_help_names_the_commands() -> None:
    done = tutorial("--help")

    assert done.returncode == 0
    assert all(word in done.stdout for word in ("doctor", "run", "book", "serve", "clean"))


@pytest.mark.parametrize("locale", ["C", "de_DE.ISO-8859-1", "no_SUCH.UTF-8"])
def test_every_locale_can_show_what_the_command_prints(locale: str, sandbox: Path) -> None:
    environment = {"LC_ALL": locale, "LANG": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": ""}
    code = "import sys; sys.argv[1:] = ['run', '×✔']; from helpers.cli import main; main()"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, timeout=60)

    assert b"Traceback" not in done.stderr and "×✔".encode() in done.stderr
    assert "remedy" in done.stderr.decode()


def test_the_doctor_says_what_each_thing_is_for(sandbox: Path) -> None:
    done = tutorial("doctor")

    assert done.returncode == 0 or ": port 76" in done.stderr, done.stdout + done.stderr  # another Forwarder may run
    assert all(word in done.stdout for word in ("Python", "OpenSSH client", "Redis server", "port 7600", "Chromium"))


def test_the_doctor_is_red_only_for_what_the_target_needs(sandbox: Path) -> None:
    empty = sandbox / "bin"
    empty.mkdir()
    done = tutorial("doctor", PATH=str(empty))

    assert done.returncode == 1
    assert "OpenSSH client" in done.stderr and "Chromium" not in done.stderr and "Docker" not in done.stderr
    assert "apt install openssh-client" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_the_doctor_fits_80_columns_and_its_remedies_can_be_pasted(sandbox: Path) -> None:
    programs = sandbox / "bin"
    programs.mkdir()
    (programs / "docker").write_text("#!/bin/sh\necho 'permission denied while trying to connect' >&2; exit 1\n")
    (programs / "docker").chmod(0o755)
    done = tutorial("doctor", "--target", "vm", PATH=f"{programs}:{os.environ['PATH']}", COLUMNS="80")

    assert done.returncode == 1 and "Docker engine" in done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith(("│", "┃"))]
    assert table and all(len(line) <= 80 for line in table)
    assert all(word in table[0] for word in ("prerequisite", "found", "needed", "state"))
    assert "remedy: sudo usermod -aG docker $USER, then log out and in again\n" in done.stdout


@pytest.mark.parametrize("command", [["doctor"], ["run", "1"], ["clean"]])
@pytest.mark.parametrize("name", ["../x", "-oProxyCommand=true", "a b", "a;b"])
def test_a_name_that_is_no_target_is_refused_before_anything_happens(
    sandbox: Path, command: list[str], name: str
) -> None:
    done = tutorial(*command, f"--target={name}")

    assert done.returncode == 1 and name in done.stderr and "remedy:" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (sandbox / "build" / "runs").exists()


def test_a_chapter_that_does_not_exist_is_answered_with_the_names(sandbox: Path) -> None:
    done = tutorial("run", "99")

    assert done.returncode == 1 and "fits 0 chapters" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("word", ["user", "1=2", "=x"])
def test_a_parameter_is_name_equals_value(sandbox: Path, word: str) -> None:
    done = tutorial("run", "--param", word)

    assert done.returncode == 1 and "NAME=VALUE" in done.stderr


def test_refresh_takes_a_plain_local_run_only(sandbox: Path) -> None:
    assert tutorial("run", "--refresh", "--target", "cpouta").returncode == 1


def test_serving_a_book_that_is_not_there_says_how_to_make_it(sandbox: Path) -> None:
    done = tutorial("serve")

    assert done.returncode == 1 and "make book" in done.stderr


def test_clean_lists_first_asks_and_removes_only_then(sandbox: Path) -> None:
    argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    sleeper = processes.start("sleeper", argv, ready=lambda: True)

    asked = tutorial("clean")
    assert "process sleeper" in asked.stdout and asked.returncode == 1 and sleeper.alive()

    cleaned = tutorial("clean", "--yes")
    assert cleaned.returncode == 0 and "removed: process sleeper" in cleaned.stdout
    assert not sleeper.alive()
    assert "Nothing of the tutorial is left on local" in tutorial("clean").stdout
