"""The Forwarder's promises: an accepted request has its effect once, whatever is killed; no Redis is a quick 503."""

import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests
from forwarder_stack import Stack, port_is_open, stack, wait_until

pytestmark = [pytest.mark.component, pytest.mark.timeout(240)]


def _accept_many(made: Stack, count: int) -> set[str]:
    """Send requests over a few connections; every one must be accepted."""

    def some(first: int) -> set[str]:
        with requests.Session() as session:
            return {
                session.post(
                    f"{made.url}/interaction/forw/import/reader/k{number % 7}",
                    json={"connections": [{"name": f"n{number}", "address": "127.0.0.1", "port": 9}]},
                    timeout=10,
                ).json()["output"]["task-id"]
                for number in range(first, count, 4)
            }

    with ThreadPoolExecutor(4) as pool:
        return set().union(*pool.map(some, range(4)))


def _effects(made: Stack) -> "Counter[str]":
    return Counter(entry["id"] for _, entry in made.client.xrange("forwarder:journal"))


@pytest.mark.parametrize("victim", ["the whole backend", "one worker process"])
def test_killed_in_the_midst_of_1000_accepted_requests_each_has_its_effect_once(tmp_path: Path, victim: str) -> None:
    with stack(tmp_path, CELERY_CONCURRENCY="4") as made:
        made.frontend()
        accepted = _accept_many(made, 1000)
        assert len(accepted) == 1000
        backend = made.backend()
        wait_until(lambda: made.client.xlen("forwarder:journal") > 50, what="the first effects")
        assert made.client.xlen("forwarder:journal") < 1000, "killed too late to show anything"
        if victim == "the whole backend":
            backend.kill()
            made.backend()
        else:
            assert backend.child
            psutil.Process(backend.child.pid).children()[0].send_signal(signal.SIGKILL)
        wait_until(lambda: made.client.zcard("forwarder:pending") == 0, 90, "all effects")

        effects = _effects(made)
        assert set(effects) == accepted
        assert set(effects.values()) == {1}
        assert all(made.done(identity) for identity in accepted)


def test_a_message_that_is_lost_is_sent_again(tmp_path: Path) -> None:
    with stack(tmp_path) as made:
        made.frontend()
        identity = made.accept()
        made.client.delete("celery")
        made.client.zadd("forwarder:pending", {identity: time.time() - 1})
        made.backend()
        wait_until(lambda: made.done(identity), 30)
        assert _effects(made) == {identity: 1}


def test_redis_killed_and_started_again_keeps_what_was_accepted(tmp_path: Path) -> None:
    with stack(tmp_path) as made:
        made.frontend()
        accepted = _accept_many(made, 100)
        made.redis.kill()
        made.start_redis()
        made.backend()
        wait_until(lambda: all(made.done(i) for i in accepted), 60)
        assert set(_effects(made)) == accepted


@pytest.mark.parametrize("how", ["stopped", "silent"])
def test_ten_seconds_without_redis_are_503s_within_two_seconds_and_then_all_goes_on(tmp_path: Path, how: str) -> None:
    with stack(tmp_path) as made:
        made.frontend()
        made.backend()
        before = _accept_many(made, 20)
        wait_until(lambda: all(made.done(i) for i in before), 30)
        if how == "stopped":
            made.redis.stop()
        else:
            made.redis.signal(signal.SIGSTOP)

        began, slowest, codes = time.monotonic(), 0.0, set()
        while time.monotonic() - began < 10:
            for path in ("interaction/forw/import/reader/k", "interaction/forw/status/reader/k", "setup/config/show"):
                asked = time.monotonic()
                body = {"connections": [{"name": "n", "address": "127.0.0.1", "port": 9}]} if "import" in path else {}
                answer = made.post(path, body)
                slowest = max(slowest, time.monotonic() - asked)
                codes.add(answer.status_code)
                assert int(answer.headers["Retry-After"]) >= 1
                assert {"what", "why", "remedy"} <= set(answer.json()["detail"])
            assert made.get("health").status_code == 200
            assert made.get("ready").status_code == 503
        assert codes == {503}
        assert slowest < 2

        if how == "stopped":
            made.start_redis()
        else:
            made.redis.signal(signal.SIGCONT)
        wait_until(lambda: made.get("ready").status_code == 200, 15)
        identity = made.accept(key="after")
        wait_until(lambda: made.done(identity), 60, "the backend goes on")
        lost = made.accept(key="lost")
        made.client.delete("celery")
        wait_until(lambda: made.done(lost), 60, "and so does what sends lost messages again")
        assert set(_effects(made).values()) == {1}
        assert not made.client.hkeys("forwarder:open:reader"), "what was answered 503 was taken back"


def test_the_event_loop_answers_while_redis_is_silent(tmp_path: Path) -> None:
    with stack(tmp_path) as made:
        made.frontend()
        made.redis.signal(signal.SIGSTOP)
        with ThreadPoolExecutor(16) as pool:
            waiting = [pool.submit(made.post, "setup/config/show") for _ in range(16)]
            asked = time.monotonic()
            assert made.get("health").status_code == 200
            assert time.monotonic() - asked < 0.5
            assert {w.result().status_code for w in waiting} == {503}
        made.redis.signal(signal.SIGCONT)


def test_the_backend_stays_alive_while_redis_is_away_and_its_heartbeat_stops_when_it_hangs(tmp_path: Path) -> None:
    heartbeat = tmp_path / "heartbeat"
    with stack(tmp_path, HEARTBEAT_FILE=str(heartbeat)) as made:
        backend = made.backend()
        made.redis.stop()
        time.sleep(4)
        assert time.time() - heartbeat.stat().st_mtime < 3.5
        backend.signal(signal.SIGSTOP)
        time.sleep(4)
        assert time.time() - heartbeat.stat().st_mtime > 3.5
        backend.signal(signal.SIGCONT)


def test_the_frontend_starts_without_redis_and_is_ready_when_it_comes(tmp_path: Path) -> None:
    with stack(tmp_path, with_redis=False) as made:
        frontend = made.frontend()
        assert made.get("ready").status_code == 503
        made.start_redis()
        wait_until(lambda: made.get("ready").status_code == 200, 10)
        assert frontend.stop() == 0
        assert not port_is_open(int(made.env["FASTAPI_PORT"]))
