"""Chapter 10: both clients of Airflow against servers on loopback: many entries, odd answers, what is not Airflow 3."""

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from forwarder_stack import APPLICATIONS

from helpers.airflow import Airflow, AirflowError
from helpers.errors import TutorialError

pytestmark = pytest.mark.unit
Answer = tuple[int, str, bytes]  # status, type of the content, content
Serve = Callable[[Callable[[str, str, dict[str, list[str]]], Answer]], str]
JSON, HTML = "application/json", "text/html; charset=utf-8"
PAGE = b"<!doctype html><html><head><title>Sign in to Example</title></head><body>password=secret</body></html>"
NOT_FOUND = (404, HTML, b"<html><head><title>Airflow 404</title></head></html>")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Give a function that serves answers on loopback, and gives the address."""
    servers = []

    def start(answer: Callable[[str, str, dict[str, list[str]]], Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def handle_all(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                place = urlsplit(self.path)
                status, kind, content = answer(self.command, place.path, parse_qs(place.query))
                length = len(content) + (100 if kind == "cut" else 0)
                self.send_response(status)
                self.send_header("Content-Type", JSON if kind == "cut" else kind)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = True

            do_GET = do_POST = do_PATCH = handle_all

            def log_message(self, *words: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _json(content: object, status: int = 200) -> Answer:
    return status, JSON, json.dumps(content).encode()


def _token(then: Callable[[str, dict[str, list[str]]], Answer]) -> Callable[[str, str, dict[str, list[str]]], Answer]:
    """Let everybody in, and give another function's answers to what is asked then."""

    def answer(method: str, path: str, query: dict[str, list[str]]) -> Answer:
        return _json({"access_token": "t"}, 201) if path == "/auth/token" else then(path.removeprefix("/api/v2"), query)

    return answer


def _pages(count: int, name: str, entry: Callable[[int], dict[str, Any]], most: int = 100, total: bool = True) -> Any:
    """Serve a long list as Airflow does: 50 entries where nothing is said, and `most` at most."""

    def answer(path: str, query: dict[str, list[str]]) -> Answer:
        limit, offset = int(query.get("limit", ["50"])[0]), int(query.get("offset", ["0"])[0])
        entries = [entry(n) for n in range(count)][offset : offset + min(limit, most)]
        return _json({name: entries, **({"total_entries": count} if total else {})})

    return _token(answer)


@pytest.mark.parametrize(
    ("count", "most", "total"), [(0, 100, True), (100, 100, True), (233, 100, True), (233, 30, True), (233, 100, False)]
)
def test_all_dags_are_listed(serve: Serve, count: int, most: int, total: bool) -> None:
    with Airflow(serve(_pages(count, "dags", lambda n: {"dag_id": f"d{n}"}, most, total)), "a", "b") as client:
        assert [dag["dag_id"] for dag in client.dags()] == [f"d{n}" for n in range(count)]
        assert client.has("d232") == (count == 233)


def test_all_tasks_runs_and_errors_are_listed(serve: Serve) -> None:
    with Airflow(serve(_pages(120, "task_instances", lambda n: {"task_id": "t", "map_index": n})), "a", "b") as client:
        assert [task["map_index"] for task in client.tasks("d", "r")] == list(range(120))
    with Airflow(serve(_pages(250, "dag_runs", lambda n: {"dag_run_id": str(n)})), "a", "b") as client:
        assert len(client.runs("d")) == 250
    with Airflow(serve(_pages(101, "import_errors", lambda n: {"filename": str(n)})), "a", "b") as client:
        assert len(client.import_errors()) == 101


def _log(content: object) -> Callable[[str, str, dict[str, list[str]]], Answer]:
    return _token(lambda path, query: _json({"content": content, "continuation_token": None}))


def test_a_log_says_where_it_was_looked_for_and_how_the_task_failed(serve: Serve) -> None:
    unread = "Could not read served logs: HTTPConnectionPool(host='worker', port=8793): Name or service not known"
    content = [
        {"event": "::group::Log message source details", "sources": ["/logs/a.log", unread]},
        {"event": "::endgroup::"},
        {"timestamp": "2026-01-01T00:00:00Z", "event": "Hello, world", "level": "info"},
        {
            "event": "Task failed",
            "error_detail": [{"exc_type": "ValueError", "exc_value": "no such key", "frames": []}],
        },
    ]
    with Airflow(serve(_log(content)), "a", "b") as client:
        lines = client.log("d", "r", "t")
    assert lines == [
        "::group::Log message source details", "/logs/a.log", unread, "::endgroup::", "Hello, world", "Task failed",
        "ValueError: no such key",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (["a", "b"], ["a", "b"]),
        ("a\nb\n", ["a", "b"]),
        ([], []),
        ([{"event": "x", "sources": "one"}], ["x", "one"]),
        ([{"event": "x", "sources": None, "error_detail": None}], ["x"]),
        ([{"message": "no event"}], [""]),
        ([{"event": None}], [""]),
        ([{"event": "x", "error_detail": "Traceback"}], ["x", "Traceback"]),
    ],
)
def test_logs_of_other_forms_are_read(serve: Serve, content: object, lines: list[str]) -> None:
    with Airflow(serve(_log(content)), "a", "b") as client:
        assert client.log("d", "r", "t") == lines


def test_the_log_of_a_mapped_task_is_asked_for_by_its_index(serve: Serve) -> None:
    echo = _token(lambda path, query: _json({"content": [f"{path} {query.get('map_index')}"]}))
    with Airflow(serve(echo), "a", "b") as client:
        assert client.log("d", "r", "t", 2, 7) == ["/dags/d/dagRuns/r/taskInstances/t/logs/2 ['7']"]
        assert client.log("d", "r", "t")[0].endswith("None")


