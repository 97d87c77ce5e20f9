"""Started in the background or under nohup: what the tutorial starts hears signals all the same."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.settings import ROOT
from helpers.signals import let_children_hear

pytestmark = pytest.mark.unit
NAMES = ("SIGHUP", "SIGINT", "SIGQUIT")
ASK = f"import signal; print(*(signal.getsignal(getattr(signal, n)).name for n in {NAMES} if n != 'SIGINT'), "
ASK += "signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
WAYS = {
    "run_here": "from helpers.target_local import run_here; print(run_here(ask).stdout)",
    "pipe_here": "from helpers.target_local import pipe_here; print(pipe_here(['true'], ask, 20, 'local').stdout)",
    "a pipe's source": "from helpers.target_local import pipe_here; print(pipe_here(ask, ['cat'], 20, 'local').stdout)",
    "processes.start": "from helpers import processes; p = processes.start('asks', [*ask[:3], ask[3] + '; import time; "
    "time.sleep(60)'], ready=lambda: 'SIG' in log.read_text()); print(log.read_text()); p.stop()",
    "terminal.converse": "from helpers import terminal; from helpers.target import Target; "
    "print(*terminal.converse(Target.open('local'), ask, {}))",
}


@pytest.mark.parametrize("thread", [False, True], ids=["main thread", "another thread"])
@pytest.mark.parametrize("way", WAYS)
def test_a_child_hears_what_its_parent_was_told_to_ignore(way: str, thread: bool, tmp_path: Path) -> None:
    script = f"""
import signal, sys, threading
from pathlib import Path
for name in {NAMES}:
    signal.signal(getattr(signal, name), signal.SIG_IGN)
ask, log = [sys.executable, "-u", "-c", {ASK!r}], Path({str(tmp_path)!r}) / "state" / "local" / "logs" / "asks.log"
def act():
    {WAYS[way].replace(chr(10), "")}
if {thread}:
    t = threading.Thread(target=act); t.start(); t.join()
else:
    act()
for name in {NAMES}:
    signal.raise_signal(getattr(signal, name))
print("goes on")
"""
    environment = {**os.environ, "TUTORIAL_STATE": str(tmp_path / "state"), "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["SIG_DFL", "SIG_DFL", "True", "goes", "on"]


def test_these_tests_themselves_hear_signals_when_they_were_started_in_the_background(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(
        "import subprocess, sys\n"
        "def test_it():\n"
        f"    done = subprocess.run([sys.executable, '-c', {ASK!r}], capture_output=True, text=True)\n"
        "    assert done.stdout.split() == ['SIG_DFL', 'SIG_DFL', 'True']\n"
    )
    argv = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "-p", "conftest"]
    program = 'trap "" INT HUP QUIT; exec "$0" "$@"'
    done = subprocess.run(
        ["sh", "-c", program, sys.executable, *argv, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout


def test_nothing_changes_where_no_signal_is_ignored() -> None:
    before = [signal.getsignal(getattr(signal, name)) for name in NAMES]
    assert let_children_hear() is None
    assert [signal.getsignal(getattr(signal, name)) for name in NAMES] == before
