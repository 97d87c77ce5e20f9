"""The shipped Dockerfiles, really built and run together, as strictly as a cluster would run them."""

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
import requests
import yaml
from forwarder_stack import APPLICATIONS, wait_until

from helpers import airgap
from helpers.processes import free_port
from helpers.settings import ROOT

pytestmark = [pytest.mark.component, pytest.mark.docker, pytest.mark.timeout(900)]
PARTS = {"fastapi": "frontend", "celery": "backend", "flower": "monitor", "beat": "scheduler"}
STRICT = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp"]
REDIS = ["-e", "REDIS_ENDPOINT=redis"]


def docker(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run docker; the classic builder is in every version, so no plugin is needed."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=600, env=environment)
    assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done


@pytest.fixture(scope="module")
def images(require: Callable[[str], str]) -> dict[str, str]:
    require("docker")
    if airgap.needed():
        airgap.build("bases", quiet=True)
    names = {}
    for folder, name in PARTS.items():
        names[name] = f"tutorial/forwarder-{name}:test"
        docker(
            "build", "-q", "--network", "host", "--label", "tutorial.test=images", "-t", names[name],
            str(APPLICATIONS / folder),
        )  # fmt: skip
    return names


@pytest.fixture
def running(images: dict[str, str]) -> Iterator[dict[str, object]]:
    """All containers on a network of their own; removed whatever happens."""
    run = f"tutorial-{uuid.uuid4().hex[:8]}"
    front, flower = free_port(), free_port()
    service = yaml.safe_load((ROOT / "applications" / "redis.yaml").read_text())["services"]["redis"]

    def start(name: str, image: str, *words: str, options: tuple[str, ...] = ()) -> None:
        docker(
            "run", "-d", "--name", f"{run}-{name}", "--network", run, "--network-alias", name,
            "--label", "tutorial.test=images", *STRICT, *options, image, *words,
        )  # fmt: skip

    docker("network", "create", "--label", "tutorial.test=images", run)
    try:
        start("redis", service["image"], *map(str, service["command"]), options=("--tmpfs", "/data:uid=999,gid=999"))
        start("frontend", images["frontend"], options=(*REDIS, "-p", f"127.0.0.1:{front}:7600"))
        start("backend", images["backend"], options=(*REDIS, "-e", "CELERY_CONCURRENCY=2"))
        start("monitor", images["monitor"], options=(*REDIS, "-p", f"127.0.0.1:{flower}:7601"))
        start("scheduler", images["scheduler"], options=(*REDIS, "-e", "SCHEDULER_TIMES=2"))
        yield {"run": run, "url": f"http://127.0.0.1:{front}", "flower": f"http://127.0.0.1:{flower}"}
    finally:
        names = ["redis", *PARTS.values()]
        docker("rm", "-f", "-v", *(f"{run}-{name}" for name in names), check=False)
        docker("network", "rm", run, check=False)


@pytest.mark.parametrize("name", PARTS.values())
def test_images_are_small_and_unprivileged_and_hold_no_compiler(images: dict[str, str], name: str) -> None:
    (image,) = json.loads(docker("image", "inspect", images[name]).stdout)
    (base,) = json.loads(docker("image", "inspect", "python:3.11-slim").stdout)
    assert image["Size"] - base["Size"] < 120 * 10**6
    assert image["Config"]["User"] == "10001:10001"
    found = docker("run", "--rm", "--entrypoint", "sh", images[name], "-c", "command -v gcc cc make; id -u")
    assert found.stdout.split() == ["10001"]


def test_the_containers_work_together(running: dict[str, object]) -> None:
    url = running["url"]
    wait_until(lambda: requests.get(f"{url}/ready", timeout=2).status_code == 200, 60, "frontend")
    body = {"connections": [{"name": "one", "address": "127.0.0.1", "port": 9}]}
    task = requests.post(f"{url}/interaction/forw/import/reader/lab", json=body, timeout=5).json()["output"]["task-id"]

    def done() -> bool:
        answer = requests.get(f"{url}/interaction/task/status/{task}", timeout=5).json()
        return bool(answer["output"]["state"] == "done")

    wait_until(done, 60, "backend")
    wait_until(lambda: requests.get(str(running["flower"]), timeout=2).status_code == 401, 60, "monitor")

    def ticked() -> bool:
        lines = requests.get(f"{url}/interaction/arti/logs/backend", timeout=5).json()["output"]["logs"]
        return any("tasks.forwarder-trigger" in line and "succeeded" in line for line in lines)

    wait_until(ticked, 60, "scheduler")


def test_each_ends_on_sigterm_soon_and_in_order(running: dict[str, object]) -> None:
    wait_until(lambda: requests.get(f"{running['url']}/ready", timeout=2).status_code == 200, 60, "frontend")
    time.sleep(3)  # all of them are past their start
    for name in reversed(PARTS.values()):
        began = time.monotonic()
        docker("stop", "-t", "20", f"{running['run']}-{name}")
        assert time.monotonic() - began < 12, name
        code = docker("inspect", "-f", "{{.State.ExitCode}}", f"{running['run']}-{name}").stdout.strip()
        logs = docker("logs", "--tail", "20", f"{running['run']}-{name}")
        assert code == "0", f"{name}: {logs.stdout}{logs.stderr}"


@pytest.mark.parametrize("name", ["backend", "monitor"])
def test_production_refuses_the_printed_passwords(images: dict[str, str], name: str) -> None:
    done = docker("run", "--rm", *STRICT, "-e", "FORWARDER_ENV=production", images[name], check=False)
    assert done.returncode == 2
    assert "placeholder" in done.stderr and "Traceback" not in done.stderr
