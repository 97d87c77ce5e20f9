"""`make book` in a clean clone, in the three states of Docker that a newcomer's machine may be in.

The clone's folder has a name with letters that are not ASCII, and the home folder one with a space. The locale is not
UTF-8, and the SSH configuration is read-only. Another program has the ports 7600 and 8080. The environment shares the
packages of this checkout. A chapter that has not asked Docker in one state is not run again in the next one, as in a
reader's second `make book`.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.processes import is_free
from helpers.settings import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

_LOG = 'echo "$TUTORIAL_CHAPTER" >>"$ASKED"\n'
_NO_ENGINE = f"""#!/bin/sh
{_LOG}case "$1" in version|info) echo;; esac
echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?' >&2; exit 1
"""
_NO_PERMISSION = f"""#!/bin/sh
{_LOG}echo 'permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock' >&2
exit 1
"""
_SUDO = '#!/bin/sh\necho "$@" >>"$ASKED.sudo"\necho "sudo: a password is required" >&2; exit 1\n'
STATES: dict[str, dict[str, str]] = {
    "client without engine": {"docker": _NO_ENGINE},
    "no permission": {"docker": _NO_PERMISSION, "sudo": _SUDO},
    "no Docker": {},
}


@dataclass
class Book:
    """What `make book` did in one state."""

    done: "subprocess.CompletedProcess[str]"
    chapters: dict[str, str]  # state of each
    asked: set[str]  # chapters that called docker
    sudo: str  # what was given to sudo
    page: str  # the book's first page


def _share_environment(clone: Path) -> None:
    """Give the clone an environment with this checkout's packages and programs, and with the clone's own helpers."""
    made, mine = clone / ".venv", Path(sys.executable).parent
    venv.create(made, symlinks=True)
    paths = sysconfig.get_paths(vars={"base": str(made), "platbase": str(made)})
    text = f"../../../..\n{sysconfig.get_paths()['purelib']}\n"
    (Path(paths["purelib"]) / "_clone.pth").write_text(text, encoding="utf-8")
    (made / "share").symlink_to(mine.parent / "share")
    begin = f"#!/bin/sh\n'''exec' '{made}/bin/python' \"$0\" \"$@\"\n' '''\n".encode()
    for program in mine.iterdir():
        copy, content = made / "bin" / program.name, program.read_bytes() if program.is_file() else b""
        if copy.exists() or program.name.lower().startswith(("python", "activate", "deactivate")):
            continue
        if content.startswith(b"#!") and b"import" in content:
            copy.write_bytes(begin + content.partition(b"\n")[2])
            copy.chmod(0o755)
        else:
            copy.symlink_to(program)
    (made / ".ready").write_text(str(clone.resolve()))


def _path_without(program: str, folder: Path) -> str:
    """Return PATH without a program: its folders are replaced by ones that have all others."""
    parts = []
    for place in map(Path, os.environ["PATH"].split(os.pathsep)):
        if place == Path(sys.executable).parent:
            continue
        if (place / program).exists():
            mirror = folder / str(place).replace("/", "_")
            if not mirror.exists():
                mirror.mkdir(parents=True)
                for other in place.iterdir():
                    if other.name != program:
                        (mirror / other.name).symlink_to(other)
            place = mirror
        parts.append(str(place))
    return os.pathsep.join(dict.fromkeys(parts))


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Book]]:
    top = tmp_path_factory.mktemp("newcomer")
    clone, home = top / "Zoë’s-clone", top / "a home"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    _share_environment(clone)
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    (home / ".ssh" / "config").write_text("Host mine\n  User me\n")
    (home / ".ssh" / "config").chmod(0o400)
    path, asked = _path_without("docker", top / "path"), top / "asked"
    drop = ("TUTORIAL_", "DOCKER_", "PYTEST_", "VIRTUAL_ENV")
    plain = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")  # of uv and of the tools
    plain |= {"HOME": str(home), "XDG_CACHE_HOME": cache, "ASKED": str(asked), "LC_ALL": "de_DE.ISO-8859-1"}
    made, others = {}, [socket.create_server(("127.0.0.1", port)) for port in (7600, 8080) if is_free(port)]
    try:
        for state, programs in STATES.items():
            folder = top / state
            folder.mkdir()
            for name, text in programs.items():
                (folder / name).write_text(text)
                (folder / name).chmod(0o755)
            environment = {**plain, "PATH": f"{folder}{os.pathsep}{path}"}
            made[state] = _make_book(clone, environment, asked)
            for name in made[state].asked:  # what they did may be another thing in the next state
                (clone / "_build" / "executed" / "local" / f"{name}.json").unlink(missing_ok=True)
        yield made
    finally:
        for other in others:
            other.close()
        subprocess.run(
            ["make", "clean"], cwd=clone, env=plain, input="y\n", capture_output=True, text=True, timeout=120
        )
        shutil.rmtree(clone, ignore_errors=True)


def _make_book(clone: Path, environment: dict[str, str], asked: Path) -> Book:
    for file in (asked, asked.with_name("asked.sudo")):
        file.unlink(missing_ok=True)
    done = subprocess.run(
        ["make", "book"], cwd=clone, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=1200
    )
    report = max((clone / "_build" / "runs").glob("*/report.json"))
    page, sudo = clone / "_build" / "html" / "book" / "intro.html", asked.with_name("asked.sudo")
    return Book(
        done,
        {c["chapter"]: c["state"] for c in json.loads(report.read_text())["chapters"]},
        set(asked.read_text().split()) if asked.exists() else set(),
        sudo.read_text() if sudo.exists() else "",
        page.read_text() if page.exists() else "",
    )


@pytest.mark.parametrize("state", STATES)
def test_make_book_is_green(state: str, books: dict[str, Book]) -> None:
    book = books[state]

    assert book.done.returncode == 0, book.done.stdout[-4000:] + book.done.stderr[-4000:]
    assert set(book.chapters.values()) <= {"passed", "same"} and len(book.chapters) >= 10, book.chapters
    assert "_build/html/index.html" in book.done.stdout and "Traceback" not in book.done.stdout + book.done.stderr
    assert "The whole system" in book.page and "not up to date" not in book.page
    assert book.sudo == "", "the target local changes nothing, and asks for no password"


def test_what_asked_docker_was_run_in_every_state(books: dict[str, Book]) -> None:
    states = list(books.values())
    assert set(states[0].chapters.values()) == {"passed"}
    for before, after in zip(states, states[1:], strict=False):
        assert {after.chapters[name] for name in before.asked} <= {"passed"}
