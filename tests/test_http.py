"""Requests to this machine never take a proxy or a `.netrc`; those to the outside take the reader's proxy."""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, cast

import pytest
from recording_proxy import VARIABLES, Proxy, recording_proxy

from helpers import cluster_lab, cpouta_cloud, cpouta_ssh, kind, kind_lab
from helpers import http as ours
from helpers.airflow import Airflow
from helpers.errors import TutorialError
from helpers.forwarder import Forwarder
from helpers.forwarder_local import LocalForwarder
from helpers.loopback import is_loopback, no_proxy
from helpers.processes import free_port
from helpers.ray_jobs import Ray
from helpers.ray_local import LocalRay
from helpers.settings import ROOT
from helpers.target_local import LocalTarget

NEAR = (
    "127.0.0.1", "localhost", "LOCALHOST", "localhost.", "app.localhost", "127.0.0.2", "127.1", "2130706433",
    "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "0.0.0.0", "0", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]",
    "[::]", "[::1%25lo]", "localhost.localdomain", "user:password@127.0.0.1", "１２７.0.0.1",
)  # fmt: skip
FAR = (
    "example.org", "10.0.0.1", "128.0.0.1", "192.168.1.1", "localhost.example.org", "notlocalhost", "127.example.org",
    "[2001:db8::1]", "[::ffff:10.0.0.1]", "127.0.0.1@example.org", "169.254.169.254", "",
)  # fmt: skip


@pytest.mark.unit
@pytest.mark.parametrize("host", NEAR)
def test_this_machine_is_known_in_every_spelling(host: str) -> None:
    assert is_loopback(f"http://{host}:7600/path")


@pytest.mark.unit
@pytest.mark.parametrize("host", FAR)
def test_no_other_machine_is_taken_for_this_one(host: str) -> None:
    assert not is_loopback(f"http://{host}/127.0.0.1")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"NO_PROXY": "localhost,127.0.0.1,::1", "no_proxy": "localhost,127.0.0.1,::1"}),
        (
            {"no_proxy": "corp.example, .lab"},
            {"NO_PROXY": "corp.example,.lab,localhost,127.0.0.1,::1",
             "no_proxy": "corp.example,.lab,localhost,127.0.0.1,::1"},
        ),
        (
            {"NO_PROXY": "a", "no_proxy": "127.0.0.1,b"},
            {"NO_PROXY": "a,localhost,127.0.0.1,::1", "no_proxy": "127.0.0.1,b,localhost,::1"},
        ),
        ({"NO_PROXY": "*"}, {"NO_PROXY": "*", "no_proxy": "*"}),
        (
            {"no_grpc_proxy": "x"},
            {"NO_PROXY": "localhost,127.0.0.1,::1", "no_proxy": "localhost,127.0.0.1,::1",
             "no_grpc_proxy": "x,localhost,127.0.0.1,::1"},
        ),
    ],
)  # fmt: skip
def test_what_the_reader_excepts_is_kept(before: dict[str, str], after: dict[str, str]) -> None:
    assert no_proxy({**before, "http_proxy": "http://proxy.corp.example"}) == after
    assert no_proxy(before) == {}, "without a proxy there is nothing to except"


@pytest.mark.unit
def test_nothing_else_makes_sessions() -> None:
    made = re.compile(r"requests\.(get|post|put|delete|head|patch|request|Session)\(|urlopen\(|HTTPS?Connection\(")
    files = [f for f in (ROOT / "helpers").glob("*.py") if f.name != "http.py"]
    cells = [f for f in (ROOT / "notebooks").glob("*.ipynb") if made.search("".join(_code(f)))]
    found = [f"{f.name}: {line}" for f in files for line in f.read_text().splitlines() if made.search(line)]
    assert [line for line in found if "_FETCH" not in line] == []  # _FETCH runs in a pod
    assert cells == []


