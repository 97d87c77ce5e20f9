"""Background processes: ready or not at all, found again, ended with their children, never a stranger's."""

import json
import os
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

from helpers import processes
from helpers.errors import TutorialError
from helpers.settings import settings

pytestmark = pytest.mark.component
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def _serve(port: int) -> list[str]:
    return [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]


def _answers(port: int) -> bool:
    socket.create_connection(("127.0.0.1", port), 1).close()
    return True


def test_start_waits_until_it_is_ready_and_stop_ends_it(sandbox: Path) -> None:
    port = processes.free_port()
    server = processes.start("web", _serve(port), ready=lambda: _answers(port), ports={"http": port})

    assert _answers(port)
    assert processes.find("web") == server and server.ports == {"http": port}
    assert processes.stop_all() == ["web"]
    assert not server.alive() and processes.running() == []
    processes.require_free(port, "the next one")


def test_one_that_ends_at_once_is_an_error_with_its_last_words(sandbox: Path) -> None:
    argv = [sys.executable, "-c", "import sys; sys.exit('password=hunter2 the disk is full')"]
    with pytest.raises(TutorialError) as caught:
        processes.start("broken", argv, ready=lambda: False)

    assert "exit code 1" in str(caught.value) and "the disk is full" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert processes.running() == []


def test_one_that_is_never_ready_is_ended(sandbox: Path) -> None:
    before = {p.pid for p in psutil.Process().children()}
    with pytest.raises(TutorialError, match="0.5 s"):
        processes.start("slow", SLEEP, ready=lambda: False, timeout=0.5)

    assert processes.running() == []
    assert {p.pid for p in psutil.Process().children()} <= before


def test_a_taken_port_is_named_with_who_has_it(sandbox: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(TutorialError, match=f"Port {port}, wanted for web .http., is taken") as caught:
            processes.start("web", _serve(port), ready=lambda: True, ports={"http": port})

    assert str(os.getpid()) in caught.value.why
    assert not (settings().state / "local" / "processes").exists()


def test_a_second_one_of_that_name_is_refused(sandbox: Path) -> None:
    first = processes.start("sleeper", SLEEP, ready=lambda: True)
    with pytest.raises(TutorialError, match="already runs") as caught:
        processes.start("sleeper", SLEEP, ready=lambda: True)

    assert str(first.pid) in caught.value.why and first.alive()


def test_children_are_ended_too_even_those_that_do_not_listen(sandbox: Path) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('up', flush=True); time.sleep(600)\n"
    )
    log = sandbox / "state" / "local" / "logs" / "deaf.log"
    deaf = processes.start("deaf", [sys.executable, "-c", code], ready=lambda: "up" in log.read_text())
    family = [deaf.pid, *(p.pid for p in psutil.Process(deaf.pid).children())]
    assert len(family) == 2

    deaf.stop(grace=0.5)

    assert not any(psutil.pid_exists(pid) for pid in family)


def test_a_stale_record_is_never_taken_for_a_stranger(sandbox: Path) -> None:
    folder = settings().state / "local" / "processes"
    folder.mkdir(parents=True)
    ours = processes.Background("redis", "local", os.getpid(), time.time() - 10**7, ["redis"], "")
    (folder / "redis.json").write_text(json.dumps(ours.__dict__))
    (folder / "torn.json").write_text("{")

    assert processes.running() == []
    ours.stop()
    assert list(folder.iterdir()) == [], "this test's process would have been ended otherwise"


def test_only_the_processes_of_an_owner_are_stopped(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes.start("mine", SLEEP, ready=lambda: True)
    monkeypatch.setenv("TUTORIAL_CHAPTER", "08_forwarder_local")
    settings.cache_clear()
    processes.start("the chapter's", SLEEP, ready=lambda: True)

    assert processes.stop_all(owner="08_forwarder_local") == ["the chapter's"]
    assert [p.name for p in processes.running()] == ["mine"]


def test_nobody_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config"
    processes.write_atomically(path, "one\r\n", 0o600)
    assert path.read_bytes() == b"one\r\n" and path.stat().st_mode & 0o777 == 0o600

    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        processes.write_atomically(path, "two")
    assert path.read_bytes() == b"one\r\n" and list(tmp_path.iterdir()) == [path]
