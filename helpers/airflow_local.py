"""Chapter 10 without a cluster: Airflow on this machine, in an environment of its own, for it fits into no other.

Its three parts are processes on loopback: the API server, the scheduler (whose LocalExecutor runs the tasks) and the
processor of DAG files. SQLite keeps what they know.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import filelock

from helpers import display, processes
from helpers.airflow import Airflow
from helpers.errors import TutorialError
from helpers.processes import PYTHON, Background, write_atomically
from helpers.settings import ROOT, settings
from helpers.target_local import run_here
from helpers.undo import Leftover

PACKAGES = ROOT / "applications" / "forwarder" / "airflow" / "packages.txt"
DAGS = PACKAGES.with_name("dags")
USERNAME = "admin"
PARTS = ("api-server", "scheduler", "dag-processor")  # in the order in which they are started
_INSTALL_SECONDS = 1800.0  # on a slow network
_START_SECONDS = 120.0  # of each part; on a busy machine its imports alone take half a minute


def folder() -> Path:
    """Give the folder of all that this Airflow makes: its database, logs and secrets."""
    return settings().state / "local" / "airflow"


def environment() -> Path:
    """Give the environment that Airflow is (or will be) installed into; one for each lock file and Python."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tutorial"
    key = hashlib.sha256(PACKAGES.read_bytes() + os.path.realpath(PYTHON).encode()).hexdigest()[:12]
    return cache / f"airflow-{key}"


def leftovers(target: str) -> list[Leftover]:
    """List what a local Airflow leaves; its installation stays in the cache, as the tools do."""
    place = folder()
    if target != "local" or not place.exists():
        return []
    return [Leftover("Airflow's data and logs", str(place), lambda: shutil.rmtree(place, ignore_errors=True))]


def install() -> Path:
    """Install Airflow from its wheel, once.

    Returns:
        The folder of its programs.

    Raises:
        TutorialError: A package can't be had.
    """
    place = environment()
    place.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{place}.lock"), display.progress("Install Airflow"):
        if not (place / ".complete").exists():
            uv = str(Path(PYTHON).with_name("uv"))
            _run([uv, "venv", "--quiet", "--clear", "--python", PYTHON, str(place)])
            _run([uv, "pip", "install", "--quiet", "--compile-bytecode", "--require-hashes", "--python",
                  str(place / "bin" / "python"), "--requirement", str(PACKAGES)])  # fmt: skip
            (place / ".complete").touch()
    return place / "bin"


def _run(argv: list[str], env: Mapping[str, str] | None = None) -> None:
    done = run_here(argv, check=False, timeout=_INSTALL_SECONDS, env=env)
    if done.returncode:
        raise TutorialError(
            "Airflow could not be set up on this machine",
            f"exit code {done.returncode}",
            "see that the package index can be reached, then run the cell again; it goes on where it stopped",
            command=argv,
            output=done.stdout + done.stderr,
        )


