"""Chapter 08's processes: all or nothing, two kernels, taken ports, dead parts, nothing left."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from forwarder_stack import wait_until

from helpers import forwarder_local, processes, undo
from helpers.errors import TutorialError
from helpers.forwarder_local import LocalForwarder
from helpers.processes import free_port

pytestmark = [pytest.mark.component]


@pytest.fixture
def local(sandbox: Path) -> LocalForwarder:
    return LocalForwarder(free_port(), free_port(), free_port(), scheduler_seconds=1, concurrency=1)


def _other_kernel(local: LocalForwarder) -> "subprocess.Popen[str]":
    """Another interpreter that starts a Redis of the chapter and then waits."""
    code = """
import sys
from helpers.forwarder_local import LocalForwarder
LocalForwarder().start("redis")
print("up", flush=True)
sys.stdin.read()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert other.stdout and any(line == "up\n" for line in other.stdout)
    return other


def test_all_parts_start_work_and_leave_nothing(local: LocalForwarder) -> None:
    local.start()
    states = {row["part"]: row["state"] for row in local.status()}
    assert states.pop("scheduler") == "stopped" and set(states.values()) == {"running"}
    local.start()  # what runs is left alone
    port = forwarder_local.outside_service("hello")
    task = local.client.forward_import("reader", "lab", [{"name": "web", "address": "127.0.0.1", "port": port}])
    local.client.wait(task)
    assert local.effects() == [task]
    assert local.flower(login=False).status_code == 401 and local.flower().status_code == 200
    family = [p for b in processes.running() for p in (psutil.Process(b.pid), *psutil.Process(b.pid).children(True))]
    password = (forwarder_local.folder() / "flower_password").read_text()
    assert not any(password in " ".join(p.cmdline()) for p in family)

    local.close()
    assert processes.running() == [] and not any(p.is_running() for p in family)
    assert not forwarder_local.folder().exists()
    local.close()  # twice does no harm


def test_accepted_requests_survive_a_killed_backend_and_a_restarted_redis(local: LocalForwarder) -> None:
    try:
        local.start("redis", "frontend")
        tasks = [
            local.client.forward_import("reader", "lab", [{"name": "web", "address": "127.0.0.1", "port": 9}])
            for _ in range(20)
        ]
        local.start("backend")
        local.kill("backend")
        local.stop("redis")
        local.start("redis", "backend")
        wait_until(lambda: set(tasks) <= set(local.effects()), 60)
        assert len(local.effects()) == 20
    finally:
        local.close()


def test_a_taken_port_is_named_and_nothing_is_left_running(local: LocalForwarder) -> None:
    with socket.create_server(("127.0.0.1", local._ports["frontend"])):
        with pytest.raises(TutorialError, match=f"Port {local._ports['frontend']}.*is taken"):
            local.start()
        assert processes.running() == []


def test_without_redis_the_others_do_not_start(local: LocalForwarder) -> None:
    with pytest.raises(TutorialError, match="Redis does not run"):
        local.start("frontend")
    assert processes.running() == []


def test_an_unknown_part_is_refused(local: LocalForwarder) -> None:
    for call in (local.start, local.stop, local.kill):
        with pytest.raises(TutorialError, match="no part 'postgres'"):
            call("postgres")


def test_a_living_kernel_keeps_its_forwarder_and_a_dead_one_s_is_taken_over(local: LocalForwarder) -> None:
    other = _other_kernel(local)
    try:
        with pytest.raises(TutorialError, match=f"process {other.pid} has started redis"):
            local.start()
        theirs = local.find("redis")
        other.send_signal(signal.SIGKILL)
        other.wait(10)
        local.start("redis")
        ours = local.find("redis")
        assert theirs and ours and ours.pid != theirs.pid and ours.started_by == os.getpid()
        assert not theirs.alive()
    finally:
        other.kill()
        other.wait(10)
        local.close()


def test_a_stale_record_is_not_taken_for_a_process(local: LocalForwarder, sandbox: Path) -> None:
    record = sandbox / "state" / "local" / "processes" / "forwarder-redis.json"
    record.parent.mkdir(parents=True)
    stranger = {"name": "forwarder-redis", "target": "local", "pid": os.getpid(), "created": time.time() - 9999}
    record.write_text(json.dumps(stranger | {"argv": ["redis-server"], "log": "", "ports": {"redis": 1}}))
    try:
        local.start("redis")
        assert local.find("redis")
    finally:
        local.close()


def test_clean_lists_what_was_left_and_removes_it(local: LocalForwarder) -> None:
    local.start("redis", "frontend")
    listed = undo.leftovers("local")
    assert [item.what for item in listed[:2]] == ["process forwarder-frontend", "process forwarder-redis"]
    for item in listed:
        if item.remove:
            item.remove()
    assert undo.leftovers("local") == [] and processes.running() == []


def test_headless_the_panel_is_a_table(local: LocalForwarder, capsys: pytest.CaptureFixture[str]) -> None:
    forwarder_local.panel(local)
    printed = capsys.readouterr().out
    assert "frontend" in printed and "stopped" in printed


def test_in_a_kernel_the_panel_s_buttons_start_and_stop(sandbox: Path) -> None:
    """A real kernel with widgets; its buttons are clicked from a later cell, as a front end would."""
    import nbformat
    from nbclient import NotebookClient

    cells = [
        "import gc, time, ipywidgets\nfrom helpers.forwarder_local import LocalForwarder, panel\n"
        f"local = LocalForwarder({free_port()}, {free_port()}, {free_port()})\npanel(local)",
        "buttons = {w.description: w for w in gc.get_objects() if type(w) is ipywidgets.Button}\n"
        "buttons['redis'].click()\nassert local.find('redis')",
        "import asyncio\nawait asyncio.sleep(1.5)\nassert buttons['redis'].icon == 'stop'\nbuttons['redis'].click()\n"
        "assert local.find('redis') is None\nlocal.close()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    os.environ["TUTORIAL_DISPLAY"] = "live"
    try:
        NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    finally:
        del os.environ["TUTORIAL_DISPLAY"]
    (output,) = [o for o in notebook.cells[0].outputs if "data" in o]
    assert "application/vnd.jupyter.widget-view+json" in output["data"]
