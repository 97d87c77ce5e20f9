"""The frontend over HTTP: each route, each refusal, the token, the limits, and how it ends."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from forwarder_stack import APPLICATIONS, Stack, stack

pytestmark = [pytest.mark.component]
KEYS = [
    "bucket-prefix",
    "ice-id",
    "user",
    "used-client",
    "pre-auth-url",
    "pre-auth-token",
    "user-domain-name",
    "project-domain-name",
]
KEYS += ["project-name", "auth-version"]
ONE = {"connections": [{"name": "one", "address": "127.0.0.1", "port": 9}]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("frontend")) as running:
        running.frontend()
        yield running


@pytest.fixture
def clean(made: Stack) -> Stack:
    made.client.flushdb()
    return made


def _detail(answer: requests.Response) -> dict[str, object]:
    detail = answer.json()["detail"]
    assert {"what", "why", "remedy"} <= set(detail)
    return dict(detail)


def test_setup_in_all_its_modes(clean: Stack) -> None:
    values = dict.fromkeys(KEYS, "none") | {"pre-auth-token": "hunter2", "pre-auth-url": "https://me:pw@store/x?sig=1"}
    assert clean.post("setup/config/show").status_code == 409
    assert clean.post("setup/config/update", {"user": "me"}).status_code == 409
    answer = clean.post("setup/config/init", values)
    assert (answer.status_code, answer.json()) == (200, {"output": None})
    assert clean.post("setup/config/update", {"user": "me"}).json() == {"output": None}
    shown = clean.post("setup/config/show")
    assert list(shown.json()["output"]) == KEYS and shown.json()["output"]["user"] == "me"
    assert "hunter2" not in shown.text and "pw@" not in shown.text and "sig=1" not in shown.text
    assert clean.client.hget("forwarder:config", "pre-auth-token") == "hunter2"
    assert clean.post("setup/config/reset").json() == {"output": None}
    assert clean.post("setup/config/show").status_code == 409


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("setup/config/init", {"user": "x"}, "body.bucket-prefix"),
        ("setup/config/update", {}, "body"),
        ("setup/config/update", {"colour": "x"}, "body.colour"),
        ("setup/config/update", {"user": 1}, "body.user"),
        ("interaction/forw/import/reader/lab", {}, "body.connections"),
        (
            "interaction/forw/import/reader/lab",
            {"connections": [{"name": "A", "address": "h", "port": 1}]},
            "body.connections.0.name",
        ),
        (
            "interaction/forw/import/reader/lab",
            {"connections": [{"name": "a", "address": "-h", "port": 1}]},
            "body.connections.0.address",
        ),
        (
            "interaction/forw/export/reader/lab",
            {"connections": [{"name": "a", "address": "h", "port": 0}]},
            "body.connections.0.port",
        ),
        ("interaction/forw/import/Reader/lab", ONE, "path.user"),
        ("interaction/forw/import/reader/lab", {"connections": ONE["connections"] * 2}, "body"),
    ],
)
def test_a_422_names_the_field(clean: Stack, path: str, body: object, field: str) -> None:
    answer = clean.post(path, body)
    assert answer.status_code == 422
    assert field in [problem["field"] for problem in _detail(answer)["errors"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("POST", "setup/config/delete", "init, update, show, reset"),
        ("GET", "interaction/task/all/x", "status, result"),
        ("POST", "interaction/orch/stop/x", "submit, run, status, cancel"),
        ("POST", "interaction/forw/push/a/b", "import, export, status, cancel"),
        ("GET", "interaction/arti/files/frontend", "logs, metrics, forwards, dags"),
        ("GET", "interaction/arti/logs/nobody", "frontend, backend"),
    ],
)
def test_a_404_lists_the_right_values(clean: Stack, method: str, path: str, right: str) -> None:
    answer = requests.request(method, f"{clean.url}/{path}", json={}, timeout=5)
    assert answer.status_code == 404
    assert right in str(_detail(answer)["why"])


def test_what_is_not_json_or_too_large_is_refused(clean: Stack) -> None:
    url = f"{clean.url}/interaction/forw/import/reader/lab"
    assert requests.post(url, data=b"{", headers={"content-type": "application/json"}, timeout=5).status_code == 422
    assert requests.post(url, data=b"x" * 300_000, timeout=5).status_code == 413
    chunks = (b"x" * 50_000 for _ in range(8))  # without a Content-Length
    assert requests.post(url, data=chunks, timeout=5).status_code == 413


def test_a_task_is_known_from_its_acceptance_on(clean: Stack) -> None:
    identity = clean.accept()
    status = clean.get(f"interaction/task/status/{identity}").json()["output"]
    assert status == {"task-id": identity, "state": "accepted", "type": "import", "user": "reader", "key": "lab"}
    assert clean.get(f"interaction/task/result/{identity}").json()["output"]["result"] is None
    assert clean.get("interaction/task/status/unknown").status_code == 404
    assert clean.client.llen("celery") == 1


def test_the_same_request_under_the_same_key_is_accepted_once(clean: Stack) -> None:
    path, header = "interaction/forw/import/reader/lab", {"Idempotency-Key": "k1"}
    first = clean.post(path, ONE, headers=header).json()["output"]["task-id"]
    assert clean.post(path, ONE, headers=header).json()["output"]["task-id"] == first
    assert clean.post(path.replace("lab", "other"), ONE, headers=header).status_code == 409
    assert clean.post(path.replace("reader", "someone"), ONE, headers=header).status_code == 200
    assert clean.client.llen("celery") == 2


def test_forwards_without_a_relay_are_pending_and_say_why(clean: Stack) -> None:
    clean.accept()
    output = clean.post("interaction/forw/status/reader/lab").json()["output"]
    assert output["state"] == "pending" and "run_relay.py" in output["connections"][0]["error"]
    assert clean.get("interaction/arti/forwards/reader").json()["output"]["forwards"] == output["connections"]
    assert clean.post("interaction/forw/status/reader/none").status_code == 404


def test_workflows_are_a_503_that_says_how_to_get_them(clean: Stack) -> None:
    for answer in (clean.post("interaction/orch/run/dag"), clean.get("interaction/arti/dags/reader")):
        assert answer.status_code == 503 and "Retry-After" in answer.headers
        assert "AIRFLOW_HOST" in str(_detail(answer)["remedy"])


def test_the_log_has_the_reference_s_lines_and_a_bound(clean: Stack) -> None:
    lines = clean.get("interaction/arti/logs/frontend", params={"lines": 10_000}, json={}).json()["output"]["logs"]
    said = [line.split(" - ") for line in lines]
    assert {part[2] for part in said} == {"forwader-frontend"} and {part[1] for part in said} <= {"INFO", "WARNING"}
    begin = ["Creating FastAPI instance", "FastAPI created", "Connecting to redis", "Redis connected"]
    begin += ["Defining Celery client", "Celery client defined", "Importing routes", "Including routers"]
    begin += ["Routes implemented", "Frontend ready"]
    assert [part[3] for part in said[:10]] == begin
    assert "Artifact interaction" in [part[3] for part in said]
    assert len(clean.get("interaction/arti/logs/frontend?lines=2").json()["output"]["logs"]) == 2
    assert clean.get("interaction/arti/logs/frontend?lines=0").status_code == 422
    with clean.client.pipeline() as pipe:
        pipe.rpush("forwarder:logs:backend", *(["x" * 1000] * 3000))
        pipe.execute()
    assert len(clean.get("interaction/arti/logs/backend?lines=10000").content) < 1.1 * 2**20


def test_metrics_count_requests(clean: Stack) -> None:
    clean.accept()
    text = clean.get("metrics").text
    assert 'forwarder_accepted_total{type="import"}' in text
    names = {sample["name"] for sample in clean.get("interaction/arti/metrics/frontend").json()["output"]["metrics"]}
    assert {"forwarder_http_requests_total", "forwarder_accepted_total"} <= names
    assert clean.get("interaction/arti/metrics/backend").json()["output"] == {"time": None, "metrics": []}


def test_a_token_guards_all_but_probes_and_docs(tmp_path: Path) -> None:
    with stack(tmp_path, FORWARDER_TOKEN="s3cret-token") as made:
        frontend = made.frontend()
        for path in ("health", "ready", "docs", "openapi.json"):
            assert made.get(path).status_code == 200
        assert made.get("metrics").status_code == 401
        assert made.post("setup/config/show").status_code == 401
        assert made.post("setup/config/show", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert made.post("setup/config/show", headers={"Authorization": "Bearer s3cret-token"}).status_code == 409
        assert frontend.stop() == 0
        everything = "".join(p.read_text(errors="replace") for p in tmp_path.rglob("*") if p.is_file())
        assert "s3cret-token" not in everything


def test_sigterm_ends_it_soon_and_in_order(tmp_path: Path) -> None:
    with stack(tmp_path) as made:
        frontend = made.frontend()
        identity = made.accept()
        began = time.monotonic()
        assert frontend.stop() == 0
        assert time.monotonic() - began < 10
        assert made.client.hget(f"forwarder:request:{identity}", "state") == "accepted"


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("FASTAPI_PORT", "http", 2),
        ("FORWARDER_ENV", "staging", 2),
        ("LOG_FOLDER", "/proc/none", 2),
        ("PORT", "taken", 1),
    ],
)
def test_a_bad_setting_or_a_taken_port_is_one_line(made: Stack, variable: str, value: str, code: int) -> None:
    env = made.env if variable == "PORT" else {**made.env, "FASTAPI_PORT": "0", variable: value}
    env = {**env, "PATH": "/usr/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "run_fastapi.py"],
        cwd=APPLICATIONS / "fastapi",
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr


def test_docs_teach_and_need_no_other_host(made: Stack) -> None:
    page = made.get("docs").text
    assert "http://" not in page and "https://" not in page
    document = made.get("openapi.json").json()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"] and operation["description"], path
            for parameter in operation.get("parameters", []):
                assert parameter["description"], f"{path}: {parameter['name']}"
    assert "503" in document["paths"]["/interaction/forw/{type}/{user}/{key}"]["post"]["responses"]
    assert "examples" in json.dumps(document["components"]["schemas"]["Connection"])


@pytest.mark.chromium
def test_docs_work_in_a_browser_without_another_host(made: Stack, require: Callable[[str], str]) -> None:
    from playwright.sync_api import sync_playwright

    program, problems = require("chromium"), []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: problems.append(r.url) if not r.url.startswith((made.url, "data:")) else None)
        page.goto(f"{made.url}/docs")
        page.get_by_text("Import, export, show or cancel connections").wait_for(timeout=20_000)
        page.screenshot(path=str(made.folder / "docs.png"))
        browser.close()
    assert problems == []
