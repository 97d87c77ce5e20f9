"""The first command: which Python `make` takes, and an environment that mends itself. Fake programs, no network."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.settings import ROOT

pytestmark = pytest.mark.unit
# The real Python, which says that it has another version, and keeps a diary of how it was called.
PYTHON = """#!/bin/sh
echo "$0 $*" >>"$DIARY"
case "$1 $2" in
  -c*) exec "{real}" -c 'import sys, platform
sys.version_info = tuple(map(int, "{version}".split("."))); platform.python_version = lambda: "{version}"
{spoil}
exec(sys.argv[1])' "$2" ;;
  "-m venv") for folder; do :; done; mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python"; exit {venv} ;;
  "-m pip") {pip} ;;
esac
"""
UV = """#!/bin/sh
echo "uv $*" >>"$DIARY"
case "$*" in
  *"python install"*) mkdir -p "$UV_PYTHON_INSTALL_DIR/cpython-3.12.9-linux/bin"
    cp "$FAKES/python3.12" "$UV_PYTHON_INSTALL_DIR/cpython-3.12.9-linux/bin/python3.12" ;;
  *"pip install"*) echo '#!/bin/sh' >.venv/bin/tutorial; chmod +x .venv/bin/tutorial ;;
esac
"""
PIP = 'mkdir -p "$(dirname "$0")"; cp "$FAKES/uv" "$(dirname "$0")/uv"'


class Project:
    """A copy of what sets the environment up, in a folder whose name has spaces and letters that are not ASCII."""

    def __init__(self, folder: Path) -> None:
        self.root, self.home = folder / "Zoë’s clone", folder / "a home"
        self.bin, self.fakes, self.system = folder / "first on PATH", folder / "fakes", folder / "system"
        self.diary = folder / "diary"
        for made in (self.root, self.home, self.bin, self.fakes, self.system):
            made.mkdir()
        shutil.copy(ROOT / "Makefile", self.root)
        (self.root / "helpers").mkdir()
        for name in ("find_python.sh", "set_up.sh"):
            shutil.copy(ROOT / "helpers" / name, self.root / "helpers")
        (self.root / "requirements.lock").write_text("uv==0.9.9 \\\n    --hash=sha256:0\n")
        (self.root / "pyproject.toml").write_text("")
        self.program(self.fakes / "uv", UV)
        self.python(self.fakes / "python3.12", "3.12.9")

    def program(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def python(self, path: Path, version: str, *, spoil: str = "", venv: int = 0, pip: str = PIP) -> None:
        text = PYTHON.format(real=sys.executable, version=version, spoil=spoil, venv=venv, pip=pip)
        self.program(path, text)

    def make(self, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "CONDA_PREFIX", "PYENV_ROOT")}
        environment |= {"HOME": str(self.home), "PATH": f"{self.bin}:/usr/bin:/bin", "XDG_DATA_HOME": ""}
        environment |= {"DIARY": str(self.diary), "FAKES": str(self.fakes), "FIND_PYTHON_ROOT": str(self.system)}
        argv = ["make", ".venv/.ready", *words]
        return subprocess.run(
            argv, cwd=self.root, env={**environment, **variables}, capture_output=True, text=True, timeout=60
        )

    def calls(self) -> str:
        text = self.diary.read_text() if self.diary.exists() else ""
        self.diary.unlink(missing_ok=True)
        return text


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def _no_other(project: Project) -> None:
    """Leave PATH without the machine's own Pythons."""
    for name in (
        "sh",
        "make",
        "sed",
        "awk",
        "sort",
        "mkdir",
        "cp",
        "rm",
        "mv",
        "cat",
        "dirname",
        "tr",
        "sleep",
        "chmod",
    ):
        program = shutil.which(name)
        assert program
        (project.bin / name).symlink_to(program)


@pytest.mark.parametrize("version", ["3.11.7", "3.12.3"])
def test_a_python3_that_fits_is_taken_without_a_word(project: Project, version: str) -> None:
    project.python(project.bin / "python3", version)
    project.python(project.bin / "python3.12", "3.12.9")

    done = project.make()

    assert done.returncode == 0, done.stderr
    assert "Taking" not in done.stderr
    assert f"{project.bin}/python3 -m venv .venv" in project.calls()