class LocalAirflow:
    """Airflow on this machine: one process a part.

    Args:
        port: The API server's port, where its user interface is, too; 0 takes a free one.
        dags: The folder of the DAG files.
    """

    def __init__(self, port: int = 0, dags: Path = DAGS) -> None:
        self._port, self.dags = port, dags

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where its API and its user interface are; the same after a restart."""
        return f"http://127.0.0.1:{self._kept('port')}"

    @property
    def client(self) -> Airflow:
        """A client of its API, with name and password."""
        return Airflow(self.url, USERNAME, self._kept("password"))

    def credentials(self) -> dict[str, str]:
        """Give the variables that tell the Forwarder of this Airflow; the password is in them: don't show them."""
        return {"AIRFLOW_HOST": self.url, "AIRFLOW_USERNAME": USERNAME, "AIRFLOW_PASSWORD": self._kept("password")}

    def find(self, part: str) -> Background | None:
        """Give the running process of a part, None where it doesn't run."""
        return processes.find(f"airflow-{part}")

    def status(self) -> list[Mapping[str, object]]:
        """Give a row a part: name and state."""
        return [{"part": part, "state": "running" if self.find(part) else "stopped"} for part in PARTS]

    def start(self, *parts: str) -> None:
        """Start parts and wait until Airflow calls each healthy. What runs already is left alone.

        Args:
            parts: Names of parts; by default all.

        Raises:
            TutorialError: A package can't be had, the port is taken, or a part did not get ready; its log is shown.
                Those that this call started are ended again.
        """
        programs, started = install(), []
        wanted = [part for part in PARTS if part in (parts or PARTS) and not self.find(part)]
        try:
            with display.progress("Start Airflow", len(wanted) + 1) as report:
                self._prepare(programs)
                for count, part in enumerate(wanted):
                    report(count + 1, part)
                    started.append(self._start(programs, part))
        except BaseException:
            for process in reversed(started):
                process.stop()
            raise

    def stop(self, *parts: str) -> None:
        """End parts in an orderly way; by default all. What Airflow knows is kept."""
        for part in reversed(PARTS):
            process = self.find(part) if part in (parts or PARTS) else None
            if process:
                process.stop()

    def close(self) -> None:
        """End all parts and remove what Airflow knows; the installed environment stays for the next time."""
        self.stop()
        shutil.rmtree(folder(), ignore_errors=True)

    def _prepare(self, programs: Path) -> None:
        """Make the password and the database, once."""
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(folder() / "passwords.json", json.dumps({USERNAME: self._kept("password")}), 0o600)
        if not (folder() / "migrated").exists():
            _run([str(programs / "airflow"), "db", "migrate"], self._environment())
            (folder() / "migrated").touch()

    def _start(self, programs: Path, part: str) -> Background:
        health = {"api-server": "metadatabase", "scheduler": "scheduler", "dag-processor": "dag_processor"}[part]

        def ready() -> bool:
            try:
                return self.client.health().get(health) == "healthy"
            except TutorialError:
                return False

        # Through Python, for the shebang line of an installed program can be too long for the system.
        argv = [str(programs / "python"), "-m", "airflow", part]
        argv += ["--skip-serve-logs"] if part == "scheduler" else []  # the API server reads them from the folder
        ports = {"http": int(self._kept("port"))} if part == "api-server" else {}
        env = self._environment()
        return processes.start(f"airflow-{part}", argv, env=env, ports=ports, ready=ready, timeout=_START_SECONDS)

    def _kept(self, name: str) -> str:
        """Give a value that is chosen once and kept in a file that only the reader can read."""
        file = folder() / name
        if not file.exists():
            value = str(self._port or processes.free_port()) if name == "port" else secrets.token_urlsafe(32)
            write_atomically(file, value, 0o600)
        return file.read_text(encoding="utf-8")

    def _environment(self) -> dict[str, str]:
        sections: dict[str, dict[str, object]] = {
            "CORE": {
                "EXECUTOR": "LocalExecutor", "PARALLELISM": 2, "LOAD_EXAMPLES": False, "DAGS_FOLDER": self.dags,
                "DAGS_ARE_PAUSED_AT_CREATION": False, "EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
                "SIMPLE_AUTH_MANAGER_USERS": f"{USERNAME}:admin",
                "SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": folder() / "passwords.json",
            },
            "DATABASE": {"SQL_ALCHEMY_CONN": f"sqlite:///{folder() / 'airflow.db'}"},
            "API": {"HOST": "127.0.0.1", "PORT": self._kept("port"), "WORKERS": 1, "SECRET_KEY": self._kept("key")},
            "API_AUTH": {"JWT_SECRET": self._kept("jwt_key")},
            "DAG_PROCESSOR": {"REFRESH_INTERVAL": 5, "MIN_FILE_PROCESS_INTERVAL": 5},
            "LOGGING": {"BASE_LOG_FOLDER": folder() / "logs"},
        }  # fmt: skip
        values = {f"AIRFLOW__{s}__{name}": str(value) for s, part in sections.items() for name, value in part.items()}
        return values | {"AIRFLOW_HOME": str(folder()), "PYTHONPATH": ""}
