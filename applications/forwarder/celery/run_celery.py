"""The Forwarder's backend: `python3 run_celery.py`. Settings come from the environment (applications/README.md)."""

from __future__ import annotations

import os
import shutil
import socket
import sys

from forwarder_backend.settings import Settings, SettingsError


def main() -> int:
    """Work until SIGTERM.

    Returns:
        0 after an orderly end, 1 when the metrics' port is taken, 2 when a setting can't be used.
    """
    try:
        settings = Settings.load()
        settings.log_folder.mkdir(parents=True, exist_ok=True)
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    family = socket.AF_INET6 if ":" in settings.metrics_host else socket.AF_INET
    try:
        socket.create_server((settings.metrics_host, settings.metrics_port), family=family).close()
    except OSError as error:
        sys.stderr.write(
            f"PROMETHEUS_PORT={settings.metrics_port} on {settings.metrics_host} cannot be used ({error.strerror}): "
            "end what listens there, or choose another port.\n"
        )
        return 1
    # The port is this process's alone, so what lies there was left by one that was killed.
    folder, main_process = settings.log_folder / f"metrics-{settings.metrics_port}", os.getpid()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # read when prometheus_client is imported
    try:
        from forwarder_backend.worker import create

        app = create(settings)
        app.worker_main(["worker", "--loglevel", settings.log_level, "--task-events"])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    finally:
        if os.getpid() == main_process:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