def _code(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [line for cell in cells if cell["cell_type"] == "code" for line in cell["source"]]


class Server:
    """A web server of this machine that answers every path, and remembers paths and headers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                outer.seen.append((self.path, dict(self.headers)))
                status, headers, body = outer.answers.get(self.path, (200, {}, b"here"))
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = _answer

            def log_message(self, *args: object) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str, content: object, status: int = 200, **headers: str) -> None:
        self.answers[path] = (status, headers, json.dumps(content).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    web = Server()
    yield web
    web.server.shutdown()
    web.server.server_close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """Give a proxy that the environment leads everything to, and a `.netrc` with a password for everything."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login reader password reader-s-own\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with recording_proxy() as running:
        for name in VARIABLES:
            monkeypatch.setenv(name, running.url)
        yield running


@pytest.mark.component
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0"])
def test_this_machine_is_asked_without_proxy_and_netrc(proxy: Proxy, server: Server, host: str) -> None:
    assert ours.get(f"http://{host}:{server.port}/a", timeout=5).text == "here"
    assert proxy.seen == []
    assert "Authorization" not in server.seen[0][1]


@pytest.mark.component
def test_a_proxy_that_is_handed_over_is_not_taken_either(proxy: Proxy, server: Server) -> None:
    with ours.session() as web:
        web.proxies = {"all": proxy.url}
        assert web.get(server.url, proxies={"http": proxy.url}, timeout=5).text == "here"
    assert proxy.seen == []


@pytest.mark.component
def test_redirects_on_this_machine_stay_direct(proxy: Proxy, server: Server) -> None:
    server.answers["/old"] = (302, {"Location": f"http://localhost:{server.port}/new"}, b"")
    answer = ours.get(f"{server.url}/old", timeout=5, auth=("admin", "flower-password"))
    assert (answer.status_code, answer.text) == (200, "here")
    assert proxy.seen == []
    assert "Authorization" in server.seen[0][1]
    assert "Authorization" not in server.seen[1][1]  # localhost is another host than 127.0.0.1


@pytest.mark.component
def test_the_outside_is_asked_through_the_readers_proxy_without_netrc(proxy: Proxy) -> None:
    assert ours.get("http://example.org/page", timeout=5).status_code == 503
    (request,) = proxy.seen
    assert request.startswith("GET http://example.org/page")
    assert "Authorization" not in request


@pytest.mark.component
def test_a_redirect_to_the_outside_takes_the_proxy_and_leaves_the_password(proxy: Proxy, server: Server) -> None:
    server.answers["/out"] = (302, {"Location": "http://example.org/"}, b"")
    assert ours.get(f"{server.url}/out", timeout=5, auth=("admin", "flower-password")).status_code == 503
    (request,) = proxy.seen
    assert "Authorization" not in request


@pytest.mark.component
def test_a_redirect_from_the_outside_to_this_machine_is_direct(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = Server()  # plays a proxy with a password of its own
    outside.answers["http://example.org/"] = (302, {"Location": f"{server.url}/in"}, b"")
    monkeypatch.setenv("http_proxy", f"http://name:word@127.0.0.1:{outside.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    try:
        assert ours.get("http://example.org/", timeout=5).text == "here"
    finally:
        outside.server.shutdown()
        outside.server.server_close()
    assert [path for path, _ in outside.seen] == ["http://example.org/"]
    assert "Proxy-Authorization" not in server.seen[0][1]


@pytest.mark.component
def test_credentials_in_an_address_count(proxy: Proxy, server: Server) -> None:
    ours.get(f"http://me:mine@127.0.0.1:{server.port}/", timeout=5)
    assert server.seen[0][1]["Authorization"] == "Basic " + base64.b64encode(b"me:mine").decode()


def _flower(server: Server) -> None:
    class _Cluster:
        def get(self, *words: str) -> list[dict[str, Any]]:
            data = {"username": base64.b64encode(b"admin").decode(), "password": base64.b64encode(b"pw").decode()}
            return [{"data": data}]

    assert cluster_lab.flower(cast(kind.Cluster, _Cluster()), server.port, "api/tasks").ok
    assert server.seen[0][1]["Authorization"].startswith("Basic ")


def _airflow(server: Server) -> None:
    server.answer("/auth/token", {"access_token": "t"}, 201)
    server.answer("/api/v2/version", {"version": "3.0.6"})
    assert Airflow(server.url, "admin", "a-password").version() == "3.0.6"


def _forwarder(server: Server) -> None:
    server.answer("/ready", {"output": "ready"})
    assert Forwarder("127.0.0.1", str(server.port)).ready()


def _ray(server: Server) -> None:
    server.answer("/api/version", {"ray_version": "2.44.1", "version": "4", "ray_commit": "", "session_name": ""})
    ray = Ray(server.url)
    assert ray.version() == "2.44.1"
    assert ray._client().get_address() == server.url


def _page(server: Server) -> None:
    assert kind_lab.read_page(LocalTarget("local"), server.port) == "here"


def _cloud(server: Server) -> None:
    clouds = Path("clouds.yaml").resolve()
    auth = {"auth_url": f"{server.url}/v3", "username": "u", "password": "p", "project_name": "p",
            "user_domain_name": "d", "project_domain_name": "d"}  # fmt: skip
    clouds.write_text(json.dumps({"clouds": {"lab": {"auth": auth}}}))
    clouds.chmod(0o600)
    with pytest.raises(TutorialError):  # it is no cloud; that it was asked is what matters
        cpouta_cloud.connect("lab", clouds)
    assert server.seen


def _own_address(server: Server) -> None:
    server.answers["/"] = (200, {}, b"192.0.2.1")
    assert cpouta_ssh.own_address(services=[f"{server.url}/"]) == "192.0.2.1"


CALLS = (_flower, _airflow, _forwarder, _ray, _page, _cloud, _own_address)


@pytest.mark.component
@pytest.mark.parametrize("call", CALLS)
def test_every_client_asks_this_machine_directly(
    call: Callable[[Server], None], proxy: Proxy, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cpouta_cloud, "_PAUSE_SECONDS", 0.01)
    call(server)
    assert proxy.seen == []


@pytest.mark.component
def test_ray_s_client_goes_where_it_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://another-cluster.example:8265")
    _ray(server)


@pytest.mark.component
def test_the_passwords_of_a_local_forwarder_stay_here(proxy: Proxy, sandbox: Path) -> None:
    with LocalForwarder(free_port(), free_port(), free_port(), concurrency=1) as forwarder:
        forwarder.start("redis", "monitor")
        assert forwarder.flower("api/tasks").status_code == 200
    assert proxy.seen == []


@pytest.mark.component
def test_a_local_ray_works_and_tells_nobody_about_it(proxy: Proxy, sandbox: Path) -> None:
    with LocalRay() as ray:
        assert len(ray.start().workers()) == 2
        time.sleep(5)  # its report to its makers comes a moment after the dashboard
    assert proxy.seen == []