def _airflow_2(method: str, path: str, query: dict[str, list[str]]) -> Answer:
    if path == "/api/v1/health":
        return _json({"metadatabase": {"status": "healthy"}, "scheduler": {"status": "healthy"}})
    return NOT_FOUND


def _always(status: int, kind: str, content: bytes) -> Callable[[str, str, dict[str, list[str]]], Answer]:
    return lambda method, path, query: (status, kind, content)


# What answers in Airflow's place, and a part of what is said of it: by the course's client, by the Forwarder's.
OTHERS = {
    "Airflow 2": (_airflow_2, "Airflow 2 answers", "is version 2"),
    "a login page": (_always(200, HTML, PAGE), "not Airflow's REST API", "a web page"),
    "a login page without a type": (_always(200, "text/plain", PAGE), "not Airflow's REST API", "a web page"),
    "a page that is not there": (_always(404, HTML, PAGE), "not Airflow's REST API", "a web page"),
    "a page after the token": (_token(lambda path, query: (200, HTML, PAGE)), "not Airflow's REST API", "a web page"),
    "a proxy's page": (_token(lambda path, query: (502, HTML, PAGE)), "not Airflow's REST API", "answers 502"),
    "text": (_always(200, "text/plain", b"OK"), "can't be read", "not JSON"),
    "JSON of something else": (_always(200, JSON, b'{"status": "ok"}'), "access_token", "not JSON of the REST API"),
    "a list": (_always(200, JSON, b"[]"), "no JSON object", "not JSON of the REST API"),
    "nothing": (_always(200, JSON, b""), "empty", "not JSON of the REST API"),
    "half of an answer": (_token(lambda path, query: (200, JSON, b'{"dags": [')), "can't be read", "not JSON"),
    "a cut": (_token(lambda path, query: (200, "cut", b'{"dags": [')), "does not answer", "does not answer"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_airflow_3_is_told_as_such(serve: Serve, name: str) -> None:
    answer, said, _ = OTHERS[name]
    with Airflow(serve(answer), "reader", "swordfish") as client:
        for ask in (client.dags, lambda: client.run("d", "r"), lambda: client.log("d", "r", "t")):
            with pytest.raises(TutorialError) as error:
                ask()
            assert said in str(error.value) and "swordfish" not in str(error.value) and error.value.remedy
        assert not client.healthy()


@pytest.fixture(params=["fastapi/forwarder_frontend", "celery/forwarder_backend"])
def forwarders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give the module of the Forwarder's own client, of the frontend and of the backend."""
    part, package = request.param.split("/")
    monkeypatch.syspath_prepend(str(APPLICATIONS / part))
    before = set(sys.modules)
    yield __import__(f"{package}.airflow", fromlist=["Airflow"])
    for module in set(sys.modules) - before:
        if module.split(".")[0] == package:
            del sys.modules[module]


def _call(module: Any, url: str, path: str = "/dags") -> tuple[int, dict[str, Any]]:
    async def ask() -> tuple[int, dict[str, Any]]:
        client = module.Airflow(module.Login(url, "reader", "swordfish"), 5.0)
        try:
            return await client.call("GET", path)
        finally:
            await client.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("name", OTHERS)
def test_the_forwarder_says_who_is_not_airflow_3(serve: Serve, forwarders: Any, name: str) -> None:
    answer, _, said = OTHERS[name]
    with pytest.raises(forwarders.AirflowAway) as error:
        _call(forwarders, serve(answer))
    assert said in str(error.value) and "swordfish" not in str(error.value)


def test_an_empty_answer_to_a_change_is_no_fault(serve: Serve, forwarders: Any) -> None:
    url = serve(_token(lambda path, query: (204, JSON, b"")))
    assert _call(forwarders, url) == (204, {})
    with Airflow(url, "a", "b") as client:
        client.pause("d")


def test_a_field_that_does_not_fit_is_named(serve: Serve) -> None:
    wrong = {"detail": [{"loc": ["body", "conf"], "msg": "Input should be a valid dictionary"}]}
    with Airflow(serve(_token(lambda path, query: _json(wrong, 422))), "a", "b") as client:
        with pytest.raises(AirflowError) as error:
            client.trigger("d")
        assert error.value.why == "body.conf: Input should be a valid dictionary" and error.value.status == 422


def test_airflow_2_is_told_by_its_json_errors_too(serve: Serve) -> None:
    def answer(method: str, path: str, query: dict[str, list[str]]) -> Answer:
        healthy = {"metadatabase": {"status": "healthy"}}
        return _json(healthy) if path == "/api/v1/health" else _json({"detail": None, "title": "Not Found"}, 404)

    with Airflow(serve(answer), "reader", "swordfish") as client:
        for ask in (client.version, client.health, client.dags):
            with pytest.raises(TutorialError, match="Airflow 2 answers"):
                ask()


def test_answers_without_what_is_looked_for_are_told(serve: Serve) -> None:
    with Airflow(serve(_token(lambda path, query: _json({"dags": [{}], "total_entries": 1}))), "a", "b") as client:
        assert not client.has("d")
        with pytest.raises(TutorialError, match="has no state"):
            client.wait("d", "r", 1)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "localhost", "http://", ""])
def test_an_address_that_is_none_is_told_as_such(url: str) -> None:
    with Airflow(url, "a", "b") as client, pytest.raises(TutorialError, match="not the address of a server"):
        client.version()
