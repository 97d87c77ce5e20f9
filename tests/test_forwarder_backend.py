"""Backend, relay, monitor and scheduler as processes: effects, bytes, locks, metrics, ends."""

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from forwarder_stack import Stack, port_is_open, stack, wait_until

pytestmark = [pytest.mark.component]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("backend")) as running:
        running.frontend()
        running.backend()
        running.relay()
        yield running


@contextmanager
def echo() -> Iterator[int]:
    """A TCP server that sends everything back and then closes."""

    def answer(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _wish(made: Stack, kind: str, key: str, *connections: tuple[str, int]) -> str:
    body = {"connections": [{"name": name, "address": "127.0.0.1", "port": port} for name, port in connections]}
    return str(made.post(f"interaction/forw/{kind}/reader/{key}", body).json()["output"]["task-id"])


def _result(made: Stack, identity: str) -> dict[str, int]:
    wait_until(lambda: made.done(identity), 20)
    return dict(made.get(f"interaction/task/result/{identity}").json()["output"]["result"])


def _status(made: Stack, key: str) -> dict[str, object]:
    return dict(made.post(f"interaction/forw/status/reader/{key}").json()["output"])


def _is(made: Stack, key: str, state: str) -> None:
    wait_until(lambda: _status(made, key)["state"] == state, 15, f"{key} {state}")


def test_a_megabyte_goes_through_and_comes_back(made: Stack) -> None:
    with echo() as port:
        _wish(made, "import", "echo", ("one", port))
        _is(made, "echo", "active")
        (connection,) = _status(made, "echo")["connections"]  # type: ignore[misc]
        host, there = connection["reachable"].split(":")
        data = os.urandom(2**20)
        with socket.create_connection((host, int(there)), 5) as client:
            threading.Thread(
                target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)), daemon=True
            ).start()
            back = b"".join(iter(lambda: client.recv(65536), b""))
        assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()

        def counted() -> bool:
            row = _status(made, "echo")["connections"][0]  # type: ignore[index]
            return (row["bytes-in"], row["bytes-out"]) == (2**20, 2**20)

        wait_until(counted, 5)
        _wish(made, "cancel", "echo")
        wait_until(lambda: not port_is_open(int(there)), 10)
        _is(made, "echo", "cancelled")


