"""The client's functions: the reference's own calls, in a fresh interpreter, and the typed client's refusals."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from forwarder_stack import Stack, stack, wait_until

from helpers.errors import TutorialError
from helpers.forwarder import Forwarder, Refused, get_forwarder_route, refusal, request_forwarder_route
from helpers.processes import free_port

# The calls of the text that this project grew from, section "YAML Deployment", as a reader pastes them.
CALLS = """
import sys
import threading
from helpers.forwarder import request_forwarder_route

def call(route_name, path_replacers, route_input):
    print(*request_forwarder_route(
        address = '127.0.0.1', port = sys.argv[1], route_type = '', route_name = route_name,
        path_replacers = path_replacers, path_names = [], route_input = route_input, timeout = 240
    ))

call('setup', {'mode': 'init'}, {
    'bucket-prefix': 'none', 'ice-id': 'none', 'user': 'none', 'used-client': 'none', 'pre-auth-url': 'none',
    'pre-auth-token': 'none', 'user-domain-name': 'none', 'project-domain-name': 'none', 'project-name': 'none',
    'auth-version': 'none'
})
call('arti', {'type': 'logs', 'target': 'frontend'}, {})
call('arti', {'type': 'logs', 'target': 'backend'}, {})
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("client")) as running:
        running.frontend()
        running.backend()
        yield running


@pytest.fixture
def client(made: Stack) -> Iterator[Forwarder]:
    with Forwarder("127.0.0.1", made.env["FASTAPI_PORT"], patience=0) as forwarder:
        yield forwarder


@pytest.mark.component
def test_the_reference_s_calls_in_a_fresh_interpreter(made: Stack, tmp_path: Path) -> None:
    wait_until(lambda: made.client.llen("forwarder:logs:backend"), 15)
    argv = [sys.executable, "-c", CALLS, made.env["FASTAPI_PORT"]]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["Used route: POST:/setup/config/init", "200 {'output': None}"]
    assert lines[2] == "Used route: GET:/interaction/arti/logs/frontend"
    assert lines[3].startswith("200 {'output': {'logs': ['2") and "forwader-frontend - Creating FastAPI" in lines[3]
    assert lines[4] == "Used route: GET:/interaction/arti/logs/backend"
    assert lines[5].startswith("200 {'output': {'logs': ['[2") and "INFO/MainProcess]" in lines[5]


@pytest.mark.component
def test_the_reference_s_function_gives_an_empty_answer_for_a_refusal(made: Stack) -> None:
    port = made.env["FASTAPI_PORT"]
    assert request_forwarder_route("127.0.0.1", port, "", "setup", {"mode": "wrong"}, [], {}, 10) == (404, {})


@pytest.mark.component
def test_the_typed_client_drives_every_route(made: Stack, client: Forwarder) -> None:
    assert client.health() and client.ready()
    task = client.forward_import("reader", "typed", [{"name": "one", "address": "127.0.0.1", "port": 9}])
    assert client.wait(task)["result"] == {"applied": 1, "superseded": 0}
    assert client.forward_status("reader", "typed")["connections"][0]["name"] == "one"
    assert [row["key"] for row in client.forwards("reader")] == ["typed"]
    assert client.metrics("frontend") and client.logs("frontend", 1)
    client.wait(client.forward_cancel("reader", "typed"))
    for call in (lambda: client.orch("run", "dag"), lambda: client.dags("reader")):
        with pytest.raises(Refused, match="HTTP 503"):
            call()


@pytest.mark.component
def test_refusals_carry_what_the_server_said(client: Forwarder, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(lambda: client.forward_import("reader", "x", [{"name": "one", "address": "h", "port": 0}]))
    assert (said.status, said.fields) == (422, ("body.connections.0.port",))
    assert "body.connections.0.port" in capsys.readouterr().out
    with pytest.raises(TutorialError, match="accepted what it was to refuse"):
        refusal(client.health)


@pytest.mark.component
def test_a_503_is_repeated_until_redis_is_back_and_done_once(tmp_path: Path) -> None:
    with stack(tmp_path) as made, Forwarder("127.0.0.1", made.env["FASTAPI_PORT"], patience=20) as patient:
        made.frontend()
        made.redis.stop()
        import threading

        timer = threading.Timer(3, made.start_redis)
        timer.start()
        task = patient.forward_import("reader", "x", [{"name": "one", "address": "127.0.0.1", "port": 9}])
        timer.join()
        made.backend()
        wait_until(lambda: made.done(task), 30)
        assert [entry["id"] for _, entry in made.client.xrange("forwarder:journal")] == [task]


@pytest.mark.component
def test_waiting_ends(tmp_path: Path) -> None:
    with stack(tmp_path) as made, Forwarder("127.0.0.1", made.env["FASTAPI_PORT"]) as client:
        made.frontend()
        with pytest.raises(TutorialError, match="is not done after 0.3 s"):
            client.wait(made.accept(), timeout=0.3)


@pytest.mark.unit
def test_routes_are_built_as_the_reference_builds_them(capsys: pytest.CaptureFixture[str]) -> None:
    method, url = get_forwarder_route("h", "1", "", "forw", {"type": "import", "user": "u", "key": "a b"}, ["more"])
    assert (method, url) == ("POST", "http://h:1/interaction/forw/import/u/a%20b/more")
    assert get_forwarder_route("::1", "1", "GET", "setup", {"mode": ""}, []) == (
        "GET",
        "http://[::1]:1/setup/config/mode",
    )
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["Used route: POST:/interaction/forw/import/u/a b/more", "Used route: GET:/setup/config/mode"]
    with pytest.raises(TutorialError, match="setup, task, orch, forw, arti"):
        get_forwarder_route("h", "1", "", "other", {}, [])
    with pytest.raises(TutorialError, match="PUT"):
        get_forwarder_route("h", "1", "PUT", "setup", {}, [])


@pytest.mark.unit
def test_nobody_there_is_a_clear_error() -> None:
    with pytest.raises(TutorialError, match="Nothing answers at"):
        request_forwarder_route("127.0.0.1", str(free_port()), "", "setup", {"mode": "show"}, [], {}, 5)


class _Cutting(BaseHTTPRequestHandler):
    """Cuts the first connection without an answer, as a tunnel does with one that was idle; answers the others."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.asked.append(self.headers.get("Idempotency-Key", ""))
        self.close_connection = True
        if len(self.asked) > 1:
            body = b'{"output": {"task-id": "one"}}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@pytest.mark.component
def test_a_cut_answer_is_asked_for_once_more_where_that_does_no_harm() -> None:
    with HTTPServer(("127.0.0.1", 0), _Cutting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with Forwarder("127.0.0.1", server.server_port, patience=0) as client:
                _Cutting.asked.clear()
                assert client.forward_import("reader", "lab", []) == "one"
                assert len(_Cutting.asked) == 2 and len(set(_Cutting.asked)) == 1, "under the same key"
                _Cutting.asked.clear()
                with pytest.raises(TutorialError, match="refused or cut"):
                    client.orch("run", "a-workflow")
                assert len(_Cutting.asked) == 1, "a second run would be a second run"
        finally:
            server.shutdown()