PLACES: dict[str, tuple[str, dict[str, str]]] = {
    "PATH": ("{bin}/python3.12", {}),
    "/usr/local/bin": ("{system}/usr/local/bin/python3.11", {}),
    "/opt": ("{system}/opt/python3.12/bin/python3.12", {}),
    "pyenv": ("{home}/.pyenv/versions/3.11.9/bin/python3.11", {}),
    "pyenv elsewhere": ("{home}/py env/versions/3.12.1/bin/python3.12", {"PYENV_ROOT": "{home}/py env"}),
    "uv": ("{home}/.local/share/uv/python/cpython-3.12.8-linux-x86_64-gnu/bin/python3.12", {}),
    "conda": ("{home}/miniconda3/envs/other/bin/python3.11", {}),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("python3", ["3.13.5", "3.14.0", "3.10.2"])
def test_another_one_that_fits_is_found_and_named(project: Project, place: str, python3: str) -> None:
    _no_other(project)
    names = {"bin": project.bin, "home": project.home, "system": project.system}
    path, variables = PLACES[place]
    where = Path(path.format(**names))
    project.python(project.bin / "python3", python3)
    project.python(where, "3.12.4" if where.name.endswith("12") else "3.11.4")

    done = project.make(PATH=str(project.bin), **{k: v.format(**names) for k, v in variables.items()})

    assert done.returncode == 0, done.stderr
    assert f"Taking {where} (3.1" in done.stderr and f"python3 is {python3}, which does not fit" in done.stderr
    assert f"{where} -m venv .venv" in project.calls()


def test_the_newest_is_taken_and_one_that_can_not_make_environments_is_not(project: Project) -> None:
    _no_other(project)
    project.python(project.bin / "python3", "3.13.5")
    project.python(project.bin / "python3.12", "3.12.11", spoil="sys.modules['ensurepip'] = None")
    project.python(project.system / "usr/local/bin/python3.11", "3.11.14")
    project.python(project.home / ".pyenv/versions/3.12.2/bin/python3.12", "3.12.2")
    newest = project.home / ".pyenv/versions/3.12.10/bin/python3.12"
    project.python(newest, "3.12.10")

    assert f"Taking {newest} (3.12.10)" in project.make(PATH=str(project.bin)).stderr


@pytest.mark.parametrize("found", ["on PATH", "by venv", "by pip alone"])
def test_else_uv_installs_one_into_the_projects_folder(project: Project, found: str) -> None:
    _no_other(project)
    pip = 'folder=$(dirname "$(dirname "$0")"); case "$*" in *--target*) folder=$PWD/.python/uv ;; esac; '
    pip += 'mkdir -p "$folder/bin"; cp "$FAKES/uv" "$folder/bin/uv"'
    project.python(project.bin / "python3", "3.14.0", venv=int(found == "by pip alone"), pip=pip)
    if found == "on PATH":
        shutil.copy(project.fakes / "uv", project.bin)

    done = project.make(PATH=str(project.bin))

    assert done.returncode == 0, done.stderr
    assert f"Taking {project.root}/.python/cpython-3.12.9-linux/bin/python3.12 (3.12.9)" in done.stderr
    assert list(project.home.iterdir()) == [], "nothing outside the project is changed"
    calls = project.calls()
    assert ("pip install" in calls.split("uv python install")[0]) == (found != "on PATH")


def test_without_any_way_to_one_the_error_says_what_to_do(project: Project) -> None:
    _no_other(project)
    project.python(project.bin / "python3", "3.13.5", venv=1, pip="exit 1")

    done = project.make(PATH=str(project.bin))

    assert done.returncode != 0 and not (project.root / ".venv").exists()
    assert "Python 3.11 or 3.12 is needed: python3 is 3.13.5, no other was found" in done.stderr
    assert "apt install python3.12" in done.stderr and "make PYTHON=" in done.stderr


def test_a_named_python_wins_and_one_that_does_not_fit_is_refused(project: Project) -> None:
    project.python(project.bin / "python3", "3.12.3")
    named = project.home / "my python"
    project.python(named, "3.11.2")

    refused = project.make(f"PYTHON={project.bin}/python3.13")
    taken = project.make(f"PYTHON={named}")

    assert refused.returncode != 0 and "python3.13 is not there" in refused.stderr
    assert taken.returncode == 0, taken.stderr
    assert f"{named} -m venv .venv" in project.calls()


def _vanish(project: Project) -> None:
    (project.root / ".venv/bin/python").unlink()
    (project.root / ".venv/bin/python").symlink_to("/nowhere/python3")


def _replace_by_a_newer_one(project: Project) -> None:
    project.python(project.root / ".venv/bin/python", "3.13.1", spoil="sys.path[:] = []; sys.meta_path[:] = []")


def _move(project: Project) -> None:
    other = project.root.with_name("moved clone")
    project.root.rename(other)
    project.root = other


def _interrupt(project: Project) -> None:
    (project.root / ".venv/.ready").unlink()
    (project.root / ".venv-making").write_text("99999999")


def _half_made_by_an_older_makefile(project: Project) -> None:
    shutil.rmtree(project.root / ".venv")
    (project.root / ".venv/bin").mkdir(parents=True)
    (project.root / ".venv/bin/python").symlink_to("/nowhere/python3")


@pytest.mark.parametrize("harm", [_vanish, _replace_by_a_newer_one, _move, _interrupt, _half_made_by_an_older_makefile])
def test_an_environment_that_is_no_use_is_made_again(project: Project, harm: Callable[[Project], None]) -> None:
    project.python(project.bin / "python3", "3.12.3")
    assert project.make().returncode == 0
    assert "up to date" in project.make().stdout
    harm(project)
    project.calls()

    done = project.make()

    assert done.returncode == 0, done.stderr
    assert "Making .venv again" in done.stderr
    assert "-m venv .venv" in project.calls()
    assert "up to date" in project.make().stdout
    assert not (project.root / ".venv-making").exists()


def test_a_set_up_that_is_interrupted_is_made_again(project: Project) -> None:
    project.python(project.bin / "python3", "3.12.3", pip="exit 1")
    assert project.make().returncode != 0
    project.python(project.bin / "python3", "3.12.3")

    done = project.make()

    assert done.returncode == 0 and "the last set-up did not finish" in done.stderr


def test_an_environment_of_somebody_elses_that_does_not_fit_is_set_aside(project: Project) -> None:
    project.python(project.bin / "python3", "3.12.3")
    project.python(project.root / ".venv/bin/python", "3.13.1")
    (project.root / ".venv/mine").write_text("kept")

    done = project.make()

    assert done.returncode == 0, done.stderr
    assert (project.root / ".venv-3.13.1/mine").read_text() == "kept" and ".venv-3.13.1" in done.stderr


def test_a_note_of_a_set_up_whose_process_id_is_another_programs_now_holds_nobody_up(project: Project) -> None:
    project.python(project.bin / "python3", "3.12.3")
    (project.root / ".venv-making").write_text(str(os.getpid()))

    assert project.make().returncode == 0


def test_two_at_once_do_not_disturb_each_other(project: Project) -> None:
    project.python(project.bin / "python3", "3.12.3", pip=f"sleep 1; {PIP}")
    program = "make .venv/.ready & first=$!; sleep 0.4; make .venv/.ready; code=$?; wait $first && exit $code"
    environment = {"HOME": str(project.home), "PATH": f"{project.bin}:/usr/bin:/bin", "DIARY": str(project.diary)}
    environment |= {"FAKES": str(project.fakes), "FIND_PYTHON_ROOT": str(project.system)}
    done = subprocess.run(["sh", "-c", program], cwd=project.root, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "waiting" in done.stderr and project.calls().count("-m venv .venv") == 1


def test_what_the_reader_has_set_does_not_lead_the_set_up_elsewhere(project: Project) -> None:
    project.python(project.bin / "python3", "3.12.3")
    project.program(project.fakes / "uv", UV + 'env | grep -E "^(UV_|PIP_|VIRTUAL_ENV|PYTHON)" >>"$DIARY"\n')

    hostile = dict.fromkeys(("UV_CONSTRAINT", "UV_REQUIRE_HASHES", "PIP_REQUIRE_HASHES", "PYTHONHOME"), "1")
    done = project.make(
        UV_SYSTEM_PYTHON="1", UV_PYTHON="3.13", PIP_USER="1", PYTHONPATH="/x", VIRTUAL_ENV="/y", **hostile
    )

    assert done.returncode == 0, done.stderr
    calls = project.calls()
    assert f"VIRTUAL_ENV={project.root.resolve()}/.venv" in calls and "PIP_USER=0" in calls
    assert not any(name in calls for name in hostile)
    assert "UV_SYSTEM_PYTHON" not in calls and "UV_PYTHON=" not in calls and "PYTHONPATH" not in calls