def test_a_dead_address_is_failed_in_words_and_active_when_it_comes(made: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    _wish(made, "export", "late", ("one", port))
    _is(made, "late", "failed")
    assert _status(made, "late")["connections"][0]["error"] == f"nothing listens on 127.0.0.1:{port}"  # type: ignore[index]
    with socket.create_server(("127.0.0.1", port)):
        _is(made, "late", "active")


def test_an_unknown_host_is_failed_in_words(made: Stack) -> None:
    body = {"connections": [{"name": "one", "address": "no-such-host.invalid", "port": 80}]}
    made.post("interaction/forw/import/reader/unknown", body)
    _is(made, "unknown", "failed")
    assert "no-such-host.invalid" in _status(made, "unknown")["connections"][0]["error"]  # type: ignore[index]


def test_what_was_accepted_later_wins_whichever_runs_first(made: Stack) -> None:
    """The queue's order is turned round: the effect goes by the order of acceptance."""
    import redis

    assert isinstance(made.client, redis.Redis)
    first = _wish(made, "import", "order", ("one", 1))
    assert _result(made, first) == {"applied": 1, "superseded": 0}
    late = _wish(made, "cancel", "order")
    _result(made, late)
    # An import accepted before the cancellation, whose message comes after it.
    record = made.client.hgetall(f"forwarder:request:{first}") | {"state": "accepted"}
    made.client.hset("forwarder:request:earlier", mapping=record)
    made.client.zadd("forwarder:pending", {"earlier": time.time() - 1})
    assert _result(made, "earlier") == {"applied": 0, "superseded": 1}
    _is(made, "order", "cancelled")


def test_named_connections_are_cancelled_alone(made: Stack) -> None:
    _result(made, _wish(made, "import", "pair", ("one", 1), ("two", 2)))
    _result(made, _wish(made, "cancel", "pair", ("one", 1)))
    states = {c["name"]: c["state"] for c in _status(made, "pair")["connections"]}  # type: ignore[attr-defined]
    assert states["one"] in ("cancelled", "cancelling") and states["two"] not in ("cancelled", "cancelling")
    _result(made, _wish(made, "import", "pair", ("one", 1)))
    wait_until(lambda: _status(made, "pair")["connections"][0]["state"] == "failed", 15)  # type: ignore[index]


def test_logs_and_metrics_are_shipped(made: Stack) -> None:
    identity = made.accept(key="seen")
    wait_until(lambda: made.done(identity))

    def shipped() -> bool:
        lines = made.get("interaction/arti/logs/backend?lines=1000").json()["output"]["logs"]
        return any(identity in line and "ForkPoolWorker-" in line and ": INFO/" in line for line in lines)

    wait_until(shipped, 10)
    metrics = made.get("interaction/arti/metrics/backend").json()["output"]["metrics"]
    assert sum(m["value"] for m in metrics if m["name"] == "forwarder_tasks_total") >= 1
    text = requests.get(f"http://127.0.0.1:{made.env['PROMETHEUS_PORT']}/metrics", timeout=5).text
    assert 'forwarder_tasks_total{outcome="SUCCESS",task="tasks.forwarder-requests"}' in text


def test_a_reconcile_whose_process_was_killed_is_done_without_a_scheduler(made: Stack) -> None:
    assert made.client.lock("forwarder:lock", timeout=3).acquire(blocking=True, blocking_timeout=10)
    _wish(made, "import", "orphan", ("one", 1))
    wait_until(lambda: "reader/orphan/one" in made.client.hgetall("forwarder:relay:services"), 30)


def test_the_lock_of_somebody_else_is_respected_and_the_next_trigger_goes_on(made: Stack) -> None:
    lock = made.client.lock("forwarder:lock", timeout=60)
    assert lock.acquire(blocking=True, blocking_timeout=10)
    identity = _wish(made, "import", "locked", ("one", 1))
    _result(made, identity)
    assert "reader/locked/one" not in made.client.hgetall("forwarder:relay:services")
    lock.release()
    _wish(made, "import", "unlocked", ("one", 1))
    wait_until(lambda: "reader/locked/one" in made.client.hgetall("forwarder:relay:services"), 10)


def test_a_second_relay_refuses_to_start(made: Stack) -> None:
    second = made.program("celery", "run_relay.py").start()
    assert second.wait() == 1
    assert "Another relay" in second.text() and "Traceback" not in second.text()


def test_a_taken_metrics_port_is_one_line(made: Stack) -> None:
    second = made.program("celery", "run_celery.py").start()
    assert second.wait() == 1
    assert len(second.text().splitlines()) == 1 and "PROMETHEUS_PORT" in second.text()


def test_flower_wants_a_login_and_shows_tasks(made: Stack) -> None:
    flower = made.program("flower", "run_flower.py", FLOWER_USERNAME="me", FLOWER_PASSWORD="a,b:c secret").start()
    url, login = f"http://127.0.0.1:{made.env['FLOWER_PORT']}", ("me", "a,b:c secret")
    wait_until(lambda: requests.get(url, timeout=2).status_code == 401, 20, flower.text())
    assert requests.get(f"{url}/api/tasks", timeout=5).status_code == 401
    assert requests.get(f"{url}/api/tasks", auth=("me", "wrong"), timeout=5).status_code == 401

    def seen() -> bool:
        identity = made.accept(key="flower")
        time.sleep(0.5)
        return identity in requests.get(f"{url}/api/tasks", auth=login, timeout=5).json()

    wait_until(seen, 20)
    assert flower.child
    command_line = Path(f"/proc/{flower.child.pid}/cmdline").read_text()
    assert "secret" not in command_line and "secret" not in flower.text()
    assert flower.stop() == 0


def test_beat_ticks_at_once_and_on_and_is_single(made: Stack) -> None:
    def ticks() -> float:
        text = requests.get(f"http://127.0.0.1:{made.env['PROMETHEUS_PORT']}/metrics", timeout=5).text
        lines = [x for x in text.splitlines() if x.startswith("forwarder_tasks_total") and "trigger" in x]
        return sum(float(line.split()[-1]) for line in lines)

    before, began = ticks(), time.monotonic()
    beat = made.program("beat", "run_beat.py", SCHEDULER_TIMES="3").start()
    wait_until(lambda: ticks() > before, 10)
    assert time.monotonic() - began < 6, "the first tick comes at once"
    wait_until(lambda: ticks() >= before + 2, 10)
    second = made.program("beat", "run_beat.py").start()
    assert second.wait(30) == 1 and "Another scheduler" in second.text()
    assert beat.stop() == 0
    before = ticks()
    third = made.program("beat", "run_beat.py", SCHEDULER_TIMES="60").start()
    wait_until(lambda: ticks() > before, 8, "the lock was given back")
    assert third.stop() == 0


def test_missed_ticks_do_not_pile_up(tmp_path: Path) -> None:
    with stack(tmp_path) as made:
        beat = made.program("beat", "run_beat.py", SCHEDULER_TIMES="1").start()
        wait_until(lambda: made.client.llen("celery") >= 3, 15)
        beat.stop()
        expiries = [json.loads(m)["headers"]["expires"] for m in made.client.lrange("celery", 0, -1)]
        assert all(expiries), "a tick that nobody took in time is dropped by the worker"


def test_each_ends_on_sigterm_in_order_and_leaves_no_folder(tmp_path: Path) -> None:
    with stack(tmp_path) as made:
        made.frontend()
        backend, relay = made.backend(), made.relay()
        made.accept()
        for program in (relay, backend):
            began = time.monotonic()
            assert program.stop() == 0
            assert time.monotonic() - began < 10
        assert not made.client.exists("forwarder:relay:alive")
        assert not made.client.hgetall("forwarder:status:reader")
    assert not [path for path in (tmp_path / "logs").iterdir() if path.is_dir()]


def test_a_connection_is_seen_from_its_acceptance_on_without_a_gap(made: Stack) -> None:
    """The request turns from accepted to done while its state is asked for."""
    for number in range(60):
        made.accept(key=f"gap{number}")
        answers = [made.post(f"interaction/forw/status/reader/gap{number}").status_code for _ in range(3)]
        assert answers == [200, 200, 200], number
